"""Label: scores to the images that a generator shall learn from, and those that it shall avoid.

The rule of the HPS paper: among the images of one prompt, the best is preferred if the softmax of
the scores gives it more than alpha / n, and the worst is rejected if the softmax of the negated
scores does. The two tests are independent, so a prompt gives both, one or none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from palate.adaptation.blur import BLUR_TESTS
from palate.adaptation.selection import Groups, group_rows, pick_extreme
from palate.data.images import open_image
from palate.data.records import Label
from palate.data.tables import LABELS, image_path, read_table, to_table, write_table
from palate.errors import DataError, SettingsError
from palate.runs import seed_for, start_run, track

_COSINES = {"cosine": 1.0, "hps": 0.01}
"""Units that the rule understands, and what one of each is as a cosine."""

Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSettings:
    """How images become labels; the defaults are the paper's rule without its blur test."""

    rule: Literal["hps2023"] = "hps2023"
    alpha: float = 2.0
    """The best needs a probability above ``alpha / n``; n is the number of images compared."""
    min_images: int = 4
    """Prompts with fewer images are left out."""
    scale: float = 100.0
    """The softmax is over ``scale * cosine``: 100 in the paper, which is the unit of the HPS."""
    blur: Literal["none", "published", "both-ways"] = "none"
    """Leave out blurry pictures first. The tests read the files, so they are off unless asked for."""
    preferred_share: float = 1.0
    rejected_share: float = 1.0
    """Keep this share of a role, drawn by seed. HPS's authors kept about half of the rejected."""
    seed: int = 0
    scorer: str | None = None
    dimension: str | None = None
    """Which scores to read, where the table holds several."""

    def __post_init__(self) -> None:
        """Refuse numbers that make no rule."""
        if self.alpha < 1:
            raise SettingsError(f"alpha is {self.alpha}, expected at least 1: chance is 1 / n")
        if self.min_images < 2:
            raise SettingsError(f"min_images is {self.min_images}, expected at least 2")
        if self.scale <= 0:
            raise SettingsError(f"scale is {self.scale}, expected above 0")
        for name in ("preferred_share", "rejected_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected from 0 to 1")


def label(
    scores: Any,
    images: Any,
    settings: LabelSettings | None = None,
    *,
    folder: Path | None = None,
    regularisation: Any = None,
) -> tuple[Any, dict[str, Any]]:
    """Label the best and the worst image of each prompt, and count what was thrown away and why.

    Args:
        scores: a scores table; the unit is ``cosine`` or ``hps`` (100 * cosine), higher is better.
        images: the images table that the scores are about.
        settings: see ``LabelSettings``.
        folder: where the images table lies; needed by a blur test only.
        regularisation: an images table whose every image becomes a ``regularisation`` row.

    Returns:
        The labels table, sorted by role and image, and a report of plain numbers. Every caption is
        the prompt: an adaptation method adds its own words later. The order of the scores does not
        matter; equal scores are decided by the image's key.

    Raises:
        DataError: another unit, scores of several scorers, or of images that are not in the table.
    """
    settings = settings or LabelSettings()
    chosen = _choose_scores(scores, settings)
    _check_images(chosen, images)
    usable = pc.is_valid(chosen["value"])
    scored = chosen.filter(usable)
    blurry = _find_blurry(scored, images, folder, settings)
    groups = group_rows(scored.filter(pa.array(~blurry)), settings.min_images)
    cosines = groups.values * _COSINES[_only(chosen, "unit") if len(chosen) else "cosine"]
    best = pick_extreme(groups, settings.scale * cosines, settings.alpha)
    worst = pick_extreme(groups, -settings.scale * cosines, settings.alpha)
    preferred = _draw(groups, best.rows[best.passed], "preferred", settings)
    rejected = _draw(groups, worst.rows[worst.passed], "rejected", settings)
    records = [*_records(groups, preferred, "preferred"), *_records(groups, rejected, "rejected")]
    extra = 0 if regularisation is None else len(regularisation)
    report = {
        "rule": settings.rule,
        "scorer": _only(chosen, "scorer") if len(chosen) else None,
        "labels": {
            "preferred": len(preferred),
            "rejected": len(rejected),
            "regularisation": extra,
        },
        "thrown_away": {
            "no score": len(chosen) - len(scored),
            "blurry": int(blurry.sum()),
            f"prompt with fewer than {settings.min_images} images": groups.left_out,
            **_count_losers(groups, best, worst),
            "left out by preferred_share": int(best.passed.sum()) - len(preferred),
            "left out by rejected_share": int(worst.passed.sum()) - len(rejected),
        },
        **_describe(groups, best, worst, preferred, rejected),
    }
    table = to_table(records, "labels")
    if regularisation is not None:
        table = pa.concat_tables([table, _regularise(regularisation)])
    return table.sort_by([("role", "ascending"), ("image", "ascending")]), report


