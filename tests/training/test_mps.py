"""An MPS learns several dimensions at once, and the folder that it leaves scores as it did in training."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from palate.cli.main import main
from palate.data.records import Choice
from palate.data.tables import Dataset, image_path, load_dataset, save_dataset, to_rows, to_table
from palate.errors import CheckpointError, SettingsError
from palate.models.clip_files import save_clip
from palate.models.mps import load_mps, save_mps
from palate.models.mps_condition import CONDITIONS, Masking, tokens_kept
from palate.models.pixels import normalise, open_picture, prepare
from palate.models.tiny import tiny_clip
from palate.scoring.catalog import load
from palate.scoring.convert import convert_checkpoint
from palate.scoring.promises import check_scorer
from palate.scoring.recipe import Recipe
from palate.settings import read_settings
from palate.training.batches import Batch, read_groups
from palate.training.learners.learner import Trained
from palate.training.learners.make import learner_of, load_base
from palate.training.learners.mps import MpsLearner, MpsSettings, new_mps
from palate.training.settings import TrainSettings
from palate.training.stores import Shelf
from palate.training.train import train

WORDS = {"overall": "red fox", "night": "dark, sea."}
SMALL = MpsSettings(layers=2, heads=2, conditions=WORDS)


def settings(**changes):
    values = {"steps": 6, "batch": 5, "image_layers": 1, "text_layers": 1, "learning_rate": 1e-3}
    values |= {"warmup_steps": 2, "save_every": 3, "evaluate_every": 2, "log_every": 2}
    values |= {"model": "mps", "dimensions": tuple(WORDS), "objective": "pairs", "mps": SMALL}
    return TrainSettings(**(values | changes))


def asked_twice(dataset, folder):
    """The same images once more, for people who like them dark; some find all alike."""
    (folder / "images").mkdir(parents=True)
    for row in dataset.images.to_pylist():
        path = image_path(row, dataset.folder)
        (folder / "images" / path.name).write_bytes(path.read_bytes())
    rows = list(to_rows(dataset.choices, Choice))
    night = [
        replace(
            row,
            choice=f"{row.choice}-night",
            dimension="night",
            ranks=(1,) * len(row.ranks)
            if place % 5 == 0
            else tuple(1 + (rank == 1) for rank in row.ranks),
        )
        for place, row in enumerate(rows)
    ]
    return save_dataset(folder, dataset.images, to_table([*rows, *night], "choices"))


@pytest.fixture(scope="session")
def both(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("both") / "train"
    asked_twice(dataset, folder)
    return load_dataset(folder)


@pytest.fixture(scope="session")
def held_both(held_out, tmp_path_factory):
    folder = tmp_path_factory.mktemp("both") / "held"
    asked_twice(held_out, folder)
    return load_dataset(folder)


def base(seed=0, how=SMALL):
    return new_mps(tiny_clip(seed), how, seed)


def learner(how=SMALL, mps=None, dimensions=tuple(WORDS), **trained):
    return MpsLearner(mps or base(how=how), Trained(**trained), dimensions, how)


def opened(taught: MpsLearner, dataset: Dataset, folder, *, altered=False):
    groups = read_groups(dataset.choices, list(taught.conditions), "")
    return groups, taught.open(dataset, groups, Shelf(folder), altered=altered)


def weights_of(folder):
    mps = load_mps(folder)
    return {**mps.clip.model.state_dict(), **mps.cross.state_dict()}


def rows(batch: Batch, *picked):
    return batch.rows(torch.tensor(picked))


def first_images(dataset, groups, batch, row):
    """Paths of a choice's images, in the order of its places."""
    paths = {row["image"]: image_path(row, dataset.folder) for row in dataset.images.to_pylist()}
    return [paths[groups.keys[place]] for place in batch.images[row][batch.mask[row]].tolist()]


MASKINGS = [
    MpsSettings(layers=2, heads=2, conditions=WORDS, pooling=pooling, threshold=0.6, tokens=tokens)
    for pooling in ("max", "mean")
    for tokens in ("all", "words")
]


# --------------------------------------------------------------------------------------- scores


