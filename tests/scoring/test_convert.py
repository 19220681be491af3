"""A converted folder is the checkpoint: the same scores, for Palate, transformers and the Hub."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import official
import pytest
import torch
from official import HERE, OFFICIAL, WORDS
from safetensors.torch import load_file, save_file

from palate.errors import CheckpointError, RunError
from palate.models.clip_files import load_clip, save_clip
from palate.models.pixels import prepare
from palate.models.tiny import tiny_clip
from palate.runs import hash_file
from palate.scoring import convert as module
from palate.scoring.catalog import load
from palate.scoring.convert import CLIPS, ConvertSettings, convert_checkpoint, tell_scorer

HPS = HERE / "hps_v1" / "hpc_tiny.pt"
PLAIN = ("hps-v1", "hps-v2", "pickscore")


def converted(name, out, **more):
    given = dict(OFFICIAL[name][0])
    return convert_checkpoint(given.pop("weights"), out, name, **given, **more)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One converted folder per scorer, made when it is asked for."""
    place, made = tmp_path_factory.mktemp("converted"), {}

    def folder(name) -> Path:
        if name not in made:
            made[name] = converted(name, place / name)
        return place / name

    folder.results = made
    return folder


def arrived(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", list(OFFICIAL))
def test_its_scores_are_those_of_the_checkpoint_bit_for_bit(name, folders):
    case = official.official_case(name)
    folder = folders(name)
    original = load(name, **OFFICIAL[name][0])  # a scorer remembers prompts as it first read them
    wanted = original.judge(case.images, case.prompts)
    for scorer in (load(str(folder)), load(name, weights=folder)):
        found = scorer.judge(case.images, case.prompts)
        assert np.array_equal(found.values, wanted.values)
        assert np.array_equal(found.tokens_kept, wanted.tokens_kept)
        assert scorer.fingerprint == original.fingerprint
        assert (scorer.name, scorer.dimension, scorer.unit) == (
            name,
            original.dimension,
            original.unit,
        )
        assert scorer.card()["profile"] == "official"
    assert np.abs(found.values - case.numbers).max() < case.promise


@pytest.mark.parametrize("name", list(OFFICIAL))
def test_the_folder_is_a_standard_one(name, folders):
    folder = folders(name)
    files = {"config.json", "model.safetensors", "palate.json", "README.md", "run.json"}
    files |= {"vocab.txt"} if name == "image-reward" else {"vocab.json", "merges.txt"}
    files |= set() if name == "hps-v2" else {"preprocessor_config.json"}
    assert files <= arrived(folder)
    assert not [entry for entry in folder.parent.iterdir() if entry.name.startswith(".")]
    result, source = folders.results[name], OFFICIAL[name][0]["weights"]
    weights = source / "model.safetensors" if source.is_dir() else source
    assert result["source"]["sha256"] == hash_file(weights)
    assert result["source"]["bytes"] == weights.stat().st_size
    assert (result["identical"], result["loss"]) == (True, None)
    assert result["files"] == sorted(arrived(folder) - {"run.json"})
    card = json.loads((folder / "palate.json").read_text())
    assert (card["scorer"], card["profile"]) == (name, "official")
    record = json.loads((folder / "run.json").read_text())
    assert (record["verb"], record["status"]) == ("convert", "finished")


@pytest.mark.parametrize("name", PLAIN)
def test_transformers_gives_the_same_features(name, folders):
    from transformers import CLIPModel, CLIPTokenizer

    case = official.official_case(name)
    model = CLIPModel.from_pretrained(folders(name)).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folders(name))
    clip = case.scorer.clip
    same = 0
    for image, prompt in zip(case.images, case.prompts, strict=True):
        tokens = tokenizer([prompt], padding="max_length", truncation=True, return_tensors="pt")
        pixels = prepare([image], case.scorer.eye.preparation)
        with torch.no_grad():
            found = model(pixel_values=pixels, **tokens)
            seen = clip.image_features(pixels)
            read = clip.text_features(clip.tokenizer.batch([prompt]).ids)
        assert (found.image_embeds - seen).abs().max() < 1e-5
        # mojibake and HTML entities are what transformers' tokenizer leaves as it is
        if tokens.input_ids[0, : tokens.attention_mask.sum()].tolist() == kept(clip, prompt):
            same += 1
            assert (found.text_embeds - read).abs().max() < 1e-5
    assert same >= len(case.prompts) / 2


