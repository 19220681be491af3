"""Strengths of greatest likelihood by Newton's method, and how sure they are.

Parameters stand in one vector: a strength for every item, then the effects (of the side, of
covariates), then the logarithms of the tie parameters. Strengths enter by differences only, so
they are made to sum to zero.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from palate.data.codes import dense_codes
from palate.errors import DataError
from palate.stats.intervals import Column, cluster_codes, person_codes
from palate.stats.numbers import log_logistic, logistic

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]
Errors = Literal["auto", "model", "prompts", "people", "two-way"]

_STEPS: Final = 200
_FAR: Final = 18.0
"""Effects and tie parameters (their logarithms) beyond this run away; strengths spread twice as far do."""

_CLOSE: Final = 1e-8
_INFLATED: Final = 1e10


class NoMaximumError(DataError):
    """The likelihood grows for ever: strengths, effects or tie parameters are not finite."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The derivative of the likelihood of every answer, as entries (answer, parameter, value)."""

    row: Codes
    parameter: Codes
    value: Floats


class Likelihood(ABC):
    """A logarithm of a likelihood with its derivatives.

    `names` says what each parameter is; the first `items` are strengths and the last `tie_count` logarithms
    of tie parameters.
    """

    names: tuple[str, ...]
    items: int
    tie_count: int

    @abstractmethod
    def start(self) -> Floats:
        """Where Newton's method begins."""

    @abstractmethod
    def evaluate(self, theta: Floats) -> tuple[float, Floats, Floats]:
        """Value, gradient and information (minus the second derivative) at the parameters.

        The value is minus infinity outside the range of the parameters.
        """

    @abstractmethod
    def scores(self, theta: Floats) -> Scores:
        """Return what every answer contributes to the gradient."""

    @abstractmethod
    def met(self) -> Codes:
        """The group of every item, among items that met, directly or through others."""


@dataclass(frozen=True, slots=True, eq=False)
class Maximum:
    """Parameters of greatest likelihood; the likelihood and information are those of the data."""

    theta: Floats
    value: float
    information: Floats
    steps: int


def pseudo_ties(prior: float, strengths: Floats) -> tuple[float, Floats, Floats]:
    """Value, gradient and information of the prior: every item ties `prior` times in all.

    The pseudo-ties of an item are spread evenly over the others, and each is half a win and half
    a loss: prior / (n - 1) · ½ [log σ(s_i - s_j) + log σ(s_j - s_i)] for every pair.
    """
    size = len(strengths)
    weight = prior / (size - 1)
    gap = strengths[:, None] - strengths[None, :]
    won = logistic(gap)
    upper = np.triu_indices(size, 1)
    value = weight * 0.5 * float((log_logistic(gap) + log_logistic(-gap))[upper].sum())
    curve = weight * won * (1 - won)
    np.fill_diagonal(curve, 0.0)
    information = np.diag(curve.sum(axis=1)) - curve
    return value, weight * (0.5 - won).sum(axis=1), information


def maximise(likelihood: Likelihood, prior: float = 0.0) -> Maximum:
    """Find the greatest likelihood (plus the prior's) by Newton's method with halved steps.

    Raises `NoMaximumError` where a parameter runs away, and `DataError` where two effects, or an
    effect and the items, cannot be told apart.
    """
    count = likelihood.items

    def objective(theta: Floats) -> tuple[float, Floats, Floats, float, Floats]:
        own, slope, curve = likelihood.evaluate(theta)
        if prior == 0 or not math.isfinite(own):
            return own, slope, curve, own, curve
        extra, its_slope, its_curve = pseudo_ties(prior, theta[:count])
        slope, data = slope.copy(), curve
        slope[:count] += its_slope
        curve = curve.copy()
        curve[:count, :count] += its_curve
        return own + extra, slope, curve, own, data

    theta = likelihood.start()
    at = objective(theta)
    for number in range(1, _STEPS + 1):
        step = _solved(at[2], at[1], count)
        if step is None:
            told = ", ".join(likelihood.names[count:]) or "the strengths"
            if np.abs(theta).max() < 5:
                raise DataError(f"the answers cannot tell {told} from the other parameters")
            break
        theta, at, scale = _improved(objective, theta, at, step)
        if _too_far(theta, count):
            break
        if scale * np.abs(step).max(initial=0.0) < _CLOSE:
            return Maximum(theta, at[3], at[4], number)
    place = int(np.argmax(np.abs(theta)))
    raise NoMaximumError(
        f"no finite maximum: {likelihood.names[place]} runs away, because the answers allow any "
        "larger value; leave it out, take fewer parameters, or give a larger prior"
    )


def _too_far(theta: Floats, count: int) -> bool:
    return bool(np.ptp(theta[:count]) > 2 * _FAR or (np.abs(theta[count:]) > _FAR).any())


def _improved(objective: Any, theta: Floats, at: Any, step: Floats) -> tuple[Floats, Any, float]:
    """The next parameters: a whole step, halved until the likelihood does not fall."""
    scale = 1.0
    floor = at[0] - 1e-11 * max(1.0, abs(at[0]))
    while scale > 1e-10:
        moved = theta + scale * step
        found = objective(moved)
        if found[0] >= floor:
            return moved, found, scale
        scale /= 2
    return theta, at, 0.0


def _solved(curve: Floats, slope: Floats, count: int) -> Floats | None:
    """Newton's step with strengths that sum to zero; None where the information has no inverse."""
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    whole = curve.copy()
    # Strengths enter by differences, so that their sum is free: this holds it where it is.
    whole[:count, :count] += np.trace(curve[:count, :count]) / count**2
    try:
        step: Floats = cho_solve(cho_factor(whole), slope)
    except LinAlgError:
        return None
    step[:count] -= step[:count].mean()
    return step


