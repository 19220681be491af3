"""Write choices as the `test.json` of ImageReward (Xu et al., NeurIPS 2023).

A record is `{id, prompt, generations, ranking}`: the names of the images and their ranks, 1 is the
best, equal ranks are ties. A rank that nobody gave stays unused. One record is one choice; who
answered has no place in the shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow.compute as pc

from palate.data.exports.common import (
    ExportSettings,
    Places,
    file_name,
    file_suffix,
    flat_keys,
    is_inside,
    locate,
    of_dimension,
    place_images,
    write_export,
    write_records,
)
from palate.data.records import Choice
from palate.data.tables import Dataset, to_rows

_SHAPE: Final = "ImageReward"
_PREFIX: Final = "image-reward/"


def export_image_reward(
    dataset: Dataset, out: Path, settings: ExportSettings | None = None, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write all choices of one dimension as ImageReward's `test.json`; return the counts.

    `id` is the key of the choice, without `image-reward/` where it was imported from there and no
    other choice is called by the rest. An image
    is called by its key where that is the name of a file below a folder, else by a number. Raises
    `DataError` for missing image files, unless images are left out.
    """
    settings = settings or ExportSettings()
    choices = of_dimension(dataset, settings.dimension, _SHAPE)
    files = locate(dataset, flat_keys(choices), settings.images)
    names = _names(choices, files)

    def write(places: Places) -> dict[str, Any]:
        json_file = places.path(file_name(choices, _PREFIX, "test.json"))
        count = write_records(json_file, _records(choices, names))
        named = [(name, files[key]) for key, name in names.items() if files]
        images = place_images(named, places, settings.images) if named else 0
        unnamed = len(choices) - choices.column("annotator").null_count
        left = {"annotators_left_out": unnamed} if unnamed else {}
        return {"records": count, "images": images, **left}

    return write_export("imagereward", dataset, out, settings, write, overwrite=overwrite)


def _names(choices: Any, files: dict[str, Path]) -> dict[str, str]:
    keys: list[str] = pc.unique(pc.list_flatten(choices.column("images"))).to_pylist()
    names = {key: key for key in keys if is_inside(key)}
    taken, number = set(names), 0
    for key in keys:
        while key not in names:
            name = f"images/{number:08}{file_suffix(files.get(key))}"
            number += 1
            if name not in taken:
                names[key] = name
    return names


def _records(choices: Any, names: dict[str, str]) -> Iterator[dict[str, Any]]:
    keys = set(choices.column("choice").to_pylist())
    for choice in to_rows(choices, Choice):
        bare = choice.choice.removeprefix(_PREFIX)
        yield {
            "id": choice.choice if bare in keys else bare,
            "prompt": choice.prompt,
            "generations": [names[key] for key in choice.images],
            "ranking": list(choice.ranks),
        }