@pytest.mark.parametrize("how", MASKINGS, ids=lambda how: f"{how.pooling}-{how.tokens}")
def test_a_score_in_training_is_that_of_the_saved_folder(both, tmp_path, how):
    taught = learner(how)
    groups, material = opened(taught, both, tmp_path / "shelf")
    batch = rows(groups.all, 0, 5, 25, 30)
    with torch.no_grad():
        found = taught(material, batch)
    taught.save(tmp_path / "fox", name="fox", dimension="overall", trained={})
    for row in range(len(batch)):
        name = groups.dimensions[int(batch.dimension[row])]
        scorer = load(str(tmp_path / "fox"), condition=name)
        assert (scorer.dimension, scorer.condition) == (name, WORDS[name])
        prompt = groups.prompts[int(batch.prompt[row])]
        scores = scorer.score(first_images(both, groups, batch, row), prompt)
        assert np.allclose(found[row][batch.mask[row]].numpy(), scores, atol=2e-4)


@pytest.mark.parametrize("how", MASKINGS, ids=lambda how: f"{how.pooling}-{how.tokens}")
def test_a_score_is_that_of_a_slow_twin_in_64_bits(both, tmp_path, how):
    """One image, one prompt, one condition at a time; the mask word by word."""
    taught = learner(how)
    groups, material = opened(taught, both, tmp_path)
    batch = rows(groups.all, 1, 26)
    with torch.no_grad():
        found = taught(material, batch)
    mps = base(how=how)
    mps.clip.model.double()
    mps.cross.double()
    read = mps.clip.tokenizer.batch
    for row in range(2):
        prompt = groups.prompts[int(batch.prompt[row])]
        asked = WORDS[groups.dimensions[int(batch.dimension[row])]]
        ids = [read([text]).ids for text in (prompt, asked)]
        (text, ends), (condition, _) = (mps.text_tokens(one) for one in ids)
        counted = [list(range(one.shape[1])) for one in ids]
        if how.tokens == "words":
            counted = [list(range(1, one[0].tolist().index(read([""]).ids[0, 1]))) for one in ids]
        relevance = {}
        for place in counted[0]:
            products = [float(text[0, place] @ condition[0, other]) for other in counted[1]]
            relevance[place] = (
                max(products) if how.pooling == "max" else sum(products) / len(products)
            )
        most = max(relevance.values())
        used = [place for place, value in relevance.items() if value / most > how.threshold]
        assert 0 < len(used) < 24
        for slot, path in enumerate(first_images(both, groups, batch, row)):
            pixels = prepare([open_picture(path)], mps.clip.preparation).double()
            tokens = mps.image_tokens(pixels)
            every = torch.ones(1, len(used), dtype=torch.bool)
            fused = mps.cross(tokens, text[:, used], every)[0, 0]
            cosine = (fused @ ends[0]) / fused.norm() / ends[0].norm()
            expected = math.exp(float(mps.clip.model.logit_scale)) * float(cosine)
            assert float(found[row, slot]) == pytest.approx(expected, abs=2e-4)


def test_permuted_candidates_have_permuted_scores(both, tmp_path):
    taught = learner()
    groups, material = opened(taught, both, tmp_path)
    three = int((groups.all.mask.sum(-1) == 3).nonzero()[0])
    batch = rows(groups.all, three)
    order = torch.tensor([2, 0, 1])
    other = replace(batch, images=batch.images[:, order], ranks=batch.ranks[:, order])
    with torch.no_grad():
        assert torch.allclose(taught(material, other), taught(material, batch)[:, order], atol=1e-5)


def test_mixed_dimensions_in_a_batch_are_as_separate_ones(both, tmp_path):
    taught = learner(replace(SMALL, threshold=0.9))
    groups, material = opened(taught, both, tmp_path)
    picked = [0, 24, 3, 27, 1]
    with torch.no_grad():
        together = taught(material, rows(groups.all, *picked))
        for place, row in enumerate(picked):
            alone = taught(material, rows(groups.all, row))[0]
            assert torch.allclose(together[place, : len(alone)], alone, atol=1e-5)
    assert groups.all.dimension[[0, 24]].tolist() == [0, 1]
    # the same images and prompt under another condition are another question
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_a_token_that_is_masked_out_has_no_influence(both, tmp_path, monkeypatch):
    taught = learner(MASKINGS[0])
    groups, material = opened(taught, both, tmp_path)
    batch = rows(groups.all, 2)
    with torch.no_grad():
        expected = taught(material, batch)
    real, seen = taught._text_above, []

    def spoilt(material, places):
        words, ends = real(material, places)
        if places[0] < len(groups.prompts):
            kept = tokens_kept(words, real(material, material.asked[:1])[0], taught.masking)
            seen.append(int((~kept).sum()))
            words = torch.where(kept[..., None], words, words - 1e-4 * words.sign())
        return words, ends

    monkeypatch.setattr(taught, "_text_above", spoilt)
    with torch.no_grad():
        assert torch.equal(taught(material, batch), expected)
    assert seen[0] > 0


