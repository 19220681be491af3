"""Write choices as the JSON of HPD v1, as the official trainer of the Human Preference Score reads it.

A record is `{human_preference, prompt, id, file_path, user_hash, contain_name}` (Wu et al., ICCV
2023). `human_preference` is the 0-based place of the chosen image, so only pick-one answers fit: one
best image, all others equal. The trainer joins a folder with `file_path`; the image files therefore
lie beside the JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from palate.data.exports.common import (
    Anonymous,
    ExportSettings,
    Places,
    details_of,
    file_name,
    flat_keys,
    is_inside,
    key_mark,
    locate,
    not_picked,
    numbered,
    of_dimension,
    only_fitting,
    picked,
    place_images,
    write_export,
    write_records,
)
from palate.data.records import Choice
from palate.data.tables import Dataset, to_rows

_SHAPE: Final = "HPD v1"
_KEY: Final = re.compile(r"hpd-v1/(0|-?[1-9][0-9]*)")
_NAME: Final = "preference.json"


@dataclass(frozen=True)
class HpdSettings(ExportSettings):
    """How HPD v1 is written.

    `annotator_key` makes the `user_hash` of people that the data set knows by name; None takes the
    content of the table of choices, so that two exports of one data set agree.
    """

    annotator_key: str | None = None


def export_hpd(
    dataset: Dataset, out: Path, settings: HpdSettings | None = None, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write pick-one answers of one dimension as HPD v1; return the counts.

    What was imported from HPD v1 keeps its ids, its names of files and the name of its JSON; other
    choices get running ids and `preference_images/{id}_{place}.jpg`, whatever the format of the file
    (readers go by the content). Raises `DataError` for choices that are no pick-one answers, unless
    they are left out, and for missing image files, unless images are.
    """
    settings = settings or HpdSettings()
    choices = of_dimension(dataset, settings.dimension, _SHAPE)
    choices, left = only_fitting(choices, _SHAPE, _why_not, leave_out=settings.leave_out)
    files = locate(dataset, flat_keys(choices), settings.images)
    people = Anonymous.of(dataset, settings.annotator_key)

    def write(places: Places) -> dict[str, Any]:
        json_file = places.path(file_name(choices, "hpd-v1/", _NAME))
        count = write_records(json_file, (record for record, _ in _records(choices, people)))
        named = (
            (name, files[key])
            for record, choice in _records(choices, people)
            for name, key in zip(record["file_path"], choice.images, strict=True)
        )
        images = place_images(named, places, settings.images) if files else 0
        return {"records": count, "images": images, **left}

    kept = replace(settings, annotator_key=key_mark(settings.annotator_key))
    return write_export("hpd", dataset, out, kept, write, overwrite=overwrite)


def _why_not(choice: Choice) -> str | None:
    return not_picked(choice.ranks) if picked(choice.ranks) is None else None


def _records(choices: Any, people: Anonymous) -> Iterator[tuple[dict[str, Any], Choice]]:
    """Make the record of every choice; the same at every call."""
    keys = (_KEY.fullmatch(key) for key in choices.column("choice").to_pylist())
    free = numbered(int(key[1]) for key in keys if key)
    used: set[str] = set()
    for choice in to_rows(choices, Choice):
        key = _KEY.fullmatch(choice.choice)
        number = int(key[1]) if key else next(free)
        names = list(choice.images)
        if not key or not used.isdisjoint(names) or not all(map(is_inside, names)):
            names = [f"preference_images/{number}_{place}.jpg" for place in range(len(names))]
        used.update(names)
        said = details_of(choice)
        user = said.get("user_hash")
        yield (
            {
                "human_preference": picked(choice.ranks),
                "prompt": choice.prompt,
                "id": number,
                "file_path": names,
                "user_hash": user if isinstance(user, str) else people.name(choice),
                "contain_name": said.get("contain_name") is True,
            },
            choice,
        )
