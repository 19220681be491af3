"""Training learns what people chose, trains what it says, and survives being killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.compute as pc
import pytest
import torch

from palate.data.tables import Dataset, image_path
from palate.errors import DataError, ImageError, RunError, SettingsError
from palate.models.clip_files import load_clip, save_clip
from palate.models.pixels import open_picture
from palate.models.tiny import tiny_clip
from palate.scoring.catalog import load
from palate.scoring.promises import check_scorer
from palate.scoring.score import score_table
from palate.settings import read_settings
from palate.stats.accuracy import top1
from palate.training.banks import ImageBank, TextBank
from palate.training.batches import read_groups
from palate.training.learners.learner import open_pictures
from palate.training.learners.towers import TowersLearner, unfreeze
from palate.training.settings import TrainSettings
from palate.training.stores import Shelf
from palate.training.train import train


def settings(**changes):
    values = {"steps": 6, "batch": 5, "image_layers": 1, "text_layers": 1, "learning_rate": 1e-3}
    values |= {"warmup_steps": 2, "save_every": 3, "evaluate_every": 2, "log_every": 2}
    return TrainSettings(**(values | changes))


def weights_of(folder):
    return load_clip(folder).model.state_dict()


def test_it_learns_to_prefer_what_was_chosen(dataset, held_out, tmp_path):
    how = settings(
        steps=60, batch=12, image_layers=3, text_layers=2, learning_rate=3e-3, evaluate_every=20
    )
    result = train(dataset, tiny_clip(0), tmp_path / "run", how, held_out)
    assert result["validation"]["accuracy"] > 0.75
    assert result["chance"] < 0.5
    assert result["validation"]["accuracy"] > result["before"]["accuracy"]
    curves = json.loads((tmp_path / "run" / "curves.json").read_text())
    assert [point["step"] for point in curves["validation"]] == [20, 40, 60]
    assert curves["train"][-1]["loss"] < curves["train"][0]["loss"]
    assert not (tmp_path / "run" / "state.pt").exists()


def test_the_folder_is_the_scorer_that_was_validated(dataset, held_out, tmp_path):
    result = train(dataset, tiny_clip(0), tmp_path / "fox", settings(), held_out)
    scorer = load(str(tmp_path / "fox"))
    assert (scorer.name, scorer.unit, scorer.dimension) == ("fox", "hps", "overall")
    assert check_scorer(scorer) == []
    scores = score_table(held_out.images, held_out.folder, scorer)
    values = dict(zip(scores["image"].to_pylist(), scores["value"].to_pylist(), strict=True))
    groups = held_out.choices.select(["images", "ranks"]).to_pylist()
    flat = [values[image] for group in groups for image in group["images"]]
    ranks = [rank for group in groups for rank in group["ranks"]]
    offsets = [0]
    for group in groups:
        offsets.append(offsets[-1] + len(group["images"]))
    assert top1(flat, ranks, offsets).value == pytest.approx(result["validation"]["accuracy"])


def test_the_same_twice_and_another_seed_not(dataset, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(dataset, tiny_clip(0), tmp_path / name, settings(seed=seed))
    a, b, c = (weights_of(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


@pytest.mark.parametrize(
    "change", [{}, {"shift": 2, "flip": True}, {"ema": 0.9}, {"cache_gb": 0.0}]
)
def test_a_training_that_broke_ends_as_one_that_did_not(
    dataset, held_out, tmp_path, monkeypatch, change
):
    import palate.training.train as module

    how = settings(**change)
    expected = train(dataset, tiny_clip(0), tmp_path / "whole", how, held_out)
    real = module.batch_at

    def crash(groups, step, size, seed, **more):
        if step == 4:
            raise KeyboardInterrupt
        return real(groups, step, size, seed, **more)

    monkeypatch.setattr(module, "batch_at", crash)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, tiny_clip(0), tmp_path / "part", how, held_out)
    assert not (tmp_path / "part" / "palate.json").exists()
    monkeypatch.setattr(module, "batch_at", real)
    found = train(dataset, tiny_clip(0), tmp_path / "part", how, held_out)
    assert found == expected
    whole, part = weights_of(tmp_path / "whole"), weights_of(tmp_path / "part")
    assert all(torch.equal(whole[name], part[name]) for name in whole)
    curves = [(tmp_path / name / "curves.json").read_text() for name in ("whole", "part")]
    assert curves[0] == curves[1]


@pytest.mark.slow
def test_a_process_that_was_killed_goes_on_bit_for_bit(dataset, tmp_path):
    save_clip(tiny_clip(0), tmp_path / "base")
    how = [
        "--steps",
        "6",
        "--batch",
        "5",
        "--image-layers",
        "1",
        "--text-layers",
        "1",
        "--save-every",
        "3",
    ]
    command = [sys.executable, "-m", "palate", "train", str(dataset.folder)]
    command += ["--base", str(tmp_path / "base"), *how]
    source = str(Path(__file__).parents[2] / "src")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": source}

    log = tmp_path / "log"

    def run(name, **more):
        with log.open("wb") as file:
            return subprocess.Popen(
                [*command, "--out", str(tmp_path / name)],
                env=environment | more,
                stdout=file,
                stderr=file,
            )

    assert run("whole").wait() == 0, log.read_text()
    # A second process sleeps after the state of step 3 is written, and is killed there.
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import time\nimport palate.training.loop as loop\n"
        "update = loop._State.update\n"
        "def slow(self, losses, step):\n"
        "    time.sleep(600 if step == 4 else 0)\n"
        "    return update(self, losses, step)\n"
        "loop._State.update = slow\n"
    )
    part = run("part", PYTHONPATH=f"{hook}{os.pathsep}{source}")
    deadline = time.monotonic() + 300
    while not (tmp_path / "part" / "state.pt").exists():
        assert part.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    part.send_signal(signal.SIGKILL)
    part.wait()
    assert torch.load(tmp_path / "part" / "state.pt", weights_only=True)["step"] == 3
    assert run("part").wait() == 0, log.read_text()
    first, second = weights_of(tmp_path / "whole"), weights_of(tmp_path / "part")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_finished_training_is_not_repeated(dataset, tmp_path):
    first = train(dataset, tiny_clip(0), tmp_path / "run", settings())
    stamp = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    assert train(dataset, tiny_clip(0), tmp_path / "run", settings()) == first
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(RunError, match="seed"):
        train(dataset, tiny_clip(0), tmp_path / "run", settings(seed=9))
    with pytest.raises(RunError, match="base"):
        train(dataset, tiny_clip(1), tmp_path / "run", settings())


@pytest.mark.parametrize("layers", [(0, 1), (1, 0), (2, 2), (3, 3), (1, 3)])
def test_only_what_is_asked_for_is_trained(dataset, tmp_path, layers):
    base = tiny_clip(0).model.state_dict()
    image, text = layers
    clip = tiny_clip(0)
    trained = {
        name.removeprefix("model.")
        for name in TowersLearner(
            clip, settings(image_layers=image, text_layers=text).trained()
        ).trained()
    }
    train(dataset, clip, tmp_path / "run", settings(image_layers=image, text_layers=text))
    after = weights_of(tmp_path / "run")
    moved = {name for name in base if not torch.equal(base[name], after[name])}
    assert moved <= trained
    # a key's bias shifts all attention alike and has no gradient, nor has a token that never comes
    assert {name for name in trained if "k_proj.bias" not in name} <= moved


def names_trained(**changes):
    clip = tiny_clip(0, layers=4, text_layers=3)
    learner = TowersLearner(clip, settings(**changes).trained())
    frozen = learner.frozen
    trained = {name for name, value in clip.model.named_parameters() if value.requires_grad}
    blocks = {
        tower: sorted(
            {int(name.split(".")[3]) for name in trained if name.startswith(f"{tower}_model.enc")}
        )
        for tower in ("vision", "text")
    }
    others = {name for name in trained if ".encoder." not in name}
    return frozen, blocks, others


def test_layers_as_blocks():
    frozen, blocks, others = names_trained(image_layers=3, text_layers=1)
    assert (frozen.image, frozen.text) == (2, 3)
    assert blocks == {"vision": [1, 2, 3], "text": [2]}
    assert {
        "vision_model.post_layernorm.weight",
        "visual_projection.weight",
        "logit_scale",
    } <= others
    assert not any("embedding" in name or "pre_layrnorm" in name for name in others)
    frozen, blocks, others = names_trained(image_layers=5, text_layers=4)
    assert (frozen.image, frozen.text) == (0, 0)
    assert {"vision_model.embeddings.class_embedding", "vision_model.pre_layrnorm.bias"} <= others
    assert "text_model.embeddings.token_embedding.weight" in others


def test_layers_as_openclip_counts_them():
    """open_clip: the projection is a layer of the image tower; the text head is always trained."""
    frozen, blocks, others = names_trained(image_layers=3, text_layers=0, counting="openclip")
    assert (frozen.image, frozen.text) == (3, 4)
    assert blocks == {"vision": [2, 3], "text": []}
    assert {"text_projection.weight", "text_model.final_layer_norm.bias"} <= others
    frozen, blocks, others = names_trained(image_layers=1, text_layers=3, counting="openclip")
    assert (frozen.image, frozen.text) == (5, 1)
    assert blocks == {"vision": [], "text": [0, 1, 2]}
    assert "vision_model.post_layernorm.weight" not in others
    assert not any("text_model.embeddings" in name for name in others)
    frozen, blocks, _ = names_trained(image_layers=0, text_layers=0, counting="openclip")
    assert (frozen.image, blocks) == (None, {"vision": [], "text": []})
    assert names_trained(image_layers=6, text_layers=1, counting="openclip")[0].image == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"image_layers": 4},
        {"text_layers": 4},
        {"image_layers": 5, "counting": "openclip"},
        {"text_layers": 3, "counting": "openclip"},
    ],
)
def test_more_layers_than_there_are_is_refused(changes):
    with pytest.raises(SettingsError, match="but this tower has"):
        unfreeze(tiny_clip(0), settings(**changes).trained())


def test_a_scale_alone_is_nothing_to_train():
    with pytest.raises(SettingsError, match="leave nothing to train"):
        TowersLearner(tiny_clip(0), settings(image_layers=0, text_layers=0).trained()).trained()


@pytest.mark.parametrize("frozen", [None, 0, 1, 2, 3])
def test_cached_states_give_the_features_of_the_whole_model(dataset, tmp_path, frozen):
    clip = tiny_clip(0)
    groups = read_groups(dataset.choices, ["overall"], "")
    shelf = Shelf(tmp_path)
    pictures = open_pictures(dataset, groups.keys, clip.preparation, shelf)
    places = torch.tensor([3, 0, 7])
    with torch.no_grad():
        whole = ImageBank(clip, pictures, 0).features(places)
        words = TextBank(clip, groups.prompts, 0).features(places[:2])
        for kept in (None, shelf):
            images = ImageBank(clip, pictures, frozen, kept)
            texts = TextBank(clip, groups.prompts, frozen, kept)
            assert torch.allclose(images.features(places), whole, atol=1e-6)
            assert torch.allclose(texts.features(places[:2]), words, atol=1e-6)


def test_trained_from_a_cache_or_not_is_the_same_up_to_rounding(dataset, tmp_path):
    for name, room in (("cached", 4.0), ("not", 0.0)):
        result = train(dataset, tiny_clip(0), tmp_path / name, settings(cache_gb=room))
        assert result["cached"] == bool(room)
    a, b = weights_of(tmp_path / "cached"), weights_of(tmp_path / "not")
    assert all(torch.allclose(a[name], b[name], atol=1e-4) for name in a)


def test_altered_images_are_not_cached(dataset, tmp_path):
    assert not train(dataset, tiny_clip(0), tmp_path / "run", settings(shift=1))["cached"]


def test_pictures_in_the_bank_are_what_the_scorer_prepares(dataset, tmp_path):
    clip = tiny_clip(0)
    keys = dataset.images["image"].to_pylist()[:3]
    pictures = open_pictures(dataset, keys, clip.preparation, Shelf(tmp_path))
    paths = [image_path(row, dataset.folder) for row in dataset.images.slice(0, 3).to_pylist()]
    from palate.models.pixels import normalise, prepare

    expected = prepare([open_picture(path) for path in paths], clip.preparation)
    assert torch.equal(normalise(pictures, clip.preparation), expected)


def test_the_scale_starts_where_it_is_told_and_stays_below_100(dataset, tmp_path):
    fixed = settings(logit_scale=100.0, train_logit_scale=False)
    assert train(dataset, tiny_clip(0), tmp_path / "a", fixed)["scale"] == pytest.approx(
        100, rel=1e-4
    )
    moving = settings(logit_scale=100.0, learning_rate=0.5)
    assert train(dataset, tiny_clip(0), tmp_path / "b", moving)["scale"] <= 100 * (1 + 1e-5)


def test_epochs_are_counted_in_choices():
    assert TrainSettings(epochs=1.0, batch=5).loop(24).steps == 5
    assert TrainSettings(epochs=2.5, batch=10).loop(100).steps == 25


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"epochs": 1.0}, "either steps or epochs"),
        ({"steps": None}, "either steps or epochs"),
        ({"batch": 0}, "batch is 0"),
        ({"shift": -1}, "shift is -1"),
        ({"logit_scale": 0.0}, "logit_scale is 0"),
        ({"learning_rate": -1.0}, "learning_rate"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, told):
    with pytest.raises(SettingsError, match=told):
        settings(**changes)


def test_a_missing_image_is_named_before_anything_is_trained(dataset, tmp_path):
    place = dataset.images.schema.get_field_index("path")
    gone = pc.replace_substring(dataset.images["path"], "1-0-0.png", "gone.png")
    field = dataset.images.schema.field(place)
    broken = Dataset(dataset.images.set_column(place, field, gone), dataset.choices, dataset.folder)
    with pytest.raises(ImageError, match=r"gone\.png"):
        train(broken, tiny_clip(0), tmp_path / "run", settings())
    fewer = Dataset(dataset.images.slice(1), dataset.choices, dataset.folder)
    with pytest.raises(DataError, match="not in the table of images"):
        train(fewer, tiny_clip(0), tmp_path / "other", settings())


def test_the_recipe_of_the_paper_reads(root):
    recipe = read_settings(TrainSettings, root / "recipes" / "hps-v1.toml", section="train")
    assert (recipe.image_layers, recipe.text_layers, recipe.counting) == (10, 6, "openclip")
    assert (recipe.batch, recipe.epochs, recipe.learning_rate) == (5, 1.0, 1.7e-5)
    assert recipe.loop(20_205).steps == 4041
