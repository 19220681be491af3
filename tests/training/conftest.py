"""A small data set whose choices follow brightness, so that there is something to learn."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as Picture

from palate.data.records import Choice, Image, pick_ranks
from palate.data.tables import load_dataset, save_dataset, to_table

PROMPTS = ("a red fox", "a blue cat", "two birds", "an old oak", "the sea")


def write_dataset(folder, groups, *, seed=0, sizes=(2, 3, 4), side=16):
    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    images, choices = [], []
    for group in range(groups):
        prompt = PROMPTS[group % len(PROMPTS)]
        count = int(random.choice(sizes))
        levels = random.permutation(np.linspace(30, 220, count))
        keys = []
        for place, level in enumerate(levels):
            key = f"{seed}-{group}-{place}"
            noise = random.normal(level, 25, (side, side, 3))
            picture = Picture.fromarray(np.clip(noise, 0, 255).astype(np.uint8), "RGB")
            picture.save(folder / "images" / f"{key}.png")
            images.append(Image(image=key, prompt=prompt, path=f"images/{key}.png"))
            keys.append(key)
        choices.append(
            Choice(
                choice=f"{seed}-{group}",
                prompt=prompt,
                images=tuple(keys),
                ranks=pick_ranks(count, int(np.argmax(levels))),
            )
        )
    return save_dataset(folder, to_table(images, "images"), to_table(choices, "choices"))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "train"
    write_dataset(folder, 24, seed=1)
    return load_dataset(folder)


@pytest.fixture(scope="session")
def held_out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "held"
    write_dataset(folder, 16, seed=2)
    return load_dataset(folder)
