"""Best of n: a scorer chooses which images of a prompt are kept.

Every prompt is scored by itself, so that its scores do not depend on the other prompts, on their order
or on a restart. What was chosen from what is kept as a table of scores.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from palate.data.records import Image, json_text
from palate.data.tables import read_table, to_table, write_table
from palate.errors import DataError, SettingsError
from palate.runs.files import remove
from palate.scoring.output import cut_rows, error_rows
from palate.scoring.recipe import Recipe
from palate.scoring.score import ScoreSettings, score_table
from palate.scoring.scorer import Scorer

T = TypeVar("T")

_SCORES = "scores.parquet"
_FOLDER = ".best"
# so many images lie on the disk at once that will not be kept, if one prompt has not more
_AT_ONCE = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOf:
    """How many images are made of each prompt, which scorer chooses, and how many are kept."""

    images: int
    """Images made of each prompt: the n of best-of-n."""
    keep: int | None = None
    """Images kept of each prompt; None is ``images_per_prompt``."""
    keep_all: bool = False
    """Leave the others on the disk too, with a table ``candidates.parquet`` of all."""
    scorer: str | None = None
    """What `palate score` takes: a name, NAME@PROFILE, NAME=WEIGHTS or a saved folder."""
    weights: str | None = None
    tokenizer: Path | None = None
    architecture: Path | None = None
    clip: str | None = None
    condition: str | None = None
    """For the files and choices that only some scorers have; see `palate.load`."""

    def __post_init__(self) -> None:
        """Refuse numbers that choose nothing."""
        for name in ("images", "keep"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"best_of.{name} is {value}, expected at least 1")

    def kept_of(self, images_per_prompt: int) -> int:
        """Say how many images of each prompt are kept. Raises SettingsError for more than are made."""
        keep = self.keep or images_per_prompt
        if keep > self.images:
            raise SettingsError(
                f"best_of.images is {self.images}, fewer than the {keep} to keep of each prompt; "
                f"expected a best_of.keep of at most {self.images}"
            )
        return keep

    def without_scorer(self) -> BestOf:
        """Leave out which files make the scorer: they may move, and its fingerprint is recorded instead."""
        return BestOf(images=self.images, keep=self.keep, keep_all=self.keep_all)


def load_judge(best: BestOf, device: str) -> Scorer:
    """Load the one scorer that the settings name.

    Raises:
        SettingsError: none is named.
        CheckpointError: it cannot be loaded.
    """
    if best.scorer is None:
        raise SettingsError(
            "best_of has no scorer that chooses; expected best_of.scorer, a name or folder"
        )
    recipe = Recipe(
        scorers=(best.scorer,),
        weights=best.weights,
        tokenizer=best.tokenizer,
        architecture=best.architecture,
        clip=best.clip,
        conditions=(best.condition,) if best.condition else (),
        device=device,
    )
    return recipe.load()[0]


def groups(requests: Sequence[T], images: int) -> Iterator[Sequence[T]]:
    """Cut a list that has ``images`` entries of each prompt into parts of whole prompts."""
    size = images * max(1, _AT_ONCE // images)
    for first in range(0, len(requests), size):
        yield requests[first : first + size]


class Choosing:
    """The choice of a run, group of prompts by group: scores are written before anything is deleted by them."""

    def __init__(self, out: Path, judge: Scorer, best: BestOf, keep: int) -> None:
        """Choose with a scorer in a run's folder, and keep so many images of each prompt."""
        self.out, self.judge, self.best, self.keep = out, judge, best, keep

    @property
    def chooser(self) -> str:
        """Which scorer chooses, as a run's inputs have it."""
        return f"{self.judge.name} {self.judge.dimension} {self.judge.fingerprint}"

    def find(self, number: int, images: Sequence[str]) -> Any | None:
        """Give the scores of a group, best first in each prompt, if an attempt before this one chose."""
        for table in (_read_scores(self._file(number)), self._former):
            if table is not None:
                own = table.filter(pc.is_in(table["image"], value_set=pa.array(images)))
                if len(own) == len(images):
                    return own
        return None

    def rank(self, number: int, rows: Sequence[Image]) -> Any:
        """Score the images of a group and write the scores, best first in each prompt.

        An interrupted group finds the prompts that it has scored. Images that a safety checker blackened
        stand last, whatever their scores. Raises DataError for an image that cannot be scored.
        """
        place = self._file(number)
        scores = score_table(
            to_table(rows, "images"),
            self.out,
            self.judge,
            ScoreSettings(shard=self.best.images),
            shards=place.with_suffix(""),
        )
        _refuse_errors(scores, self.out, {row.image: row.path or "" for row in rows})
        ranked = best_first(scores, {row.image for row in rows if is_flagged(row.details)})
        write_table(ranked, place)
        remove(place.with_suffix(""))
        return ranked

    def spare(self, ranked: Any) -> set[str]:
        """Name the images that are not kept on the disk."""
        if self.best.keep_all:
            return set()
        return {image for image, told in standings(ranked).items() if told["rank"] > self.keep}

    def tables(self, ranked: Any, row_of: Callable[[str], Image]) -> dict[str, Any]:
        """Give the tables of a run: its images, the scores of all, and all images where they are kept.

        Images stand best first in each prompt, and their details say how they were chosen.
        """
        told = standings(ranked)
        here = [image for image in told if self.best.keep_all or told[image]["rank"] <= self.keep]
        rows = [_tell(row_of(image), told[image]) for image in here]
        kept = [row for row in rows if told[row.image]["rank"] <= self.keep]
        tables = {"images": to_table(kept, "images"), "scores": ranked}
        if self.best.keep_all:
            tables["candidates"] = to_table(rows, "images")
        return tables

    def sum_up(self, ranked: Any) -> dict[str, Any]:
        """Say what was chosen from what, with the mean scores of all images and of those that are kept."""
        told = standings(ranked)
        scores = [one["score"] for one in told.values()]
        kept = [one["score"] for one in told.values() if one["rank"] <= self.keep]
        return {
            "images": self.best.images,
            "keep": self.keep,
            "mean_of_all": fmean(scores),
            "mean_of_kept": fmean(kept),
            "cut_prompts": len(set(cut_rows(ranked)["prompt"].to_pylist())),
            "scorer": self.judge.card(),
        }

    @cached_property
    def _former(self) -> Any | None:
        """The scores of this run as it was once finished, if an image of it was lost since."""
        return _read_scores(self.out / _SCORES)

    def _file(self, number: int) -> Path:
        return self.out / _FOLDER / f"{number:06d}.parquet"


