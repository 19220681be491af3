"""Labels from align_sd's annotations, and annotations from labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from palate.adaptation.labelling.align_sd import (
    ROLE_OF,
    TYPE_OF,
    Annotation,
    Caption,
    read_annotations,
    write_annotations,
    write_captions,
)
from palate.adaptation.labelling.outcomes import SHARES, Kept, Selection
from palate.adaptation.labelling.selection import draw
from palate.data.images import probe_image
from palate.data.records import Image, Label, json_text
from palate.data.tables import image_path, stored_path, to_table
from palate.errors import DataError

ANNOTATIONS = "annotation.jsonl"
CAPTIONS = "regularization_images.jsonl"


def read_annotated(
    path: Path, images: Any, folder: Path | None, shares: Mapping[str, float], seed: int
) -> tuple[Selection, Any]:
    """Read ``annotation.jsonl`` as labels; no rule is applied, only the shares are drawn.

    Args:
        path: the annotations; their ``file_name`` is looked for beside them.
        images: an images table that knows the files; each label then has its key. None takes the
            ``file_name`` as the key, and makes the table.
        folder: where that table lies.
        shares: by role, the share to keep.
        seed: of the draw.

    Returns:
        What was chosen, in the order of the file, and the images table; None if one was given.

    Raises:
        DataError: a bad line, or one whose file is not there or unknown, by its number.
    """
    known = None if images is None or folder is None else _keys_of_files(images, folder)
    rows: list[Kept] = []
    found: list[Image] = []
    for line, row in read_annotations(path):
        file = path.parent / row.file_name
        try:
            if known is None:
                image = _describe(row, file)
                found.append(image)
                key = image.image
            else:
                key = _known_key(known, file)
            label = Label(key, ROLE_OF[row.type], row.prompt, row.prompt)
        except DataError as fault:
            raise DataError(f"{path}, line {line}: {fault}") from None
        rows.append(Kept(label, row.confidence, row.batch_size))
    return _draw(rows, shares, seed), None if known is not None else to_table(found, "images")


def _draw(rows: Sequence[Kept], shares: Mapping[str, float], seed: int) -> Selection:
    outcomes = [row.label.role for row in rows]
    for role, share in shares.items():
        mine = [place for place, row in enumerate(rows) if row.label.role == role]
        stays = draw([rows[place].label.image for place in mine], share, seed, role)
        for place in set(range(len(mine))).difference(stays.tolist()):
            outcomes[mine[place]] = SHARES[role]
    columns = {
        "image": [row.label.image for row in rows],
        "prompt": [row.label.group for row in rows],
        "score": pa.nulls(len(rows), pa.float64()),
        "outcome": outcomes,
    }
    report = {
        "rule": "as annotated",
        "scorer": None,
        "images": len(rows),
        "labels": {role: outcomes.count(role) for role in shares},
        "thrown_away": {SHARES[role]: outcomes.count(SHARES[role]) for role in shares},
    }
    kept = [row for row, outcome in zip(rows, outcomes, strict=True) if outcome in shares]
    return Selection(kept, pa.table(columns).sort_by("image"), report)


def _keys_of_files(images: Any, folder: Path) -> dict[str, str]:
    rows = images.select(["image", "path"]).to_pylist()
    return {
        image_path(row, folder).resolve().as_posix(): row["image"]
        for row in rows
        if row["path"] is not None
    }


def _known_key(known: Mapping[str, str], file: Path) -> str:
    key = known.get(file.resolve().as_posix())
    if key is None:
        raise DataError(f"{file}: is the file of no image in the table of --images")
    return key


def _describe(row: Annotation, file: Path) -> Image:
    facts = probe_image(file, decode=False)
    return Image(
        row.file_name,
        row.prompt,
        path=file.resolve().as_posix(),
        sha256=facts.sha256,
        width=facts.width,
        height=facts.height,
        details=json_text({"confidence": row.confidence, "batch_size": row.batch_size}),
    )


def write_annotated(
    out: Path,
    kept: Sequence[Kept],
    images: tuple[Any, Path],
    regularisation: tuple[Any, Path] | None,
) -> list[str]:
    """Write labels as align_sd's trainer reads them, into ``out``; return the names of the files.

    Args:
        out: the folder; file names are relative to it where the images lie inside, else absolute.
        kept: the labels, in the order of the lines.
        images: the images table with its folder, which say where the files are.
        regularisation: the same of the regularisation images, or None.

    Raises:
        ImageError: an image without a file.
    """
    table, folder = images
    wanted = {row.label.image for row in kept}
    places = {
        row["image"]: stored_path(image_path(row, folder), out)
        for row in table.select(["image", "path"]).to_pylist()
        if row["image"] in wanted
    }
    lines = [
        Annotation(
            id=number,
            file_name=places[row.label.image],
            prompt=row.label.caption,
            type=TYPE_OF[row.label.role],
            confidence=row.confidence,
            batch_size=row.images,
        )
        for number, row in enumerate(kept, start=1)
    ]
    write_annotations(out / ANNOTATIONS, lines)
    if regularisation is None:
        return [ANNOTATIONS]
    table, folder = regularisation
    captions = [
        Caption(stored_path(image_path(row, folder), out), row["prompt"])
        for row in table.select(["image", "path", "prompt"]).to_pylist()
    ]
    write_captions(out / CAPTIONS, captions)
    return [ANNOTATIONS, CAPTIONS]
