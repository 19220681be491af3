"""ImageReward learns from rankings: the official loss, what is trained, and the folder at the end."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from palate.data.records import Choice, Image
from palate.data.tables import image_path, load_dataset, save_dataset, to_table
from palate.errors import CheckpointError, SettingsError
from palate.models.blip import load_reward_base
from palate.models.clip_files import save_clip
from palate.models.image_reward import ImageReward, load_image_reward, save_image_reward
from palate.models.image_reward_parts import fill, lay_out, official_name
from palate.models.pixels import Preparation, normalise, open_picture, squares
from palate.models.tiny import tiny_clip
from palate.models.word_pieces import WordPieces
from palate.scoring.catalog import load
from palate.scoring.promises import check_scorer
from palate.settings import read_settings
from palate.training.batches import batch_at, read_groups, weighed
from palate.training.learners.image_reward import ImageRewardLearner
from palate.training.learners.make import learner_of, load_base
from palate.training.losses import ranking_logistic
from palate.training.objectives import OBJECTIVES, prepared
from palate.training.processes import Processes
from palate.training.settings import TrainSettings
from palate.training.stores import Shelf
from palate.training.train import Task, train

PROMPTS = ("a red fox", "two birds", "an old oak in the sea")
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "fox", "two", "bird", "##s"]
PIECES += ["an", "old", "oak", "in", "the", "sea"]
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
VISION |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 16}
TEXT = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2}
TEXT |= {"num_attention_heads": 2, "vocab_size": len(PIECES) + 2}
TEXT |= {"encoder_hidden_size": 32, "max_position_embeddings": 35}


def tiny_reward(seed=0):
    parts = lay_out(VISION, TEXT)
    random = torch.Generator().manual_seed(seed)
    weights = {}
    for name, value in parts.state_dict().items():
        norm = "norm" in name.lower()
        spread = value.shape[-1] ** -0.5 if value.ndim > 1 else 0.05
        weights[name] = spread * torch.randn(value.shape, generator=random)
        if norm and name.endswith("weight"):
            weights[name] += 1
    words = WordPieces(PIECES)
    return ImageReward(*fill(parts, weights), words, Preparation(size=32, convert="after"))


def write_rankings(folder, groups=18, *, seed=0):
    """Rankings of 2 to 5 images by brightness, a third of them with ties; some images are in two of them."""
    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    images, choices, before = [], [], None
    for group in range(groups):
        prompt, count = PROMPTS[group % len(PROMPTS)], int(random.integers(2, 6))
        levels = random.permutation(np.linspace(30, 220, count))
        keys = []
        for place, level in enumerate(levels):
            key = f"{seed}-{group}-{place}"
            noise = random.normal(level, 25, (32, 32, 3))
            picture = Picture.fromarray(np.clip(noise, 0, 255).astype(np.uint8), "RGB")
            picture.save(folder / "images" / f"{key}.png")
            images.append(Image(image=key, prompt=prompt, path=f"images/{key}.png"))
            keys.append(key)
        ranks = [int(rank) + 1 for rank in (-levels).argsort().argsort()]
        if group % 3 == 0:
            ranks = [min(rank, 2) for rank in ranks]
        if group % 4 == 3 and before is not None:  # the darkest of all, of another prompt
            keys, ranks = [*keys, before], [*ranks, max(ranks) + 1]
        choices.append(
            Choice(choice=f"{seed}-{group}", prompt=prompt, images=tuple(keys), ranks=tuple(ranks))
        )
        before = keys[int(np.argmax(ranks[: len(levels)]))]
    return save_dataset(folder, to_table(images, "images"), to_table(choices, "choices"))


@pytest.fixture(scope="module")
def rankings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "train"
    write_rankings(folder, seed=1)
    return load_dataset(folder)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "held"
    write_rankings(folder, 12, seed=2)
    return load_dataset(folder)


def settings(**changes):
    values = {"model": "image-reward", "objective": "rankings", "weights": "pairs"}
    values |= {"steps": 6, "batch": 4, "image_layers": 1, "text_layers": 1, "learning_rate": 1e-3}
    values |= {"warmup_steps": 2, "save_every": 3, "evaluate_every": 2, "log_every": 2}
    values |= {"epsilon": 1e-8, "trackers": ()}
    return TrainSettings(**(values | changes))


def groups_of(dataset, how=None):
    how = how or settings()
    groups = read_groups(dataset.choices, how.dimensions, "")
    return weighed(prepared(groups, OBJECTIVES[how.objective], how.ties), how.weights)


def opened(dataset, folder, model=None, *, altered=False, **changes):
    """A learner with its material."""
    how = settings(**changes)
    learner = learner_of(model or tiny_reward(), how)
    groups = groups_of(dataset, how)
    return learner, learner.open(dataset, groups, Shelf(folder), altered=altered), groups


def double(model):
    for part in (model.vision, model.text, model.head):
        part.double()
    return model


def slow_scores(model, dataset, groups):
    """The raw reward of every image of every choice, one image at a time."""
    rows = {row["image"]: row for row in dataset.images.to_pylist()}
    found = []
    for place, prompt in enumerate(groups.all.prompt.tolist()):
        scores = []
        words = model.tokenizer.batch([groups.prompts[prompt]])
        for image in groups.all.images[place][groups.all.mask[place]].tolist():
            path = image_path(rows[groups.keys[image]], dataset.folder)
            pixels = normalise(squares([open_picture(path)], model.preparation), model.preparation)
            states = model.image_states(pixels)
            scores.append(float(model.reward(states, words.ids, words.mask)))
        found.append([score * model.std + model.mean for score in scores])
    return found


@torch.no_grad()
def test_the_loss_of_a_step_is_its_slow_twin(rankings, tmp_path):
    """The mean of -log sigmoid(better - worse) over all decided pairs of the batch, as officially."""
    how = settings(batch=7)
    model = double(tiny_reward())
    learner = learner_of(model, how)
    task = Task.build(learner, rankings, Shelf(tmp_path), how, Processes())
    scores = slow_scores(model, rankings, task.groups)
    batch, whole = batch_at(task.groups, 3, 7, how.seed), task.groups.all
    sizes, terms, tied = set(), [], 0
    for row in range(7):
        shown = batch.images[row][batch.mask[row]].tolist()
        n = next(
            n
            for n, (images, mask) in enumerate(zip(whole.images, whole.mask, strict=True))
            if sorted(images[mask].tolist()) == sorted(shown)
        )
        own = whole.images[n].tolist()
        values = [scores[n][own.index(image)] for image in shown]
        ranks = batch.ranks[row][batch.mask[row]].tolist()
        sizes.add(len(shown))
        for i, first in enumerate(values):
            for j, second in enumerate(values):
                tied += i < j and ranks[i] == ranks[j]
                if ranks[i] < ranks[j]:
                    terms.append(math.log1p(math.exp(second - first)))
    assert len(sizes) > 1
    assert tied
    found = sum(float(part) for part, _ in task.losses_at(3))
    assert found == pytest.approx(sum(terms) / len(terms), rel=1e-6)
    parts = replace(task, settings=replace(how, accumulate=3))
    assert sum(float(part) for part, _ in parts.losses_at(3)) == pytest.approx(found, rel=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("layers", [0, 1, 4])
def test_every_image_is_scored_as_alone(rankings, tmp_path, layers):
    learner, material, groups = opened(
        rankings, tmp_path, double(tiny_reward()), image_layers=layers
    )
    found = learner(material, groups.all)
    for row, scores in enumerate(slow_scores(learner.model, rankings, groups)):
        assert found[row][groups.all.mask[row]].tolist() == pytest.approx(scores, abs=1e-9)


def test_the_order_of_the_images_does_not_matter(rankings, tmp_path):
    learner, material, groups = opened(rankings, tmp_path, double(tiny_reward()))
    whole = groups.all
    draw = torch.rand(whole.mask.shape, generator=torch.Generator().manual_seed(3))
    order = draw.masked_fill(~whole.mask, 2.0).argsort(-1)
    moved = replace(
        whole,
        **{name: getattr(whole, name).gather(1, order) for name in ("images", "mask", "ranks")},
    )
    with torch.no_grad():
        first, second = learner(material, whole), learner(material, moved)
    assert torch.allclose(first.gather(1, order)[moved.mask], second[moved.mask], atol=1e-9)
    losses = [OBJECTIVES["rankings"].loss(*pair) for pair in ((first, whole), (second, moved))]
    assert torch.allclose(*losses, atol=1e-9)


@pytest.mark.parametrize("layers", [0, 1, 2, 3, 4])
def test_kept_states_give_the_scores_and_gradients_of_recomputation(rankings, tmp_path, layers):
    found = []
    for altered in (False, True):
        learner, material, groups = opened(rankings, tmp_path, image_layers=layers, altered=altered)
        assert material.cached == (not altered and layers != 4)
        scores = learner(material, groups.all)
        scores[groups.all.mask].square().sum().backward()
        grads = [value.grad for value in learner.trained().values()]
        found.append((scores.detach()[groups.all.mask], grads))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
    for first, second in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(first, second, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("layers", [(0, 0), (1, 1), (4, 3)])
def test_the_gradient_is_that_of_finite_differences(rankings, tmp_path, layers):
    learner, material, groups = opened(
        rankings,
        tmp_path,
        double(tiny_reward()),
        image_layers=layers[0],
        text_layers=layers[1],
    )
    whole, trained = groups.all, list(learner.trained().values())

    def loss():
        return ranking_logistic(learner(material, whole), whole.ranks, whole.mask).mean()

    random = torch.Generator().manual_seed(0)
    ways = [torch.randn(value.shape, generator=random).double() for value in trained]
    grads = torch.autograd.grad(loss(), trained)
    slope = sum(float((grad * way).sum()) for grad, way in zip(grads, ways, strict=True))
    ends = []
    with torch.no_grad():
        for sign in (1, -2):
            for value, way in zip(trained, ways, strict=True):
                value.add_(way, alpha=sign * 1e-6)
            ends.append(float(loss()))
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-9)


def test_checkpointing_changes_no_gradient(rankings, tmp_path):
    found, runs = [], []
    for on in (False, True):
        learner, material, groups = opened(
            rankings, tmp_path, image_layers=2, text_layers=2, checkpointing=on
        )
        for part in (learner.vision.encoder.layers[2].mlp, learner.text.encoder.layer[1].output):
            part.register_forward_pre_hook(lambda *_, on=on: runs.append(on))
        scores = learner(material, groups.all)
        scores[groups.all.mask].square().sum().backward()
        found.append([value.grad for value in learner.trained().values()])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    assert (runs.count(False), runs.count(True)) == (2, 4)  # each block ran again


@pytest.mark.parametrize("checkpointing", [False, True])
def test_dropout_is_off(rankings, tmp_path, checkpointing):
    learner, material, groups = opened(rankings, tmp_path, checkpointing=checkpointing)
    first, second = learner(material, groups.all), learner(material, groups.all)
    assert torch.equal(first, second)


def test_the_towers_in_16_bits_and_the_head_in_32(rankings, tmp_path):
    learner, material, groups = opened(rankings, tmp_path, image_layers=4)
    with torch.no_grad():
        plain = learner(material, groups.all)
        with torch.autocast("cpu", torch.bfloat16):
            low = learner(material, groups.all)
    assert low.dtype == torch.float32
    mask = groups.all.mask
    assert not torch.equal(low[mask], plain[mask])
    assert torch.allclose(low[mask], plain[mask], atol=0.1 * float(plain[mask].std()))


@pytest.mark.parametrize(
    ("layers", "blocks", "texts", "others"),
    [
        ((0, 0), set(), set(), set()),
        ((1, 0), {2}, set(), {"vision.post_layernorm"}),
        ((3, 2), {0, 1, 2}, {0, 1}, {"vision.post_layernorm"}),
        ((4, 3), {0, 1, 2}, {0, 1}, {"vision.post_layernorm", "vision.emb", "text.emb"}),
    ],
)
def test_what_is_trained(layers, blocks, texts, others):
    how = settings(image_layers=layers[0], text_layers=layers[1])
    names = set(ImageRewardLearner(tiny_reward(), how.trained()).trained())
    assert {int(name.split(".")[3]) for name in names if "vision.encoder" in name} == blocks
    assert {int(name.split(".")[3]) for name in names if "text.encoder" in name} == texts
    heads = {name for name in names if name.startswith("head.")}
    assert heads == {f"head.{place}.weight" for place in (0, 2, 4, 6, 7)}
    rest = {name for name in names if ".encoder." not in name} - heads
    assert all(name.startswith(tuple(others)) for name in rest)
    assert all(any(name.startswith(other) for name in rest) for other in others)


def test_only_what_is_trained_moves(rankings, tmp_path):
    base = tiny_reward()
    save_image_reward(base, tmp_path / "base")
    trained = set(learner_of(base, settings()).trained())
    train(rankings, load_image_reward(tmp_path / "base"), tmp_path / "run", settings())
    moved = set()
    first, second = (load_image_reward(tmp_path / name) for name in ("base", "run"))
    for part in ("vision", "text", "head"):
        for name, value in getattr(first, part).state_dict().items():
            if not torch.equal(value, getattr(second, part).state_dict()[name]):
                moved.add(f"{part}.{name}")
    # a key's bias shifts all attention alike and has no gradient
    assert moved <= trained
    assert {name for name in trained if "key.bias" not in name} <= moved


def test_it_learns_a_simple_taste(rankings, others, tmp_path):
    how = settings(
        steps=40, batch=8, image_layers=4, text_layers=2, learning_rate=1e-3, evaluate_every=20
    )
    result = train(rankings, tiny_reward(), tmp_path / "run", how, others)
    assert result["validation"]["accuracy"] > 0.85
    assert result["validation"]["accuracy"] > result["before"]["accuracy"]
    curves = json.loads((tmp_path / "run" / "curves.json").read_text())
    assert curves["train"][-1]["loss"] < curves["train"][0]["loss"]


@pytest.mark.parametrize("image_layers", [0, 1])
def test_the_folder_is_the_scorer_that_was_trained(rankings, others, tmp_path, image_layers):
    base = tiny_reward()
    how = settings(image_layers=image_layers)
    result = train(rankings, base, tmp_path / "fox", how, others)
    scorer = load(str(tmp_path / "fox"))
    assert (scorer.name, scorer.unit, scorer.dimension) == ("fox", "reward", "overall")
    assert check_scorer(scorer) == []
    again = load_image_reward(tmp_path / "fox")
    groups = groups_of(others)
    raw = [score for row in slow_scores(base, others, groups) for score in row]
    rows = {row["image"]: row for row in others.images.to_pylist()}
    flat, prompts = [], []
    for row, prompt in enumerate(groups.all.prompt.tolist()):
        for image in groups.all.images[row][groups.all.mask[row]].tolist():
            flat.append(image_path(rows[groups.keys[image]], others.folder))
            prompts.append(groups.prompts[prompt])
    found = scorer.score([str(path) for path in flat], prompts)
    expected = (np.array(raw) - again.mean) / again.std
    assert found == pytest.approx(expected, abs=1e-4)
    values = torch.zeros(groups.all.mask.shape)
    values[groups.all.mask] = torch.from_numpy(found)
    accuracy = OBJECTIVES["rankings"].accuracy(*groups.flat(values))
    assert accuracy == pytest.approx(result["validation"]["accuracy"])
    assert "scorer" not in json.loads((tmp_path / "fox" / "palate.json").read_text())


def test_rewards_are_standard_on_what_was_learnt_from(rankings, others, tmp_path):
    """Each image of each prompt counts once, however many choices show it."""
    train(rankings, tiny_reward(), tmp_path / "run", settings(), others)
    model = load_image_reward(tmp_path / "run")
    groups = groups_of(rankings)
    once = {}
    for row, scores in enumerate(slow_scores(model, rankings, groups)):
        shown = groups.all.images[row][groups.all.mask[row]].tolist()
        prompt = int(groups.all.prompt[row])
        once |= {(image, prompt): score for image, score in zip(shown, scores, strict=True)}
    values = np.array(list(once.values()))
    assert model.mean == pytest.approx(values.mean(), abs=1e-5)
    assert model.std == pytest.approx(values.std(), rel=1e-4)


def test_of_many_images_some_are_taken_evenly(rankings, tmp_path, monkeypatch):
    import palate.training.learners.image_reward as module

    learner, _, groups = opened(rankings, tmp_path)
    whole = learner.standard()
    monkeypatch.setattr(module, "STANDARD_FROM", int(groups.all.mask.sum()))
    assert learner.standard() == whole
    monkeypatch.setattr(module, "STANDARD_FROM", 7)
    some = learner.standard()
    assert some != whole
    assert learner.standard() == some


def test_rewards_without_a_spread_are_not_divided_by_nothing(rankings, tmp_path):
    learner, _, _ = opened(rankings, tmp_path)
    with torch.no_grad():
        learner.head[7].weight.zero_()
        learner.head[7].bias.fill_(2.0)
    assert learner.standard() == (2.0, 1.0)


@pytest.mark.parametrize("change", [{}, {"shift": 2, "flip": True}, {"ema": 0.9}])
def test_a_training_that_broke_ends_as_one_that_did_not(
    rankings, others, tmp_path, monkeypatch, change
):
    import palate.training.train as module

    how = settings(**change)
    expected = train(rankings, tiny_reward(), tmp_path / "whole", how, others)
    real = module.batch_at

    def crash(groups, step, size, seed, **more):
        if step == 4:
            raise KeyboardInterrupt
        return real(groups, step, size, seed, **more)

    monkeypatch.setattr(module, "batch_at", crash)
    with pytest.raises(KeyboardInterrupt):
        train(rankings, tiny_reward(), tmp_path / "part", how, others)
    monkeypatch.setattr(module, "batch_at", real)
    found = train(rankings, tiny_reward(), tmp_path / "part", how, others)
    assert found == expected
    for name in ("model.safetensors", "curves.json"):
        whole, part = ((tmp_path / run / name).read_bytes() for run in ("whole", "part"))
        assert whole == part
    cards = [json.loads((tmp_path / run / "palate.json").read_text()) for run in ("whole", "part")]
    assert [card["mean"] for card in cards] == [cards[0]["mean"]] * 2
    assert [card["std"] for card in cards] == [cards[0]["std"]] * 2


SCRIPT = """
import sys
from pathlib import Path
from palate.data.tables import load_dataset
from palate.models.image_reward import load_image_reward
from palate.training.settings import TrainSettings
from palate.training.train import train
data, held, base, out, how = sys.argv[1:]
train(load_dataset(Path(data)), load_image_reward(Path(base)), Path(out), TrainSettings(**eval(how)),
      load_dataset(Path(held)))
