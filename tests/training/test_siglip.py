"""A SigLIP learns from choices as a CLIP does: the same loop, other parts, and a scale without a limit."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from palate.cli.main import main
from palate.errors import SettingsError
from palate.models.pixels import prepare
from palate.models.siglip_files import load_siglip, save_siglip
from palate.models.tiny import tiny_clip
from palate.models.tiny_siglip import tiny_siglip
from palate.scoring.catalog import load
from palate.scoring.promises import check_scorer
from palate.scoring.score import score_table
from palate.stats.accuracy import top1
from palate.training.banks import ImageBank, TextBank
from palate.training.batches import read_groups
from palate.training.learners.learner import open_pictures
from palate.training.learners.make import learner_of
from palate.training.learners.towers import TowersLearner
from palate.training.settings import TrainSettings
from palate.training.stores import Shelf
from palate.training.train import train


def settings(**changes):
    values = {"steps": 6, "batch": 5, "image_layers": 1, "text_layers": 1, "learning_rate": 1e-3}
    values |= {"warmup_steps": 2, "save_every": 3, "evaluate_every": 2, "log_every": 2}
    return TrainSettings(**(values | changes))


def weights_of(folder):
    return load_siglip(folder).model.state_dict()


def test_it_learns_to_prefer_what_was_chosen(dataset, held_out, tmp_path):
    how = settings(
        steps=60, batch=12, image_layers=3, text_layers=2, learning_rate=3e-3, evaluate_every=20
    )
    result = train(dataset, tiny_siglip(0), tmp_path / "run", how, held_out)
    assert result["validation"]["accuracy"] > 0.75
    assert result["validation"]["accuracy"] > result["before"]["accuracy"]


@pytest.mark.parametrize("unit", ["hps", "cosine", "logit"])
def test_the_folder_is_the_scorer_that_was_validated(dataset, held_out, tmp_path, unit):
    result = train(dataset, tiny_siglip(0), tmp_path / "fox", settings(unit=unit), held_out)
    scorer = load(str(tmp_path / "fox"))
    assert (scorer.name, scorer.unit, scorer.dimension) == ("fox", unit, "overall")
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


def test_what_was_trained_reads_back_with_the_same_scores(dataset, tmp_path):
    learner = learner_of(tiny_siglip(0), settings())
    groups = read_groups(dataset.choices, ["overall"], "")
    material = learner.open(dataset, groups, Shelf(tmp_path / "shelf"), altered=False)
    optimiser = torch.optim.SGD(learner.trained().values(), lr=0.1)
    learner(material, groups.all)[groups.all.mask].square().mean().backward()
    optimiser.step()
    with torch.no_grad():
        before = learner(material, groups.all)
    learner.save(tmp_path / "run", name="run", dimension="overall")
    again = learner_of(load_siglip(tmp_path / "run"), settings())
    with torch.no_grad():
        after = again(
            again.open(dataset, groups, Shelf(tmp_path / "shelf"), altered=False), groups.all
        )
    assert torch.equal(before[groups.all.mask], after[groups.all.mask])


def test_the_folder_is_one_that_transformers_loads(dataset, tmp_path):
    from transformers import AutoProcessor, SiglipModel

    train(dataset, tiny_siglip(0), tmp_path / "run", settings())
    ours = load_siglip(tmp_path / "run")
    theirs = SiglipModel.from_pretrained(tmp_path / "run").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "run")
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ids = ours.tokenizer.batch(["a red fox", "the sea"]).ids
    with torch.no_grad():
        image = torch.nn.functional.normalize(theirs.vision_model(pixels).pooler_output, dim=-1)
        text = torch.nn.functional.normalize(theirs.text_model(ids).pooler_output, dim=-1)
        assert torch.allclose(image, ours.image_features(pixels), atol=1e-6)
        assert torch.allclose(text, ours.text_features(ids), atol=1e-6)
    assert processor is not None


def test_a_folder_trains_and_scores_from_the_command_line(dataset, tmp_path, capsys):
    save_siglip(tiny_siglip(0), tmp_path / "base")
    command = ["train", str(dataset.folder), "--base", str(tmp_path / "base")]
    command += ["--out", str(tmp_path / "run"), "--steps", "2", "--batch", "4"]
    command += ["--image-layers", "1", "--text-layers", "0"]
    assert main(command) == 0
    scores = ["score", str(dataset.folder), "--scorer", str(tmp_path / "run"), "--json"]
    capsys.readouterr()
    assert main(scores) == 0
    assert '"scorer": "run"' in capsys.readouterr().out


@pytest.mark.parametrize("frozen", [None, 0, 1, 2, 3])
def test_cached_states_give_the_features_of_the_whole_model(dataset, tmp_path, frozen):
    siglip = tiny_siglip(0)
    groups = read_groups(dataset.choices, ["overall"], "")
    shelf = Shelf(tmp_path)
    pictures = open_pictures(dataset, groups.keys, siglip.preparation, shelf)
    places = torch.tensor([3, 0, 7])
    with torch.no_grad():
        whole = ImageBank(siglip, pictures, 0).features(places)
        words = TextBank(siglip, groups.prompts, 0).features(places[:2])
        for kept in (None, shelf):
            images = ImageBank(siglip, pictures, frozen, kept)
            texts = TextBank(siglip, groups.prompts, frozen, kept)
            assert torch.allclose(images.features(places), whole, atol=1e-6)
            assert torch.allclose(texts.features(places[:2]), words, atol=1e-6)


def test_trained_from_a_cache_or_not_is_the_same_up_to_rounding(dataset, tmp_path):
    for name, room in (("cached", 4.0), ("not", 0.0)):
        result = train(dataset, tiny_siglip(0), tmp_path / name, settings(cache_gb=room))
        assert result["cached"] == bool(room)
    a, b = weights_of(tmp_path / "cached"), weights_of(tmp_path / "not")
    assert all(torch.allclose(a[name], b[name], atol=1e-4) for name in a)


def test_the_order_of_the_images_of_a_choice_says_nothing(dataset, tmp_path):
    """Scores move with their images, so that the loss of every objective is the same."""
    learner = learner_of(tiny_siglip(0), settings())
    groups = read_groups(dataset.choices, ["overall"], "")
    material = learner.open(dataset, groups, Shelf(tmp_path), altered=False)
    batch = groups.all
    random = torch.rand(batch.mask.shape, generator=torch.Generator().manual_seed(0))
    order = random.masked_fill(~batch.mask, 2.0).argsort(-1)
    moved = replace(
        batch,
        **{name: getattr(batch, name).gather(1, order) for name in ("images", "mask", "ranks")},
    )
    with torch.no_grad():
        scores, others = learner(material, batch), learner(material, moved)
    assert torch.equal(others[moved.mask], scores.gather(1, order)[moved.mask])


@pytest.mark.parametrize("layers", [(0, 1), (1, 0), (2, 2), (3, 3), (1, 3)])
def test_only_what_is_asked_for_is_trained(dataset, tmp_path, layers):
    image, text = layers
    how = settings(image_layers=image, text_layers=text)
    base, siglip = tiny_siglip(0).model.state_dict(), tiny_siglip(0)
    learner = learner_of(siglip, how)
    trained = {name.removeprefix("model.") for name in learner.trained()}
    assert "logit_bias" not in trained
    train(dataset, siglip, tmp_path / "run", how)
    after = weights_of(tmp_path / "run")
    moved = {name for name in base if not torch.equal(base[name], after[name])}
    assert moved <= trained
    # a key's bias shifts all attention alike and has no gradient
    assert {name for name in trained if "k_proj.bias" not in name} <= moved


def test_each_part_is_trained_with_its_layers():
    names = {}
    for layers in (1, 2, 3):
        siglip = tiny_siglip(0)
        learner = learner_of(siglip, settings(image_layers=layers, text_layers=layers))
        names[layers] = {name.removeprefix("model.") for name in learner.trained()}
        assert (learner.frozen.image, learner.frozen.text) == ((2, 2), (1, 1), (0, 0))[layers - 1]
    head = {name for name in names[1] if ".encoder." not in name}
    parts = {".".join(name.split(".")[:2]) for name in head}
    assert parts == {
        "logit_scale",
        "vision_model.post_layernorm",
        "vision_model.head",
        "text_model.final_layer_norm",
        "text_model.head",
    }
    assert {name for name in names[2] - names[1] if ".layers.0." not in name} == set()
    assert all(".embeddings." in name for name in names[3] - names[2])
    whole = {name for name, _ in tiny_siglip(0).model.named_parameters()}
    assert names[3] == whole - {"logit_bias"}


def test_the_scale_passes_100_and_the_bias_stays(dataset, tmp_path):
    """SigLIP's own training has no limit either, and published scales are above 100."""
    base = tiny_siglip(0)
    with torch.no_grad():
        base.model.logit_scale.fill_(math.log(117.0))
    result = train(dataset, base, tmp_path / "run", settings(train_logit_scale=False))
    assert result["scale"] == pytest.approx(117.0, rel=1e-5)
    moving = settings(logit_scale=117.0, learning_rate=0.05, weight_decay=0.5)
    assert train(dataset, tiny_siglip(0), tmp_path / "moved", moving)["scale"] > 100
    after = weights_of(tmp_path / "moved")
    assert torch.equal(after["logit_bias"], tiny_siglip(0).model.logit_bias.detach())
    assert after["logit_scale"].shape == (1,)


