"""Split a data set so that its parts never share a prompt or an image.

Prompts that share an image, and images that share their content, hang together; whatever hangs
together goes to one part. Prompts that differ only in case or spaces count as one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.data.checks import list_lengths
from palate.data.tables import Dataset, relocate_images, save_dataset
from palate.errors import DataError
from palate.runs import seed_for


@dataclass(frozen=True)
class SplitSettings:
    """Names and fractions of the parts, which sum to 1, and the seed of the draw."""

    fractions: dict[str, float] = field(default_factory=lambda: {"train": 0.8, "test": 0.2})
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse fractions that are no parts of a whole."""
        for name, fraction in self.fractions.items():
            if not name or name.startswith(".") or "/" in name or "\\" in name:
                raise DataError(f"a part cannot be called {name!r}: it becomes a folder")
            if not 0 < fraction <= 1:
                raise DataError(f"the part {name!r} is {fraction}, expected between 0 and 1")
        total = math.fsum(self.fractions.values())
        if abs(total - 1) > 1e-6:
            raise DataError(f"the fractions sum to {total:g}, expected 1")


@dataclass(frozen=True, eq=False)
class Split:
    """Which part every image and every choice belongs to, as numbers into `names`.

    `components` is the number of groups that hang together and `largest` the share of the rows
    in the largest of them. Rows are choices, or images where there are no choices.
    """

    names: tuple[str, ...]
    images: NDArray[np.int64]
    choices: NDArray[np.int64]
    components: int
    largest: float
    settings: SplitSettings

    def part(self, dataset: Dataset, name: str) -> Dataset:
        """Return the images and choices of one part; paths still count from the old folder."""
        number = self.names.index(name)
        return Dataset(
            dataset.images.filter(pa.array(self.images == number)),
            dataset.choices.filter(pa.array(self.choices == number)),
            dataset.folder,
        )


def split_dataset(dataset: Dataset, settings: SplitSettings | None = None) -> Split:
    """Split by prompt and image, the same for every order of the rows.

    The groups that hang together are shuffled by an address made of the seed and their first
    prompt, and each goes to the part that lacks most. Raises `DataError` where a part would stay
    empty. More data may move a prompt to another part: split once, and keep the parts.
    """
    settings = settings or SplitSettings()
    image_groups, choice_groups, labels = _components(dataset)
    rows = choice_groups if len(choice_groups) else image_groups
    if not len(rows):
        raise DataError(f"{dataset.folder}: there is nothing to split")
    count = len(labels)
    weights = np.bincount(rows, minlength=count)
    order = sorted(
        range(count), key=lambda k: (seed_for("split", settings.seed, labels[k]), labels[k])
    )
    part = _assign(order, weights, settings.fractions)
    names = tuple(settings.fractions)
    filled = np.bincount(part[rows], minlength=len(names))
    for name, size in zip(names, filled, strict=True):
        if not size:
            raise DataError(
                f"{dataset.folder}: the part {name!r} would be empty: its prompts and images hang "
                f"together in {count} groups, the largest with {weights.max() / len(rows):.0%}"
            )
    return Split(
        names=names,
        images=part[image_groups],
        choices=part[choice_groups],
        components=count,
        largest=float(weights.max() / len(rows)),
        settings=settings,
    )


def write_split(dataset: Dataset, split: Split, out: Path) -> list[Path]:
    """Write every part as a data set of its own below `out`; image files stay where they are."""
    check_split(dataset, split)
    written = []
    for name in split.names:
        part = split.part(dataset, name)
        folder = out / name
        images = relocate_images(part.images, dataset.folder, folder)
        save_dataset(folder, images, part.choices)
        written.append(folder)
    return written


def check_split(dataset: Dataset, split: Split) -> None:
    """Raise `DataError` where two parts share a prompt, an image or an image's content."""
    owners: dict[tuple[str, str], str] = {}
    for name in split.names:
        for what, key in _members(split.part(dataset, name)):
            other = owners.setdefault((what, key), name)
            if other != name:
                raise DataError(f"the parts {other!r} and {name!r} share the {what} {key[:60]!r}")