def test_an_empty_prompt_has_no_words_and_is_read_in_whole():
    mps = base()
    ids = mps.clip.tokenizer.batch(["", "a red fox"]).ids
    among = mps.clip.words(ids)
    assert among.sum(-1).tolist() == [0, 7]
    text, ends = mps.text_tokens(ids)
    kept = tokens_kept(text, text[1:, 1:8].expand(2, -1, -1), Masking(tokens="words"), among)
    assert not kept[0].any()
    assert torch.equal(kept & ~among, torch.zeros_like(among))
    tokens = torch.randn(2, 17, 16, generator=torch.Generator().manual_seed(0))
    whole = torch.ones(1, 24, dtype=torch.bool)
    assert torch.equal(
        mps.score(tokens, text, ends, kept)[0], mps.score(tokens[:1], text[:1], ends[:1], whole)[0]
    )


def test_the_pooling_of_a_condition_matters_and_is_kept(both, tmp_path):
    values = {}
    for how in MASKINGS:
        taught = learner(how)
        name = f"{how.pooling}-{how.tokens}"
        taught.save(tmp_path / name, name=name, dimension="overall")
        card = json.loads((tmp_path / name / "palate.json").read_text())
        assert card["mask"] == {"pooling": how.pooling, "threshold": 0.6, "tokens": how.tokens}
        assert card["conditions"] == WORDS
        scorer = load(str(tmp_path / name), condition="night")
        assert scorer.masking == Masking(
            pooling=how.pooling, threshold=how.threshold, tokens=how.tokens
        )
        paths = [image_path(row, both.folder) for row in both.images.to_pylist()[:3]]
        values[name] = scorer.score(paths, "a red fox")
        assert scorer.card()["fingerprint"] != load(str(tmp_path / name)).fingerprint
    found = list(values.values())
    assert all(
        np.abs(found[i] - found[j]).max() > 1e-3 for i in range(len(found)) for j in range(i)
    )


# ------------------------------------------------------------------------------------- training


@pytest.mark.slow
def test_it_learns_two_dimensions_that_contradict_each_other(both, held_both, tmp_path):
    how = settings(
        steps=180,
        batch=24,
        image_layers=2,
        text_layers=0,
        learning_rate=3e-3,
        evaluate_every=60,
        mps=replace(SMALL, threshold=0.9),
    )
    result = train(both, base(how=how.mps), tmp_path / "fox", how, held_both)
    for name in WORDS:
        assert result["validation"][f"accuracy/{name}"] > 0.8
    scorer = load(str(tmp_path / "fox"))
    assert (scorer.name, scorer.unit, scorer.dimension) == ("fox", "logit", "overall")
    assert scorer.masking == Masking(threshold=0.9)
    assert check_scorer(scorer) == []
    assert check_scorer(scorer.on("night")) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [{}, {"shift": 2, "flip": True}, {"text_layers": 0, "image_layers": 0}, {"cache_gb": 0.0}],
)
def test_a_training_that_broke_ends_as_one_that_did_not(both, tmp_path, monkeypatch, change):
    import palate.training.train as module

    how = settings(**change)
    expected = train(both, base(), tmp_path / "whole", how, both)
    real = module.batch_at

    def crash(groups, step, size, seed, **more):
        if step == 4:
            raise KeyboardInterrupt
        return real(groups, step, size, seed, **more)

    monkeypatch.setattr(module, "batch_at", crash)
    with pytest.raises(KeyboardInterrupt):
        train(both, base(), tmp_path / "part", how, both)
    monkeypatch.setattr(module, "batch_at", real)
    assert train(both, base(), tmp_path / "part", how, both) == expected
    whole, part = weights_of(tmp_path / "whole"), weights_of(tmp_path / "part")
    assert all(torch.equal(whole[name], part[name]) for name in whole)


@pytest.mark.parametrize(
    "trained",
    [
        {"image_layers": 0, "text_layers": 0},
        {"image_layers": 1, "text_layers": 2},
        {"image_layers": 3, "text_layers": 3},
        {"image_layers": 1, "text_layers": 0, "counting": "openclip"},
    ],
)
def test_states_that_are_kept_give_what_a_new_run_gives(both, tmp_path, trained):
    found = []
    for name, room in (("kept", 4e9), ("new", 0.0)):
        taught = learner(**trained, cache_bytes=room)
        groups, material = opened(taught, both, tmp_path / name)
        assert material.cached == (bool(room) and trained["image_layers"] != 3)
        with torch.no_grad():
            found.append(taught(material, rows(groups.all, 0, 9, 30)))
        assert opened(taught, both, tmp_path / name, altered=True)[1].cached is False
    assert torch.allclose(found[0], found[1], atol=1e-4)


