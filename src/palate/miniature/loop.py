"""The whole loop in the simulated world: choices, a scorer, labels, an adapted generator, and the truth about it.

Each step is one verb with its own folder and run record, exactly as the commands would run it, so that an
interrupted loop goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np

from palate.adaptation.adapt import AdaptSettings, adapt
from palate.adaptation.examples import image_files
from palate.adaptation.label import LabelSettings, write_labels
from palate.data.splits import SplitSettings, split_dataset, write_split
from palate.data.tables import load_dataset, read_table, write_table
from palate.generation.generate import GenerateSettings, generate
from palate.generation.generator import load_generator
from palate.miniature.pictures import draw_dataset
from palate.miniature.study import simulated_study
from palate.miniature.world import Pool, scenes_of
from palate.models.clip import load_clip
from palate.runs import seed_for, write_atomic
from palate.scoring.catalog import load_scorer
from palate.scoring.score import score_table
from palate.settings import read_settings
from palate.study.design import StudySettings
from palate.training.train import TrainSettings, train

Preset = Literal["demo", "quick", "full"]
WEIGHTS = Path(str(files("palate.miniature"))) / "weights"
RECIPE = Path(str(files("palate.miniature"))) / "recipe.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """How much of everything a run of the loop makes."""

    seeds: int = 1
    choice_prompts: int = 600
    label_prompts: int = 400
    regularisation_prompts: int = 300
    evaluation_prompts: int = 200
    evaluation_pool: Literal["spare", "evaluation"] = "evaluation"
    train_steps: int | None = None
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
        self.timed("generate images to choose from", self.make_choice_images)
        self.timed("people choose", self.ask_people)
        self.timed("people choose", self.split_choices)
        self.timed("generate images to label", self.make_label_images)
        self.timed("original arm", lambda: self.make_arm("original", images=4))
        self.timed(
            "original arm", lambda: self.make_arm("original-negative", negative=self.identifier)
        )
        for seed in range(self.settings.seeds):
            self.run_seed(seed)

    def run_seed(self, seed: int) -> None:
        """Train, label, adapt and make the arms of one training seed."""
        self.timed("train the classifier", lambda: self.train_scorer(seed))
        self.timed("score and label", lambda: self.label_images(seed))
        self.timed("adapt the generator", lambda: self.adapt_generator(seed))
        adapter, arms = self.out / f"adapt-{seed}", self.arms(seed)
        self.timed("adapted arms", lambda: self.make_arm(arms["adapted"], adapter, negative=""))
        self.timed("adapted arms", lambda: self.make_arm(arms["adapted-negative"], adapter))
        self.timed(
            "adapted arms",
            lambda: self.make_arm(
                arms["adapted-identifier"], adapter, negative="", prefix=self.identifier
            ),
        )
        self.timed(
            "score the arms",
            lambda: [self.score(seed, self.out / "arms" / arm) for arm in arms.values()],
        )

    def arms(self, seed: int) -> dict[str, str]:
        """The folders under `arms` that one training seed is measured on."""
        own = ("adapted", "adapted-negative", "adapted-identifier")
        return {"original": "original", "original-negative": "original-negative"} | {
            name: f"{name}-{seed}" for name in own
        }

    @property
    def identifier(self) -> str:
        """The words that mark rejected images."""
        return self.adapt_settings(0).identifier

    def make_choice_images(self) -> None:
        """Generate the images that people will choose between."""
        prompts = self.prompts("choices", self.settings.choice_prompts, use="choices")
        self._generate(prompts, "choice-images", "choices", images=self.sampling.images_per_prompt)

    def ask_people(self) -> None:
        """Let the simulated people choose."""
        settings = read_settings(StudySettings, self.recipe, section="study")
        simulated_study(self.out / "choice-images", self.out / "choices", settings)

    def split_choices(self) -> None:
        """Keep a part of the choices aside, by prompt, to pick the best step of the training."""
        if not (self.out / "split").exists():
            choices = load_dataset(self.out / "choices")
            settings = SplitSettings({"train": 0.88, "validation": 0.12})
            write_split(choices, split_dataset(choices, settings), self.out / "split")

    def make_label_images(self) -> None:
        """Generate the images that will be labelled, and draw those that keep the generator steady."""
        prompts = self.prompts("labels", self.settings.label_prompts, use="labels")
        self._generate(prompts, "label-images", "labels", images=self.sampling.images_per_prompt)
        known = self.out / "regularisation-images"
        if self.settings.regularisation_prompts and not (known / "images.parquet").exists():
            count = self.settings.regularisation_prompts
            draw_dataset(self.prompts("labels", count, use="regularisation"), known, per_prompt=1)

    def train_scorer(self, seed: int) -> None:
        """Train the classifier on the choices."""
        given = {"seed": seed, "steps": self.settings.train_steps}
        settings = read_settings(TrainSettings, self.recipe, given, section="train")
        parts = [load_dataset(self.out / "split" / part) for part in ("train", "validation")]
        train(parts[0], load_clip(WEIGHTS / "clip"), self.out / f"train-{seed}", settings, parts[1])

    def score(self, seed: int, dataset: Path) -> Path:
        """Score the images of a data set with the classifier of a seed."""
        path = dataset / f"scores-{seed}.parquet"
        if not path.exists():
            scorer = load_scorer(str(self.out / f"train-{seed}"))
            write_table(score_table(load_dataset(dataset).images, dataset, scorer), path)
        return path

    def zero_shot(self, dataset: Path) -> Path:
        """Score the images of a data set with the tiny CLIP before it learnt from choices."""
        path = dataset / "scores-zero-shot.parquet"
        if not path.exists():
            scorer = load_scorer("miniature")
            write_table(score_table(load_dataset(dataset).images, dataset, scorer), path)
        return path

    def label_images(self, seed: int) -> dict[str, Any]:
        """Score the images to label, and label them by the paper's rule."""
        dataset = self.out / "label-images"
        drawn = self.out / "regularisation-images" if self.settings.regularisation_prompts else None
        settings = read_settings(LabelSettings, self.recipe, section="label")
        return write_labels(
            self.score(seed, dataset),
            dataset,
            self.out / f"labels-{seed}",
            settings,
            regularisation=drawn,
        )

    def adapt_settings(self, seed: int) -> AdaptSettings:
        """The settings of the adaptation of a seed."""
        given = {"seed": seed, "steps": self.settings.adapt_steps}
        return read_settings(AdaptSettings, self.recipe, given, section="adapt")

    def adapt_generator(self, seed: int) -> None:
        """Adapt the generator to the labels."""
        labels = read_table(self.out / f"labels-{seed}" / "labels.parquet", "labels")
        folders = [self.out / "label-images"]
        if self.settings.regularisation_prompts:
            folders.append(self.out / "regularisation-images")
        pictures = image_files(*folders)
        adapt(
            labels,
            pictures,
            WEIGHTS / "generator",
            self.out / f"adapt-{seed}",
            self.adapt_settings(seed),
            cache=self.out / "latents",
        )

    def make_arm(
        self,
        name: str,
        adapter: Path | None = None,
        *,
        images: int = 1,
        negative: str | None = None,
        prefix: str = "",
    ) -> None:
        """Generate one arm of the comparison; every arm starts from the same noise."""
        self._generate(
            self.evaluation_prompts,
            f"arms/{name}",
            "evaluation",
            images=images,
            adapter=adapter,
            negative_prompt=negative,
            prefix=prefix,
        )

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