"""


@pytest.mark.slow
def test_two_processes_are_one(rankings, others, tmp_path):
    """The rewards are made standard by one of them, from states that both shared and cleared away."""
    save_image_reward(tiny_reward(), tmp_path / "base")
    how = {name: getattr(settings(), name) for name in settings().__dataclass_fields__}
    # Adam makes steps of the rounding of a gradient that is 0 where its epsilon is small
    how["epsilon"] = 1e-4
    del how["mps"]
    base = load_image_reward(tmp_path / "base")
    train(rankings, base, tmp_path / "one", TrainSettings(**how), others)
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(27500 + os.getpid() % 2000), str(tmp_path / "script.py")]
    command += [str(rankings.folder), str(others.folder), str(tmp_path / "base")]
    source = str(Path(__file__).parents[2] / "src")
    run = subprocess.run(
        [*command, str(tmp_path / "two"), repr(how)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": source, "ACCELERATE_USE_CPU": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    one, two = (load_image_reward(tmp_path / name) for name in ("one", "two"))
    for part in ("vision", "text", "head"):
        for name, value in getattr(one, part).state_dict().items():
            assert torch.allclose(value, getattr(two, part).state_dict()[name], atol=1e-5), name
    assert (one.mean, one.std) == pytest.approx((two.mean, two.std), abs=1e-5)


def write_blip(folder, model, edit=lambda weights: None):
    """Write what salesforce/BLIP's training does: tensors under `model`, the decoder and copies beside."""
    random = torch.Generator().manual_seed(7)
    weights = {}
    for part in ("vision", "text"):
        for name, value in getattr(model, part).state_dict().items():
            official = official_name(f"{part}.{name}").removeprefix("blip.")
            weights[official] = value
    for name, width in (("vision", VISION["hidden_size"]), ("text", TEXT["hidden_size"])):
        weights[f"{name}_proj.weight"] = torch.randn(256, width, generator=random)
        weights[f"{name}_proj.bias"] = torch.zeros(256)
    weights["text_encoder.embeddings.position_ids"] = torch.arange(35)[None]
    weights |= {"itm_head.weight": torch.zeros(2, 24), "itm_head.bias": torch.zeros(2)}
    weights |= {"visual_encoder_m.cls_token": torch.zeros(1, 1, 32), "temp": torch.ones(())}
    weights |= {"text_decoder.bert.x": torch.zeros(3), "image_queue": torch.zeros(256, 4)}
    weights |= {"text_queue": torch.zeros(256, 4), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    edit(weights)
    folder.mkdir(exist_ok=True)
    torch.save({"model": weights, "epoch": 3}, folder / "model_large.pth")
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    (folder / "med_config.json").write_text(json.dumps({"num_attention_heads": 2}))
    (folder / "architecture.json").write_text(json.dumps({"vit": {"num_heads": 2}}))
    return folder / "model_large.pth"


def test_a_blip_gets_a_new_head(rankings, tmp_path):
    source = tiny_reward()
    path = write_blip(tmp_path / "blip", source)
    before = torch.random.get_rng_state()
    model = load_base(path, settings())
    assert torch.equal(before, torch.random.get_rng_state())
    for part in ("vision", "text"):
        for name, value in getattr(source, part).state_dict().items():
            assert torch.equal(value, getattr(model, part).state_dict()[name])
    assert model.preparation == source.preparation
    for name, value in model.head.named_parameters():
        if name.endswith("bias"):
            assert not value.any()
        elif value.numel() > 1000:
            assert float(value.std()) == pytest.approx(1 / 25, rel=0.1)
    same, other = load_base(path, settings()), load_base(path, settings(seed=1))
    assert same.fingerprint() == model.fingerprint() != other.fingerprint()
    how = settings(steps=30, batch=8, image_layers=4, text_layers=2, learning_rate=4e-3)
    result = train(rankings, model, tmp_path / "run", how, rankings)
    assert result["validation"]["accuracy"] > 0.8
    assert load(str(tmp_path / "run")).unit == "reward"


def test_a_folder_of_transformers_gets_a_new_head(tmp_path):
    from transformers import BlipConfig, BlipForImageTextRetrieval

    config = BlipConfig(vision_config=VISION, text_config=TEXT)
    theirs = BlipForImageTextRetrieval(config).eval()
    theirs.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    model = load_reward_base(tmp_path)
    for module in theirs.vision_model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-6
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    words = model.tokenizer.batch(PROMPTS[:2])
    with torch.no_grad():
        states = model.image_states(pixels)
        expected = theirs.vision_model(pixels).last_hidden_state
        assert torch.allclose(states, expected, atol=1e-6)
        read = {"input_ids": words.ids, "attention_mask": words.mask}
        feature = theirs.text_encoder(**read, encoder_hidden_states=expected).last_hidden_state
        reward = model.raw_reward(states, words.ids, words.mask)
        assert torch.allclose(reward, model.head(feature[:, 0])[:, 0], atol=1e-9)
    change = json.loads((tmp_path / "config.json").read_text())
    change["text_config"]["hidden_act"] = "relu"
    (tmp_path / "config.json").write_text(json.dumps(change))
    with pytest.raises(CheckpointError, match="hidden_act is 'relu', expected"):
        load_reward_base(tmp_path)


def test_an_image_reward_is_gone_on_with(rankings, tmp_path):
    save_image_reward(tiny_reward(), tmp_path / "base", scorer="image-reward", licence="theirs")
    base = load_base(tmp_path / "base", settings(seed=5))
    assert base.fingerprint() == tiny_reward().fingerprint()
    train(rankings, base, tmp_path / "run", settings())
    card = json.loads((tmp_path / "run" / "palate.json").read_text())
    assert "licence" not in card
    assert "trained" in card


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda w: w.pop("text_encoder.encoder.layer.0.attention.self.query.bias"), "1 missing"),
        (lambda w: w.update(other=torch.zeros(1)), r"1 extra: blip\.other"),
        (lambda w: [w.pop(n) for n in list(w) if n.startswith("text_encoder")], "text_encoder"),
        (lambda w: [w.pop(n) for n in list(w) if n.startswith("visual_")], "no tensor begins with"),
    ],
)
def test_a_blip_that_does_not_fit_is_refused(tmp_path, edit, told):
    path = write_blip(tmp_path / "blip", tiny_reward(), edit)
    with pytest.raises(CheckpointError, match=told) as refused:
        load_base(path, settings())
    assert "\n" not in str(refused.value)


