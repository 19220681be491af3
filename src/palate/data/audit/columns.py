"""Images and choices as numbers, so that an audit of a million choices takes seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.data.checks import list_lengths
from palate.data.codes import mixed
from palate.data.tables import Dataset

Numbers = NDArray[np.int64]
_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """A data set with every text as a number into the names it stands for.

    A *place* is one image of one choice. `owner` says whose place it is, and `starts` and `lengths`
    where the places of a choice are; `best` marks the lowest rank of the choice, and `firsts`
    counts those places. Numbers into names: `image` of places and `image_rows` of rows of the
    images table into `images`, `prompt` and `prompt_rows` into `prompts`, `dimension` into
    `dimensions`, and `annotator`, -1 where unknown, into `people`.

    Choices with the same set of images have the same `image_set`, and choices with the same prompt,
    dimension and set of images the same `question`. Sets are told apart by sums of 64 bits: two of a
    million different sets have one in common with a probability of 3 in 100 million.
    """

    dataset: Dataset
    starts: Numbers
    lengths: Numbers
    owner: Numbers
    ranks: Numbers
    best: NDArray[np.bool_]
    firsts: Numbers
    image: Numbers
    image_rows: Numbers
    images: Any
    prompt: Numbers
    prompt_rows: Numbers
    prompts: Any
    dimension: Numbers
    dimensions: Any
    annotator: Numbers
    people: Any
    image_set: NDArray[np.uint64]
    question: Numbers

    def choice_names(self, rows: Numbers | Sequence[int]) -> list[str]:
        """Keys of these choices."""
        return names(self.dataset.choices.column("choice"), rows)

    @property
    def all_tied(self) -> NDArray[np.bool_]:
        """Whether a choice ties all its images."""
        tied: NDArray[np.bool_] = self.firsts == self.lengths
        return tied

    @property
    def row_of_image(self) -> Numbers:
        """Row of the images table for every image; -1 where it has none, the last of several."""
        rows = np.full(len(self.images), -1, np.int64)
        rows[self.image_rows] = np.arange(len(self.image_rows))
        return rows


def columns_of(dataset: Dataset) -> Columns:
    """Turn the tables of a data set into numbers."""
    choices, table = dataset.choices, dataset.images
    lengths = list_lengths(choices.column("images"))
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)[: len(lengths)]
    owner = np.repeat(np.arange(len(lengths)), lengths)
    ranks = pc.list_flatten(choices.column("ranks")).to_numpy().astype(np.int64)
    lowest = np.minimum.reduceat(ranks, starts) if len(starts) else ranks
    best = ranks == lowest[owner]
    images, (image_rows, image) = numbered(
        [table.column("image"), pc.list_flatten(choices.column("images"))]
    )
    prompts, (prompt_rows, prompt) = numbered([table.column("prompt"), choices.column("prompt")])
    dimensions, (dimension,) = numbered([choices.column("dimension")])
    people, (annotator,) = numbered([choices.column("annotator")])
    image_set = sums_of(starts, mixed(image))
    asked = mixed(prompt * (len(dimensions) + 1) + dimension) ^ image_set
    return Columns(
        dataset=dataset,
        starts=starts,
        lengths=lengths,
        owner=owner,
        ranks=ranks,
        best=best,
        firsts=np.bincount(owner[best], minlength=len(lengths)),
        image=image,
        image_rows=image_rows,
        images=images,
        prompt=prompt,
        prompt_rows=prompt_rows,
        prompts=prompts,
        dimension=dimension,
        dimensions=dimensions,
        annotator=annotator,
        people=people,
        image_set=image_set,
        question=np.unique(asked, return_inverse=True)[1].astype(np.int64),
    )


def numbered(columns: Sequence[Any]) -> tuple[Any, list[Numbers]]:
    """Number the texts of several columns together, in the order they first appear; null is -1."""
    chunks = [
        chunk
        for column in columns
        for chunk in (column.chunks if isinstance(column, pa.ChunkedArray) else [column])
    ]
    whole = pa.chunked_array(chunks, pa.string()).dictionary_encode().unify_dictionaries()
    cuts = np.cumsum([len(column) for column in columns])[:-1]
    if not whole.num_chunks:
        return pa.array([], pa.string()), [np.zeros(0, np.int64) for _ in columns]
    codes = [
        pc.fill_null(chunk.indices, -1).to_numpy(zero_copy_only=False) for chunk in whole.chunks
    ]
    return whole.chunk(0).dictionary, np.split(np.concatenate(codes).astype(np.int64), cuts)


def names(column: Any, rows: Numbers | Sequence[int]) -> list[str]:
    """Texts of a column in these rows."""
    return list(column.take(pa.array(rows, pa.int64())).to_pylist())


def sums_of(starts: Numbers, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Sum of the values of every choice, over its places."""
    return np.add.reduceat(values, starts) if len(starts) else np.zeros(0, np.uint64)


def pair_blocks(
    starts: Numbers, lengths: Numbers, most: int = 500_000
) -> Iterator[tuple[Numbers, Numbers, Numbers]]:
    """Every pair of places of every group, some groups at a time: the group, both places."""
    for size in np.unique(lengths).tolist():
        first, second = np.triu_indices(size, 1)
        groups = np.flatnonzero(lengths == size)
        step = max(1, most // max(1, len(first)))
        for begin in range(0, len(groups), step):
            part = groups[begin : begin + step]
            left = (starts[part][:, None] + first).ravel()
            right = (starts[part][:, None] + second).ravel()
            yield np.repeat(part, len(first)), left, right


def grouped(numbers: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Rows sorted by their number, kept in order within it, and where each group starts and how long it is."""
    order = np.argsort(numbers, kind="stable")
    new = np.diff(numbers[order], prepend=-2) != 0
    starts = np.flatnonzero(new)
    lengths = np.diff(np.append(starts, len(numbers)))
    return order, starts, lengths


def plain_text(text: str) -> str:
    """A prompt without differences in case and space, as `palate data split` compares them.

    >>> plain_text(" A  Fox")
    'a fox'
    """
    return " ".join(text.casefold().split())


def detail_values(column: Any, keys: Sequence[str]) -> Iterator[tuple[int, str, Any]]:
    """Row, key and value of every detail with one of these keys."""
    quoted = "|".join(f'"{key}"' for key in keys)
    base = 0
    for chunk in column.chunks:
        hit = pc.fill_null(pc.match_substring_regex(chunk, f"({quoted})"), fill_value=False)
        rows = np.flatnonzero(hit.to_numpy(zero_copy_only=False))
        for row, text in zip(rows.tolist(), names(chunk, rows), strict=True):
            # json.loads looks twice for spaces and takes three times as long
            found, _ = _decode(text.lstrip())
            for key in keys:
                if key in found:
                    yield base + row, key, found[key]
        base += len(chunk)
