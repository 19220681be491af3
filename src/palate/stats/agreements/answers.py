"""Answers as items and people: the same question put to several people, ready for agreement.

A choices table has one row per answer. Agreement needs to know which answers are to the same question:
the same prompt, the same dimension and the same set of images, in whatever order they were shown.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.data.audit.columns import sums_of
from palate.data.checks import list_lengths
from palate.data.codes import dense_codes, key_codes, mixed, order_of, text_codes
from palate.data.records import Choice
from palate.data.tables import to_rows
from palate.errors import DataError
from palate.stats.agreements.units import NothingToCompareError
from palate.stats.answered import answered_duels
from palate.stats.opinions import _numbers

__all__ = ["TIE", "Answers", "best_answers", "pair_answers", "rank_answers", "rating_answers"]

_WIDE: Final = 1 << 31
_MOST: Final = 1 << 62

TIE: Final = 0.5
"""The value of a pair that a person does not put in order."""

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Answers in long form: columns of one length, one entry per answer of one person to one item.

    `items`, `prompts` and `raters` are numbers; `raters` is -1 where the person is unknown, and points
    into `people` elsewhere. `values` is what was answered, in the way `kind` says: "pair" (1 where the
    image with the lower key is better, 0 where the other is, 0.5 for a tie), "best" (the place of the
    best image when the images are sorted by key, from 0), "rating" (the number given) or "rank" (the place
    of an image in the ranking, from 0 for the best to 1 for the last, equal ones in their middle).
    `options` is how many answers there were to choose from, 0 for ratings and ranks. `left_out` counts
    what has no value, `repeats` further answers by the same person to the same item, and `silent` pairs
    of images that nobody picked, which say nothing.
    """

    items: Numbers
    values: Floats
    raters: Numbers
    prompts: Numbers
    options: Numbers
    people: tuple[str, ...]
    kind: str
    left_out: int
    repeats: int
    silent: int = 0

    @property
    def ties(self) -> int:
        """How many answers to pairs put neither image first."""
        return int((self.values == TIE).sum()) if self.kind == "pair" else 0

    def __len__(self) -> int:
        """Return the number of answers."""
        return len(self.items)

    def without_ties(self) -> Answers:
        """Return the answers that decide; ties of pairs count as left out."""
        if self.kind != "pair":
            return self
        return self._where(self.values != TIE)

    def _where(self, kept: NDArray[np.bool_]) -> Answers:
        return replace(
            self,
            items=self.items[kept],
            values=self.values[kept],
            raters=self.raters[kept],
            prompts=self.prompts[kept],
            options=self.options[kept],
            left_out=self.left_out + int((~kept).sum()),
        )


def pair_answers(choices: Any, *, dimension: str | None = None, same_set: bool = True) -> Answers:
    """Take choices apart into pairs of images; an item is one pair as people judged it.

    `choices` is a table and `dimension` keeps one of its dimensions (None: all, each with items of its
    own). With `same_set`, people judged the same pair only if the whole set of images that they saw was
    the same; without, a pair is the same in any company. Of several answers by one person to one item
    that with the lowest choice key counts. Two images below the best of a pick were not compared, and
    count as `silent`. Raises `DataError` where no choice is left.
    """
    kept = _of(choices, dimension)
    table, answered = _Coded(kept), answered_duels(kept)
    pairs = answered.duels
    group, left, right = (
        column[answered.kept] for column in (pairs.choice, pairs.first_index, pairs.second_index)
    )
    swapped = table.place[left] > table.place[right]
    left, right = np.where(swapped, right, left), np.where(swapped, left, right)
    values: Floats = (np.sign(table.ranks[right] - table.ranks[left]) + 1) * 0.5
    codes = [table.prompt, table.dimension, *([table.image_set] if same_set else [])]
    keys = [code[group] for code in codes]
    items = _joint([*keys, table.place[left], table.place[right]])
    found = table.answers("pair", group, items, values, np.full(len(group), 2), 0)
    return replace(found, silent=answered.silent)