def _members(part: Dataset) -> Iterator[tuple[str, str]]:
    for table in (part.images, part.choices):
        for prompt in _plain_prompts(table.column("prompt")).unique().to_pylist():
            yield "prompt", prompt
    shown = pc.list_flatten(part.choices.column("images"))
    for column, what in (
        (part.images.column("image"), "image"),
        (shown, "image"),
        (part.images.column("sha256"), "content"),
    ):
        for key in column.unique().to_pylist():
            if key is not None:
                yield what, key


def _plain_prompts(column: Any) -> Any:
    """Prompts without the differences in case and spaces."""
    distinct = column.combine_chunks().dictionary_encode()
    plain = [" ".join(text.casefold().split()) for text in distinct.dictionary.to_pylist()]
    return pa.array(plain, pa.string()).take(distinct.indices)


def _components(dataset: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
    """Group of every image row and choice row, and the first prompt of every group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    images, choices = dataset.images, dataset.choices
    lengths = list_lengths(choices.column("images"))
    owner = np.repeat(np.arange(len(choices)), lengths)
    by_image = _plain_prompts(images.column("prompt"))
    by_choice = _plain_prompts(choices.column("prompt"))
    prompts, prompt_codes = _codes([by_image, by_choice])
    _, key_codes = _codes(
        [images.column("image").combine_chunks(), _flat(choices.column("images"))]
    )
    content = images.column("sha256").combine_chunks()
    hashed = content.is_valid().to_numpy(zero_copy_only=False)
    _, hash_codes = _codes([content.filter(pa.array(hashed))])
    # nodes: prompts, then image keys, then contents
    first_key = len(prompts)
    first_hash = first_key + int(max((c.max(initial=-1) for c in key_codes), default=-1)) + 1
    nodes = first_hash + int(hash_codes[0].max(initial=-1)) + 1
    left = [prompt_codes[0], prompt_codes[1][owner], first_key + key_codes[0][hashed]]
    right = [first_key + key_codes[0], first_key + key_codes[1], first_hash + hash_codes[0]]
    edges = np.concatenate(left), np.concatenate(right)
    graph = coo_array((np.ones(len(edges[0]), np.int8), edges), shape=(nodes, nodes))
    _, labels = connected_components(graph, directed=False)
    _, groups = np.unique(labels[: len(prompts)], return_inverse=True)
    names: dict[int, str] = {}
    for group, prompt in sorted(zip(groups.tolist(), prompts, strict=True)):
        names.setdefault(group, prompt)
    firsts = [names[group] for group in range(len(names))]
    return groups[prompt_codes[0]], groups[prompt_codes[1]], firsts


def _flat(column: Any) -> Any:
    flat = pc.list_flatten(column)
    return flat.combine_chunks() if isinstance(flat, pa.ChunkedArray) else flat


def _codes(columns: list[Any]) -> tuple[list[str], list[NDArray[np.int64]]]:
    """Number the texts of several columns together."""
    whole = pa.concat_arrays([pa.array(column, pa.string()) for column in columns])
    encoded = whole.dictionary_encode()
    codes = encoded.indices.to_numpy().astype(np.int64)
    cuts = np.cumsum([len(column) for column in columns])[:-1]
    return encoded.dictionary.to_pylist(), np.split(codes, cuts)


def _assign(
    order: list[int], weights: NDArray[np.int64], fractions: Mapping[str, float]
) -> NDArray[np.int64]:
    """Give each group in turn to the part that is furthest below its target."""
    lacking = np.array(list(fractions.values())) * weights.sum()
    part = np.zeros(len(weights), dtype=np.int64)
    for group in order:
        part[group] = int(np.argmax(lacking))
        lacking[part[group]] -= weights[group]
    return part
