"""A head on frozen features learns from choices, and its folder is a scorer that reads no prompt."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from palate.cli.main import main
from palate.errors import CheckpointError, SettingsError
from palate.models.aesthetic import HEAD, AestheticHead, load_head, save_head
from palate.models.clip_files import load_clip, save_clip
from palate.models.tiny import tiny_clip
from palate.models.tiny_siglip import tiny_siglip
from palate.scoring.catalog import load
from palate.scoring.promises import check_scorer
from palate.scoring.score import score_table
from palate.training.batches import read_groups
from palate.training.learners.aesthetic import AestheticBase, AestheticLearner, load_aesthetic_base
from palate.training.learners.make import learner_of
from palate.training.objectives import OBJECTIVES, prepared
from palate.training.settings import TrainSettings
from palate.training.stores import Shelf
from palate.training.train import train


def settings(**changes):
    values = {"model": "aesthetic", "steps": 6, "batch": 5, "learning_rate": 0.1}
    values |= {"warmup_steps": 2, "save_every": 3, "evaluate_every": 2, "log_every": 2}
    return TrainSettings(**(values | changes))


def head_of(kind, seed=0, width=16):
    random = torch.Generator().manual_seed(seed)
    widths = [width, 1] if kind in ("laion-v1", "simulacra") else [width, 1024, 128, 64, 16, 1]
    layers = tuple(
        (
            torch.randn(out, into, generator=random) / into**0.5,
            torch.randn(out, generator=random),
        )
        for into, out in pairwise(widths)
    )
    return AestheticHead(kind, width, layers)


@pytest.fixture
def base(tmp_path):
    save_clip(tiny_clip(0), tmp_path / "base")
    return load_aesthetic_base(tmp_path / "base")


@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_it_learns_to_prefer_what_was_chosen(dataset, held_out, tmp_path, base, objective):
    how = settings(steps=100, batch=12, objective=objective, evaluate_every=50)
    result = train(dataset, base, tmp_path / "run", how, held_out)
    assert result["validation"]["accuracy"] > 0.75
    assert result["before"]["accuracy"] == pytest.approx(result["chance"])  # all ratings are 0
    assert (result["trained_parameters"], result["scale"], result["cached"]) == (16, 1.0, True)


def test_the_features_are_those_of_the_clip_and_computed_once(dataset, tmp_path, base, monkeypatch):
    seen = []
    real = type(base.clip).image_features

    def count(self, pixels):
        seen.append(len(pixels))
        return real(self, pixels)

    monkeypatch.setattr(type(base.clip), "image_features", count)
    train(dataset, base, tmp_path / "run", settings(steps=20))
    # one to see whether they fit and how many go together
    assert seen == [1, dataset.images.num_rows]
    seen.clear()
    altered = train(dataset, base, tmp_path / "altered", settings(shift=1))
    assert not altered["cached"]
    assert len(seen) == 6


@pytest.mark.parametrize("kind", ["laion-v1", "laion-v2", "laion-v2-relu", "simulacra"])
def test_the_folder_gives_the_ratings_that_were_learnt(dataset, tmp_path, base, kind):
    """From a head of every kind: saved, read by `palate score`, and equal to the learner's own ratings."""
    start = replace(base, head=head_of(kind))
    result = train(
        dataset, start, tmp_path / "fox", settings(learning_rate=1e-3, dimensions=("overall",))
    )
    scorer = load(str(tmp_path / "fox"))
    assert (scorer.name, scorer.unit, scorer.dimension) == ("fox", "logit", "overall")
    assert not scorer.reads_prompts
    assert check_scorer(scorer) == []
    learner = AestheticLearner(load_aesthetic_base(tmp_path / "fox"))
    groups = read_groups(dataset.choices, ["overall"], "")
    material = learner.open(dataset, groups, Shelf(tmp_path / "shelf"), altered=False)
    with torch.no_grad():
        ratings = learner(material, groups.all)
    table = score_table(dataset.images, dataset.folder, scorer)
    values = dict(zip(table["image"].to_pylist(), table["value"].to_pylist(), strict=True))
    expected = np.array(
        [values[groups.keys[place]] for place in groups.all.images[groups.all.mask]]
    )
    assert np.allclose(ratings[groups.all.mask].numpy(), expected, atol=1e-5)
    assert result["steps"] == 6


@pytest.mark.parametrize("kind", ["laion-v1", "laion-v2", "laion-v2-relu", "simulacra"])
def test_only_the_head_moves_and_no_bias_that_cancels(dataset, tmp_path, base, kind):
    head = head_of(kind)
    train(dataset, replace(base, head=head), tmp_path / "run", settings(learning_rate=1e-3))
    clip, before = load_clip(tmp_path / "run"), tiny_clip(0).model.state_dict()
    after = clip.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    layers = load_head(tmp_path / "run" / HEAD).layers
    for place, ((old, offset), (new, moved)) in enumerate(zip(head.layers, layers, strict=True)):
        assert not torch.equal(old, new)
        trained = kind == "laion-v2-relu" and place < len(layers) - 1
        assert torch.equal(offset, moved) != trained


