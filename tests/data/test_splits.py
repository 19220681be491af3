"""Parts share nothing, and the order of the rows decides nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from palate.data.records import Choice, Image
from palate.data.splits import Split, SplitSettings, check_split, split_dataset, write_split
from palate.data.tables import Dataset, image_path, load_dataset, to_rows, to_table
from palate.errors import DataError


def content(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def dataset(images: list[Image], choices: list[Choice], folder: Path = Path()) -> Dataset:
    return Dataset(to_table(images, "images"), to_table(choices, "choices"), folder)


@st.composite
def rows(draw: st.DrawFn) -> tuple[list[Image], list[Choice]]:
    """Prompts with images; now and then an image, a content or a prompt is shared."""
    images, choices = [], []
    for number in range(draw(st.integers(3, 12))):
        prompt = f"prompt {draw(st.integers(0, 9))}"
        size = draw(st.integers(2, 3))
        keys = [f"i{draw(st.integers(0, 40))}-{k}" for k in range(size)]
        images += [
            Image(key, prompt, sha256=content(draw(st.sampled_from("abc")) + key)) for key in keys
        ]
        state = random.getstate()
        choices.append(Choice(f"c{number}", prompt, tuple(keys), tuple(range(1, size + 1))))
        random.setstate(state)
    unique = list({image.image: image for image in images}.values())
    return unique, choices


def slow_components(images: list[Image], choices: list[Choice]) -> int:
    """Merge sets that share a member until none do."""
    sets = [{f"p {row.prompt}", f"i {row.image}", f"h {row.sha256}"} for row in images]
    sets += [{f"p {row.prompt}", *(f"i {key}" for key in row.images)} for row in choices]
    merged: list[set[str]] = []
    for one in sets:
        touching = [other for other in merged if other & one]
        merged = [other for other in merged if not other & one]
        merged.append(one.union(*touching))
    return len(merged)


@given(rows(), st.integers(0, 3), st.randoms())
def test_parts_share_nothing_and_do_not_depend_on_the_order(made, seed, shuffler) -> None:
    images, choices = made
    components = slow_components(images, choices)
    assume(components >= 3)
    settings = SplitSettings({"train": 0.6, "test": 0.4}, seed)
    data = dataset(images, choices)
    try:
        found = split_dataset(data, settings)
    except DataError as fault:
        # one group may outweigh the rest
        assume("would be empty" not in str(fault))
        raise
    assert found.components == components
    check_split(data, found)
    homes = dict(zip((row.choice for row in choices), found.choices, strict=True))
    places = dict(zip((row.image for row in images), found.images, strict=True))
    shuffler.shuffle(images)
    shuffler.shuffle(choices)
    again = split_dataset(dataset(images, choices), settings)
    assert homes == dict(zip((row.choice for row in choices), again.choices, strict=True))
    assert places == dict(zip((row.image for row in images), again.images, strict=True))


def simple(count: int) -> tuple[list[Image], list[Choice]]:
    images = [Image(f"{k}-{j}", f"prompt {k}") for k in range(count) for j in range(2)]
    choices = [Choice(f"c{k}", f"prompt {k}", (f"{k}-0", f"{k}-1"), (1, 2)) for k in range(count)]
    return images, choices


def test_fractions_are_kept_and_seeds_differ() -> None:
    data = dataset(*simple(200))
    settings = SplitSettings({"train": 0.8, "validation": 0.1, "test": 0.1})
    found = split_dataset(data, settings)
    assert np.bincount(found.choices).tolist() == [160, 20, 20]
    assert np.bincount(found.images).tolist() == [320, 40, 40]
    other = split_dataset(data, dataclasses.replace(settings, seed=1))
    assert (found.choices != other.choices).any()
    assert (found.components, found.largest) == (200, 1 / 200)


def test_a_split_is_the_same_in_every_release() -> None:
    found = split_dataset(dataset(*simple(12)), SplitSettings({"train": 0.5, "test": 0.5}, seed=7))
    assert found.choices.tolist() == GOLDEN


GOLDEN = [1, 1, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0]


def test_images_without_choices_are_split_by_prompt() -> None:
    found = split_dataset(dataset(simple(10)[0], []), SplitSettings({"a": 0.5, "b": 0.5}))
    assert np.bincount(found.images).tolist() == [10, 10]
    assert (found.images[::2] == found.images[1::2]).all()


def test_choices_without_images_are_split_by_prompt() -> None:
    found = split_dataset(dataset([], simple(10)[1]), SplitSettings({"a": 0.5, "b": 0.5}))
    assert np.bincount(found.choices).tolist() == [5, 5]


@pytest.mark.parametrize("link", ["prompt", "spelling", "image", "content"])
def test_every_link_keeps_two_prompts_together(link: str) -> None:
    images, choices = simple(2)
    images = [dataclasses.replace(row, sha256=content(row.image)) for row in images]
    if link == "prompt":
        choices[1] = dataclasses.replace(choices[1], prompt="prompt 0")
    elif link == "spelling":
        images[2:] = [dataclasses.replace(row, prompt=" PROMPT  0") for row in images[2:]]
        choices[1] = dataclasses.replace(choices[1], prompt="Prompt 0")
    elif link == "image":
        choices[1] = dataclasses.replace(choices[1], images=("1-0", "0-1"))
    else:
        images[2] = dataclasses.replace(images[2], sha256=images[0].sha256)
    with pytest.raises(DataError, match=r"'b' would be empty: .* hang together in 1 groups"):
        split_dataset(dataset(images, choices), SplitSettings({"a": 0.5, "b": 0.5}))


def test_a_leaking_split_is_found_out() -> None:
    data = dataset(*simple(2))
    images, choices = np.array([0, 0, 1, 1]), np.array([0, 1])
    settings = SplitSettings({"a": 0.5, "b": 0.5})
    check_split(data, Split(("a", "b"), images, choices, 2, 0.5, settings))
    leaks = Split(("a", "b"), images[::-1], choices, 2, 0.5, settings)
    with pytest.raises(DataError, match=r"the parts 'a' and 'b' share the (prompt|image)"):
        check_split(data, leaks)


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"train": 0.8, "test": 0.1}, r"the fractions sum to 0\.9, expected 1"),
        ({"train": 1.5, "test": -0.5}, r"the part 'train' is 1\.5"),
        ({"a/b": 1.0}, "a part cannot be called 'a/b'"),
        ({"": 1.0}, "a part cannot be called ''"),
    ],
)
def test_fractions_that_are_no_parts_are_refused(fractions, message) -> None:
    with pytest.raises(DataError, match=message):
        SplitSettings(fractions)


def test_nothing_cannot_be_split() -> None:
    with pytest.raises(DataError, match="there is nothing to split"):
        split_dataset(dataset([], []))


def test_written_parts_find_their_images(tmp_path: Path) -> None:
    images, choices = simple(10)
    images = [dataclasses.replace(row, path=f"images/{row.image}.png") for row in images]
    data = dataset(images, choices, tmp_path / "all")
    folders = write_split(data, split_dataset(data), tmp_path / "parts")
    assert [folder.name for folder in folders] == ["train", "test"]
    found = {}
    for folder in folders:
        part = load_dataset(folder)
        for row in to_rows(part.images, Image):
            found[row.image] = image_path(row, folder)
    assert found == {row.image: image_path(row, tmp_path.resolve() / "all") for row in images}
