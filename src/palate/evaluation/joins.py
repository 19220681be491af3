"""Bring scores to the choices and prompts that they belong to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.data.checks import list_lengths
from palate.data.codes import rows_of, text_codes, text_hashes
from palate.errors import DataError


def one_scorer(scores: Any, wanted: str | None) -> Any:
    """Return the rows of the wanted scorer; raise unless they are of one scorer and fingerprint."""
    if not len(scores):
        raise DataError("the table of scores is empty")
    if wanted is not None:
        names = scores.column("scorer").unique().to_pylist()
        scores = scores.filter(pc.equal(scores.column("scorer"), wanted))
        if not len(scores):
            raise DataError(f"no scores by {wanted!r}; there are scores by {', '.join(names)}")
    names = ["scorer", "fingerprint"]
    if all(len(scores.column(name).unique()) == 1 for name in names):
        return scores
    kinds = scores.select(names).group_by(names).aggregate([]).to_pylist()
    if len(kinds) > 1:
        told = ", ".join(f"{kind['scorer']} ({kind['fingerprint'][:12]})" for kind in kinds)
        raise DataError(f"the scores are of {len(kinds)} scorers, expected one: {told}")
    return scores


def values_of_choices(choices: Any, scores: Any) -> NDArray[np.float64]:
    """Score of every image of every choice, flat; not a number where there is none.

    A score is found by the hash of its image, prompt and, where there are several, dimension (`text_hashes`).
    """
    lengths = list_lengths(choices.column("images"))
    asked: Any = text_hashes(choices.column("prompt"))
    given: Any = text_hashes(scores.column("prompt"))
    if len(scores.column("dimension").unique()) > 1:
        asked = text_hashes(choices.column("dimension"), asked)
        given = text_hashes(scores.column("dimension"), given)
    wanted = text_hashes(pc.list_flatten(choices.column("images")), np.repeat(asked, lengths))
    rows = rows_of(wanted, text_hashes(scores.column("image"), given))
    values = scores.column("value").to_numpy()
    return np.append(values, np.nan)[rows]


def scored_choices(
    choices: Any, values: NDArray[np.float64], scores: Any, missing: str
) -> NDArray[np.bool_]:
    """Which choices have a score for every image; raise for the others if asked to."""
    lengths = list_lengths(choices.column("images"))
    owner = np.repeat(np.arange(len(choices)), lengths)
    kept = np.ones(len(choices), dtype=bool)
    kept[owner[np.isnan(values)]] = False
    if kept.all():
        return kept
    row = int(np.argmin(kept))
    choice = choices.slice(row, 1).to_pylist()[0]
    start = int(lengths[:row].sum())
    image = choice["images"][int(np.argmax(np.isnan(values[start : start + lengths[row]])))]
    count = int((~kept).sum())
    told = f"{count} of {len(kept)} choices have an image without a score"
    if not kept.any() or missing == "fail":
        reason = _reason(scores, image, choice["prompt"])
        raise DataError(f"{told}, first choice {choice['choice']!r}: image {image!r} {reason}")
    return kept


def _reason(scores: Any, image: str, prompt: str) -> str:
    rows = scores.filter(pc.equal(scores.column("image"), image)).to_pylist()
    if not rows:
        return "is not in the table of scores"
    own = [row for row in rows if row["prompt"] == prompt]
    if not own:
        return f"was scored with another prompt, {rows[0]['prompt'][:40]!r}"
    error = own[0]["error"]
    return "has no score on this dimension" if error is None else f"could not be scored: {error}"


def prompt_codes(choices: Any) -> NDArray[np.int64]:
    """Number the prompts of choices in sorted order, whatever the order of the rows."""
    return text_codes(choices.column("prompt"))
