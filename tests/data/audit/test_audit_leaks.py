"""An audit finds what two data sets share, and that the parts of a split share nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.audit.audit import Audit, audit_dataset, audit_folder
from palate.data.audit.columns import plain_text
from palate.data.images import hash_image
from palate.data.records import Choice, Image
from palate.data.splits import SplitSettings, split_dataset, write_split
from palate.data.tables import Dataset, save_dataset, to_table


def draw(path: Path, seed: int) -> PIL.Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = PIL.Image.fromarray(coarse).resize((64, 64), PIL.Image.Resampling.BICUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return image


def make(folder: Path, seeds: range, prompt: str = "p{}") -> tuple[list[Image], list[Choice]]:
    images, choices = [], []
    for k in seeds:
        keys = (f"{folder.name}-{k}a.png", f"{folder.name}-{k}b.png")
        for n, key in enumerate(keys):
            draw(folder / key, 2 * k + n)
            images.append(Image(key, prompt.format(k), path=key, sha256=hash_image(folder / key)))
        choices.append(Choice(f"c{k}", prompt.format(k), keys, (1, 2) if k % 2 else (2, 1)))
    return images, choices


def dataset(made: tuple[list[Image], list[Choice]], folder: Path) -> Dataset:
    return Dataset(to_table(made[0], "images"), to_table(made[1], "choices"), folder)


def leaks(audit: Audit) -> dict[str, tuple[int, int, int]]:
    return {leak.kind: (leak.there, leak.choices, leak.here) for leak in audit.facts.leaks}


KINDS = (
    "shared prompts",
    "respelled shared prompts",
    "shared images",
    "nearly shared images",
    "shared image names",
)


@pytest.fixture
def train(tmp_path: Path) -> Dataset:
    folder = tmp_path / "train"
    return dataset(make(folder, range(6)), folder)


def test_sets_that_share_nothing_leak_nothing(train: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "test"
    other = dataset(make(folder, range(10, 14)), folder)
    audit = audit_dataset(train, against=[other])
    assert leaks(audit) == dict.fromkeys(KINDS, (0, 0, 0))
    assert {f.kind for f in audit.findings} == {"unknown annotators"}


def test_every_kind_of_leak_is_counted_and_named(train: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "test"
    images, choices = make(folder, range(10, 16))
    # one prompt exactly, one but for case and spaces
    choices[0] = dataclasses.replace(choices[0], prompt="p1")
    choices[1] = dataclasses.replace(choices[1], prompt=" P2")
    # one image byte for byte, one scaled, one of the same name without a file
    (folder / images[4].image).write_bytes((train.folder / "train-0a.png").read_bytes())
    near = PIL.Image.open(train.folder / "train-1b.png").resize((50, 50))
    near.save(folder / images[6].image)
    old = images[8].image
    images[8] = dataclasses.replace(images[8], image="train-2a.png", path=None, sha256=None)
    choices[4] = dataclasses.replace(
        choices[4], images=tuple("train-2a.png" if k == old else k for k in choices[4].images)
    )
    for k in (4, 6):
        images[k] = dataclasses.replace(images[k], sha256=hash_image(folder / images[k].image))
    audit = audit_dataset(train, against=[dataset((images, choices), folder)])
    assert leaks(audit) == dict.fromkeys(KINDS, (1, 1, 1))
    told = {f.kind: f for f in audit.findings if f.kind in KINDS}
    assert [told[kind].level for kind in KINDS] == ["warning"] * 4 + ["note"]
    assert told["shared prompts"].message == (
        "1 of 8 prompts of test stand here too (12.5%), in 1 of its 6 choices; "
        "here they are 1 of 6 prompts"
    )
    assert told["shared prompts"].examples == ("p1",)
    assert told["respelled shared prompts"].examples == ("' P2' = 'p2'",)
    assert told["shared images"].examples == ("test: test-12a.png = train-0a.png",)
    assert told["nearly shared images"].examples == ("test: test-13a.png ≈ train-1b.png",)
    assert told["shared image names"].examples == ("train-2a.png",)
    strips = {strip.kind: strip for strip in audit.strips}
    shown = [picture.label for picture in strips["nearly shared images"].pictures]
    assert shown == ["test-13a.png", "train-1b.png"]


def test_a_set_shares_everything_with_itself(train: Dataset) -> None:
    found = leaks(audit_dataset(train, against=[train]))
    assert found["shared prompts"] == (6, 6, 6)
    assert found["shared images"] == (12, 6, 12)
    assert found["nearly shared images"] == found["shared image names"] == (0, 0, 0)


def test_several_sets_of_one_name_are_told_apart(train: Dataset, tmp_path: Path) -> None:
    others = []
    for name in "ab":
        folder = tmp_path / name / "test"
        others.append(dataset(make(folder, range(3)), folder))
    audit = audit_dataset(train, against=others)
    assert {leak.against for leak in audit.facts.leaks} == {str(o.folder) for o in others}
    assert sum(f.kind == "shared prompts" for f in audit.findings) == 2


def test_sets_without_files_or_choices_are_compared_too(train: Dataset, tmp_path: Path) -> None:
    empty = Dataset(to_table([], "images"), train.choices, tmp_path / "other")
    assert leaks(audit_dataset(train, against=[empty]))["shared prompts"] == (6, 6, 6)
    assert leaks(audit_dataset(empty, against=[train]))["shared image names"] == (12, 6, 12)
    only = Dataset(train.images, to_table([], "choices"), train.folder)
    assert leaks(audit_dataset(train, against=[only]))["shared images"] == (12, 0, 12)


def test_the_parts_of_a_split_share_nothing(train: Dataset, tmp_path: Path) -> None:
    save_dataset(train.folder, train.images, train.choices)
    split = split_dataset(train, SplitSettings({"a": 0.5, "b": 0.5}))
    first, second = write_split(train, split, tmp_path / "parts")
    assert leaks(audit_folder(first, against=[second])) == dict.fromkeys(KINDS, (0, 0, 0))


@given(st.text(max_size=8), st.sampled_from([str.upper, str.title, lambda text: f" {text}\t"]))
def test_prompts_that_a_split_takes_for_one_are_one_here(text: str, change) -> None:
    if plain_text(change(text)) != plain_text(text):
        return
    rows = [Choice("c", text, ("a", "b"), (1, 2)), Choice("d", change(text), ("x", "y"), (1, 2))]
    data = Dataset(to_table([], "images"), to_table(rows, "choices"), Path("nowhere"))
    assert split_dataset(data, SplitSettings({"a": 1.0})).components == 1