def best_answers(choices: Any, *, dimension: str | None = None) -> Answers:
    """Take the best image of every choice; an item is a prompt, a dimension and a set of images.

    Choices that put several images first name no best one: they are left out and counted. The places
    that stand for the images are arbitrary, so by chance two people name the same image once in
    `options` answers; a coefficient that is corrected for the shares of its categories says no more.
    """
    table = _Coded(_of(choices, dimension))
    owner = np.repeat(np.arange(len(table.lengths)), table.lengths)
    best = table.ranks == np.minimum.reduceat(table.ranks, table.starts)[owner]
    alone = np.bincount(owner[best], minlength=len(table.lengths)) == 1
    chosen = np.flatnonzero(best & alone[owner])
    rows = owner[chosen]
    # the place among the images of the choice, sorted by key
    order = np.lexsort((table.place, owner))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - table.starts[owner[order]]
    items = _joint([table.prompt[rows], table.dimension[rows], table.image_set[rows]])
    lost = int((~alone).sum())
    values = rank[chosen].astype(np.float64)
    return table.answers("best", rows, items, values, table.lengths[rows], lost)


def rank_answers(choices: Any, *, dimension: str | None = None) -> Answers:
    """Take the rankings of more than two images; an item is an image of a question, its value a place.

    The place runs from 0 for the best to 1 for the last, whatever the number of images; equal ranks share
    their middle place. Picks of the best have no more than two levels: they are left out and counted.
    Raises `DataError` where no ranking is left.
    """
    kept = _of(choices, dimension)
    picks = answered_duels(kept).picks
    long = (list_lengths(kept.column("images")) > 2) & ~picks
    if not long.any():
        raise NothingToCompareError(f"none of {len(kept):,} choices ranks more than two images")
    table = _Coded(kept.filter(pa.array(long)))
    owner = np.repeat(np.arange(len(table.lengths)), table.lengths)
    values = _middle_places(table.ranks, owner, table.lengths)
    codes = (table.prompt, table.dimension, table.image_set)
    items = _joint([*(code[owner] for code in codes), table.place])
    return table.answers(
        "rank", owner, items, values, np.zeros(len(owner), np.int64), int((~long).sum())
    )


def rating_answers(choices: Any, *, dimension: str | None = None) -> Answers:
    """Take the ratings in the details of choices; an item is an image, its prompt and a dimension.

    A rating of an image counts once per person, in however many choices it stands. Choices without
    ratings are left out and counted. Raises `DataError` where no rating is left, and where a person
    rated an image in two ways.
    """
    given: dict[tuple[str, str, str, str], float] = {}
    left_out = repeats = 0
    for choice in to_rows(_of(choices, dimension), Choice):
        facts = json.loads(choice.details) if choice.details else {}
        if "ratings" not in facts:
            left_out += 1
            continue
        # an unknown person is another one in every choice; no name starts with this sign
        who = "\0" + choice.choice if choice.annotator is None else choice.annotator
        values = _numbers(choice, "ratings", facts["ratings"])
        for image, value in zip(choice.images, values, strict=True):
            key = (choice.prompt, choice.dimension, image, who)
            repeats += key in given
            if given.setdefault(key, value) != value:
                raise DataError(
                    f"choice {choice.choice!r}: {who!r} rated {image!r} with {value:g} on "
                    f"{choice.dimension}, and with {given[key]:g} before"
                )
    if not given:
        raise NothingToCompareError(f"none of {left_out:,} choices holds ratings in its details")
    *where, who_column = (list(column) for column in zip(*given, strict=True))
    codes = [np.unique(column, return_inverse=True)[1] for column in where]
    people = sorted({name for name in who_column if not name.startswith("\0")})
    number = {name: k for k, name in enumerate(people)}
    return Answers(
        items=_joint(codes),
        values=np.array(list(given.values())),
        raters=np.array([number.get(name, -1) for name in who_column], np.int64),
        prompts=codes[0].astype(np.int64),
        options=np.zeros(len(given), np.int64),
        people=tuple(people),
        kind="rating",
        left_out=left_out,
        repeats=repeats,
    )


