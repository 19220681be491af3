"""What an audit says about prompts: how often each was asked, and how long they are."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from palate.data.audit.answers import FEW, MANY
from palate.data.audit.columns import Columns, Numbers, names, plain_text
from palate.data.audit.findings import Finding

LIMITS: Final = {"CLIP": 77, "BLIP": 35}
"""Tokens that a text encoder reads, the start and the end token included."""

_TOP: Final = 5
_BINS: Final = 24
# Runs of letters, single digits and runs of anything else: CLIP cuts there and never joins.
_CLIP_WORDS = re.compile(r"[^\W\d_]+|\d|(?:[^\w\s]|_)+")
# BERT cuts at spaces and at every ASCII punctuation mark; a word has a letter or a digit.
_BERT_WORDS = re.compile(r"[!-/:-@\[-`{-~]|[^ \t\n\r!-/:-@\[-`{-~]*\w[^ \t\n\r!-/:-@\[-`{-~]*")


@dataclass(frozen=True)
class Prompts:
    """How often prompts were asked, or have images where nobody chose.

    `respelled` counts prompts that differ from another only in case or spaces. `histogram` holds,
    for every number of rows, how many prompts have it; `top` the prompts with most rows.
    """

    rows: str
    distinct: int
    respelled: int
    repeated: int
    median: float
    mean: float
    largest: int
    histogram: tuple[tuple[int, int], ...]
    top: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Lengths:
    """How long prompts are for one text encoder, in tokens with start and end.

    `exact` says whether a vocabulary counted them. If not, the numbers are **estimates from
    below**: every word, digit and run of marks is at least one token, and rare words are several.
    `over` counts prompts longer than `limit`, and `rows_over` the choices (or images) with them.
    `histogram` holds the first number of each bin and how many prompts are in it.
    """

    encoder: str
    limit: int
    exact: bool
    prompts: int
    over: int
    rows: int
    rows_over: int
    median: float
    longest: int
    histogram: tuple[tuple[int, int], ...]


def prompt_facts(columns: Columns) -> tuple[Prompts | None, list[Finding]]:
    """Count the rows of every prompt; find prompts that dominate, and prompts in two spellings."""
    asked, what = _asked(columns)
    if not len(asked):
        return None, []
    rows = np.bincount(asked, minlength=len(columns.prompts))
    used = np.flatnonzero(rows)
    counts = rows[used]
    spelled = _respelled(columns)
    sizes, times = np.unique(counts, return_counts=True)
    top = used[np.argsort(-counts, kind="stable")[:_TOP]]
    facts = Prompts(
        rows=what,
        distinct=len(used),
        respelled=sum(len(same) - 1 for same in spelled),
        repeated=int((counts > 1).sum()),
        median=float(np.median(counts)),
        mean=float(counts.mean()),
        largest=int(counts.max()),
        histogram=tuple(zip(sizes.tolist(), times.tolist(), strict=True)),
        top=tuple(zip(names(columns.prompts, top), rows[top].tolist(), strict=True)),
    )
    found = []
    limit = max(MANY, 3 / len(used)) * len(asked) if len(used) >= FEW else len(asked)
    many = used[counts > limit]
    if len(many):
        told = [
            f"{name!r}: {rows[k]:,} of {len(asked):,}"
            for name, k in zip(names(columns.prompts, many), many, strict=True)
        ]
        message = f"prompts have more than {limit / len(asked):.0%} of all {what}"
        found.append(Finding.of("warning", "dominating prompts", told, message))
    if spelled:
        told = [" = ".join(repr(text) for text in same[:2]) for same in spelled]
        message = "prompts are written in several ways that differ only in case or spaces"
        found.append(Finding.of("note", "respelled prompts", told, message))
    return facts, found


def _asked(columns: Columns) -> tuple[Numbers, str]:
    """Prompt of every choice, or of every image where nobody chose."""
    if len(columns.prompt):
        return columns.prompt, "choices"
    return columns.prompt_rows, "images"


def _respelled(columns: Columns) -> list[list[str]]:
    same: dict[str, list[str]] = {}
    for text in columns.prompts.to_pylist():
        same.setdefault(plain_text(text), []).append(text)
    return [texts for texts in same.values() if len(texts) > 1]


def prompt_lengths(
    columns: Columns, counters: Mapping[str, Callable[[str], int]]
) -> tuple[tuple[Lengths, ...], list[Finding]]:
    """Measure every prompt for CLIP and BLIP, exactly where there is a counter of tokens."""
    texts = columns.prompts.to_pylist()
    asked, what = _asked(columns)
    rows = np.bincount(asked, minlength=len(texts))
    facts, found = [], []
    for encoder, limit in LIMITS.items():
        if not texts:
            continue
        count = counters.get(encoder, _ESTIMATES[encoder])
        tokens = np.fromiter((count(text) for text in texts), np.int64, len(texts))
        over = np.flatnonzero(tokens > limit)
        lengths = Lengths(
            encoder=encoder,
            limit=limit,
            exact=encoder in counters,
            prompts=len(texts),
            over=len(over),
            rows=len(asked),
            rows_over=int(rows[over].sum()),
            median=float(np.median(tokens)),
            longest=int(tokens.max()),
            histogram=_histogram(tokens),
        )
        facts.append(lengths)
        if len(over):
            first = over[:5]
            told = [
                f"{tokens[k]} tokens: {text}"
                for k, text in zip(first, names(columns.prompts, first), strict=True)
            ]
            message = _over(lengths, what)
            found.append(Finding.counted("note", "long prompts", len(over), told, message))
    return tuple(facts), found


def _over(lengths: Lengths, what: str) -> str:
    how = "" if lengths.exact else " (estimated from below: no vocabulary was given)"
    return (
        f"of {lengths.prompts} prompts ({lengths.over / lengths.prompts:.1%}), in "
        f"{lengths.rows_over / max(1, lengths.rows):.1%} of the {what}, have more than "
        f"{lengths.limit} tokens for {lengths.encoder}, which does not read the rest{how}"
    )


def _histogram(tokens: Numbers) -> tuple[tuple[int, int], ...]:
    step = max(1, -(-int(tokens.max() + 1) // _BINS))
    counts = np.bincount(tokens // step)
    return tuple((k * step, int(count)) for k, count in enumerate(counts.tolist()))


def estimate_clip(prompt: str) -> int:
    """At least so many tokens does CLIP make of a prompt, the start and the end token included.

    >>> estimate_clip("a fox, 4 k")
    7
    """
    if "&" in prompt:
        # CLIP resolves entities twice
        prompt = html.unescape(html.unescape(prompt))
    return 2 + len(_CLIP_WORDS.findall(prompt))


def estimate_blip(prompt: str) -> int:
    """At least so many word pieces does BLIP make of a prompt, the start and the end token included.

    >>> estimate_blip("a fox, 4k")
    6
    """
    return 2 + len(_BERT_WORDS.findall(prompt))


_ESTIMATES: Final = {"CLIP": estimate_clip, "BLIP": estimate_blip}
