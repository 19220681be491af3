"""What two data sets share that should not: prompts, images, and images that look the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from palate.data.audit.columns import Columns, Numbers, names, plain_text
from palate.data.audit.files import Files, pictures
from palate.data.audit.findings import Finding, Level, Strip
from palate.data.audit.phash import near_pairs

Flags = NDArray[np.bool_]
_SHOWN: Final = 3


@dataclass(frozen=True)
class Leak:
    """How much of one kind the audited set shares with the set `against`.

    `there` of `of_there` prompts (or images) of the other set stand `here` too, of `of_here`;
    `choices` of `of_choices` of the other set's choices show one of them.
    """

    against: str
    kind: str
    here: int
    of_here: int
    there: int
    of_there: int
    choices: int
    of_choices: int


@dataclass(frozen=True, eq=False)
class Side:
    """A data set, what it is called, and what was seen of its files."""

    name: str
    columns: Columns
    files: Files


_TOLD: Final[dict[str, tuple[Level, str]]] = {
    "shared prompts": ("warning", "prompts of {0} stand here too"),
    "respelled shared prompts": (
        "warning",
        "prompts of {0} stand here too, but for case or spaces",
    ),
    "shared images": ("warning", "images of {0} stand here too, byte for byte"),
    "nearly shared images": ("warning", "images of {0} look nearly like one here"),
    "shared image names": (
        "note",
        "images of {0} have the name of one here, and nobody can tell whether they are the same",
    ),
}


def leaks_between(
    here: Side, there: Side, distance: int
) -> tuple[list[Leak], list[Finding], list[Strip]]:
    """Find what the other set shares with the audited one; every kind is in the result, also with 0."""
    exact, plain = _shared_prompts(here.columns, there.columns)
    same, near, named = _shared_images(here, there, distance)
    leaks, found, strips = [], [], []
    for kind, (mine, theirs, partner), prompts in (
        ("shared prompts", exact, True),
        ("respelled shared prompts", plain, True),
        ("shared images", same, False),
        ("nearly shared images", near, False),
        ("shared image names", named, False),
    ):
        leak = _leak(kind, here.columns, there, mine, theirs, prompts=prompts)
        leaks.append(leak)
        if not leak.there:
            continue
        cases = np.flatnonzero(theirs)
        found.append(_finding(leak, here, there, cases, partner, prompts=prompts))
        if not prompts and kind != "shared image names":
            strips += [_strip(kind, here, there, k, partner) for k in cases[:_SHOWN].tolist()]
    return leaks, found, strips


_Shared = tuple[Flags, Flags, Callable[[int], int]]


def _shared_prompts(here: Columns, there: Columns) -> tuple[_Shared, _Shared]:
    mine, theirs = here.prompts.to_pylist(), there.prompts.to_pylist()
    place = {text: k for k, text in enumerate(mine)}
    exact = np.array([text in place for text in theirs], np.bool_)
    known = set(theirs)
    plain_place = {plain_text(text): k for k, text in enumerate(mine)}
    plain_theirs = [plain_text(text) for text in theirs]
    plain = np.array([text in plain_place for text in plain_theirs], np.bool_) & ~exact
    respelled = {text for text, hit in zip(plain_theirs, plain, strict=True) if hit}
    here_exact = np.array([text in known for text in mine], np.bool_)
    here_plain = np.array([plain_text(text) in respelled for text in mine], np.bool_) & ~here_exact
    return (
        (here_exact, exact, lambda k: place[theirs[k]]),
        (here_plain, plain, lambda k: plain_place[plain_theirs[k]]),
    )


def _shared_images(here: Side, there: Side, distance: int) -> tuple[_Shared, _Shared, _Shared]:
    same = _matches(here, there, [there.files.hashes, here.files.hashes])
    near_here, near_there, partners = _near(here.files, there.files, distance, same[0], same[1])
    named = _same_names(here, there)
    return same, (near_here, near_there, lambda k: partners[k]), named


def _matches(here: Side, there: Side, hashes: list[list[str]]) -> _Shared:
    theirs, mine = hashes
    place = {text: k for k, text in enumerate(mine)}
    partner = np.array([place.get(text, -1) for text in theirs] + [-1], np.int64)
    shared_there = partner[there.files.content]
    shared_here = np.isin(here.files.content, partner[partner >= 0])
    first = np.full(len(mine) + 1, -1, np.int64)
    first[here.files.content[::-1]] = np.arange(len(here.files.content))[::-1]
    return shared_here, shared_there >= 0, lambda k: int(first[shared_there[k]])


def _near(
    here: Files, there: Files, distance: int, same_here: Flags, same_there: Flags
) -> tuple[Flags, Flags, dict[int, int]]:
    """Images that look like one of the other set, and are not found there byte for byte."""
    mine, places = np.unique(here.look[here.looked], return_inverse=True)
    theirs, their_places = np.unique(there.look[there.looked], return_inverse=True)
    pairs, _ = near_pairs(mine, distance, theirs)
    hit_here, hit_there = np.zeros(len(here.look), np.bool_), np.zeros(len(there.look), np.bool_)
    hit_here[here.looked] = np.isin(places, pairs[:, 0])
    hit_there[there.looked] = np.isin(their_places, pairs[:, 1])
    partner = np.full(len(theirs) + 1, -1, np.int64)
    partner[pairs[:, 1]] = np.flatnonzero(here.looked)[
        _first_places(places, len(mine))[pairs[:, 0]]
    ]
    numbers = np.flatnonzero(there.looked)
    found = dict(zip(numbers.tolist(), partner[their_places].tolist(), strict=True))
    return hit_here & ~same_here, hit_there & ~same_there, found


def _first_places(numbers: NDArray[np.intp], count: int) -> Numbers:
    first = np.zeros(count, np.int64)
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]
    return first


def _same_names(here: Side, there: Side) -> _Shared:
    """Images of one name of which the content of one is unknown."""
    mine, theirs = here.columns.images.to_pylist(), there.columns.images.to_pylist()
    place = {key: k for k, key in enumerate(mine)}
    partner = np.array([place.get(key, -1) for key in theirs], np.int64)
    unknown = there.files.content < 0
    if len(mine):
        unknown |= here.files.content[partner] < 0
    shared = (partner >= 0) & unknown
    hit_here = np.zeros(len(mine), np.bool_)
    hit_here[partner[shared]] = True
    return hit_here, shared, lambda k: int(partner[k])


def _leak(
    kind: str, here: Columns, there: Side, mine: Flags, theirs: Flags, *, prompts: bool
) -> Leak:
    columns = there.columns
    touched = (
        theirs[columns.prompt]
        if prompts
        else np.bincount(columns.owner[theirs[columns.image]], minlength=len(columns.lengths)) > 0
    )
    return Leak(
        against=there.name,
        kind=kind,
        here=int(mine.sum()),
        of_here=len(here.prompts if prompts else here.images),
        there=int(theirs.sum()),
        of_there=len(theirs),
        choices=int(touched.sum()),
        of_choices=len(columns.lengths),
    )


def _finding(
    leak: Leak,
    here: Side,
    there: Side,
    cases: Numbers,
    partner: Callable[[int], int],
    *,
    prompts: bool,
) -> Finding:
    level, told = _TOLD[leak.kind]
    what = "prompts" if prompts else "images"
    message = f"of {leak.of_there} {told.format(there.name)} ({leak.there / leak.of_there:.1%})"
    if leak.of_choices:
        message += f", in {leak.choices} of its {leak.of_choices} choices"
    message += f"; here they are {leak.here} of {leak.of_here} {what}"
    theirs, mine = (
        (there.columns.prompts, here.columns.prompts)
        if prompts
        else (there.columns.images, here.columns.images)
    )
    first = cases[:5].tolist()
    examples = names(theirs, first)
    if leak.kind not in {"shared prompts", "shared image names"}:
        partners = names(mine, [partner(k) for k in first])
        sign = "≈" if leak.kind == "nearly shared images" else "="
        examples = [
            f"{a!r} {sign} {b!r}" if prompts else f"{there.name}: {a} {sign} {b}"
            for a, b in zip(examples, partners, strict=True)
        ]
    return Finding.counted(level, leak.kind, leak.there, examples, message)


def _strip(kind: str, here: Side, there: Side, case: int, partner: Callable[[int], int]) -> Strip:
    theirs = pictures(there.columns, [case])
    mine = pictures(here.columns, [partner(case)])
    title = f"left in {there.name}, right here"
    return Strip(kind, title, theirs + mine)
