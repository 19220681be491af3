"""The published accuracies by name: which pairs count, what a tie earns, how the mean is taken.

Papers print numbers of different protocols under one word. Each protocol here says where it is
from and is counted by the one engine, `palate.stats.accuracy`. Columns are as there: `scores` and
`ranks` are flat, choice i owns the entries `offsets[i]:offsets[i + 1]`, in the order of the file;
scores: higher is better, ranks: the lowest is the best.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from palate.data.duels import pair_index
from palate.errors import DataError
from palate.stats.accuracy import (
    Accuracy,
    Groups,
    HumanPairTies,
    HumanTies,
    NothingDecidedError,
    PairTies,
    Ties,
    pair_credit,
    plain_mean,
    top1_credit,
)
from palate.stats.intervals import Bootstrap, Column, cluster_codes
from palate.stats.two_way.estimates import share_estimate

Floats = NDArray[np.float64]

THRESHOLDS: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Differences of two probabilities up to which Pick-a-Pic's script tries to call a tie."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """How one published accuracy is counted.

    `counts` is what earns credit: a `choice` (top-1) or a `pair` of its images. `average` pools
    all of them, or averages within every choice first (`per choice`). `ties` says what equal
    scores earn and `human_ties` what the person's ties do, in the words of
    `palate.stats.accuracy`. `values` says what the scores become before they are compared: `given`
    as they are, `half` the softmax of a choice in half precision if a scale is given, `threshold`
    the probabilities of two images, of which those at most a threshold apart tie. `grade` is how
    sure the definition is: A read in the official code, B told by its authors, C by others.
    """

    name: str
    says: str
    counts: Literal["choice", "pair"]
    average: Literal["pooled", "per choice"]
    ties: Ties | PairTies
    human_ties: HumanTies | HumanPairTies
    values: Literal["given", "half", "threshold"]
    source: str
    grade: Literal["A", "B", "C"]
    pairs_only: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


_ALL: Final = (
    Protocol(
        "hpd-v1-top1",
        "Share of choices whose highest score is on the image that was picked.",
        *("choice", "pooled", "first", "any", "given"),
        "HPS (Wu et al. 2023, arXiv 2303.14420); argmax as in HPSv2, training/train.py, "
        "evaluate_preference (the script of HPS itself was not released)",
        "B",
    ),
    Protocol(
        "image-reward-pairs",
        "Share of all pairs that the scores put in the person's order.",
        *("pair", "pooled", "wrong", "drop", "given"),
        "ImageReward (Xu et al. 2023, arXiv 2304.05977), test.py, acc; the same in MPS, "
        "eval_overall_mps_on_imagereward.py",
        "A",
    ),
    Protocol(
        "image-reward-macro",
        "The same share within every ranking, averaged over the rankings.",
        *("pair", "per choice", "wrong", "drop", "given"),
        "HPS v2 (Wu et al. 2023, arXiv 2306.09341), training/train.py, calc_ImageReward",
        "A",
    ),
    Protocol(
        "hps-v2-inversions",
        "One minus the inversions among all pairs of a ranking, averaged over the rankings.",
        *("pair", "per choice", "first", "right", "given"),
        "HPS v2 (Wu et al. 2023, arXiv 2306.09341), training/train.py, inversion_score on the "
        "sorted scores",
        "A",
    ),
    Protocol(
        "mps-hpd-v2",
        "The same on probabilities, where a tie is no inversion and so is right.",
        *("pair", "per choice", "right", "right", "half"),
        "MPS (Zhang et al. 2024, arXiv 2405.14705), eval_overall_mps_on_hpdv2.py, inversion_score",
        "A",
    ),
    Protocol(
        "pick-a-pic-threshold",
        "First, second or tie: 1 for a match, half where exactly one of the two is a tie.",
        *("pair", "pooled", "half", "match", "threshold"),
        "Pick-a-Pic (Kirstain et al. 2023, arXiv 2305.01569), "
        "trainer/scripts/eval_preference_predictor.py, calc_acc",
        "A",
        pairs_only=True,
    ),
    Protocol(
        "pick-a-pic-no-ties",
        "Share of pairs without a human tie that the scores put in the person's order.",
        *("pair", "pooled", "half", "drop", "given"),
        "imscore (RE-N-Y), README, benchmark on preference sets; what equal scores earn there is "
        "not confirmed",
        "C",
    ),
    Protocol(
        "mhp-pairs",
        "Share of pairs of one dimension that the scores put in the person's order.",
        *("pair", "pooled", "wrong", "drop", "given"),
        "MPS (Zhang et al. 2024, arXiv 2405.14705); the test set and its script are not released, "
        "ties as in the authors' script for ImageReward",
        "C",
    ),
)

PROTOCOLS: Final = MappingProxyType({protocol.name: protocol for protocol in _ALL})
"""Every protocol by its name."""


@dataclass(frozen=True, slots=True)
class ProtocolAccuracy:
    """An accuracy under a protocol, next to what costs nothing under the same protocol.

    `fair` is the same mean where equal scores earn what a guess does and human ties between two
    images are left out, so that a constant scorer gets what chance does; None where nothing is left.
    `chance` is a random order, `constant` one score for all images, `always_first` and
    `always_last` go by the position. `tied` counts the choices or pairs whose scores tie.
    `choices` is how many were given. `accuracy.estimate.count` is how many choices or pairs were
    averaged, and its interval resamples prompts.
    """

    protocol: Protocol
    accuracy: Accuracy
    fair: float | None
    chance: float
    constant: float
    always_first: float
    always_last: float
    tied: int
    choices: int
    scale: float | None
    threshold: float | None

    @property
    def value(self) -> float:
        """The accuracy under the protocol, from 0 to 1."""
        return self.accuracy.value

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain = {
            name: getattr(self, name)
            for name in self.__slots__
            if name not in ("protocol", "accuracy")
        }
        return {"protocol": self.protocol.to_dict(), **self.accuracy.to_dict(), **plain}


def accuracy_under(
    protocol: Protocol | str,
    scores: Column,
    ranks: Column,
    offsets: Column,
    prompts: Column | None = None,
    *,
    scale: float | None = None,
    threshold: float | None = None,
    bootstrap: Bootstrap | None = None,
) -> ProtocolAccuracy:
    """Measure scores against people under a published protocol.

    `prompts` has one label per choice, for the interval (None: every choice is its own). `scale`
    is what the scores are multiplied by before a softmax: 1 for logits, the logit scale (about 100)
    for cosines. `pick-a-pic-threshold` needs it, and a `threshold` that was found on other choices
    by `tune_threshold`; `mps-hpd-v2` with a scale rounds to half precision as the official script
    does, and without one compares the scores as they are. Raises `DataError` where no choice has a
    decision that counts, and where a setting is missing or has no place in the protocol.
    """
    protocol = named(protocol)
    _check_settings(protocol, scale, threshold)
    groups = Groups(scores, ranks, offsets)
    _check_sizes(protocol, groups)
    counter = _Counter(protocol, groups, threshold)
    labels = cluster_codes(prompts, len(groups.sizes))
    values = _values(protocol, groups, scale)
    rows, owner, left_out = counter.rows(values)
    estimate = share_estimate(rows, labels[owner], bootstrap=bootstrap)
    measure = "top-1" if protocol.counts == "choice" else "pairwise"
    places = np.arange(len(values), dtype=np.float64)
    return ProtocolAccuracy(
        protocol=protocol,
        accuracy=Accuracy(measure, estimate, protocol.ties, protocol.human_ties, left_out),
        fair=counter.fair(values),
        chance=counter.chance(),
        constant=plain_mean(counter.rows(np.zeros(len(places)))[0]),
        always_first=plain_mean(counter.rows(-places)[0]),
        always_last=plain_mean(counter.rows(places)[0]),
        tied=counter.tied(values),
        choices=len(groups.sizes),
        scale=scale,
        threshold=threshold,
    )


@dataclass(frozen=True, slots=True)
class Threshold:
    """The threshold that was best on the choices it was tuned on, and the accuracy of each."""

    threshold: float
    tried: tuple[float, ...]
    accuracies: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def tune_threshold(
    scores: Column,
    ranks: Column,
    offsets: Column,
    *,
    scale: float,
    thresholds: Column = THRESHOLDS,
) -> Threshold:
    """Find the threshold of `pick-a-pic-threshold` with the highest accuracy.

    Tune on validation choices, never on those that are reported. The smallest threshold of several
    that are best is taken, as the official script does.
    """
    protocol = named("pick-a-pic-threshold")
    tried = tuple(sorted(float(one) for one in thresholds))
    if not tried:
        raise DataError("there is no threshold to try")
    groups = Groups(scores, ranks, offsets)
    _check_settings(protocol, scale, tried[0])
    _check_sizes(protocol, groups)
    values, counter = _values(protocol, groups, scale), _Counter(protocol, groups, None)
    found = []
    for one in tried:
        counter.threshold = one
        found.append(plain_mean(counter.rows(values)[0]))
    return Threshold(tried[int(np.argmax(found))], tried, tuple(found))


def named(protocol: Protocol | str) -> Protocol:
    """The protocol of a name; refuses a name that does not exist."""
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise DataError(f"no protocol {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[protocol]


class _Counter:
    """Credit of every choice or pair under one protocol, for any scores of the same choices."""

    def __init__(self, protocol: Protocol, groups: Groups, threshold: float | None) -> None:
        self.protocol, self.groups, self.threshold = protocol, groups, threshold
        self.choice, first, second = pair_index(groups.sizes)
        self.first = groups.starts[self.choice] + first
        self.second = groups.starts[self.choice] + second
        left, right = groups.ranks[self.first], groups.ranks[self.second]
        self.outcome: Floats = np.where(left == right, 0.5, (left < right).astype(np.float64))

    def rows(self, values: Floats) -> tuple[Floats, NDArray[np.int64], int]:
        """What is averaged, the choice of each, and how many choices or pairs are left out."""
        protocol = self.protocol
        return self._rows(*self._credit(values, protocol.ties, protocol.human_ties))

    def fair(self, values: Floats) -> float | None:
        """The mean where a tie earns what a guess does and a person's tie between two is left out."""
        rules = ("expected", "any") if self.protocol.counts == "choice" else ("half", "drop")
        try:
            return plain_mean(self._rows(*self._credit(values, *rules))[0])
        except NothingDecidedError:
            return None

    def chance(self) -> float:
        """What a random order earns on average; it never ties by itself."""
        human = self.protocol.human_ties
        blank = np.zeros(len(self.groups.scores))
        if self.protocol.counts == "choice":
            return plain_mean(self._rows(*self._credit(blank, "expected", human))[0])
        credit, kept = self._credit(blank, "half", "half" if human == "match" else human)
        if human == "match":
            # the difference of two probabilities drawn at random is within t with probability t
            credit[self.outcome == 0.5] = 0.5 + (self.threshold or 0.0) / 2
        return plain_mean(self._rows(credit, kept)[0])

    def tied(self, values: Floats) -> int:
        """How many of the choices or pairs that count have scores that tie."""
        _, kept = self._credit(values, self.protocol.ties, self.protocol.human_ties)
        if self.protocol.counts == "pair":
            left, right = self._sides(values)
            return int((kept & (left == right)).sum())
        groups = self.groups
        top = values == np.maximum.reduceat(values, groups.starts)[groups.owner]
        return int((kept & (np.add.reduceat(top.astype(np.int64), groups.starts) > 1)).sum())

    def _credit(
        self, values: Floats, ties: Any, human_ties: Any
    ) -> tuple[Floats, NDArray[np.bool_]]:
        rules = {"ties": ties, "human_ties": human_ties}
        if self.protocol.counts == "choice":
            groups = self.groups
            offsets = np.append(groups.starts, len(values))
            return top1_credit(values, groups.ranks, offsets, **rules)
        return pair_credit(*self._sides(values), self.outcome, **rules)

    def _sides(self, values: Floats) -> tuple[Floats, Floats]:
        """The two values of every pair, equal where the protocol calls a tie."""
        left, right = values[self.first], values[self.second]
        if self.threshold is None:
            return left, right
        return left, np.where(np.abs(left - right) <= self.threshold, left, right)

    def _rows(
        self, credit: Floats, kept: NDArray[np.bool_]
    ) -> tuple[Floats, NDArray[np.int64], int]:
        choices = self.protocol.counts == "choice"
        owner = np.flatnonzero(kept) if choices else self.choice[kept]
        left_out = int((~kept).sum())
        if self.protocol.average == "pooled":
            return credit[kept], owner, left_out
        counts = np.bincount(owner)
        some = np.flatnonzero(counts)
        return np.bincount(owner, weights=credit[kept])[some] / counts[some], some, left_out


