"""The scores that `label` reads: of one scorer, in a unit it understands, each of a known image."""

from __future__ import annotations

from typing import Any, Final

import pyarrow.compute as pc

from palate.errors import DataError

COSINES: Final = {"cosine": 1.0, "hps": 0.01}
"""Units that the rule understands, and what one of each is as a cosine."""


def choose_scores(scores: Any, images: Any, scorer: str | None, dimension: str | None) -> Any:
    """Keep the rows of the one scorer and dimension that are meant; refuse to mix several.

    Raises:
        DataError: several scorers, dimensions, versions or units are left, or none; another unit; an
            image that is not in the images table, or is there with several prompts.
    """
    chosen = scores
    for name, wanted in (("scorer", scorer), ("dimension", dimension)):
        if wanted is not None:
            found = chosen[name].unique().to_pylist()
            chosen = chosen.filter(pc.equal(chosen[name], wanted))
            if not len(chosen):
                raise DataError(f"scores: no {name} {wanted!r}, there is {_list(found)}")
    for name in ("scorer", "dimension", "fingerprint", "unit"):
        only(chosen, name)
    unit = only(chosen, "unit") or "cosine"
    if unit not in COSINES:
        raise DataError(f"scores: unit {unit!r}, expected {_list(list(COSINES))}")
    _check_images(chosen, images)
    return chosen


def only(table: Any, name: str) -> str | None:
    """Return the one value of a column, None for an empty table; refuse several."""
    values = table[name].unique().to_pylist()
    if len(values) > 1:
        raise DataError(f"scores: several values of {name} ({_list(values)}), expected one; choose")
    return values[0] if values else None


def _list(values: list[str]) -> str:
    return ", ".join(repr(value) for value in sorted(values)[:5]) or "nothing"


def _check_images(scores: Any, images: Any) -> None:
    known = pc.is_in(scores["image"], value_set=images["image"].combine_chunks())
    missing = scores.filter(pc.invert(known))["image"].unique().to_pylist()
    if missing:
        raise DataError(
            f"scores: {len(missing)} images that the images table does not have, such as {missing[0]!r}"
        )
    counts = scores["image"].value_counts()
    several = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()
    if several:
        raise DataError(
            f"scores: {len(several)} images were scored with several prompts, such as "
            f"{several[0]!r}, expected one prompt, which is the image's group"
        )