class _Coded:
    """Choices with every text as the number of its place in sorted order."""

    def __init__(self, choices: Any) -> None:
        self.lengths = list_lengths(choices.column("images"))
        if not np.array_equal(self.lengths, list_lengths(choices.column("ranks"))):
            raise DataError("a choice has another number of ranks than of images")
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)
        self.ranks = pc.list_flatten(choices.column("ranks")).to_numpy().astype(np.int64)
        self.place = key_codes(pc.list_flatten(choices.column("images")))
        self.prompt = text_codes(choices.column("prompt"))
        self.dimension = text_codes(choices.column("dimension"))
        self.raters = text_codes(choices.column("annotator"))
        people = choices.column("annotator").unique().drop_null().to_pylist()
        self.people = tuple(sorted(people))
        self.keys = choices.column("choice")
        self.image_set = sums_of(self.starts, mixed(self.place)).view(np.int64)

    def answers(
        self,
        kind: str,
        rows: Numbers,
        items: Numbers,
        values: Floats,
        options: Numbers,
        left_out: int,
    ) -> Answers:
        """Keep one answer per known person and item, in the order of the rows."""
        raters = self.raters[rows]
        strangers = raters < 0
        person = raters.copy()
        person[strangers] = len(self.people) + np.arange(int(strangers.sum()))
        place = items * (int(person.max(initial=0)) + 1) + person
        order = order_of(place)
        again = np.diff(place[order], prepend=-1) == 0
        if again.any():
            # of the answers of one person to one item, that with the lowest key stands first
            several = again | np.append(again[1:], np.False_)
            level = order[several]
            keys = key_codes(self.keys.take(pa.array(rows[level])))
            order[several] = level[np.lexsort((keys, place[level]))]
        kept = np.sort(order[~again])
        return Answers(
            items=items[kept],
            values=values[kept],
            raters=raters[kept],
            prompts=self.prompt[rows][kept],
            options=options[kept].astype(np.int64),
            people=self.people,
            kind=kind,
            left_out=left_out,
            repeats=int(again.sum()),
        )


def _middle_places(ranks: Numbers, owner: Numbers, lengths: Numbers) -> Floats:
    """Place of every image in its choice, from 0 to 1; equal ranks share the middle of theirs."""
    order = np.lexsort((ranks, owner))
    own, sorted_ranks = owner[order], ranks[order]
    fresh = (np.diff(own, prepend=-1) != 0) | (np.diff(sorted_ranks, prepend=-1) != 0)
    block = np.cumsum(fresh) - 1
    starts = np.cumsum(lengths) - lengths
    places = np.arange(len(order)) - starts[own]
    middle = np.bincount(block, weights=places) / np.bincount(block)
    found = np.empty(len(order))
    found[order] = middle[block] / (lengths[own] - 1)
    return found


def _of(choices: Any, dimension: str | None) -> Any:
    """Return the choices on one dimension."""
    kept = choices if dimension is None else choices.filter(pc.field("dimension") == dimension)
    if not len(kept):
        where = "" if dimension is None else f" on dimension {dimension!r}"
        raise DataError(f"there are no choices{where} to compare people by")
    return kept


def _joint(columns: list[NDArray[Any]]) -> Numbers:
    """Number the rows that differ in any column of whole numbers, in sorted order of the columns."""
    codes, size = np.zeros(len(columns[0]), np.int64), 1
    for column in columns:
        more, width = column, int(column.max(initial=0)) + 1
        if int(column.min(initial=0)) < 0 or width > _WIDE:
            more = dense_codes(column)
            width = int(more.max(initial=0)) + 1
        if size * width > _MOST:
            codes = dense_codes(codes)
            size = int(codes.max(initial=0)) + 1
        codes, size = codes * width + more, size * width
    return dense_codes(codes)
