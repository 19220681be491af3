"""Labels made ready for a denoiser: which picture, which text, which role, which weight."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from palate.adaptation.latents import ImageFile
from palate.adaptation.methods import Method
from palate.adaptation.pairs import PAIR, Pairing, pair_up
from palate.data.images import hash_image
from palate.data.records import ROLES
from palate.data.tables import image_path, read_table
from palate.errors import DataError
from palate.generation.families import Conditions, Family
from palate.runs import hash_text, seed_for

TEXT_LIMIT: Final = 2**30
"""Bytes of text embeddings that are kept; with more captions, each step encodes its own."""


@dataclass(frozen=True, slots=True)
class Examples:
    """One row for each label, in an order that does not depend on the table's."""

    images: list[str]
    """The distinct pictures, in the order of the latents."""
    texts: list[str]
    """The distinct texts: "" first, then the captions with and without identifier."""
    latent: np.ndarray[Any, np.dtype[np.int64]]
    """Which picture, by row."""
    role: Int[Tensor, " rows"]
    """Which role, as its place in ``palate.data.records.ROLES``."""
    caption: Int[Tensor, " rows"]
    """Which text the denoiser is trained with."""
    unmarked: Int[Tensor, " rows"]
    marked: Int[Tensor, " rows"]
    """The caption without and, of rows held out, with the identifier, whatever the role: for the identifier gap."""
    alone: Int[Tensor, " rows"]
    """The identifier alone for rejected rows, the caption for others."""
    weight: Float[Tensor, " rows"]
    units: np.ndarray[Any, np.dtype[np.int64]]
    """What a place of a batch holds, "units sides": one row, or for a method of pairs two, the better one first."""
    training: dict[str, list[int]]
    """Units to train on, by role, or all under ``pair``."""
    held_out: dict[str, list[int]]
    """Rows of each role that are kept aside."""
    pairing: Pairing | None = None
    """How the pairs were made, for a method of pairs."""


def image_files(*places: Path) -> dict[str, ImageFile]:
    """List the pictures of data-set folders or ``images.parquet`` files by their key.

    Raises:
        DataError: a key stands for two pictures, or a table is missing.
    """
    found: dict[str, ImageFile] = {}
    for place in places:
        path = place / "images.parquet" if place.is_dir() else place
        columns = ["image", "path", "sha256", "width", "height"]
        table = read_table(path, "images").select(columns)
        for row in table.to_pylist():
            if row["path"] is None:
                continue
            file = image_path(row, path.parent)
            known = ImageFile(file, row["sha256"] or hash_image(file), row["width"], row["height"])
            if found.setdefault(row["image"], known).sha256 != known.sha256:
                raise DataError(
                    f"{path}: image {row['image']!r} is another picture in another table"
                )
    return found


def make_examples(
    labels: Any,
    files: Mapping[str, ImageFile],
    method: Method,
    identifier: str,
    hold_out: int,
    seed: int,
) -> Examples:
    """Match labels with pictures and captions, and keep ``hold_out`` units of two roles aside.

    Labels of roles that the method does not learn from are left out; what a pair needs, see ``pair_up``.

    Raises:
        DataError: labels of pictures that are not there, or a role that the method needs is empty.
    """
    order = labels.sort_by([("role", "ascending"), ("image", "ascending")])
    rows = [row for row in order.to_pylist() if row["role"] in method.roles]
    missing = [row["image"] for row in rows if row["image"] not in files]
    if missing:
        raise DataError(
            f"labels: {len(missing)} of {len(rows)} images are in none of the images tables, "
            f"such as {missing[0]!r}"
        )
    for role in method.requires:
        if not any(row["role"] == role for row in rows):
            raise DataError(f"labels: no {role} rows, which the method '{method.name}' learns from")
    pairing = None
    if method.paired:
        rows, pairing = pair_up(rows)
        units = np.array(pairing.pairs, dtype=np.int64)
        training, held_out = _split_pairs(rows, pairing, hold_out, seed)
    else:
        units = np.arange(len(rows), dtype=np.int64)[:, None]
        training, held_out = _split(rows, hold_out, seed)
    texts: dict[str, int] = {"": 0}
    place = {image: number for number, image in enumerate(sorted({row["image"] for row in rows}))}

    def text(value: str) -> int:
        return texts.setdefault(value, len(texts))

    used = [text(method.caption(row["role"], row["caption"], identifier)) for row in rows]
    alone = [
        text(identifier) if method.marks and row["role"] == "rejected" else number
        for row, number in zip(rows, used, strict=True)
    ]
    unmarked = [text(row["caption"]) for row in rows]
    aside = {number for mine in held_out.values() for number in mine} if method.marks else set()
    marked = [
        text(identifier + row["caption"]) if spot in aside else unmarked[spot]
        for spot, row in enumerate(rows)
    ]
    return Examples(
        images=list(place),
        latent=np.array([place[row["image"]] for row in rows], dtype=np.int64),
        role=torch.tensor([ROLES.index(row["role"]) for row in rows]),
        caption=torch.tensor(used),
        unmarked=torch.tensor(unmarked),
        marked=torch.tensor(marked),
        alone=torch.tensor(alone),
        weight=torch.tensor([row["weight"] for row in rows], dtype=torch.float32),
        texts=list(texts),
        units=units,
        training=training,
        held_out=held_out,
        pairing=pairing,
    )


