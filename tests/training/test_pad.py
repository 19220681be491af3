"""Whole images may be learnt from, padded to a square, and scored so or as the base does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch

from palate.data.records import Choice, Image
from palate.data.tables import save_dataset, to_table
from palate.errors import SettingsError
from palate.models.clip_files import load_clip
from palate.models.tiny import tiny_clip
from palate.scoring.catalog import load
from palate.settings import read_settings
from palate.training.learners.make import learner_of
from palate.training.processes import Processes
from palate.training.settings import TrainSettings
from palate.training.stores import Shelf
from palate.training.train import Task, train


@pytest.fixture
def wide(tmp_path):
    """Choices between images twice as wide as high, red at their left and right ends."""
    (tmp_path / "data" / "images").mkdir(parents=True)
    chance, images, choices = np.random.default_rng(0), [], []
    for number in range(8):
        keys = (f"{number}-a", f"{number}-b")
        for key in keys:
            picture = chance.integers(60, 200, (32, 64, 3)).astype(np.uint8)
            picture[:, :8] = picture[:, -8:] = (255, 0, 0)
            PIL.Image.fromarray(picture).save(tmp_path / "data" / "images" / f"{key}.png")
            images.append(Image(key, f"prompt {number}", path=f"images/{key}.png"))
        choices.append(Choice(f"{number}", f"prompt {number}", keys, (1, 2)))
    return save_dataset(tmp_path / "data", to_table(images, "images"), to_table(choices, "choices"))


def cropping():
    """A CLIP that crops the middle, as OpenAI's do."""
    clip = tiny_clip(0)
    return replace(clip, preparation=replace(clip.preparation, resize="shorter"))


def settings(pad, **more):
    how = {"steps": 2, "batch": 4, "image_layers": 0, "text_layers": 1, "trackers": ()}
    return TrainSettings(pad=pad, **how | more)


def squares_of(dataset, folder, pad, *, wrap):
    """What a training (`wrap`) or a validation sees of the images, before any block."""
    how = settings(pad, image_layers=3, cache_gb=0.0)
    learner = learner_of(cropping(), how)
    task = Task.build(learner, dataset, Shelf(folder), how, Processes(), wrap=wrap)
    return task.material.images.bank.inputs


@pytest.mark.parametrize("pad", ["never", "training", "always"])
@pytest.mark.parametrize("wrap", [True, False])
def test_padding_keeps_both_ends_of_a_wide_image(wide, tmp_path, pad, wrap):
    seen = squares_of(wide, tmp_path / "shelf", pad, wrap=wrap)
    size = seen.shape[-1]
    whole = pad == "always" or (pad == "training" and wrap)
    ends = seen[:, 0, size // 2, [0, -1]]
    assert bool((ends > 230).all()) == whole
    assert bool((seen[:, :, 0] == 0).all()) == bool((seen[:, :, -1] == 0).all()) == whole


@pytest.mark.parametrize(("pad", "resize"), [("training", "shorter"), ("always", "longer")])
def test_the_saved_scorer_prepares_as_it_was_told(wide, tmp_path, pad, resize):
    train(wide, cropping(), tmp_path / "run", settings(pad))
    assert load_clip(tmp_path / "run").preparation.resize == resize
    paths = [wide.folder / "images" / f"0-{name}.png" for name in "ab"]
    scorer, crop = load(str(tmp_path / "run")), []
    for path in paths:
        with PIL.Image.open(path) as picture:
            picture.crop((16, 0, 48, 32)).save(tmp_path / path.name)
        crop.append(tmp_path / path.name)
    both = [scorer.score(some, ["prompt 0"] * 2) for some in (paths, crop)]
    assert np.allclose(*both, atol=1e-4) == (pad == "training")


def test_learning_padded_is_learning_from_padded_files(wide, tmp_path):
    """The same training on files that were padded by hand."""
    folder, size = tmp_path / "square", cropping().preparation.size
    (folder / "images").mkdir(parents=True)
    for path in (wide.folder / "images").iterdir():
        with PIL.Image.open(path) as picture:
            square = PIL.Image.new("RGB", (size, size))
            small = picture.resize((size, size // 2), PIL.Image.Resampling.BICUBIC)
            square.paste(small, (0, size // 4))
            square.save(folder / "images" / path.name)
    by_hand = save_dataset(folder, wide.images, wide.choices)
    how = {"image_layers": 1, "learning_rate": 1e-2}
    train(wide, cropping(), tmp_path / "padded", settings("training", **how))
    train(by_hand, cropping(), tmp_path / "hand", settings("never", **how))
    train(wide, cropping(), tmp_path / "never", settings("never", **how))
    one, hand, never = (
        load_clip(tmp_path / name).model.state_dict() for name in ("padded", "hand", "never")
    )
    assert all(torch.equal(one[name], hand[name]) for name in one)
    assert any(not torch.equal(one[name], never[name]) for name in one)


def test_the_recipes_pad_as_their_papers_do(root):
    for name, pad in (("hps-v1", "training"), ("hps-v2", "always"), ("pickscore", "never")):
        file = root / "recipes" / f"{name}.toml"
        assert read_settings(TrainSettings, file, section="train").pad == pad


def test_other_models_are_not_saved_padded():
    with pytest.raises(SettingsError, match="'always', which is for the model 'towers', not 'mps'"):
        settings("always", model="mps")


def test_an_image_reward_is_standard_on_what_it_saw_and_so_never_padded():
    with pytest.raises(SettingsError, match="'image-reward' does not read it"):
        TrainSettings(model="image-reward", pad="training", steps=1, epsilon=1e-8)
