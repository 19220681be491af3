"""What a correlation study says: every measure of chosen and of other images, and whether they differ by more than chance."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal

from palate.errors import SettingsError
from palate.evaluation.published import published_values
from palate.stats.intervals import Bootstrap

Better = Literal["higher", "lower", "distance"]
_PRINTED: Final = {"Inception Score": "inception score", "FID to the reference": "fid"}


@dataclass(frozen=True)
class CorrelationSettings:
    """How chosen images are compared with the others.

    `draws`: how often one not chosen image of every choice is drawn for the sets that must be of equal size; the
    values are averaged. `relabellings` make the null distribution and `resamples` of prompts the intervals.
    `dimension` names that of the choices if there are several. `missing` says what happens to a choice with an image
    that was not looked at or not scored. `level` is that of intervals, and 1 - `level` that of the test.
    """

    draws: int = 1
    relabellings: int = 499
    resamples: int = 200
    level: float = 0.95
    dimension: str | None = None
    missing: Literal["fail", "leave-out"] = "fail"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings under which nothing can be separable."""
        if self.draws < 1:
            raise SettingsError(f"draws is {self.draws}, expected at least 1")
        if self.relabellings < math.ceil(1 / (1 - self.level)) - 1:
            raise SettingsError(
                f"{self.relabellings} relabellings cannot reach the level {self.level},"
                f" expected at least {math.ceil(1 / (1 - self.level)) - 1}"
            )
        Bootstrap(self.level, self.resamples, self.seed)


@dataclass(frozen=True, slots=True)
class Contrast:
    """One measure of the chosen and of the other images, and what it would be without any choice.

    `difference` is chosen minus others; where the measure is a distance between both sets, it is that distance and
    there is no value of each, nor an interval. `null_mean`, `null_low` and `null_high` are the mean and the middle
    `level` of the relabellings. `p_value` counts relabellings at least as extreme (for a distance: as large), the
    data themselves among them; `adjusted` is Holm's correction for the number of measures. `accuracy` is the top-1
    accuracy of a scorer, None for measures of whole sets.
    """

    measure: str
    better: Better
    chosen: float | None
    others: float | None
    difference: float
    low: float | None
    high: float | None
    null_mean: float
    null_low: float
    null_high: float
    p_value: float
    adjusted: float
    level: float
    accuracy: float | None = None

    @property
    def separable(self) -> bool:
        """Whether the difference is more than relabelling explains."""
        return self.adjusted <= 1 - self.level + 1e-12

    @property
    def verdict(self) -> str:
        """What the measure has to do with the choices, in a few words."""
        if not self.separable:
            return "not separable"
        if self.better == "distance":
            return "the sets differ"
        return "follows" if (self.difference > 0) == (self.better == "higher") else "goes against"

    def texts(self) -> dict[str, str]:
        """Give every column of a table as text; what there is not is empty."""
        low, high = _told(self.low), _told(self.high)
        return {
            "measure": self.measure,
            "chosen": _told(self.chosen),
            "others": _told(self.others),
            "difference": _told(self.difference),
            "interval": f"[{low}, {high}]" if low else "",
            "by relabelling": f"{_told(self.null_low)} to {_told(self.null_high)}",
            "p": f"{self.adjusted:.3f}",
            "top-1": "" if self.accuracy is None else f"{100 * self.accuracy:.1f} %",
            "verdict": self.verdict,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "separable": self.separable, "verdict": self.verdict}


@dataclass(frozen=True, slots=True)
class CorrelationStudy:
    """Every measure of the chosen and of the other images of the same choices.

    `left_out` counts choices by the reason why they do not count. `cautions` say what the numbers cannot tell.
    `features` names the extractor that saw the images, and `printed` holds what the HPS paper prints for a measure, of
    chosen and of other images, where the extractor is the one of published values.
    """

    contrasts: tuple[Contrast, ...]
    choices: int
    prompts: int
    images: int
    left_out: Mapping[str, int]
    cautions: tuple[str, ...]
    settings: CorrelationSettings
    features: str | None = None
    printed: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "contrasts": [contrast.to_dict() for contrast in self.contrasts],
            "choices": self.choices,
            "prompts": self.prompts,
            "images": self.images,
            "left_out": dict(self.left_out),
            "cautions": list(self.cautions),
            "settings": asdict(self.settings),
            "features": self.features,
            "printed": {measure: list(pair) for measure, pair in self.printed.items()},
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> CorrelationStudy:
        """Read what `to_dict` gave."""
        own = {spec.name for spec in fields(Contrast)}
        rows = [{name: row[name] for name in own} for row in facts["contrasts"]]
        return cls(
            **{
                **facts,
                "contrasts": tuple(Contrast(**row) for row in rows),
                "cautions": tuple(facts["cautions"]),
                "settings": CorrelationSettings(**facts["settings"]),
                "printed": {measure: tuple(pair) for measure, pair in facts["printed"].items()},
            }
        )

    def about(self) -> tuple[str, ...]:
        """Say what was counted, what was left out and why, and by which features, a line each."""
        return (
            f"{self.choices:,} choices of {self.prompts:,} prompts, {self.images:,} images",
            *(f"{count:,} choices left out: {why}" for why, count in self.left_out.items()),
            *(() if self.features is None else (f"features of {self.features}",)),
        )

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of text; the last column is what the HPS paper prints, where that is comparable."""
        rows = [contrast.texts() for contrast in self.contrasts]
        for row in rows:
            row["difference"] = f"{row['difference']} {row.pop('interval')}".rstrip()
            if self.printed:
                row["HPS paper"] = " and ".join(self.printed.get(row["measure"], ()))
        return list(rows[0]), [list(row.values()) for row in rows]

    def to_text(self) -> str:
        """Write the study as a table, its cautions below."""
        header, cells = self.table()
        rows = [header, *cells]
        widths = [max(len(row[place]) for row in rows) for place in range(len(header))]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        after = ["", *self.cautions] if self.cautions else []
        return "\n".join([*self.about(), "", *lines, *after])

    def to_markdown(self) -> str:
        """Write the study as a Markdown table, its cautions below."""
        header, cells = self.table()
        lines = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *cells)]
        told = [f"- {caution}" for caution in self.cautions]
        notes = [f"HPS paper: {printed_note()}"] if self.printed else []
        parts = ["\n".join(part) for part in ([*self.about()], lines, told, notes) if part]
        return "\n\n".join(parts) + "\n"

    def to_csv(self) -> str:
        """Write one line per measure with every number in full."""
        sink = io.StringIO()
        names = [*(spec.name for spec in fields(Contrast)), "separable", "verdict"]
        names += ["printed_chosen", "printed_others"]
        writer = csv.DictWriter(sink, names, lineterminator="\n")
        writer.writeheader()
        for contrast in self.contrasts:
            printed = zip(names[-2:], self.printed.get(contrast.measure, ()), strict=False)
            writer.writerow({**contrast.to_dict(), **dict(printed)})
        return sink.getvalue()


def _told(value: float | None) -> str:
    return "" if value is None else f"{value:#.4g}"


def printed_in_hps() -> dict[str, tuple[str, str]]:
    """What the HPS paper prints for a measure, of the images that people chose and of those they did not."""
    found = {}
    for measure, part in _PRINTED.items():
        one, other = published_values("hps-correlation", part=part)
        found[measure] = one.printed(), other.printed()
    return found


def printed_note() -> str:
    """Say where the HPS paper's values are from and why they only compare in sign."""
    one = published_values("hps-correlation")[0]
    return f"{one.source} (grade {one.grade}); {one.note}"