def kept(clip, prompt):
    tokens = clip.tokenizer.batch([prompt])
    return tokens.ids[0, : int(tokens.kept[0])].tolist()


@pytest.mark.parametrize("name", ["hps-v1", "pickscore"])
def test_transformers_prepares_images_as_the_folder_says(name, folders):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil.from_pretrained(folders(name))
    for file in ("landscape_512x340.jpg", "exact_224.png", "square_512.webp"):
        image = official.picture(file).convert("RGB")
        found = processor(image, return_tensors="pt").pixel_values
        wanted = prepare([image], load(str(folders(name))).eye.preparation)
        assert (found - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("name", list(OFFICIAL))
def test_the_examples_of_its_model_card_run(name, folders, capsys):
    picture = HERE / "images" / "square_256.png"
    text = (folders(name) / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == (2 if name in PLAIN else 1)
    scope = {}
    for block in blocks:
        code = block.replace("path/to/this/folder", str(folders(name)))
        exec(re.sub(r"(one|another)\.png", str(picture), code), scope)
    values = scope["scorer"].score(picture, "a red fox")
    assert str(values[0])[:6] in capsys.readouterr().out
    if name in PLAIN:
        cosine = scope["cosine"].item() * scope["scorer"].scale
        assert cosine == pytest.approx(values[0], abs=1e-3)


@pytest.mark.parametrize("name", list(OFFICIAL))
def test_the_hub_understands_its_model_card(name, folders):
    from huggingface_hub import ModelCard

    card = ModelCard.load(folders(name) / "README.md")
    card.data.to_dict()
    assert card.data.library_name == ("transformers" if name in PLAIN else "palate")
    assert card.data.license == "unknown"  # nothing is confirmed of any of these weights
    assert {"palate", "human-preference", name} <= set(card.data.tags)
    source = folders.results[name]["source"]
    for said in (source["file"], source["sha256"], f"{source['bytes']:,}", "bit for bit"):
        assert said in card.text
    assert load(str(folders(name))).fingerprint in card.text


def test_mps_takes_condition_and_threshold_from_its_folder(folders):
    given = OFFICIAL["mps"][0]
    images = [official.picture("square_256.png")]
    for condition, threshold in (("detail", None), ("color, light", 0.01), (None, 0.5)):
        words = {"condition": condition, "mask_threshold": threshold}
        wanted = load("mps", **given, **words)
        for found in (
            load(str(folders("mps")), **words),
            load("mps", folders("mps"), **words),
        ):
            assert found.fingerprint == wanted.fingerprint
            assert found.condition == wanted.condition
            assert found.score(images, "a fox") == wanted.score(images, "a fox")


@pytest.mark.parametrize("name", ["hps-v1", "hps-v2"])
def test_half_of_a_checkpoint_in_16_bits_loses_nothing(name, tmp_path):
    result = converted(name, tmp_path / "half", settings=ConvertSettings(half=True))
    assert result["identical"]
    weights = load_file(tmp_path / "half" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}
    case = official.official_case(name)
    found, wanted = load(str(tmp_path / "half")), load(name, **OFFICIAL[name][0])
    values = [scorer.judge(case.images, case.prompts).values for scorer in (found, wanted)]
    assert np.array_equal(*values)
    assert "16 bits" in (tmp_path / "half" / "README.md").read_text()


@pytest.mark.parametrize("name", ["mps", "pickscore"])
def test_half_of_other_weights_says_what_it_loses(name, tmp_path):
    result = converted(name, tmp_path / "half", settings=ConvertSettings(half=True))
    case = official.official_case(name)
    scorer = load(str(tmp_path / "half"))
    assert not result["identical"]
    assert result["fingerprint"] == scorer.fingerprint != case.scorer.fingerprint
    assert 0 < result["loss"] < 0.1
    found = scorer.judge(case.images, case.prompts).values
    away = np.abs(found - case.scorer.judge(case.images, case.prompts).values).max()
    assert 0 < away < 5 * result["loss"]
    assert f"by up to {result['loss']:.2g}" in (tmp_path / "half" / "README.md").read_text()


def test_half_of_an_image_reward_is_stored_in_16_bits(tmp_path):
    converted("image-reward", tmp_path / "half", settings=ConvertSettings(half=True))
    weights = load_file(tmp_path / "half" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}


def test_weights_that_16_bits_cannot_hold_are_refused(tmp_path):
    clip = tiny_clip(0)
    clip.model.visual_projection.weight.data[0, 0] = 1e6
    save_clip(clip, tmp_path / "large")
    half = ConvertSettings(half=True)
    with pytest.raises(CheckpointError, match="not finite"):
        convert_checkpoint(tmp_path / "large", tmp_path / "out", "clip-score", settings=half)
    assert arrived(tmp_path / "out") == {"run.json"}


def test_profiles_are_kept_and_can_be_chosen(folders, tmp_path):
    image = official.picture("square_256.png")
    wanted = load("hps-v1@gelu", **OFFICIAL["hps-v1"][0])
    result = convert_checkpoint(HPS, tmp_path / "gelu", "hps-v1@gelu", tokenizer=WORDS)
    assert result["profile"] == "gelu"
    found = load(str(tmp_path / "gelu"))
    assert found.fingerprint == wanted.fingerprint
    assert found.score(image, "a fox") == wanted.score(image, "a fox")
    assert 'load("hps-v1@gelu"' in (tmp_path / "gelu" / "README.md").read_text()
    for other in (
        load(str(folders("hps-v1")), profile="gelu"),
        load("hps-v1@gelu", folders("hps-v1")),
    ):
        assert other.fingerprint == wanted.fingerprint
    with pytest.raises(CheckpointError, match=r"no profile 'golu'.*did you mean 'gelu'"):
        load(str(folders("hps-v1")), profile="golu")
    save_clip(tiny_clip(0), tmp_path / "plain")
    with pytest.raises(CheckpointError, match="no profile 'gelu', a plain CLIP folder has none"):
        load(str(tmp_path / "plain"), profile="gelu")


@pytest.mark.parametrize("profile", ["cosine", "hessel", "torchmetrics"])
def test_every_clip_score_comes_back(profile, tmp_path):
    name = f"clip-score@{profile}"
    wanted = load(name, HPS, tokenizer=WORDS)
    convert_checkpoint(HPS, tmp_path / "out", name, tokenizer=WORDS)
    found = load(str(tmp_path / "out"))
    image = official.picture("square_256.png")
    assert found.fingerprint == wanted.fingerprint
    assert found.score(image, "a fox") == wanted.score(image, "a fox")


def test_a_folder_of_another_scorer_is_refused(folders):
    with pytest.raises(CheckpointError, match="holds the scorer 'hps-v1', expected 'hps-v2'"):
        load("hps-v2", folders("hps-v1"))


def test_what_is_trained_on_from_it_is_another_scorer(folders, tmp_path):
    clip = load_clip(folders("hps-v1"))
    save_clip(clip, tmp_path / "run", name="run", unit="hps", trained={"steps": 1})
    scorer = load(str(tmp_path / "run"))
    assert scorer.name == "run"
    assert "profile" not in scorer.card()


def test_scorers_are_told_by_their_tensors(folders, tmp_path):
    for name in ("mps", "image-reward", "aesthetic"):
        assert tell_scorer(OFFICIAL[name][0]["weights"]) == name
    for name in OFFICIAL:
        assert tell_scorer(folders(name)) == f"{name}@official"
    linear = {"weight": torch.zeros(1, 8), "bias": torch.zeros(1)}
    save_file(linear, tmp_path / "linear.safetensors")
    assert tell_scorer(tmp_path / "linear.safetensors") == "aesthetic"


def test_a_clip_is_never_guessed(tmp_path):
    named = tmp_path / "HPS_v2.1_compressed.pt"
    named.write_bytes(HPS.read_bytes())
    save_clip(tiny_clip(0), tmp_path / "PickScore_v1")
    for path in (named, tmp_path / "PickScore_v1"):
        with pytest.raises(CheckpointError, match=f"name it with --scorer, one of {CLIPS[0]}, "):
            convert_checkpoint(path, tmp_path / "out", tokenizer=WORDS)
    assert not (tmp_path / "out").exists()


def test_unknown_tensors_are_refused_by_name(tmp_path):
    save_file({"unet.weight": torch.zeros(2)}, tmp_path / "hpc.safetensors")
    with pytest.raises(CheckpointError, match=r"those of no scorer that is known: unet\.weight"):
        tell_scorer(tmp_path / "hpc.safetensors")


def test_a_converted_folder_converts_to_itself(folders, tmp_path):
    result = convert_checkpoint(folders("mps"), tmp_path / "again")
    assert result["fingerprint"] == folders.results["mps"]["fingerprint"]
    assert result["scorer"] == "mps"
    result = convert_checkpoint(folders("aesthetic"), tmp_path / "head")
    assert result["source"]["file"] == "head.safetensors"
    assert result["fingerprint"] == folders.results["aesthetic"]["fingerprint"]


class Full:
    """A disk that is full when the weights are written; half of them are on it."""

    def __init__(self, error):
        self.error = error

    def __call__(self, weights, path, metadata=None):
        Path(path).write_bytes(b"half")
        raise self.error


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), RunError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_nothing_half_written_is_left(error, raised, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("palate.models.clip_files.save_file", Full(error))
        with pytest.raises(raised) as caught:
            converted("hps-v1", out)
    assert arrived(out) == {"run.json"}
    assert arrived(tmp_path) == {"out"}
    status = json.loads((out / "run.json").read_text())["status"]
    if raised is RunError:
        assert str(caught.value) == f"{out}: could not be written: No space left on device"
        assert status == "failed"
    else:
        assert status == "interrupted"
    assert converted("hps-v1", out)["identical"]
    assert load(str(out)).name == "hps-v1"
    assert arrived(tmp_path) == {"out"}


def test_a_copy_that_is_not_the_same_is_never_left(tmp_path, monkeypatch):
    save_clip(tiny_clip(0), tmp_path / "clip")
    monkeypatch.setattr(module, "load", different(module.load))
    with pytest.raises(RunError, match="does not read back as the same scorer"):
        convert_checkpoint(tmp_path / "clip", tmp_path / "out", "clip-score")
    assert arrived(tmp_path / "out") == {"run.json"}


def different(load):
    """Load the first time what is asked for, and then a scorer with other weights."""
    calls = []

    def loader(*arguments, **given):
        scorer = load(*arguments, **given)
        calls.append(scorer)
        if len(calls) == 2:
            scorer.clip.model.visual_projection.weight.data += 1
        return scorer

    return loader


def test_the_same_command_does_not_work_twice(tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = converted("hps-v1", out)
    monkeypatch.setattr(module, "convert", None)
    assert converted("hps-v1", out) == first
    monkeypatch.undo()
    with pytest.raises(RunError, match="other settings"):
        converted("hps-v1", out, settings=ConvertSettings(half=True))
    again = converted("hps-v1", out, settings=ConvertSettings(half=True), overwrite=True)
    assert again["half"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty and holds no run"):
        converted("hps-v1", tmp_path / "mine", overwrite=True)
    assert arrived(tmp_path / "mine") == {"notes.txt"}


def test_an_aesthetic_head_needs_its_clip(tmp_path):
    with pytest.raises(CheckpointError, match="needs the CLIP that its head was trained on"):
        convert_checkpoint(OFFICIAL["aesthetic"][0]["weights"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