def test_another_base_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="no such weights file"):
        load_base(tmp_path / "nowhere", settings())
    with pytest.raises(
        CheckpointError, match=r"no config\.json, expected an ImageReward, or a BLIP"
    ):
        load_base(tmp_path, settings())
    with pytest.raises(CheckpointError, match="a folder says its own architecture"):
        load_base(tmp_path, settings(), architecture=tmp_path / "sizes.json")
    save_clip(tiny_clip(0), tmp_path / "clip")
    with pytest.raises(CheckpointError, match="model_type is 'clip', expected an ImageReward, or"):
        load_base(tmp_path / "clip", settings())
    with pytest.raises(CheckpointError, match=r"no tensor begins with 'blip\.'"):
        load_base(tmp_path / "clip" / "model.safetensors", settings())
    with pytest.raises(SettingsError, match="'image-reward' cannot start from a Clip"):
        learner_of(tiny_clip(0), settings())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"image_layers": 5}, "image_layers is 5, but this tower has 4 layers"),
        ({"text_layers": 4}, "text_layers is 4, but this tower has 3 layers"),
        ({"counting": "openclip"}, "'image-reward' does not read it"),
        ({"logit_scale": 10.0}, "'image-reward' does not read it"),
        ({"unit": "logit"}, "'image-reward' does not read it"),
    ],
)
def test_what_an_image_reward_does_not_have_is_refused(changes, told):
    with pytest.raises(SettingsError, match=told):
        learner_of(tiny_reward(), settings(**changes))


def test_the_recipe_of_the_authors_reads(root):
    recipe = read_settings(TrainSettings, root / "recipes" / "image-reward.toml", section="train")
    assert (recipe.model, recipe.objective, recipe.weights) == ("image-reward", "rankings", "pairs")
    assert (recipe.image_layers, recipe.text_layers) == (8, 4)  # of 24 and 12
    assert (recipe.learning_rate, recipe.epsilon, recipe.weight_decay) == (1e-5, 1e-8, 0.0)
