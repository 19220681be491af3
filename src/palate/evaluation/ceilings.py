"""What people reach themselves on the choices that a scorer is measured on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pyarrow.compute as pc

from palate.evaluation.benchmarks import Benchmark
from palate.evaluation.published import Published, published_values
from palate.stats.agreements.answers import TIE, Answers, best_answers, pair_answers
from palate.stats.agreements.ceiling import Ceilings, human_ceilings
from palate.stats.intervals import Bootstrap
from palate.stats.protocols import PROTOCOLS, Protocol

Counts = Literal["pair", "choice"]

COUNTED: Final = {"pair": "order of two images", "choice": "best image"}
"""What a ceiling is the agreement on, by what the protocols beside it count."""

_PEOPLE: Final = ("human", "single human", "human expert")


@dataclass(frozen=True)
class HumanCeiling:
    """How far people agree on a data set and dimension, and so how high a scorer can rise.

    `counts` is what counts, as in the `protocols` that it stands beside: a pair of images, or the best of a
    choice. `ceilings` is None where there are none, and `reason` then says why. `notes` say in what its
    quantity is not that of a protocol. `published` was printed for people under one of the protocols.
    """

    data: str
    benchmark: str
    dimension: str
    counts: Counts
    protocols: tuple[str, ...]
    ceilings: Ceilings | None
    reason: str
    notes: tuple[str, ...]
    published: tuple[Published, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "data": self.data,
            "benchmark": self.benchmark,
            "dimension": self.dimension,
            "of": COUNTED[self.counts],
            "protocols": list(self.protocols),
            "ceilings": None if self.ceilings is None else self.ceilings.to_dict(),
            "reason": self.reason,
            "notes": list(self.notes),
            "published": [one.to_dict() for one in self.published],
        }

    def rows(self) -> list[tuple[str, float, float, float, int]]:
        """Name, share, the bounds of its interval and the answers it is made of; none if there are none."""
        if self.ceilings is None:
            return []
        found = []
        for name, one in (
            ("one person against one other", self.ceilings.pair),
            ("one person against the rest", self.ceilings.rest),
            ("one person against everybody", self.ceilings.majority),
        ):
            its = one.estimate
            found.append((name, its.value, its.low, its.high, its.count))
        perfect = self.ceilings.perfect
        for word in ("lowest", "likely", "highest"):
            bounds = getattr(perfect, word)
            if bounds is not None:
                told = (bounds.value, bounds.low, bounds.high, perfect.agreement.count)
                found.append((f"perfect scorer, {word}", *told))
        return found


def ceilings_of(
    where: tuple[str, str], choices: Any, benchmark: Benchmark, bootstrap: Bootstrap
) -> Iterator[HumanCeiling]:
    """Measure what people reach on choices of one dimension, for pairs, best images or both.

    `choices` is the table with each person's own answers, before any are made into an agreed ranking. A
    benchmark is measured in what its protocols count, so that accuracy and ceiling are of one kind.
    """
    protocols = [PROTOCOLS[name] for name in (benchmark.protocol, *benchmark.also)]
    for counts in dict.fromkeys(protocol.counts for protocol in protocols):
        beside = [protocol for protocol in protocols if protocol.counts == counts]
        ceilings, answers, reason = _measured(choices, counts, bootstrap)
        yield HumanCeiling(
            data=where[0],
            benchmark=benchmark.name,
            dimension=where[1],
            counts=counts,
            protocols=tuple(protocol.name for protocol in beside),
            ceilings=ceilings,
            reason=reason,
            notes=() if answers is None else tuple(_notes(beside, answers, choices, benchmark)),
            published=tuple(_published(beside, benchmark, where[1])),
        )


def _measured(
    choices: Any, counts: Counts, bootstrap: Bootstrap
) -> tuple[Ceilings | None, Answers | None, str]:
    """The ceilings with the answers that they are made of, or why there are none."""
    named = choices.filter(pc.is_valid(choices.column("annotator")))
    if not len(named):
        return None, None, "the choices name no annotators"
    answers = pair_answers(named) if counts == "pair" else best_answers(named)
    items = answers.without_ties().items
    if not len(items) or np.bincount(items).max() < 2:
        return None, None, "no question was decided by two annotators"
    return human_ceilings(answers, bootstrap=bootstrap), answers, ""


def _notes(
    protocols: Sequence[Protocol], answers: Answers, choices: Any, benchmark: Benchmark
) -> Iterator[str]:
    """In what the ceilings are not of the quantity that the protocols measure."""
    if benchmark.agreed:
        yield (
            "people are held against people, scorers against the ranking that was agreed on, which a "
            "perfect scorer matches"
        )
    macro = [one.name for one in protocols if one.average == "per choice"]
    if macro:
        yield f"pairs are pooled, not averaged within each ranking first as in {_and(macro)}"
    ties = [one.name for one in protocols if one.human_ties != "drop"]
    tied = answers.left_out if answers.kind == "best" else int((answers.values == TIE).sum())
    if ties and tied:
        what = "choices with several best images" if answers.kind == "best" else "ties of people"
        yield f"{tied:,} {what} are left out, which count in {_and(ties)}"
    sizes = np.unique(answers.options)
    if answers.kind == "best" and len(sizes) > 1:
        yield f"the perfect scorer's highest bound is that of {sizes[-1]} images"
    unnamed = choices.column("annotator").null_count
    if unnamed:
        yield f"{unnamed:,} choices without an annotator are left out"


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)


def _published(
    protocols: Sequence[Protocol], benchmark: Benchmark, dimension: str
) -> Iterator[Published]:
    """What was printed for people under the protocols; printed accuracies are of the overall choice."""
    if benchmark.published is None or dimension != "overall":
        return
    for protocol in protocols:
        for one in published_values(benchmark.published, protocol=protocol.name):
            if one.name in _PEOPLE:
                yield one
