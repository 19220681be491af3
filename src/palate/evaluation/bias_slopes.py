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

A slope is a straight line through the log-odds. Whether the line bends is tested with the difference of the
covariate's squares about its mean: who goes for the middle, or for both ends, has such a bend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError
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

    def __post_init__(self) -> None:
        """Refuse settings that give no slope."""
        if not 0 < self.level < 1:
            raise DataError(f"an interval of level {self.level}, expected between 0 and 1")
        if self.fewest < 2:
            raise DataError(f"slopes of {self.fewest} duels, expected at least 2")


@dataclass(frozen=True)
class ImageBias:
    """The slopes of one covariate of images, each for one typical difference between images of a duel.

    `holm` are the p-values of the four slopes after the correction, by the name of the slope. `beyond` is
    None where the covariate is people's answer itself, and `residual` where it is the score. `bends` are the
    slopes of the squares beside the line, of the `scorer` and the `residual`, and `bent` names those that are
    certain: there the straight slope is an average over a line that is none.
    """

    name: str
    what: str
    people: Slope
    scorer: Slope
    beyond: Slope | None
    residual: Slope | None
    holm: Mapping[str, float]
    verdict: Verdict
    bends: Mapping[str, Slope | None]
    bent: tuple[str, ...]


@dataclass(frozen=True)
class PromptBias:
    """How the odds that scorer and person agree change with a covariate of the prompt.

    A covariate of the prompt is the same for both images, and so cannot decide who wins. `slope` is for one
    standard deviation of the covariate; below 0, agreement falls with it. `bend` is the slope of its square,
    and `bent` says whether that is certain.
    """

    name: str
    what: str
    slope: Slope
    holm: float
    bend: Slope | None
    bent: bool


@dataclass(frozen=True)
class Answered:
    """Duels that people answered: columns of equal length, and the images and people they come from.

    `first` and `second` are places among all images of all choices, `choice` the place of the choice.
    """

    people: Floats
    gap: Floats
    prompts: NDArray[np.int64]
    annotators: NDArray[Any]
    choice: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]

    @property
    def scorer(self) -> Floats:
        """1 where the scorer prefers the first image, 0 where the second, and 0.5 at equal scores."""
        return (np.sign(self.gap) + 1) / 2

    def fit(self, rows: NDArray[np.bool_], level: float) -> Callable[..., Slope | None]:
        """How a slope is fitted on some of the duels; None where its covariate is another regressor."""
        clusters = self.prompts[rows]
        people = self.annotators[rows]

        def slope(x: Floats, won: Floats, *beside: Floats, intercept: bool = False) -> Slope | None:
            others = np.stack(beside, axis=1) if beside else None
            try:
                return logit_slope(
                    *(x, won, clusters),
                    people=people,
                    beside=others,
                    intercept=intercept,
                    level=level,
                )
            except DataError:
                return None

        return slope


class _Slopes(NamedTuple):
    people: Slope
    scorer: Slope
    beyond: Slope | None
    residual: Slope | None
    scorer_bend: Slope | None
    residual_bend: Slope | None


def image_biases(
    columns: Mapping[str, tuple[str, Floats]],
    answered: Answered,
    reasons: dict[str, str],
    settings: BiasSettings,
) -> tuple[ImageBias, ...]:
    """Fit every covariate of images, and say in `reasons` why one cannot be tested.

    `columns` has what each covariate is and its value for every image of every choice. Holm's correction is
    over the covariates, for each kind of slope by itself.
    """
    fitted: dict[str, _Slopes] = {}
    for name, (_, values) in columns.items():
        left, right = values[answered.first], values[answered.second]
        known = np.isfinite(left) & np.isfinite(right)
        reason = unusable((left - right)[known], settings.fewest)
        if reason is None:
            fitted[name] = _slopes(left, right, known, answered, settings.level)
        else:
            reasons[name] = reason
    adjusted = _corrected(list(fitted.values()))
    alpha = 1 - settings.level
    found = []
    for (name, slopes), row in zip(fitted.items(), adjusted, strict=True):
        p_values = dict(zip(_Slopes._fields, row, strict=True))
        seen = {
            kind: slope is not None and slope.certain and p_values[kind] < alpha
            for kind, slope in slopes._asdict().items()
        }
        bends = {"scorer": slopes.scorer_bend, "residual": slopes.residual_bend}
        found.append(
            ImageBias(
                *(name, columns[name][0], *slopes[:4]),
                holm={kind: p_values[kind] for kind in _Slopes._fields[:4]},
                verdict=_verdict(slopes, seen),
                bends=bends,
                bent=tuple(kind for kind in bends if seen[f"{kind}_bend"]),
            )
        )
    return tuple(found)