def _split(
    rows: list[dict[str, Any]], hold_out: int, seed: int
) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Keep some preferred and rejected rows aside, drawn by the image's own address."""
    training, held_out = {}, {}
    for role in ROLES:
        mine = [number for number, row in enumerate(rows) if row["role"] == role]
        drawn = sorted(mine, key=lambda row: seed_for("hold out", seed, rows[row]["image"]))
        count = 0 if role == "regularisation" or not mine else hold_out
        if count and count >= len(mine):
            raise DataError(
                f"labels: {len(mine)} {role} rows, expected more than the {count} to hold out"
            )
        held_out[role], training[role] = sorted(drawn[:count]), sorted(drawn[count:])
    return training, held_out


def _split_pairs(
    rows: list[dict[str, Any]], pairing: Pairing, hold_out: int, seed: int
) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Keep some groups aside, so that no image of a held-out pair is trained on."""
    groups: dict[str, list[int]] = {}
    for number, (better, _) in enumerate(pairing.pairs):
        groups.setdefault(rows[better]["group"], []).append(number)
    drawn = sorted(groups, key=lambda group: seed_for("hold out", seed, group))
    if hold_out and hold_out >= len(groups):
        raise DataError(
            f"labels: pairs of {len(groups)} groups, expected more than the {hold_out} to hold out"
        )
    aside = [number for group in drawn[:hold_out] for number in groups[group]]
    held_out = {
        role: sorted({pairing.pairs[number][side] for number in aside})
        for side, role in enumerate(("preferred", "rejected"))
    }
    left = sorted(number for group in drawn[hold_out:] for number in groups[group])
    return {PAIR: left}, held_out


def labels_hash(labels: Any) -> str:
    """Hash what a labels table says, whatever the order of its rows."""
    order = labels.sort_by([("role", "ascending"), ("image", "ascending")])
    return hash_text(*(json.dumps(order[name].to_pylist()) for name in sorted(order.column_names)))


class TextStore:
    """Text embeddings by number: all in memory where they fit, else encoded when asked for."""

    def __init__(
        self, pipeline: Any, family: Family, texts: list[str], limit: int = TEXT_LIMIT
    ) -> None:
        """Encode all texts at once if they take at most ``limit`` bytes."""
        self.pipeline, self.family, self.texts = pipeline, family, texts
        self.truncated = family.truncated(pipeline, texts)
        one = family.encode(pipeline, texts[:1])
        numbers = one.states.numel() + (0 if one.pooled is None else one.pooled.numel())
        fits = numbers * len(texts) * one.states.element_size() <= limit
        self.known = family.encode(pipeline, texts) if fits else None

    def __getitem__(self, numbers: Int[Tensor, " rows"]) -> Conditions:
        """Give the embeddings of some texts."""
        if self.known is not None:
            return self.known[numbers]
        return self.family.encode(
            self.pipeline, [self.texts[number] for number in numbers.tolist()]
        )