@pytest.mark.parametrize("layers", [(0, 0), (1, 0), (0, 1), (3, 3)])
def test_only_what_is_asked_for_is_trained_and_all_of_that(both, tmp_path, layers):
    image, text = layers
    taught = learner(image_layers=image, text_layers=text)
    names = set(taught.trained())
    assert not any("post_layernorm" in name for name in names)
    assert {name for name, _ in taught.cross.named_parameters(prefix="cross")} <= names
    groups, material = opened(taught, both, tmp_path)
    taught(material, groups.all).mul(torch.randn(groups.all.mask.shape)).sum().backward()
    still = {name for name, value in taught.trained().items() if value.grad is None}
    assert still == set()
    assert ("model.visual_projection.weight" in names) == (image > 0)
    assert ("model.text_projection.weight" in names) == (text > 0)


def test_gradients_are_those_of_finite_differences(both, tmp_path, monkeypatch):
    import palate.training.learners.mps as module

    monkeypatch.setattr(module, "normalise", lambda *given: normalise(*given).double())
    taught = learner(MASKINGS[0], image_layers=3, text_layers=3)
    groups, material = opened(taught, both, tmp_path)
    taught.double()
    batch = rows(groups.all, 0, 27)
    weights = torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(3)).double()

    def loss():
        return (taught(material, batch) * weights)[batch.mask].sum()

    loss().backward()
    chance = np.random.default_rng(0)
    names = [name for name in taught.trained() if "token_embedding" not in name]
    for name in [*chance.choice(names, 12, replace=False), "model.logit_scale"]:
        value = taught.trained()[name]
        place = tuple(int(chance.integers(0, size)) for size in value.shape)
        step, sides = 1e-6, []
        with torch.no_grad():
            for sign in (1, -1):
                value[place] += sign * step
                sides.append(float(loss()))
                value[place] -= sign * step
        assert float(value.grad[place]) == pytest.approx(
            (sides[0] - sides[1]) / (2 * step), rel=1e-4, abs=1e-6
        )


def test_sixteen_bits_move_a_score_little(both, tmp_path):
    taught = learner(replace(SMALL, threshold=0.01), image_layers=3, text_layers=3)
    groups, material = opened(taught, both, tmp_path)
    batch = rows(groups.all, 0, 27)
    with torch.no_grad():
        expected = taught(material, batch)
        with torch.autocast("cpu", torch.bfloat16):
            found = taught(material, batch)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=0.05 * float(expected.abs().max()))


# ---------------------------------------------------------------------------- bases and settings


def test_a_new_cross_model_is_the_seeds_and_leaves_the_callers_random_numbers_alone(tmp_path):
    save_clip(tiny_clip(0), tmp_path / "clip")
    before = torch.random.get_rng_state()
    prints = [load_base(tmp_path / "clip", settings(seed=n)).fingerprint() for n in (0, 0, 1)]
    assert torch.equal(before, torch.random.get_rng_state())
    assert prints[0] == prints[1] != prints[2]
    maps = [v for n, v in base().cross.named_parameters() if "norm" not in n]
    assert all(value.abs().max() <= value.shape[1] ** -0.5 for value in maps)


def test_an_mps_goes_on_as_it_was_trained(both, tmp_path):
    first = settings(mps=replace(SMALL, pooling="mean", threshold=0.5))
    train(both, base(how=first.mps), tmp_path / "first", first)
    again = settings(mps=MpsSettings(threshold=0.4))
    found = load_base(tmp_path / "first", again)
    taught = learner_of(found, again)
    assert taught.conditions == WORDS
    assert taught.masking == Masking(pooling="mean", threshold=0.4)
    with pytest.raises(SettingsError, match=r"mps\.heads is 4, but .*first has 2"):
        load_base(tmp_path / "first", settings(mps=MpsSettings(heads=4)))


def test_the_official_words_are_there_without_asking():
    taught = learner(MpsSettings(layers=1, heads=2), dimensions=tuple(CONDITIONS))
    assert taught.conditions == dict(CONDITIONS)


