"""The whole loop in the simulated world: choices, a scorer, labels, an adapted generator, and the truth about it.

Each step is one verb with its own folder and run record, exactly as the commands would run it, so that an
interrupted loop goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from palate.adaptation.adapt import adapt
from palate.adaptation.examples import image_files
from palate.adaptation.labelling.label import LabelSettings, write_labels
from palate.adaptation.settings import AdaptSettings
from palate.data.splits import SplitSettings, split_dataset, write_split
from palate.data.tables import load_dataset, read_table, relocate_images, write_table
from palate.generation.generate import GenerateSettings, generate
from palate.generation.generator import load_generator
from palate.miniature.pictures import draw_dataset
from palate.miniature.study import simulated_study
from palate.miniature.world import Pool, scenes_of
from palate.models.clip_files import load_clip
from palate.runs import seed_for, write_atomic
from palate.scoring.catalog import load
from palate.scoring.score import score_table
from palate.settings import read_settings
from palate.study.design import StudySettings
from palate.training.settings import TrainSettings
from palate.training.train import train

Preset = Literal["demo", "quick", "full"]
WEIGHTS = Path(str(files("palate.miniature"))) / "weights"
RECIPE = Path(str(files("palate.miniature"))) / "recipe.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """How much of everything a run of the loop makes; counts are prompts.

    What people choose between, and what is labelled, comes from two makers: the generator, and the renderer with its
    usual defects (`drawn_…`), as the pictures of a community come from more than one model.
    """

    seeds: int
    choice_prompts: int
    drawn_choice_prompts: int
    drawn_choice_images: int
    """Pictures drawn of each prompt to choose between; people are asked about four at a time."""
    label_prompts: int
    drawn_label_prompts: int
    regularisation_prompts: int
    test_prompts: int
    evaluation_prompts: int
    hold_out: int
    """Preferred and rejected images each that are kept aside to measure the identifier gap."""
    evaluation_pool: Literal["spare", "evaluation"] = "evaluation"
    train_steps: int | None = None
    train_shift: int = 0
    """Training moves each picture by up to so many pixels, which helps where a picture is seen often."""
    adapt_steps: int | None = None


class Loop:
    """One run of the loop in one folder."""

    def __init__(
        self,
        out: Path,
        settings: DemoSettings,
        recipe: Path = RECIPE,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Read the recipe; nothing is made yet. `say` is told each step as it begins."""
        self.out, self.settings, self.recipe, self.say = out, settings, recipe, say
        self.announced = ""
        self.clock = out / "seconds.json"
        known = self.clock.exists() and json.loads(self.clock.read_text(encoding="utf-8"))
        self.seconds: dict[str, float] = known or {}
        self.sampling = read_settings(GenerateSettings, recipe, section="generate")

    def prompts(self, pool: Pool, count: int, *, use: str) -> list[str]:
        """The first prompts of a pool in an order of their own for each use."""
        scenes = scenes_of([pool], np.random.default_rng(seed_for("miniature", pool, use)))
        return [scene.text for scene in scenes[:count]]

    @cached_property
    def evaluation_prompts(self) -> list[str]:
        """The prompts of the arms: no verb before evaluation sees them."""
        return self.prompts(
            self.settings.evaluation_pool, self.settings.evaluation_prompts, use="evaluation"
        )

    def timed(self, name: str, step: Callable[[], Any]) -> Any:
        """Announce a step, run it and note how long it took; what was done before takes no time."""
        if name != self.announced:
            self.say(name)
            self.announced = name
        began = time.monotonic()
        result = step()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began
        write_atomic(self.clock, json.dumps(self.seconds, indent=1) + "\n")
        return result

    def run(self) -> None:
        """Run every step that has not been run."""
        self.timed("make images to choose from", self.make_choice_images)
        self.timed("people choose", self.ask_people)
        self.timed("make images to label", self.make_label_images)
        self.timed("generate the original arms", self.make_original_arms)
        for seed in range(self.settings.seeds):
            for name, step in (
                ("train the classifier", self.train_scorer),
                ("score and label", self.label_images),
                ("adapt the generator", self.adapt_generator),
                ("generate the adapted arms", self.make_adapted_arms),
                ("score the arms", self.score_arms),
            ):
                self.timed(name, partial(step, seed))

    def arms(self, seed: int) -> dict[str, str]:
        """The folders under `arms` that one training seed is measured on."""
        shared = ("original", "original-negative", "original-identifier")
        own = ("adapted", "adapted-negative", "adapted-identifier")
        return {name: name for name in shared} | {name: f"{name}-{seed}" for name in own}

    @property
    def identifier(self) -> str:
        """The words that mark rejected images."""
        return self.adapt_settings(0).identifier

    def make_choice_images(self) -> None:
        """Make the images that people will choose between."""
        own = self.settings
        self._make_pool(
            "choices", own.choice_prompts, own.drawn_choice_prompts, own.drawn_choice_images
        )

    def ask_people(self) -> None:
        """Let the simulated people choose, and keep a part of their choices aside, by prompt."""
        settings = read_settings(StudySettings, self.recipe, section="study")
        simulated_study(self.out / "choices-images", self.out / "choices", settings)
        if not (self.out / "split").exists():
            choices = load_dataset(self.out / "choices")
            parts = SplitSettings({"train": 0.88, "validation": 0.12})
            write_split(choices, split_dataset(choices, parts), self.out / "split")

    def make_label_images(self) -> None:
        """Make the images that will be labelled, and draw those that keep the generator steady."""
        own = self.settings
        count = self.sampling.images_per_prompt
        self._make_pool("labels", own.label_prompts, own.drawn_label_prompts, count)
        known = self.out / "regularisation-images"
        if not (known / "images.parquet").exists():
            count = self.settings.regularisation_prompts
            draw_dataset(self.prompts("labels", count, use="regularisation"), known, per_prompt=1)

    def _make_pool(self, pool: Pool, generated: int, drawn: int, each: int) -> None:
        """Generate the first prompts of a pool and draw the next ones, `each` times, into one data set."""
        folder, count = self.out / f"{pool}-images", self.sampling.images_per_prompt
        prompts = self.prompts(pool, generated + drawn, use=pool)
        self._generate(prompts[:generated], f"{pool}-images/generated", pool, images=count)
        if (folder / "images.parquet").exists():
            return
        draw_dataset(prompts[generated:], folder / "drawn", per_prompt=each, run=pool)
        tables = [
            relocate_images(load_dataset(folder / maker).images, folder / maker, folder)
            for maker in ("generated", "drawn")
        ]
        write_table(pa.concat_tables(tables), folder / "images.parquet")

    def train_scorer(self, seed: int) -> None:
        """Train the classifier on the choices."""
        own = self.settings
        given = {"seed": seed, "steps": own.train_steps, "shift": own.train_shift}
        settings = read_settings(TrainSettings, self.recipe, given, section="train")
        parts = [load_dataset(self.out / "split" / part) for part in ("train", "validation")]
        train(parts[0], load_clip(WEIGHTS / "clip"), self.out / f"train-{seed}", settings, parts[1])

    def score(self, seed: int, dataset: Path) -> Path:
        """Score the images of a data set with the classifier of a seed."""
        path = dataset / f"scores-{seed}.parquet"
        if not path.exists():
            scorer = load(str(self.out / f"train-{seed}"))
            write_table(score_table(load_dataset(dataset).images, dataset, scorer), path)
        return path

    def zero_shot(self, dataset: Path) -> Path:
        """Score the images of a data set with the tiny CLIP before it learnt from choices."""
        path = dataset / "scores-zero-shot.parquet"
        if not path.exists():
            scorer = load("miniature")
            write_table(score_table(load_dataset(dataset).images, dataset, scorer), path)
        return path

    def label_images(self, seed: int) -> dict[str, Any]:
        """Score the images to label, and label them by the paper's rule."""
        return write_labels(
            self.score(seed, self.out / "labels-images"),
            self.out / "labels-images",
            self.out / f"labels-{seed}",
            read_settings(LabelSettings, self.recipe, section="label"),
            regularisation=self.out / "regularisation-images",
        )

    def adapt_settings(self, seed: int) -> AdaptSettings:
        """The settings of the adaptation of a seed."""
        own = self.settings
        given = {"seed": seed, "steps": own.adapt_steps, "hold_out": own.hold_out}
        return read_settings(AdaptSettings, self.recipe, given, section="adapt")

    def adapt_generator(self, seed: int) -> None:
        """Adapt the generator to the labels."""
        labels = read_table(self.out / f"labels-{seed}" / "labels.parquet", "labels")
        pictures = image_files(self.out / "labels-images", self.out / "regularisation-images")
        adapt(
            labels,
            pictures,
            WEIGHTS / "generator",
            self.out / f"adapt-{seed}",
            self.adapt_settings(seed),
            cache=self.out / "latents",
        )

    def make_original_arms(self) -> None:
        """Generate what the original makes of the evaluation prompts, and images to test a classifier on."""
        test = self.evaluation_prompts[: self.settings.test_prompts]
        self._generate(test, "test-images/generated", "test", images=4)
        if not (self.out / "test-images" / "drawn" / "images.parquet").exists():
            draw_dataset(test, self.out / "test-images" / "drawn", run="test")
        self._make_arms("original", "", None)

    def make_adapted_arms(self, seed: int) -> None:
        """Generate what the adapted generator of a seed makes of the same prompts from the same noise."""
        self._make_arms("adapted", f"-{seed}", self.out / f"adapt-{seed}")

    def _make_arms(self, maker: str, ending: str, adapter: Path | None) -> None:
        """Three arms: plain, the identifier as negative prompt, the identifier in the prompt."""
        for name, negative, prefix in (
            (maker, "", ""),
            (f"{maker}-negative", self.identifier, ""),
            (f"{maker}-identifier", "", self.identifier),
        ):
            self._generate(
                self.evaluation_prompts,
                f"arms/{name}{ending}",
                "evaluation",
                images=1,
                adapter=adapter,
                negative_prompt=negative,
                prefix=prefix,
            )

    def score_arms(self, seed: int) -> None:
        """Score every arm, and the images to test on, with the classifier of a seed."""
        for folder in self.arms(seed).values():
            self.score(seed, self.out / "arms" / folder)
        for maker in ("drawn", "generated"):
            self.score(seed, self.out / "test-images" / maker)

    def _generate(
        self,
        prompts: Sequence[str],
        name: str,
        run: str,
        *,
        images: int,
        adapter: Path | None = None,
        **given: object,
    ) -> None:
        settings = read_settings(
            GenerateSettings,
            self.recipe,
            {"images_per_prompt": images, "run": run, **given},
            section="generate",
        )
        generator = load_generator(WEIGHTS / "generator", adapter)
        generate(prompts, generator, self.out / name, settings)


def demo_settings(preset: Preset, recipe: Path = RECIPE, **given: object) -> DemoSettings:
    """Read how much a run makes: [demo], with the changes of [quick] or [full] on top."""
    settings = read_settings(DemoSettings, recipe, section="demo")
    changes: dict[str, object] = {} if preset == "demo" else _changes(recipe, preset)
    own = {name: getattr(settings, name) for name in settings.__slots__}
    return read_settings(DemoSettings, None, {**own, **changes, **given})


def _changes(recipe: Path, preset: Preset) -> dict[str, object]:
    import tomllib

    found: dict[str, object] = tomllib.loads(recipe.read_text(encoding="utf-8"))[preset]
    return found
