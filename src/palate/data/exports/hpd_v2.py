"""Write choices as the JSON of HPD v2: pairs for training, rankings for testing.

`train.json` holds pairs, `{human_preference, prompt, file_path}`, one record per choice between two
images with one winner, which a 1 marks. `test.json` holds rankings, `{prompt, image_path, rank,
raw_annotations}`: all choices between the same images of the same prompt are one record, and `rank`
(lower is better) is what the people agreed on (Wu et al. 2023, 2306.09341). Image files lie in the
folders `train/` and `test/`, from which the names count.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from palate.data.exports.common import (
    Anonymous,
    ExportSettings,
    Places,
    details_of,
    file_name,
    file_suffix,
    flat_keys,
    is_inside,
    key_mark,
    locate,
    not_picked,
    of_dimension,
    only_fitting,
    picked,
    place_images,
    write_export,
    write_records,
)
from palate.data.records import Choice
from palate.data.sources.hpd_v2 import Part, part_of
from palate.data.tables import Dataset, to_rows

_SHAPE: Final = "HPD v2"
_KEY: Final = re.compile(r"(hpd-v2/(train|test)/[0-9]+)(/[0-9]+)?")
Form = Literal["auto", "pairs", "rankings"]


@dataclass(frozen=True)
class HpdV2Settings(ExportSettings):
    """How HPD v2 is written.

    `form` "auto" makes pairs of choices between two images with one winner and rankings of the
    others; "pairs" refuses the others, and "rankings" makes rankings of all. What was imported from
    HPD v2 stays what it was under "auto". `annotator_key` makes the `user_hash` of people that the
    data set knows by name; None takes the content of the table of choices.
    """

    form: Form = "auto"
    annotator_key: str | None = None


@dataclass(frozen=True)
class _Place:
    """Where a choice goes: the part, whether as a pair, and what it shares with its record."""

    part: Part
    pair: bool
    group: Hashable


def export_hpd_v2(
    dataset: Dataset, out: Path, settings: HpdV2Settings | None = None, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write choices of one dimension as HPD v2; return the counts.

    What was imported from HPD v2 keeps its part, its names of files and the names of its JSON; other
    images are numbered. Raises `DataError` for choices that do not fit, unless they are left out,
    and for missing image files, unless images are.
    """
    settings = settings or HpdV2Settings()
    choices = of_dimension(dataset, settings.dimension, _SHAPE)
    left: dict[str, Any] = {}
    if settings.form == "pairs":
        choices, left = only_fitting(
            choices, "pairs of HPD v2", _no_pair, leave_out=settings.leave_out
        )
    files = locate(dataset, flat_keys(choices), settings.images)
    people = Anonymous.of(dataset, settings.annotator_key)
    parts = _sorted_parts(choices, settings.form)

    def write(places: Places) -> dict[str, Any]:
        result: dict[str, Any] = {"records": 0, "pairs": 0, "rankings": 0, "images": 0, **left}
        named: list[tuple[str, Path]] = []
        for part, (rows, groups) in parts.items():
            names = _names(rows, part, files)
            records = _records(rows, groups, names, people, settings.form, result)
            json_file = places.path(_json_name(rows, part))
            result["records"] += write_records(json_file, records)
            named += [(f"{part}/{name}", files[key]) for key, name in names.items() if files]
        result["images"] = place_images(named, places, settings.images) if named else 0
        return result

    kept = replace(settings, annotator_key=key_mark(settings.annotator_key))
    return write_export("hpd-v2", dataset, out, kept, write, overwrite=overwrite)


def _no_pair(choice: Choice) -> str | None:
    if len(choice.images) != 2 and not _KEY.fullmatch(choice.choice):
        return f"it is between {len(choice.images)} images"
    return not_picked(choice.ranks) if picked(choice.ranks) is None else None


def _agreed(choice: Choice) -> list[int] | None:
    """The agreed rank as the release has it, which the import kept in the details."""
    rank = details_of(choice).get("rank")
    if not isinstance(rank, list) or len(rank) != len(choice.images):
        return None
    return rank if all(type(value) is int for value in rank) else None


def _placed(choice: Choice, form: Form) -> _Place:
    key = _KEY.fullmatch(choice.choice)
    was_pair = _no_pair(choice) is None
    if key is not None:
        was_pair = was_pair and key[3] is None and _agreed(choice) is None
    pair = form == "pairs" or (form == "auto" and was_pair)
    stays = key is not None and pair == was_pair
    part: Part = "train" if pair else "test"
    if stays and key is not None:
        part = "test" if key[2] == "test" else "train"
    if pair:
        return _Place(part, pair, choice.choice)
    if stays and key is not None:
        return _Place(part, pair, (key[1], choice.prompt, choice.images, choice.details))
    return _Place(part, pair, (choice.prompt, tuple(sorted(choice.images))))


