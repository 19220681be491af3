"""Images that are left out before prompts are compared: without a score, marked, or blurry."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from palate.adaptation.labelling.blur import BLUR_TESTS
from palate.data.audit.columns import detail_values
from palate.data.audit.images import MARKS as AUDIT_MARKS
from palate.data.images import open_image
from palate.data.sources.diffusion_db import BLURRED as BLURRED_BY_HOST
from palate.data.tables import image_path
from palate.errors import DataError
from palate.runs import track

MARKS: Final = (*AUDIT_MARKS, "flagged")
"""Details that mark an image; ``flagged`` is what `palate generate` notes of a blackened one."""

UNSAFE: Final = "marked as unsafe"
BLURRED: Final = "marked as blurred"
NO_SCORE: Final = "no score"
BLURRY: Final = "blurry"


def leave_out(
    scores: Any, images: Any, marks: dict[str, str], blur: str, folder: Path | None
) -> np.ndarray[Any, np.dtype[np.object_]]:
    """Say of each row of scores why it is left out before the comparison; "" where it is not.

    The first reason counts: no score, a mark of the source (see `find_marked`), then the blur test,
    which looks at the files of the rest only.
    """
    reasons = np.full(len(scores), "", dtype=object)
    keys = np.array(scores["image"].to_pylist(), dtype=object)
    reasons[~pc.is_valid(scores["value"]).to_numpy()] = NO_SCORE
    if marks:
        found = np.array([marks.get(key, "") for key in keys], dtype=object)
        reasons = np.where(reasons == "", found, reasons)
    rest = np.flatnonzero(reasons == "")
    if blur != "none" and len(rest):
        blurry = find_blurry(images, keys[rest].tolist(), blur, folder)
        reasons[[row for row in rest if keys[row] in blurry]] = BLURRY
    return reasons


def find_marked(images: Any, below: float) -> tuple[dict[str, str], int]:
    """Find the images that their source marks as unsafe or blurred, by key, with the reason.

    Marks are the details in `MARKS`: an amount from 0 to 1, true or false, or a list of amounts, of
    which the largest counts. An amount of ``below`` or more is unsafe. ``blurred``, or an
    ``image_nsfw`` of 2 (DiffusionDB), means that the host's filter blurred the picture.

    Returns:
        The reasons, and how many images carry any mark, safe ones too.

    Raises:
        DataError: a mark that is nothing of that.
    """
    found: dict[str, str] = {}
    marked: set[int] = set()
    keys = images["image"]
    for row, mark, value in detail_values(images["details"], MARKS):
        amount = _amount(value)
        if amount is None:
            raise DataError(
                f"image {keys[row].as_py()!r}: the mark {mark} is {value!r}, expected a number, "
                "or true or false"
            )
        marked.add(row)
        key = keys[row].as_py()
        if (mark == "blurred" and amount) or (mark == "image_nsfw" and amount == BLURRED_BY_HOST):
            found[key] = BLURRED
        elif mark != "blurred" and amount >= below:
            found.setdefault(key, UNSAFE)
    return found, len(marked)


def _amount(value: Any) -> float | None:
    if isinstance(value, list):
        amounts = [_amount(item) for item in value]
        known = [amount for amount in amounts if amount is not None]
        return max(known) if known and len(known) == len(amounts) else None
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return float(value)
    return None


def find_blurry(images: Any, keys: Collection[str], blur: str, folder: Path | None) -> set[str]:
    """Find the blurry images among ``keys`` by a test of `BLUR_TESTS`, or as the table has them.

    ``recorded`` reads the detail ``blurry`` of each image and opens no file.

    Raises:
        DataError: an image without a file, or, for ``recorded``, without that detail.
    """
    known = images.filter(pc.is_in(images["image"], value_set=pa.array(list(keys), pa.string())))
    if blur == "recorded":
        said = {row: value for row, _, value in detail_values(known["details"], ["blurry"])}
        names = known["image"].to_pylist()
        for row, name in enumerate(names):
            if not isinstance(said.get(row), bool):
                raise DataError(f"image {name!r}: no detail 'blurry', true or false, as expected")
        return {name for row, name in enumerate(names) if said[row]}
    if folder is None:
        raise DataError(f"blur is '{blur}', which needs the folder of the images table")
    if without := known.filter(pc.is_null(known["path"]))["image"].to_pylist():
        raise DataError(
            f"{len(without)} images have no file in the table, such as {without[0]!r}, which the "
            "blur test would open; --blur none leaves it out"
        )
    test = BLUR_TESTS[blur]
    rows = known.select(["image", "path"]).to_pylist()
    return {
        row["image"]
        for row in track(rows, "looking for blur")
        if test(np.asarray(open_image(image_path(row, folder))))
    }
