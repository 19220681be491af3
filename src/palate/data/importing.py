"""Write what a source gave as a data set, with a run record of what was read and left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palate.data.sources.common import Imported
from palate.data.tables import relocate_images, save_dataset
from palate.errors import DataError
from palate.runs import hash_text, start_run


def write_import(
    source: str,
    imported: Imported,
    out: Path,
    settings: object,
    inputs: Mapping[str, Path | str],
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the tables of a source to a folder and return the counts.

    Everything was read before, so a source that is refused leaves nothing behind. Image files stay
    where they are; the table names them, relative to `out` where they are inside it. `inputs` are
    the files that were read; the images are added by their contents.
    """
    _refuse_inside(imported, out)
    hashes = imported.images.column("sha256").to_pylist()
    contents = hash_text(*(content or "" for content in hashes))
    images = relocate_images(imported.images, "/", out)
    known = {**inputs, "images": f"{len(hashes)} images with the contents {contents}"}
    with start_run(f"data import {source}", out, settings, known, overwrite=overwrite) as run:
        if run.finished:
            return run.result
        dataset = save_dataset(out, images, imported.choices)
        prompts = {*images.column("prompt").to_pylist()}
        prompts |= {*imported.choices.column("prompt").to_pylist()}
        result = {
            "images": len(images),
            "choices": len(dataset.choices),
            "prompts": len(prompts),
            **imported.report,
        }
        tables = [out / f"{kind}.parquet" for kind in ("images", "choices")]
        run.finish(result, files=[path for path in tables if path.exists()])
        return run.result


def _refuse_inside(imported: Imported, out: Path) -> None:
    """An import never writes over its own images: `--overwrite` would delete them."""
    base = out.resolve()
    for path in imported.images.column("path").to_pylist():
        if path is not None and Path(path).is_relative_to(base):
            raise DataError(f"{out}: holds the images that are imported; choose another --out")
