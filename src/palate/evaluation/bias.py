"""What a scorer goes by that people do not: slopes of size, brightness, position and more.

Each slope is a logit over duels in which the difference of the covariate between the two images stands for
who wins. Four of them are fitted, and what they say together is the verdict:

- people: does the covariate go along with what people prefer?
- scorer: does it go along with what the scorer prefers?
- beyond: … with what the scorer prefers, people's answer held fixed?
- residual: does it go along with what people prefer, the difference of scores held fixed?

One answer of one person is a noisy view of what people prefer, so that a scorer that is right in everything
still has a slope beyond it. The residual slope has no such fault: below 0 the scorer gives the covariate more
weight than people do, above 0 less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.data.checks import list_lengths
from palate.data.duels import Duels, duels
from palate.errors import DataError
from palate.evaluation.covariates import (
    FROM_FILES,
    FROM_TABLE,
    Measured,
    file_covariates,
    table_covariates,
)
from palate.evaluation.joins import one_scorer, prompt_codes, scored_choices, values_of_choices
from palate.stats.calibrations.choice_model import compared_duels
from palate.stats.slopes import Slope, holm, logit_slope

Floats = NDArray[np.float64]
Verdict = Literal["overrated", "underrated", "scorer only", "as people", "none found"]

MEANINGS: Final[dict[Verdict, str]] = {
    "overrated": "the scorer gives it more weight than people do",
    "underrated": "the scorer gives it less weight than people do",
    "scorer only": "the scorer goes by it, and people are not seen to",
    "as people": "the scorer goes by it as people do",
    "none found": "no sign that the scorer goes by it",
}

FROM_SCORES: Final = {"area kept": "share of the image that the scorer saw, from 0 to 1"}
FROM_ORDER: Final = {"position": "place in the order shown, counted from the first"}
OF_PROMPTS: Final = {
    "prompt length": "words of the prompt, in doublings",
    "tokens cut": "1 where the scorer did not read the whole prompt, else 0",
}


@dataclass(frozen=True)
class BiasSettings:
    """How biases are looked for.

    `level` is that of the intervals; a find has a p-value below 1 - level after Holm's correction for the
    number of covariates. `fewest` duels (or answers) are needed for a slope. `files=False` measures no files.
    """

    scorer: str | None = None
    missing: Literal["fail", "leave-out"] = "fail"
    files: bool = True
    fewest: int = 20
    level: float = 0.95
    workers: int | None = None


@dataclass(frozen=True)
class ImageBias:
    """The slopes of one covariate of images, each for one typical difference between images of a duel.

    `holm` are the p-values of the four slopes after the correction, by the name of the slope. `beyond` is
    None where the covariate is people's answer itself, and `residual` where it is the score.
    """

    name: str
    what: str
    people: Slope
    scorer: Slope
    beyond: Slope | None
    residual: Slope | None
    holm: Mapping[str, float]
    verdict: Verdict


@dataclass(frozen=True)
class PromptBias:
    """How the odds that scorer and person agree change with a covariate of the prompt.

    A covariate of the prompt is the same for both images, and so cannot decide who wins. `slope` is for one
    standard deviation of the covariate; below 0, agreement falls with it.
    """

    name: str
    what: str
    slope: Slope
    holm: float


@dataclass(frozen=True)
class BiasAudit:
    """What a scorer goes by beside what people prefer.

    `duels` counts those that people answered, `uncompared` those between images that nobody picked,
    `not_tested` says of each covariate without a slope why, and `faults` why files could not be measured.
    """

    scorer: str
    fingerprint: str
    unit: str
    images: tuple[ImageBias, ...]
    prompts: tuple[PromptBias, ...]
    duels: int
    uncompared: int
    left_out: int
    not_tested: Mapping[str, str]
    unreadable: int
    faults: tuple[str, ...]
    settings: BiasSettings

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Answered:
    """Duels that people answered: columns of equal length, and the choices they come from."""

    people: Floats
    gap: Floats
    clusters: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]

    @property
    def scorer(self) -> Floats:
        """1 where the scorer prefers the first image, 0 where the second, and 0.5 at equal scores."""
        return (np.sign(self.gap) + 1) / 2


def audit_bias(
    choices: Any,
    scores: Any,
    images: Any = None,
    folder: Path | str | None = None,
    settings: BiasSettings | None = None,
) -> BiasAudit:
    """Find what a scorer goes by: size, shape, brightness, sharpness, position, prompt length and more.

    `choices`, `scores` and `images` are tables; without images only position, area kept and the prompts are
    tested. `folder` is where the paths of the images start; without it no file is measured. Errors and tests
    take a prompt as one cluster. Raises `DataError` as `evaluate_choices` does for choices without scores.
    """
    settings = settings or BiasSettings()
    if not len(choices):
        raise DataError("there are no choices to audit")
    scores = one_scorer(scores, settings.scorer)
    values = values_of_choices(choices, scores)
    kept = scored_choices(choices, values, scores, settings.missing)
    values = values[np.repeat(kept, list_lengths(choices.column("images")))]
    left_out, choices = int((~kept).sum()), choices.filter(pa.array(kept))
    pairs = duels(choices)
    answered, rows = _answered(choices, pairs, values)
    measured = _measured(images, folder, settings)
    columns, reasons = _image_columns(choices, scores, images, measured)
    found = _image_biases(columns, answered, reasons, settings)
    decided = pairs.choice[rows]
    return BiasAudit(
        scorer=scores.column("scorer")[0].as_py(),
        fingerprint=scores.column("fingerprint")[0].as_py(),
        unit=scores.column("unit")[0].as_py(),
        images=found,
        prompts=_prompt_biases(choices, scores, answered, decided, reasons, settings),
        duels=len(answered.people),
        uncompared=len(pairs) - len(rows),
        left_out=left_out,
        not_tested=reasons,
        unreadable=measured.unreadable,
        faults=measured.faults,
        settings=settings,
    )


def bias_table(found: BiasAudit) -> str:
    """Write an audit as a small text table: one line per covariate, the slopes and the verdict."""
    head = ("covariate", "people", "scorer", "beyond", "residual", "verdict")
    lines = [
        f"{found.scorer}: {found.duels:,} duels; log-odds for one typical difference",
        "".join(f"{word:<15}" if place == 0 else f"{word:>11}" for place, word in enumerate(head)),
    ]
    for bias in found.images:
        slopes = (bias.people, bias.scorer, bias.beyond, bias.residual)
        told = "".join(f"{_told(slope):>11}" for slope in slopes)
        lines.append(f"{bias.name:<15}{told}{bias.verdict:>14}")
    lines += [
        f"{prompt.name:<15}{_told(prompt.slope):>11} on agreement, p {prompt.holm:.3f}"
        for prompt in found.prompts
    ]
    lines += [f"{name}: not tested, {reason}" for name, reason in found.not_tested.items()]
    return "\n".join(lines)


def _told(slope: Slope | None) -> str:
    if slope is None:
        return "–"
    if slope.separated:
        return "∞" if slope.value > 0 else "-∞"
    mark = (
        "*"
        if slope.low is not None and slope.high is not None and slope.low * slope.high > 0
        else ""
    )
    return f"{slope.value:+.2f}{mark}"


def _answered(choices: Any, pairs: Duels, values: Floats) -> tuple[_Answered, NDArray[np.int64]]:
    """Take the duels that people answered, and their places among all duels."""
    bounds = np.concatenate([[0], np.cumsum(list_lengths(choices.column("images")))])
    ranks = pc.list_flatten(choices.column("ranks")).to_numpy().astype(np.int64)
    *_, kept = compared_duels(ranks, bounds.astype(np.int64))
    rows = np.flatnonzero(kept)
    first, second = pairs.first_index[rows], pairs.second_index[rows]
    codes = prompt_codes(choices)[pairs.choice[rows]]
    answered = _Answered(pairs.outcome[rows], values[first] - values[second], codes, first, second)
    return answered, rows


def _measured(images: Any, folder: Path | str | None, settings: BiasSettings) -> Measured:
    if images is None or folder is None or not settings.files:
        return Measured({}, 0, ())
    return file_covariates(images, folder, settings.workers)


def _image_columns(
    choices: Any, scores: Any, images: Any, measured: Measured
) -> tuple[dict[str, tuple[str, Floats]], dict[str, str]]:
    """What each covariate is and its value for every image of every choice; why others are not known."""
    lengths = list_lengths(choices.column("images"))
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    place = np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
    columns = {"position": (FROM_ORDER["position"], place.astype(np.float64))}
    reasons: dict[str, str] = {}
    told: dict[str, Floats] = {}
    if images is not None:
        flat = pc.list_flatten(choices.column("images"))
        keys = images.column("image").combine_chunks()
        rows = pc.fill_null(pc.index_in(flat, value_set=keys), -1).to_numpy().astype(np.int64)
        known = np.concatenate([np.arange(len(images)), [0]])[rows]
        for name, column in {**table_covariates(images), **measured.columns}.items():
            told[name] = np.where(rows < 0, np.nan, column[known])
    for name, what in {**FROM_TABLE, **FROM_FILES}.items():
        if name in told:
            columns[name] = (what, told[name])
        else:
            reasons[name] = "no table of images" if images is None else "no files were measured"
    columns["area kept"] = (FROM_SCORES["area kept"], _of_scores(choices, scores, "area_kept"))
    return columns, reasons


def _of_scores(choices: Any, scores: Any, name: str) -> Floats:
    """Bring another column of the scores to every image of every choice."""
    place = scores.schema.get_field_index("value")
    return values_of_choices(
        choices, scores.set_column(place, "value", scores.column(name).cast(pa.float64()))
    )


def _image_biases(
    columns: Mapping[str, tuple[str, Floats]],
    answered: _Answered,
    reasons: dict[str, str],
    settings: BiasSettings,
) -> tuple[ImageBias, ...]:
    fitted: dict[str, _Slopes] = {}
    for name, (_, values) in columns.items():
        gap = values[answered.first] - values[answered.second]
        known = np.isfinite(gap)
        reason = _unusable(gap[known], settings.fewest)
        if reason is None:
            fitted[name] = _slopes(gap, known, answered, settings.level)
        else:
            reasons[name] = reason
    raw = (
        [1.0 if s is None else s.p_value for s in kind]
        for kind in zip(*fitted.values(), strict=True)
    )
    adjusted = np.array([holm(p_values) for p_values in raw]).T
    found = []
    for (name, slopes), row in zip(fitted.items(), adjusted, strict=True):
        p_values = dict(zip(_Slopes._fields, row.tolist(), strict=True))
        verdict = _verdict(slopes, p_values, 1 - settings.level)
        found.append(ImageBias(name, columns[name][0], *slopes, p_values, verdict))
    return tuple(found)


class _Slopes(NamedTuple):
    people: Slope
    scorer: Slope
    beyond: Slope | None
    residual: Slope | None


def _slopes(gap: Floats, known: NDArray[np.bool_], answered: _Answered, level: float) -> _Slopes:
    x, people, scorer = gap[known], answered.people[known], answered.scorer[known]
    codes, scores = answered.clusters[known], answered.gap[known]

    def beside(won: Floats, other: Floats) -> Slope | None:
        try:
            return logit_slope(x, won, codes, beside=other, level=level)
        except DataError:  # the covariate is the other regressor
            return None

    return _Slopes(
        people=logit_slope(x, people, codes, level=level),
        scorer=logit_slope(x, scorer, codes, level=level),
        beyond=beside(scorer, 2 * people - 1),
        residual=beside(people, scores),
    )


def _verdict(slopes: _Slopes, p_values: Mapping[str, float], alpha: float) -> Verdict:
    """Say in one word what the slopes say together; see `MEANINGS`."""
    found = {kind: p_value < alpha for kind, p_value in p_values.items()}
    people, scorer = slopes.people.value, slopes.scorer.value
    if slopes.residual is not None and found["residual"]:
        direction = scorer if found["scorer"] else people
        return "overrated" if slopes.residual.value * direction < 0 else "underrated"
    if found["scorer"] and found["beyond"]:
        return "as people" if found["people"] and people * scorer > 0 else "scorer only"
    return "none found"


def _prompt_biases(
    choices: Any,
    scores: Any,
    answered: _Answered,
    choice: NDArray[np.int64],
    reasons: dict[str, str],
    settings: BiasSettings,
) -> tuple[PromptBias, ...]:
    """Fit how agreement on decided duels changes with the prompt."""
    decided = (answered.people != 0.5) & (answered.gap != 0)
    agrees = (answered.people == answered.scorer).astype(np.float64)[decided]
    fitted = []
    for name, values in _prompt_columns(choices, scores).items():
        x = values[choice][decided]
        known = np.isfinite(x)
        reason = _unusable(x[known] - x[known].mean() if known.any() else x[known], settings.fewest)
        if reason is not None:
            reasons[name] = reason
            continue
        codes = answered.clusters[decided][known]
        slope = logit_slope(x[known], agrees[known], codes, intercept=True, level=settings.level)
        fitted.append((name, slope))
    adjusted = holm([slope.p_value for _, slope in fitted])
    return tuple(
        PromptBias(name, OF_PROMPTS[name], slope, float(p))
        for (name, slope), p in zip(fitted, adjusted, strict=True)
    )


def _prompt_columns(choices: Any, scores: Any) -> dict[str, Floats]:
    """Covariates of the prompt of every choice."""
    words = np.array([len(prompt.split()) for prompt in choices.column("prompt").to_pylist()])
    lengths = list_lengths(choices.column("images"))
    first = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    given, read = (
        _of_scores(choices, scores, name)[first] for name in ("tokens_given", "tokens_kept")
    )
    cut = np.where(np.isnan(given) | np.isnan(read), np.nan, given > read)
    return {"prompt length": np.log2(1 + words), "tokens cut": cut}


def _unusable(gap: Floats, fewest: int) -> str | None:
    """Say why a covariate cannot be tested, or None."""
    if not len(gap):
        return "it is not known"
    if len(gap) < fewest:
        return f"it is known in {len(gap)} cases, fewer than {fewest}"
    if float(np.abs(gap).max()) <= 1e-12:
        return "it never differs"
    return None