def _values(protocol: Protocol, groups: Groups, scale: float | None) -> Floats:
    """The scores as the protocol compares them."""
    if protocol.values == "given" or scale is None:
        return groups.scores
    logits = groups.scores * scale
    if protocol.values == "half":
        with np.errstate(over="ignore"):
            logits = logits.astype(np.float16).astype(np.float64)
    if not np.isfinite(logits).all():
        raise DataError(f"a score times the scale {scale:g} is too large for {protocol.name}")
    raised = np.exp(logits - np.maximum.reduceat(logits, groups.starts)[groups.owner])
    shares: Floats = raised / np.add.reduceat(raised, groups.starts)[groups.owner]
    return shares.astype(np.float16).astype(np.float64) if protocol.values == "half" else shares


def _check_settings(protocol: Protocol, scale: float | None, threshold: float | None) -> None:
    needed = protocol.values == "threshold"
    for name, value in (("scale", scale), ("threshold", threshold)):
        if needed and value is None:
            raise DataError(f"{protocol.name} needs a {name}, and none is given")
    if protocol.values == "given" and scale is not None:
        raise DataError(f"{protocol.name} compares scores as they are and takes no scale")
    if not needed and threshold is not None:
        raise DataError(f"{protocol.name} takes no threshold")
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        raise DataError(f"a scale of {scale:g}, expected a number above 0")
    if threshold is not None and not 0 <= threshold <= 1:
        raise DataError(f"a threshold of {threshold:g}, expected between 0 and 1")


def _check_sizes(protocol: Protocol, groups: Groups) -> None:
    other = groups.sizes[groups.sizes != 2]
    if protocol.pairs_only and len(other):
        raise DataError(f"{protocol.name} is for two images, but a choice has {int(other[0])}")