def _sorted_parts(choices: Any, form: Form) -> dict[Part, tuple[Any, list[int]]]:
    """The choices of each part, those of one record together, with the number of their record.

    Records stand in the order of their first choice.
    """
    numbers: dict[tuple[Part, bool, Hashable], int] = {}
    parts: list[Part] = []
    groups: list[int] = []
    for choice in to_rows(choices, Choice):
        place = _placed(choice, form)
        parts.append(place.part)
        groups.append(numbers.setdefault((place.part, place.pair, place.group), len(numbers)))
    order = np.argsort(np.array(groups), kind="stable")
    choices = choices.take(pa.array(order))
    sorted_parts, sorted_groups = np.array(parts)[order], np.array(groups)[order]
    found: dict[Part, tuple[Any, list[int]]] = {}
    names: tuple[Part, ...] = ("train", "test")
    for part in names:
        mask = sorted_parts == part
        if mask.any():
            found[part] = (choices.filter(pa.array(mask)), sorted_groups[mask].tolist())
    return found


def _json_name(choices: Any, part: Part) -> str:
    """The name that the part was imported from, if the import reads it as that part again."""
    name = file_name(choices, "hpd-v2/", f"{part}.json")
    return name if part_of(name) == part else f"{part}.json"


def _names(choices: Any, part: Part, files: dict[str, Path]) -> dict[str, str]:
    """The name of every image of a part: what it was called in HPD v2, or a number."""
    keys: list[str] = pc.unique(pc.list_flatten(choices.column("images"))).to_pylist()
    prefix = f"{part}/"
    known = {
        key: key.removeprefix(prefix)
        for key in keys
        if key.startswith(prefix) and is_inside(key.removeprefix(prefix))
    }
    taken, names, number = set(known.values()), dict[str, str](), 0
    for key in keys:
        name = known.get(key)
        while name is None or (key not in known and name in taken):
            name = f"{number:08}{file_suffix(files.get(key))}"
            number += 1
        names[key] = name
    return names


def _records(
    choices: Any,
    groups: Sequence[int],
    names: dict[str, str],
    people: Anonymous,
    form: Form,
    counts: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """Make the records of a part, and count what they are."""
    rows = zip(groups, to_rows(choices, Choice), strict=True)
    for _, numbered in groupby(rows, key=lambda row: row[0]):
        group = [choice for _, choice in numbered]
        if _placed(group[0], form).pair:
            counts["pairs"] += 1
            yield _pair(group[0], names)
        else:
            counts["rankings"] += len(group)
            turned = sum(choice.images != group[0].images for choice in group)
            if turned:
                counts["reordered"] = counts.get("reordered", 0) + turned
            yield _ranking(group, names, people)


def _pair(choice: Choice, names: dict[str, str]) -> dict[str, Any]:
    best = picked(choice.ranks)
    return {
        "human_preference": [int(place == best) for place in range(len(choice.images))],
        "prompt": choice.prompt,
        "file_path": [names[key] for key in choice.images],
    }


def _ranking(group: list[Choice], names: dict[str, str], people: Anonymous) -> dict[str, Any]:
    """One record of all the choices between the same images; ranks follow the first one's order."""
    first = group[0]
    ranks = [
        [dict(zip(choice.images, choice.ranks, strict=True))[key] for key in first.images]
        for choice in group
    ]
    ours = _KEY.fullmatch(first.choice) is not None
    agreed = _agreed(first) if ours else None
    facts = details_of(first) if agreed is not None else {}
    # the import adds 1 to all ranks of a record where some count from 0
    shift = int(facts.get("from_zero") is True)
    record = {
        "prompt": first.prompt,
        "image_path": [names[key] for key in first.images],
        "rank": agreed if agreed is not None else agreed_rank(ranks),
    }
    if len(group) == 1 and facts.get("agreed") is True:
        kept = {"raw_annotations": facts["raw_annotations"]} if "raw_annotations" in facts else {}
        return record | kept
    record["raw_annotations"] = [
        {
            "rank": [rank - shift for rank in own],
            "user_hash": choice.annotator
            if ours and choice.annotator is not None
            else people.name(choice),
        }
        for own, choice in zip(ranks, group, strict=True)
    ]
    return record


def agreed_rank(ranks: Sequence[Sequence[int]]) -> list[int]:
    """Return the rank that several people give together: by their mean place, equal means tie.

    Every person's ranks are first counted without gaps, so that an unused rank weighs nothing.
    1 is the best; after a tie the next rank is free (1, 2, 2, 4).

    >>> agreed_rank([(1, 2, 3), (2, 1, 5)])
    [1, 1, 3]
    """
    dense = [[sorted(set(own)).index(rank) for rank in own] for own in ranks]
    sums = [sum(places) for places in zip(*dense, strict=True)]
    return [1 + sum(other < one for other in sums) for one in sums]