def test_a_clip_keeps_its_limit():
    with pytest.raises(SettingsError, match="logit_scale is 117, expected up to 100"):
        TowersLearner(tiny_clip(0), settings().trained(), logit_scale=117.0)


def test_a_siglip_has_no_layers_as_openclip_counts_them():
    with pytest.raises(SettingsError, match="expected 'blocks'"):
        learner_of(tiny_siglip(0), settings(counting="openclip"))


@pytest.mark.parametrize("changes", [{"image_layers": 4}, {"text_layers": 4}])
def test_more_layers_than_there_are_is_refused(changes):
    with pytest.raises(SettingsError, match="but this tower has 3 layers"):
        learner_of(tiny_siglip(0), settings(**changes))


@pytest.mark.parametrize("change", [{}, {"cache_gb": 0.0, "ema": 0.9}, {"checkpointing": True}])
def test_a_training_that_broke_ends_as_one_that_did_not(dataset, tmp_path, monkeypatch, change):
    import palate.training.train as module

    how = settings(**change)
    expected = train(dataset, tiny_siglip(0), tmp_path / "whole", how)
    real = module.batch_at

    def crash(groups, step, size, seed, **more):
        if step == 4:
            raise KeyboardInterrupt
        return real(groups, step, size, seed, **more)

    monkeypatch.setattr(module, "batch_at", crash)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, tiny_siglip(0), tmp_path / "part", how)
    monkeypatch.setattr(module, "batch_at", real)
    assert train(dataset, tiny_siglip(0), tmp_path / "part", how) == expected
    whole, part = weights_of(tmp_path / "whole"), weights_of(tmp_path / "part")
    assert all(torch.equal(whole[name], part[name]) for name in whole)


def test_pictures_are_what_the_scorer_prepares(dataset, tmp_path):
    """SigLIP stretches its images where a CLIP crops them."""
    from palate.data.tables import image_path
    from palate.models.pixels import normalise, open_picture

    siglip = tiny_siglip(0)
    rows = dataset.images.slice(0, 3).to_pylist()
    pictures = open_pictures(
        dataset, [row["image"] for row in rows], siglip.preparation, Shelf(tmp_path)
    )
    paths = [image_path(row, dataset.folder) for row in rows]
    expected = prepare([open_picture(path) for path in paths], siglip.preparation)
    assert torch.equal(normalise(pictures, siglip.preparation), expected)