def _corrected(fitted: list[_Slopes]) -> list[list[float]]:
    """p-values after Holm's correction, a row per covariate; a slope that is not there has 1."""
    kinds = [
        [1.0 if one is None else one.p_of_interval for one in kind]
        for kind in zip(*fitted, strict=True)
    ]
    return [list(row) for row in zip(*(holm(kind).tolist() for kind in kinds), strict=True)]


def _slopes(
    left: Floats, right: Floats, known: NDArray[np.bool_], answered: Answered, level: float
) -> _Slopes:
    left, right = left[known], right[known]
    people, scorer = answered.people[known], answered.scorer[known]
    scores, x = answered.gap[known], left - right
    middle = (left.mean() + right.mean()) / 2
    bend = (left - middle) ** 2 - (right - middle) ** 2
    slope = answered.fit(known, level)
    alone = [slope(x, people), slope(x, scorer)]
    assert alone[0] is not None, "a covariate that differs has a slope of its own"
    assert alone[1] is not None, "and so for the scorer"
    return _Slopes(
        people=alone[0],
        scorer=alone[1],
        beyond=slope(x, scorer, 2 * people - 1),
        residual=slope(x, people, scores),
        scorer_bend=slope(bend, scorer, x) if np.ptp(bend) > 0 else None,
        residual_bend=slope(bend, people, x, scores) if np.ptp(bend) > 0 else None,
    )


def _verdict(slopes: _Slopes, seen: Mapping[str, bool]) -> Verdict:
    """Say in one word what the slopes say together; see `MEANINGS`.

    A slope is `seen` where its interval leaves out 0, also when Holm's correction has widened it.
    """
    people, scorer = slopes.people.value, slopes.scorer.value
    if slopes.residual is not None and seen["residual"]:
        direction = scorer if seen["scorer"] else people
        return "overrated" if slopes.residual.value * direction < 0 else "underrated"
    if seen["scorer"] and seen["beyond"]:
        return "as people" if seen["people"] and people * scorer > 0 else "scorer only"
    return "none found"


def prompt_biases(
    columns: Mapping[str, Floats],
    answered: Answered,
    reasons: dict[str, str],
    settings: BiasSettings,
) -> tuple[PromptBias, ...]:
    """Fit how agreement on decided duels changes with each covariate of the choices' prompts."""
    decided = (answered.people != 0.5) & (answered.gap != 0)
    agrees = (answered.people == answered.scorer).astype(np.float64)
    fitted: list[tuple[str, Slope, Slope | None]] = []
    for name, values in columns.items():
        x = values[answered.choice]
        known = decided & np.isfinite(x)
        centred = x[known] - x[known].mean() if known.any() else x[known]
        reason = unusable(centred, settings.fewest)
        slope = answered.fit(known, settings.level)
        found = None if reason else slope(centred, agrees[known], intercept=True)
        if found is None:
            reasons[name] = reason or "it is the same in all decided duels"
            continue
        fitted.append((name, found, slope(centred**2, agrees[known], centred, intercept=True)))
    straight = holm([slope.p_of_interval for _, slope, _ in fitted])
    bends = holm([1.0 if bend is None else bend.p_of_interval for *_, bend in fitted])
    return tuple(
        PromptBias(
            *(name, OF_PROMPTS[name], slope, float(p)),
            bend=bend,
            bent=bend is not None and bend.certain and float(q) < 1 - settings.level,
        )
        for (name, slope, bend), p, q in zip(fitted, straight, bends, strict=True)
    )


def unusable(gap: Floats, fewest: int) -> str | None:
    """Say why a covariate cannot be tested, or None."""
    if not len(gap):
        return "it is not known"
    if len(gap) < fewest:
        return f"it is known in {len(gap)} cases, fewer than {fewest}"
    if float(np.abs(gap).max()) <= 1e-12:
        return "it never differs"
    return None