def write_labels(
    scores: Path,
    images: Path,
    out: Path,
    settings: LabelSettings | None = None,
    *,
    regularisation: Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Label a scores file and write ``labels.parquet`` with its report in the run record.

    ``images`` and ``regularisation`` are ``images.parquet`` files, or the folders that hold them.
    Returns the report (see ``label``).
    """
    settings = settings or LabelSettings()
    images, extra = _table_path(images), regularisation and _table_path(regularisation)
    inputs: dict[str, Path | str] = {"scores": scores, "images": images}
    if extra:
        inputs["regularisation"] = extra
    with start_run("label", out, settings, inputs, overwrite=overwrite) as run:
        if run.finished:
            return run.result
        table, report = label(
            read_table(scores, "scores"),
            read_table(images, "images"),
            settings,
            folder=images.parent,
            regularisation=read_table(extra, "images") if extra else None,
        )
        write_table(table, out / "labels.parquet")
        run.finish(report, files=["labels.parquet"])
        return run.result


def _table_path(path: Path) -> Path:
    return path / "images.parquet" if path.is_dir() else path


def _choose_scores(scores: Any, settings: LabelSettings) -> Any:
    """Keep the rows of the one scorer and dimension that are meant; refuse to mix several."""
    chosen = scores
    for name in ("scorer", "dimension"):
        wanted = getattr(settings, name)
        if wanted is not None:
            found = chosen[name].unique().to_pylist()
            chosen = chosen.filter(pc.equal(chosen[name], wanted))
            if not len(chosen):
                raise DataError(f"scores: no {name} {wanted!r}, there is {_list(found)}")
    for name in ("scorer", "dimension", "fingerprint", "unit"):
        if len(chosen):
            _only(chosen, name)
    unit = _only(chosen, "unit") if len(chosen) else "cosine"
    if unit not in _COSINES:
        raise DataError(f"scores: unit {unit!r}, expected {_list(list(_COSINES))}")
    return chosen


def _only(table: Any, name: str) -> str:
    values = table[name].unique().to_pylist()
    if len(values) > 1:
        raise DataError(f"scores: several values of {name} ({_list(values)}), expected one; choose")
    found: str = values[0]
    return found


def _list(values: list[str]) -> str:
    return ", ".join(repr(value) for value in sorted(values)[:5]) or "nothing"


def _check_images(scores: Any, images: Any) -> None:
    known = pc.is_in(scores["image"], value_set=images["image"].combine_chunks())
    missing = scores.filter(pc.invert(known))["image"].unique().to_pylist()
    if missing:
        raise DataError(
            f"scores: {len(missing)} images that the images table does not have, such as {missing[0]!r}"
        )


def _find_blurry(
    scores: Any, images: Any, folder: Path | None, settings: LabelSettings
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    if settings.blur == "none":
        return np.zeros(len(scores), dtype=bool)
    if folder is None:
        raise DataError(f"blur is '{settings.blur}', which needs the folder of the images table")
    test = BLUR_TESTS[settings.blur]
    wanted = images.filter(pc.is_in(images["image"], value_set=scores["image"].combine_chunks()))
    blurry = {
        row["image"]: test(np.asarray(open_image(image_path(row, folder))))
        for row in track(wanted.select(["image", "path"]).to_pylist(), "looking for blur")
    }
    return np.array([blurry[image] for image in scores["image"].to_pylist()], dtype=bool)


def _draw(groups: Groups, rows: Rows, role: str, settings: LabelSettings) -> Rows:
    """Keep a share of a role; each image's place in the draw has an address, so order is nothing."""
    share: float = getattr(settings, f"{role}_share")
    keep = round(share * len(rows))
    if keep == len(rows):
        return rows
    places = [seed_for("label", settings.seed, role, groups.images[row]) for row in rows]
    return rows[np.sort(np.argsort(places, kind="stable")[:keep])]


def _records(groups: Groups, rows: Rows, role: Literal["preferred", "rejected"]) -> list[Label]:
    return [
        Label(
            image=groups.images[row],
            role=role,
            caption=groups.prompts[row],
            group=groups.prompts[row],
            score=float(groups.values[row]),
        )
        for row in rows
    ]


def _regularise(images: Any) -> Any:
    count = len(images)
    columns = [
        images["image"],
        pa.array(["regularisation"] * count, pa.string()),
        images["prompt"],
        images["prompt"],
        pa.nulls(count, pa.float64()),
        pa.array(np.ones(count)),
    ]
    return pa.table(columns, schema=LABELS)


def _count_losers(groups: Groups, best: Any, worst: Any) -> dict[str, int]:
    weak_best, weak_worst = best.rows[~best.passed], worst.rows[~worst.passed]
    extremes = np.union1d(best.rows, worst.rows)
    return {
        "best, but not clearly": len(weak_best),
        "worst, but not clearly": len(np.setdiff1d(weak_worst, weak_best)),
        "neither best nor worst": len(groups.values) - len(extremes),
    }


def _describe(
    groups: Groups, best: Any, worst: Any, preferred: Rows, rejected: Rows
) -> Mapping[str, Any]:
    """Describe the prompts and the scores of what was compared and kept."""
    sizes = groups.sizes
    passes = {
        str(size): {
            "prompts": int((sizes == size).sum()),
            "best passes": round(float(best.passed[sizes == size].mean()), 4),
            "worst passes": round(float(worst.passed[sizes == size].mean()), 4),
        }
        for size in np.unique(sizes)
    }
    chosen = {"compared": groups.values, "preferred": groups.values[preferred]}
    chosen["rejected"] = groups.values[rejected]
    return {
        "prompts": {
            "compared": len(sizes),
            "with both": int((best.passed & worst.passed).sum()),
            "with a preferred image only": int((best.passed & ~worst.passed).sum()),
            "with a rejected image only": int((~best.passed & worst.passed).sum()),
            "with neither": int((~best.passed & ~worst.passed).sum()),
        },
        "by_group_size": passes,
        "mean_score": {
            name: round(float(values.mean()), 6) if len(values) else None
            for name, values in chosen.items()
        },
    }