@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_a_bias_that_is_not_trained_has_no_gradient(dataset, tmp_path, base, objective):
    """What is added to all ratings changes no loss, by any objective."""
    learner = AestheticLearner(replace(base, head=head_of("laion-v1")))
    groups = prepared(read_groups(dataset.choices, ["overall"], ""), OBJECTIVES[objective], "half")
    material = learner.open(dataset, groups, Shelf(tmp_path / "shelf"), altered=False)
    learner.biases[0].requires_grad_(requires_grad=True)
    losses = OBJECTIVES[objective].loss(learner(material, groups.all), groups.all)
    losses.mean().backward()
    assert learner.biases[0].grad.abs().max() < 1e-6
    assert learner.weights[0].grad.abs().max() > 1e-3


def test_no_prompt_and_no_order_is_read(dataset, tmp_path, base):
    learner = AestheticLearner(replace(base, head=head_of("laion-v2")))
    groups = read_groups(dataset.choices, ["overall"], "")
    material = learner.open(dataset, groups, Shelf(tmp_path / "shelf"), altered=False)
    batch = groups.all
    random = torch.rand(batch.mask.shape, generator=torch.Generator().manual_seed(0))
    order = random.masked_fill(~batch.mask, 2.0).argsort(-1)
    moved = {name: getattr(batch, name).gather(1, order) for name in ("images", "mask", "ranks")}
    other = replace(batch, prompt=batch.prompt.flip(0), **moved)
    with torch.no_grad():
        scores, others = learner(material, batch), learner(material, other)
    assert torch.equal(others[other.mask], scores.gather(1, order)[other.mask])


@pytest.mark.parametrize("change", [{}, {"shift": 2}, {"ema": 0.9}, {"precision": "bfloat16"}])
def test_a_training_that_broke_ends_as_one_that_did_not(
    dataset, held_out, tmp_path, monkeypatch, base, change
):
    import palate.training.train as module

    how = settings(**change)
    expected = train(dataset, base, tmp_path / "whole", how, held_out)
    real = module.batch_at

    def crash(groups, step, size, seed, **more):
        if step == 4:
            raise KeyboardInterrupt
        return real(groups, step, size, seed, **more)

    monkeypatch.setattr(module, "batch_at", crash)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, base, tmp_path / "part", how, held_out)
    monkeypatch.setattr(module, "batch_at", real)
    assert train(dataset, base, tmp_path / "part", how, held_out) == expected
    heads = [load_head(tmp_path / name / HEAD).fingerprint() for name in ("whole", "part")]
    assert heads[0] == heads[1]


def test_from_the_command_line_and_on_from_there(dataset, tmp_path, capsys):
    save_clip(tiny_clip(0), tmp_path / "base")
    recipe = tmp_path / "head.toml"
    recipe.write_text('[train]\nmodel = "aesthetic"\nsteps = 3\nbatch = 6\n')
    for start, name in (("base", "first"), ("first", "second")):
        command = ["train", str(dataset.folder), "--base", str(tmp_path / start)]
        command += ["--recipe", str(recipe), "--out", str(tmp_path / name)]
        assert main(command) == 0
    capsys.readouterr()
    scores = ["score", str(dataset.folder), "--scorer", str(tmp_path / "second"), "--json"]
    assert main(scores) == 0
    assert json.loads(capsys.readouterr().out)["scores"][0]["scorer"] == "second"
    first, second = (load_head(tmp_path / name / HEAD).layers[0][0] for name in ("first", "second"))
    assert not torch.equal(first, second)
    picture = Picture.new("RGB", (40, 30), (200, 10, 10))
    assert np.isfinite(load(str(tmp_path / "second")).score([picture])).all()


def test_a_base_is_told_apart_by_its_head(base):
    others = [AestheticBase(base.clip, head_of("laion-v1", seed)) for seed in (1, 2)]
    others.append(AestheticBase(tiny_clip(1), base.head))
    assert len({one.fingerprint() for one in [base, *others]}) == 4


def test_a_head_of_another_clip_and_a_siglip_are_refused(tmp_path):
    from palate.models.siglip_files import save_siglip

    save_clip(tiny_clip(0), tmp_path / "clip")
    save_head(head_of("laion-v1", width=8), tmp_path / "clip" / HEAD)
    with pytest.raises(CheckpointError, match="takes features of 8 numbers"):
        load_aesthetic_base(tmp_path / "clip")
    save_siglip(tiny_siglip(0), tmp_path / "siglip")
    with pytest.raises(CheckpointError, match="expected 'clip'"):
        load_aesthetic_base(tmp_path / "siglip")


def test_towers_are_no_base_of_a_head():
    with pytest.raises(SettingsError, match="cannot start from a Clip"):
        learner_of(tiny_clip(0), settings())


@pytest.mark.parametrize(
    "change",
    [{"image_layers": 2}, {"logit_scale": 10.0}, {"counting": "openclip"}, {"unit": "cosine"}],
)
def test_what_a_head_does_not_read_is_refused(change):
    with pytest.raises(SettingsError, match="does not read it; leave it out"):
        settings(**change)