def forget_choosing(out: Path) -> None:
    """Remove what a run of best-of-n kept on its way."""
    if (out / _FOLDER).exists():
        remove(out / _FOLDER)


def best_first(scores: Any, flagged: Collection[str]) -> Any:
    """Order the scores of each prompt: the highest first, equal ones by the image's key.

    Prompts keep their order. Images in ``flagged`` stand last in their prompt.
    """
    rows = scores.select(["prompt", "image", "value"]).to_pylist()
    places: dict[str, int] = {}
    for row in rows:
        places.setdefault(row["prompt"], len(places))

    def order(number: int) -> tuple[int, bool, float, str]:
        row = rows[number]
        return places[row["prompt"]], row["image"] in flagged, -row["value"], row["image"]

    return scores.take(pa.array(sorted(range(len(rows)), key=order), pa.int64()))


def standings(ranked: Any) -> dict[str, dict[str, Any]]:
    """Say of each image what its row in the images table tells of the choice.

    ``ranked`` holds the scores best first in each prompt. Rank 1 is the best of ``images`` images.
    """
    rows = ranked.to_pylist()
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["prompt"]] = counts.get(row["prompt"], 0) + 1
        row["rank"] = counts[row["prompt"]]
    names = ("rank", "scorer", "dimension", "unit", "fingerprint")
    return {
        row["image"]: {
            "score": row["value"],
            "images": counts[row["prompt"]],
            **{name: row[name] for name in names},
        }
        for row in rows
    }


def is_flagged(details: str | None) -> bool:
    """Tell by its details whether a safety checker blackened an image."""
    return details is not None and bool(json.loads(details).get("flagged"))


def _tell(row: Image, told: Mapping[str, Any]) -> Image:
    """Write into an image's details how it was chosen."""
    details = json.loads(row.details or "{}") | {"best_of": dict(told)}
    return replace(row, details=json_text(details))


def _refuse_errors(scores: Any, folder: Path, paths: Mapping[str, str]) -> None:
    failed = error_rows(scores)
    if len(failed):
        first = failed.slice(0, 1).to_pylist()[0]
        raise DataError(
            f"{folder / paths[first['image']]}: could not be scored by {first['scorer']}, so nothing was "
            f"chosen for the prompt {first['prompt']!r}: {first['error']}"
        )


def _read_scores(path: Path) -> Any | None:
    """Read scores if they are there and whole; they can be had again."""
    if not path.exists():
        return None
    try:
        return read_table(path, "scores")
    except DataError:
        return None
