"""Pairs of labels: a preferred and a rejected image of one group, for methods that compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from palate.errors import DataError

PAIR: Final = "pair"


@dataclass(frozen=True, slots=True)
class Pairing:
    """The pairs of some rows, as (preferred, rejected) places, and what made none."""

    pairs: list[tuple[int, int]]
    ties: int
    """Pairs that were left out because both images have the same score."""
    alone: int
    """Images without a partner in their group."""


def pair_up(rows: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], Pairing]:
    """Pair every preferred image with every rejected one of its group; give the rows that are in a pair.

    Two images with the same score are a tie, which says nothing, and are left out and counted.

    Raises:
        DataError: no pair at all, or two captions within a pair: a comparison is about one prompt.
    """
    groups: dict[str, dict[str, list[int]]] = {}
    for number, row in enumerate(rows):
        sides = groups.setdefault(row["group"], {"preferred": [], "rejected": []})
        sides[row["role"]].append(number)
    found: list[tuple[int, int]] = []
    ties = 0
    for group, sides in groups.items():
        for better in sides["preferred"]:
            for other in sides["rejected"]:
                one, two = rows[better], rows[other]
                if one["caption"] != two["caption"]:
                    raise DataError(
                        f"labels: group {group!r} has the captions {one['caption']!r} and {two['caption']!r}, "
                        "expected one caption for both images of a pair"
                    )
                if one["score"] is not None and one["score"] == two["score"]:
                    ties += 1
                else:
                    found.append((better, other))
    if not found:
        raise DataError(
            f"labels: no pair among {len(rows)} rows, expected groups with a preferred and a rejected image"
        )
    used = sorted({number for pair in found for number in pair})
    place = {number: new for new, number in enumerate(used)}
    pairs = [(place[better], place[other]) for better, other in found]
    return [dict(rows[number]) for number in used], Pairing(pairs, ties, len(rows) - len(used))
