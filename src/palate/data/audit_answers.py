"""What an audit says about answers: repeats, contradictions, odd annotators, places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from palate.data.findings import Finding
from palate.data.position import PositionBias
from palate.data.records import Choice

# probabilities below these are no accident, after dividing by the number of things looked at
_ODD: Final = 0.001
_UNEQUAL: Final = 0.05
_MANY: Final = 0.2
_FEW_PEOPLE: Final = 10


def answer_findings(choices: Sequence[Choice], prompts: Mapping[str, str]) -> list[Finding]:
    """Find odd answers. `prompts` holds the prompt of every known image."""
    found = [*_repeats(choices), *_annotators(choices)]
    tied = [row.choice for row in choices if len(set(row.ranks)) == 1]
    if tied:
        message = f"of {len(choices)} choices tie all their images"
        found.append(Finding.of("note", "all tied", tied, message))
    other = [
        row.choice
        for row in choices
        if any(prompts.get(key, row.prompt) != row.prompt for key in row.images)
    ]
    if other:
        message = "choices show an image under another prompt than its own"
        found.append(Finding.of("note", "other prompts", other, message))
    return found


def _repeats(choices: Sequence[Choice]) -> Iterator[Finding]:
    """The same person asked about the same images on the same dimension again."""
    asked: dict[tuple[object, ...], list[Choice]] = {}
    for row in choices:
        key = (row.annotator, row.prompt, row.dimension, tuple(sorted(row.images)))
        asked.setdefault(key, []).append(row)
    again = [rows for rows in asked.values() if len(rows) > 1 and rows[0].annotator is not None]
    same = [_pair(rows) for rows in again if len({_best(row) for row in rows}) == 1]
    contrary = [_pair(rows) for rows in again if len({_best(row) for row in rows}) > 1]
    if same:
        message = "questions were answered again by the same person, with the same best image"
        yield Finding.of("warning", "duplicate choices", same, message)
    if contrary:
        message = "questions were answered again by the same person, with another best image"
        yield Finding.of("warning", "contradictions", contrary, message)
    unknown = [_pair(r) for r in asked.values() if len(r) > 1 and r[0].annotator is None]
    if unknown:
        message = "questions were answered more than once by unknown people"
        yield Finding.of("note", "repeated questions", unknown, message)


def _pair(rows: Sequence[Choice]) -> str:
    return f"{rows[0].choice} and {rows[1].choice}"


def _best(row: Choice) -> frozenset[str]:
    best = min(row.ranks)
    return frozenset(key for key, rank in zip(row.images, row.ranks, strict=True) if rank == best)


def _annotators(choices: Sequence[Choice]) -> Iterator[Finding]:
    people: dict[str, list[Choice]] = {}
    for row in choices:
        if row.annotator is not None:
            people.setdefault(row.annotator, []).append(row)
    nameless = sum(row.annotator is None for row in choices)
    if nameless:
        message = f"{nameless} of {len(choices)} choices have no annotator"
        yield Finding("note", "unknown annotators", nameless, message, ())
    if len(people) > 1 and all(len(rows) == 1 for rows in people.values()):
        message = f"the {len(people)} annotators gave one choice each: they tell nobody apart"
        yield Finding("note", "one choice each", len(people), message, ())
    stuck = [told for name, rows in people.items() if (told := _stuck(name, rows, len(people)))]
    if stuck:
        message = "annotators pick one position far too often"
        yield Finding.of("warning", "one-position annotators", stuck, message)
    named = len(choices) - nameless
    share = max(_MANY, 3 / len(people)) if len(people) >= _FEW_PEOPLE else 1.0
    busy = [
        f"{name}: {len(rows)} of {named}"
        for name, rows in people.items()
        if len(rows) > share * named
    ]
    if busy:
        message = f"annotators gave more than {share:.0%} of all choices"
        yield Finding.of("warning", "dominating annotators", busy, message)
    undecided = [
        f"{name}: {len(rows)} choices"
        for name, rows in people.items()
        if len(rows) >= _FEW_PEOPLE and all(len(set(row.ranks)) == 1 for row in rows)
    ]
    if undecided:
        yield Finding.of("warning", "undecided annotators", undecided, "annotators tie everything")


def _stuck(name: str, rows: Sequence[Choice], people: int) -> str | None:
    """Name an annotator whose favourite position is no accident (binomial, Bonferroni)."""
    from scipy.special import betainc

    for slot, count, trials, chance in _favourites(rows):
        # the binomial tail: at least this many of all trials
        tail = betainc(count, trials - count + 1, chance) if count else 1.0
        if tail < _ODD / (2 * people):
            return f"{name}: the {slot} image in {count} of {trials}"
    return None


def _favourites(rows: Sequence[Choice]) -> Iterator[tuple[str, int, int, float]]:
    decided = [row for row in rows if len(_best(row)) == 1]
    if not decided:
        return
    chance = sum(1 / len(row.images) for row in decided) / len(decided)
    for slot, place in (("first", 0), ("last", -1)):
        count = sum(row.images[place] in _best(row) for row in decided)
        yield slot, count, len(decided), chance


def position_findings(position: PositionBias | None) -> Iterator[Finding]:
    """Say where places are not chosen equally often."""
    if position is None:
        return
    for slots in position.sizes:
        if slots.p_value < _UNEQUAL / len(position.sizes):
            told = ", ".join(f"{share.value:.1%}" for share in slots.shares)
            message = (
                f"with {slots.size} images the places are chosen in {told} of {slots.choices} "
                f"choices (equal shares: p = {slots.p_value:.1g})"
            )
            yield Finding("warning", "position bias", slots.choices, message, ())
    for name, by_place in (("first", position.always_first), ("last", position.always_last)):
        if by_place.low > position.chance:
            message = (
                f"always picking the {name} image is right in {by_place.value:.1%} "
                f"({by_place.low:.1%} to {by_place.high:.1%}), chance is {position.chance:.1%}"
            )
            yield Finding("warning", "position bias", position.choices, message, ())
