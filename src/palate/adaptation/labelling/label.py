"""Label: scores to the images that a generator shall learn from, and those that it shall avoid.

The rule of the HPS paper: among the images of one prompt, the best is preferred if the softmax of
the scores gives it more than alpha / n, and the worst is rejected if the softmax of the negated
scores does. The two tests are independent, so a prompt gives both, one or none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from pyarrow.csv import write_csv

from palate.adaptation.labelling.align_sd import kind_of_lines, read_scores
from palate.adaptation.labelling.annotated import read_annotated, write_annotated
from palate.adaptation.labelling.chosen import COSINES, choose_scores, only
from palate.adaptation.labelling.leaving_out import BLURRED, UNSAFE, find_marked, leave_out
from palate.adaptation.labelling.outcomes import (
    PREFERRED,
    REJECTED,
    Kept,
    Selection,
    count_outcomes,
    describe,
    group_outcomes,
    outcome_table,
    too_few,
)
from palate.adaptation.labelling.regularisation import (
    Regularisation,
    read_regularisation,
    regularisation_input,
)
from palate.adaptation.labelling.selection import (
    Extreme,
    Groups,
    Ints,
    draw,
    group_rows,
    pick_extreme,
)
from palate.data.records import Label
from palate.data.schemas import LABELS
from palate.data.tables import read_table, relocate_images, to_table, write_table
from palate.errors import DataError, SettingsError
from palate.runs import atomic_path, start_run


@dataclass(frozen=True, slots=True)
class _Rule:
    nearest: bool
    """Whether the best is compared with the nearest images of its prompt, and not with all."""
    blur: str
    marked: str


_RULES: Final = {
    "hps2023": _Rule(nearest=False, blur="published", marked="keep"),
    "corrected": _Rule(nearest=True, blur="both-ways", marked="leave-out"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSettings:
    """How images become labels; the defaults are the paper's rule.

    ``corrected`` differs from ``hps2023`` in three points. The best of n is compared with its nearest
    ``min_images`` - 1 rivals, whatever n is, so that the threshold alpha / ``min_images`` means the
    same for every group. The blur test looks both ways. Marked images are left out.
    """

    rule: Literal["hps2023", "corrected"] = "hps2023"
    alpha: float = 2.0
    """The best needs a probability above ``alpha / n``; n is the number of images compared."""
    min_images: int = 4
    """Prompts with fewer images are left out."""
    scale: float = 100.0
    """The softmax is over ``scale * cosine``: 100 in the paper, which is the unit of the HPS."""
    blur: Literal["rule", "none", "published", "both-ways", "recorded"] = "rule"
    """Leave out blurry pictures first. The tests read the files; ``none`` reads nothing, and
    ``recorded`` the detail ``blurry`` of the images table."""
    marked: Literal["rule", "keep", "leave-out"] = "rule"
    """What happens to images that their source marks as unsafe, or as blurred by a filter."""
    nsfw_below: float = 0.5
    """A mark of this amount or more, from 0 to 1, is unsafe."""
    preferred_share: float = 1.0
    rejected_share: float = 1.0
    """Keep this share of a role, drawn by seed. HPS's authors kept about half of the rejected."""
    seed: int = 0
    scorer: str | None = None
    dimension: str | None = None
    """Which scores to read, where the table holds several."""
    write_align_sd: bool = False
    """Also write the labels as the JSON Lines that align_sd's trainer reads."""

    def __post_init__(self) -> None:
        """Refuse numbers that make no rule."""
        if self.alpha < 1:
            raise SettingsError(f"alpha is {self.alpha}, expected at least 1: chance is 1 / n")
        if self.min_images < 2:
            raise SettingsError(f"min_images is {self.min_images}, expected at least 2")
        if self.rule == "corrected" and self.alpha >= self.min_images:
            raise SettingsError(
                f"alpha is {self.alpha}, expected below min_images, {self.min_images}: by the "
                "corrected rule nothing could pass"
            )
        if self.scale <= 0:
            raise SettingsError(f"scale is {self.scale}, expected above 0")
        if not 0 < self.nsfw_below <= 1:
            raise SettingsError(f"nsfw_below is {self.nsfw_below}, expected above 0 and at most 1")
        for name in ("preferred_share", "rejected_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected from 0 to 1")

    @property
    def blur_test(self) -> str:
        """The blur test that applies: the rule's own unless another was chosen."""
        return _RULES[self.rule].blur if self.blur == "rule" else self.blur

    @property
    def leaves_marked(self) -> bool:
        """Whether marked images are left out."""
        marked = _RULES[self.rule].marked if self.marked == "rule" else self.marked
        return marked == "leave-out"

    @property
    def nearest(self) -> int | None:
        """How many images the best is compared among; None for all of its prompt."""
        return self.min_images if _RULES[self.rule].nearest else None

    @property
    def shares(self) -> dict[str, float]:
        """The share of each role that is kept."""
        return {PREFERRED: self.preferred_share, REJECTED: self.rejected_share}


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
        folder: where the images table lies; needed by a blur test that opens files.
        regularisation: an images table whose every image becomes a ``regularisation`` row.

    Returns:
        The labels table, sorted by role and image, and a report of plain numbers: preferred, rejected
        and thrown away make up every image of the table. Every caption is the prompt: an adaptation
        method adds its own words later. The order of rows does not matter; equal scores are decided
        by the image's key.

    Raises:
        DataError: another unit, scores of several scorers, or of images that are not in the table.
    """
    settings = settings or LabelSettings()
    found = _select(scores, images, settings, folder)
    extra = None if regularisation is None else _regularise(regularisation, settings)
    return _finish(found, extra)


def _select(scores: Any, images: Any, settings: LabelSettings, folder: Path | None) -> Selection:
    """Apply the rule: leave out, compare within each prompt, draw the shares."""
    chosen = choose_scores(scores, images, settings.scorer, settings.dimension)
    marks, count = find_marked(images, settings.nsfw_below) if settings.leaves_marked else ({}, 0)
    outcomes = leave_out(chosen, images, marks, settings.blur_test, folder)
    rest = np.flatnonzero(outcomes == "")
    groups = group_rows(chosen.take(rest), settings.min_images)
    logits = settings.scale * COSINES[only(chosen, "unit") or "cosine"] * groups.values
    best = pick_extreme(groups, logits, settings.alpha, settings.nearest)
    worst = pick_extreme(groups, -logits, settings.alpha, settings.nearest)
    preferred = _draw(groups, best, PREFERRED, settings)
    rejected = _draw(groups, worst, REJECTED, settings)
    outcomes[rest[groups.left_out]] = too_few(settings.min_images)
    outcomes[rest[groups.rows]] = group_outcomes(groups, best, worst, preferred, rejected)
    table = outcome_table(images, chosen, outcomes)
    report = {
        "rule": settings.rule,
        "scorer": only(chosen, "scorer"),
        "blur": settings.blur_test,
        **count_outcomes(table, settings.min_images),
        **({"images with a mark": count} if settings.leaves_marked else {}),
        **describe(groups, best, worst, preferred, rejected),
    }
    kept = [*_kept(groups, best, preferred, PREFERRED), *_kept(groups, worst, rejected, REJECTED)]
    kept.sort(key=lambda one: (one.label.group, one.label.role))
    return Selection(kept, table, report)


def _draw(groups: Groups, found: Extreme, role: str, settings: LabelSettings) -> Ints:
    rows = found.rows[found.passed]
    images = [groups.images[row] for row in rows]
    return rows[draw(images, settings.shares[role], settings.seed, role)]


def _kept(groups: Groups, found: Extreme, rows: Ints, role: str) -> list[Kept]:
    numbers = groups.number(rows)
    return [
        Kept(
            Label(
                image=groups.images[row],
                role=role,
                caption=groups.prompts[row],
                group=groups.prompts[row],
                score=float(groups.values[row]),
            ),
            confidence=float(found.probability[number]),
            images=int(groups.sizes[number]),
        )
        for row, number in zip(rows, numbers, strict=True)
    ]


def _regularise(images: Any, settings: LabelSettings) -> tuple[Any, dict[str, Any]]:
    """Leave out marked images where the rule does; return the others, and the counts of all."""
    marks, _ = find_marked(images, settings.nsfw_below) if settings.leaves_marked else ({}, 0)
    reasons = [marks.get(key, "") for key in images["image"].to_pylist()]
    kept = images.filter(pa.array([reason == "" for reason in reasons], pa.bool_()))
    return kept, {
        "images": len(images),
        "generated": len(kept) - kept["generator"].null_count,
        "thrown_away": {reason: reasons.count(reason) for reason in (UNSAFE, BLURRED)},
    }


def _finish(
    found: Selection, extra: tuple[Any, dict[str, Any]] | None
) -> tuple[Any, dict[str, Any]]:
    """Put labels and regularisation images into one table and one report."""
    tables = [to_table([one.label for one in found.kept], "labels")]
    report = {**found.report, "labels": {**found.report["labels"], "regularisation": 0}}
    if extra is not None:
        images, facts = extra
        tables.append(_regularisation_labels(images))
        report["labels"]["regularisation"] = len(images)
        report["regularisation"] = facts
    order = [("role", "ascending"), ("image", "ascending")]
    return pa.concat_tables(tables).sort_by(order), report


def _regularisation_labels(images: Any) -> Any:
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


def write_labels(
    scores: Path,
    images: Path | None,
    out: Path,
    settings: LabelSettings | None = None,
    *,
    regularisation: Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Label a scores file and write ``labels.parquet`` with its report in the run record.

    Beside it lies ``outcomes.csv``: what became of every image. Images that have no data set of their
    own, such as those of a captioned folder, get a table here, ``images.parquet``.

    Args:
        scores: a scores table, or the scores or annotations of align_sd (``.jsonl``).
        images: ``images.parquet`` or the folder that holds it; needed for a scores table.
        out: the folder of the run.
        settings: see ``LabelSettings``.
        regularisation: what `read_regularisation` reads.
        overwrite: replace an older run.

    Returns:
        The report (see ``label``).
    """
    settings = settings or LabelSettings()
    inputs: dict[str, Path | str] = {"scores": scores}
    if images is not None:
        images = images / "images.parquet" if images.is_dir() else images
        inputs["images"] = images
    if regularisation is not None:
        inputs["regularisation"] = place = regularisation_input(regularisation)
        if place.is_dir() and out.resolve().is_relative_to(place.resolve()):
            raise DataError(f"{out}: lies in the folder {place}, which is read; choose another")
    with start_run("label", out, settings, inputs, overwrite=overwrite) as run:
        if run.finished:
            return run.result
        found = _read(scores, images, settings)
        extra = None if regularisation is None else read_regularisation(regularisation)
        run.finish(*_write(run.out, settings, found, extra))
        return run.result


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """What was chosen among the images of a table, and where its paths start."""

    found: Selection
    images: Any
    folder: Path
    written: bool
    """Whether the images table is a file already, or has no image files to tell of."""