def test_a_dimension_without_words_is_refused(both, tmp_path):
    with pytest.raises(SettingsError, match=r"'night' has no words .* mps\.conditions\.night"):
        learner(MpsSettings(layers=2, heads=2))
    with pytest.raises(SettingsError, match=r"mps\.conditions\.night is not trained"):
        learner(SMALL, dimensions=("overall",))
    with pytest.raises(SettingsError, match=r"mps is .* but the model 'towers' does not read it"):
        settings(model="towers")
    with pytest.raises(SettingsError, match=r"mask threshold is 1\.0, expected below 1"):
        MpsSettings(threshold=1.0)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (MpsSettings(layers=0), r"mps\.layers is 0"),
        (MpsSettings(heads=0), r"mps\.heads is 0"),
        (MpsSettings(heads=16), r"mps\.heads is 16, expected heads of an even width on 16"),
        (MpsSettings(heads=3), r"mps\.heads is 3"),
    ],
)
def test_sizes_that_cannot_be_are_refused(how, told):
    with pytest.raises(SettingsError, match=told):
        new_mps(tiny_clip(0), how, 0)


@pytest.mark.slow
def test_the_command_reads_a_recipe_and_each_dimension_is_scored(both, tmp_path, capsys):
    save_clip(tiny_clip(0), tmp_path / "base")
    recipe = tmp_path / "mps.toml"
    recipe.write_text(
        '[train]\nmodel = "mps"\nobjective = "pairs"\ndimensions = ["night", "overall"]\nsteps = 2\n'
        "image_layers = 1\ntext_layers = 1\nbatch = 8\n"
        '[train.mps]\nlayers = 1\nheads = 2\npooling = "mean"\n'
        '[train.mps.conditions]\nnight = "dark, sea."\n'
    )
    assert read_settings(TrainSettings, recipe, section="train").mps.heads == 2
    command = ["train", str(both.folder), "--base", str(tmp_path / "base")]
    command += ["--recipe", str(recipe), "--out", str(tmp_path / "run")]
    assert main(command) == 0
    capsys.readouterr()
    judges = Recipe(scorers=(str(tmp_path / "run"),), conditions=("night", "overall")).load()
    assert [judge.dimension for judge in judges] == ["night", "overall"]
    assert [judge.condition for judge in judges] == ["dark, sea.", CONDITIONS["overall"]]
    assert {judge.masking.pooling for judge in judges} == {"mean"}
    score = ["score", str(both.folder), "--scorer", str(tmp_path / "run"), "--json"]
    assert main([*score, "--condition", "night", "--condition", "overall"]) == 0
    told = json.loads(capsys.readouterr().out)["scores"]
    assert {row["dimension"] for row in told} == {"night", "overall"}
    assert {row["scorer"] for row in told} == {"run"}


def test_a_trained_folder_is_no_official_one(tmp_path):
    learner().save(tmp_path / "fox", name="fox", dimension="overall", trained={})
    with pytest.raises(CheckpointError, match="was trained and says its own mask"):
        load("mps", tmp_path / "fox")
    with pytest.raises(CheckpointError, match="was trained and says its own mask"):
        convert_checkpoint(tmp_path / "fox", tmp_path / "out")
    with pytest.raises(CheckpointError, match="takes no CLIP"):
        load(str(tmp_path / "fox"), clip=tmp_path / "fox")
    changed = load(str(tmp_path / "fox"), mask_threshold=0.01)
    assert changed.masking.threshold == 0.01
    assert "changed" in changed.card()["profile"]


@pytest.mark.parametrize(
    ("card", "told"),
    [
        ({"mask": 3}, "mask is 3, expected pooling, threshold, tokens"),
        ({"mask": {"pooling": "max"}}, "mask is .* expected pooling, threshold, tokens"),
        (
            {"mask": {"pooling": "sum", "threshold": 0.3, "tokens": "all"}},
            "pooling is 'sum', expected 'max' or 'mean'",
        ),
        (
            {"mask": {"pooling": "max", "threshold": "0.3", "tokens": "all"}},
            "mask threshold is '0.3', expected a number",
        ),
        ({"conditions": {}}, "conditions is {}, expected the words"),
        ({"conditions": {"overall": 3}}, "expected the words of each dimension"),
    ],
)
def test_a_card_that_says_nonsense_is_refused(tmp_path, card, told):
    save_mps(base(), tmp_path, **card)
    with pytest.raises(CheckpointError, match=f"palate.json: .*{told}"):
        load(str(tmp_path))


def test_a_plain_mps_folder_scores_officially(tmp_path):
    save_mps(base(), tmp_path / "plain")
    scorer = load(str(tmp_path / "plain"))
    assert (scorer.dimension, scorer.condition) == ("overall", CONDITIONS["overall"])
    assert scorer.masking == Masking()