def inverse(maximum: Maximum, groups: Codes, names: tuple[str, ...]) -> Floats:
    """Covariance of a model that is right: the inverse of the information of the data.

    Strengths sum to zero within each group of items that met. The prior is not counted.
    """
    count = len(groups)
    same = groups[:, None] == groups[None, :]
    sizes = np.bincount(groups)[groups]
    scale = max(1e-12, float(np.trace(maximum.information[:count, :count]))) / count
    whole = maximum.information.copy()
    whole[:count, :count] += scale * same / sizes
    found = np.linalg.inv(whole).astype(np.float64)
    found[:count, :count] -= same / (sizes * scale)
    inflated = np.diag(found)[count:] * np.diag(maximum.information)[count:] > _INFLATED
    if inflated.any():
        told = np.array(names[count:])[inflated].tolist()
        raise DataError(f"the answers cannot tell {', '.join(told)} from the other parameters")
    return (found + found.T) / 2


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Numbers of the prompt and the person of every answer; None where they are not given.

    Every answer of an unknown person (None, an empty text, not a number, or a number below 0) is one of another person;
    `people` is None where nobody is known.
    """

    prompts: Codes | None
    people: Codes | None

    def size(self, kind: Literal["prompts", "people"]) -> int:
        """How many prompts, or people, there are; 0 where none is given."""
        codes = self.prompts if kind == "prompts" else self.people
        return 0 if codes is None else int((np.bincount(codes) > 0).sum())


def clusters_of(prompts: Column | None, people: Column | None, kept: NDArray[Any]) -> Clusters:
    """Number the prompts and people of the answers that are kept (a mask over all of them)."""
    for kind, column in (("prompts", prompts), ("people", people)):
        if column is not None and len(column) != len(kept):
            raise DataError(f"{len(kept)} answers but {len(column)} {kind}")
    rows = int(np.count_nonzero(kept))
    about = None if prompts is None else cluster_codes(np.asarray(prompts)[kept], rows)
    who, known = (None, []) if people is None else person_codes(np.asarray(people)[kept], rows)
    return Clusters(about, who if known else None)


def chosen_errors(errors: Errors, clusters: Clusters) -> Errors:
    """The errors that `auto` means: by all labels that show at least two clusters.

    Raises `DataError` where the labels that were asked for are missing or all the same.
    """
    sizes = {"prompts": clusters.size("prompts"), "people": clusters.size("people")}
    if errors == "auto":
        if min(sizes.values()) > 1:
            return "two-way"
        if max(sizes.values()) < 2:
            return "model"
        return "prompts" if sizes["prompts"] > 1 else "people"
    for kind, size in sizes.items():
        if errors in {kind, "two-way"} and size < 2:
            raise DataError(f"errors by {kind} need two {kind} at least, there are {size}")
    return errors


def sandwich(bread: Floats, scores: Scores, clusters: Clusters, errors: Errors) -> Floats:
    """Covariance that holds when answers of a prompt, or of a person, are alike.

    B M B, where B is the inverse information and M the sum over clusters of the squared gradient,
    times G / (G - 1) for G clusters (CR1; Liang and Zeger 1986). `two-way` is V(prompts) +
    V(people) - V(prompt and person) (Cameron, Gelbach and Miller 2011); negative eigenvalues, which
    that difference can have, are set to zero as they propose. Where its trace is below that of one of
    the three, which few clusters can bring about, the largest of these is taken.
    """
    ways = list(_ways(clusters, errors))
    # sparse sums leave Python alone, so that two at a time take little more than half as long
    with ThreadPoolExecutor(2) as pool:
        meats = list(pool.map(lambda way: _meat(scores, way[1], len(bread)), ways))
    parts = []
    for (sign, _), meat in zip(ways, meats, strict=True):
        part: Floats = bread @ meat @ bread
        parts.append((sign, (part + part.T) / 2))
    found: Floats = np.asarray(sum(sign * part for sign, part in parts), dtype=np.float64)
    if errors != "two-way":
        return found
    values, vectors = np.linalg.eigh(found)
    if values[0] < 0:
        found = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return max([found, *(part for _, part in parts)], key=lambda matrix: float(np.trace(matrix)))


def _ways(clusters: Clusters, errors: Errors) -> Iterator[tuple[float, Codes]]:
    if errors in {"prompts", "two-way"}:
        assert clusters.prompts is not None
        yield 1.0, clusters.prompts
    if errors in {"people", "two-way"}:
        assert clusters.people is not None
        yield 1.0, clusters.people
    if errors == "two-way":
        assert clusters.prompts is not None
        assert clusters.people is not None
        size = int(clusters.people.max()) + 1
        yield -1.0, dense_codes(clusters.prompts * size + clusters.people)


def _meat(scores: Scores, codes: Codes, size: int) -> Floats:
    from scipy.sparse import coo_array

    shape = (int(codes.max()) + 1, size)
    sums = coo_array((scores.value, (codes[scores.row], scores.parameter)), shape=shape).tocsr()
    count = int((np.bincount(codes) > 0).sum())
    return np.asarray((sums.T @ sums).toarray()) * (count / (count - 1))


def add_pairs(table: Floats, rows: Codes, columns: Codes, values: Floats) -> None:
    """Add values to the cells of a square table, where a cell may come many times."""
    size = len(table)
    if size * size > 4 * len(values):
        np.add.at(table, (rows, columns), values)
        return
    flat = np.bincount(rows * size + columns, weights=values, minlength=size * size)
    table += flat.reshape(size, size)