def _read(scores: Path, images: Path | None, settings: LabelSettings) -> _Read:
    kind = kind_of_lines(scores) if scores.suffix.lower() == ".jsonl" else "table"
    table = None if images is None else read_table(images, "images")
    folder = None if images is None else images.parent
    if kind == "annotation":
        found, own = read_annotated(scores, table, folder, settings.shares, settings.seed)
        return _Read(found, table if own is None else own, folder or scores.parent, own is None)
    if kind == "scores":
        values, own = read_scores(scores)
        if table is None and settings.blur == "rule" and settings.rule == "hps2023":
            settings = replace(settings, blur="recorded")
    else:
        values, own = read_table(scores, "scores"), None
    table = own if table is None else table
    if table is None:
        raise DataError(f"{scores}: needs the table of its images; give it as --images")
    found = _select(values, table, settings, folder)
    return _Read(found, table, folder or scores.parent, written=True)


def _write(
    out: Path, settings: LabelSettings, read: _Read, extra: Regularisation | None
) -> tuple[dict[str, Any], list[str]]:
    """Write the files of a run; return its report and their names."""
    more = None if extra is None else _regularise(extra.images, settings)
    table, report = _finish(read.found, more)
    write_table(table, out / "labels.parquet")
    with atomic_path(out / "outcomes.csv") as temporary:
        write_csv(read.found.outcomes, temporary)
    files = ["labels.parquet", "outcomes.csv"]
    own = [] if read.written else [relocate_images(read.images, read.folder, out)]
    captions = None
    if extra is not None and more is not None:
        report["regularisation"]["from"] = extra.origin
        captions = (more[0], extra.folder)
        own += [] if extra.written else [relocate_images(more[0], extra.folder, out)]
    if own:
        write_table(pa.concat_tables(own), out / "images.parquet")
        files.append("images.parquet")
    if settings.write_align_sd:
        files += write_annotated(out, read.found.kept, (read.images, read.folder), captions)
    return report, files
