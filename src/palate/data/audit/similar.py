"""What an audit says about images that look the same: within a choice, and anywhere in the set."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from palate.data.audit.columns import Columns, Numbers, grouped, names, pair_blocks
from palate.data.audit.files import Files, strip
from palate.data.audit.findings import Finding, Strip
from palate.data.audit.phash import near_pairs

_LARGEST_GROUP: Final = 64
_SHOWN: Final = 3
_BLOCK: Final = 10_000


def similar_findings(
    columns: Columns, files: Files, near: float, distance: int
) -> tuple[list[Finding], list[Strip]]:
    """Find groups whose images people cannot tell apart, and nearly equal images across groups."""
    pairs, found, strips = _equal_groups(columns, files, near)
    more, shown = _near_duplicates(columns, files, pairs, distance)
    return [*found, *more], [*strips, *shown]


def _equal_groups(
    columns: Columns, files: Files, near: float
) -> tuple[Numbers, list[Finding], list[Strip]]:
    """Compare images that are compared by people; also give the equal pairs as single numbers."""
    images, starts, lengths, member = _compared(columns)
    equal = np.zeros(len(starts), np.int64)
    example = np.full((len(starts), 2), -1, np.int64)
    pairs = []
    for owner, left, right in pair_blocks(starts, lengths):
        a, b = images[left], images[right]
        same = _equal(a, b, files, near)
        group, a, b = owner[same], a[same], b[same]
        equal += np.bincount(group, minlength=len(starts))
        # the first equal pair of a group is written last
        example[group[::-1]] = np.stack([a, b], axis=1)[::-1]
        pairs.append(_pair_numbers(a, b, len(columns.images)))
    every = lengths * (lengths - 1) // 2
    constant = np.flatnonzero((every > 0) & (equal == every))
    partly = np.flatnonzero((equal > 0) & (equal < every))
    found, strips = [], []
    whole = np.flatnonzero(np.isin(member, constant))
    if len(whole):
        message = "groups hold nothing but identical or nearly equal images"
        told = _group_names(columns, whole[:5])
        found.append(Finding.counted("warning", "constant groups", len(whole), told, message))
        _, once = np.unique(member[whole], return_index=True)
        for row in whole[np.sort(once)][:_SHOWN].tolist():
            shown = images[starts[member[row]] : starts[member[row]] + min(4, lengths[member[row]])]
            title = _group_names(columns, whole[whole == row])[0]
            strips.append(strip(columns, "constant groups", title, shown.tolist()))
    part = np.flatnonzero(np.isin(member, partly))
    if len(part):
        message = "groups hold two identical or nearly equal images"
        told = []
        for row, name in zip(part[:5], _group_names(columns, part[:5]), strict=True):
            two = names(columns.images, example[member[row]])
            told.append(f"{name}: {two[0]} = {two[1]}")
            strips.append(
                strip(columns, "equal images in a group", name, example[member[row]].tolist())
            )
        kind = "equal images in a group"
        found.append(Finding.counted("warning", kind, len(part), told, message))
    return np.concatenate([*pairs, np.zeros(0, np.int64)]), found, strips


def _compared(columns: Columns) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Images that are compared: those of each choice, or of each prompt where nobody chose.

    Returns the numbers of images, where every distinct group starts, how long it is, and the group
    of every choice (or prompt). Prompts with very many images are no group that anyone compares.
    """
    if len(columns.lengths):
        _, first, member = np.unique(columns.image_set, return_index=True, return_inverse=True)
        return columns.image, columns.starts[first], columns.lengths[first], member.astype(np.int64)
    order, starts, lengths = grouped(columns.prompt_rows)
    use = lengths <= _LARGEST_GROUP
    member = np.full(len(columns.prompts), -1, np.int64)
    member[columns.prompt_rows[order[starts[use]]]] = np.arange(int(use.sum()))
    return columns.image_rows[order], starts[use], lengths[use], member


def _group_names(columns: Columns, rows: Numbers) -> list[str]:
    return columns.choice_names(rows) if len(columns.lengths) else names(columns.prompts, rows)


def _pair_numbers(a: Numbers, b: Numbers, count: int) -> Numbers:
    return np.minimum(a, b) * count + np.maximum(a, b)


def _equal(a: Numbers, b: Numbers, files: Files, near: float) -> NDArray[np.bool_]:
    """Whether two images have the same bytes, or thumbnails that differ by less than `near`."""
    same: NDArray[np.bool_] = (files.content[a] >= 0) & (files.content[a] == files.content[b])
    first, second = files.thumbnail[a], files.thumbnail[b]
    open_ = np.flatnonzero(~same & (first >= 0) & (second >= 0))
    for begin in range(0, len(open_), _BLOCK):
        part = open_[begin : begin + _BLOCK]
        one = files.thumbnails[first[part]].astype(np.int16)
        two = files.thumbnails[second[part]].astype(np.int16)
        same[part] = np.abs(one - two).mean(axis=(1, 2)) < near
    return same


def _near_duplicates(
    columns: Columns, files: Files, known: Numbers, distance: int
) -> tuple[list[Finding], list[Strip]]:
    """Images of other bytes that look nearly the same and were not found within a group."""
    pairs = near_images(files, distance)
    pairs = pairs[~np.isin(_pair_numbers(pairs[:, 0], pairs[:, 1], len(columns.images)), known)]
    if not len(pairs):
        return [], []
    groups = _hanging_together(pairs)
    involved = sum(len(group) for group in groups)
    message = (
        f"groups of images look nearly the same, {involved} images in all: their hashes differ in "
        f"at most {distance} of 64 bits"
    )
    told = [" ≈ ".join(names(columns.images, group[:2])) for group in groups[:5]]
    found = Finding.counted("warning", "near duplicates", len(groups), told, message)
    shown = [strip(columns, "near duplicates", "", group[:4]) for group in groups[:4]]
    return [found], shown


def near_images(files: Files, distance: int) -> Numbers:
    """Pairs of images of other bytes that are near; of several with one hash, neighbours only."""
    numbers = np.flatnonzero(files.looked)
    # one image for each content
    _, first = np.unique(files.content[numbers], return_index=True)
    numbers = numbers[np.sort(first)]
    order, starts, _ = grouped(files.look[numbers].view(np.int64))
    ordered = numbers[order]
    inner = np.setdiff1d(np.arange(len(ordered)), starts)
    chains = np.stack([ordered[inner - 1], ordered[inner]], axis=1)
    firsts = ordered[starts]
    pairs, _ = near_pairs(files.look[firsts], distance)
    return np.sort(np.concatenate([chains, firsts[pairs]]), axis=1)


def _hanging_together(pairs: Numbers) -> list[list[int]]:
    """Groups of images that pairs link, in the order of their first image."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    images, ends = np.unique(pairs, return_inverse=True)
    ends = ends.reshape(-1, 2)
    graph = coo_array(
        (np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(len(images), len(images))
    )
    _, labels = connected_components(graph, directed=False)
    order, starts, lengths = grouped(labels.astype(np.int64))
    groups = [images[order[a : a + n]].tolist() for a, n in zip(starts, lengths, strict=True)]
    return sorted(groups)
