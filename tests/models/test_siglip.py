"""A SigLIP reads, writes, and is the same function as transformers' own forward pass."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional

from palate.errors import CheckpointError
from palate.models.clip import Clip
from palate.models.clip_files import load_clip, save_clip
from palate.models.pixels import Preparation, prepare
from palate.models.siglip import Siglip
from palate.models.siglip_files import load_siglip, save_siglip
from palate.models.siglip_tokens import read_siglip_tokenizer
from palate.models.tiny import tiny_clip
from palate.models.tiny_siglip import tiny_siglip
from palate.models.towers import load_towers

PROMPTS = ["a red fox", "", "Two cats & a dog, watercolor!", "castle tower number one " * 9, "..."]
HALF = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def siglip():
    return tiny_siglip(0)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A folder that transformers wrote: the model, and the processor in one file, as version 5 does."""
    from transformers import SiglipImageProcessorPil, SiglipProcessor

    folder, made = tmp_path_factory.mktemp("official"), tiny_siglip(0)
    made.model.save_pretrained(folder)
    images = SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=2)
    SiglipProcessor(images, made.tokenizer.words).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(official, tmp_path):
    """A copy of it to spoil."""
    return shutil.copytree(official, tmp_path / "folder")


def pixels_of(siglip):
    size = siglip.preparation.size
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


def features(siglip):
    ids = siglip.tokenizer.batch(PROMPTS).ids
    with torch.no_grad():
        return siglip.image_features(pixels_of(siglip)), siglip.text_features(ids)


def change_json(path, *, drop=(), **values):
    said = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: said[name] for name in said if name not in drop}))


@pytest.mark.parametrize("activation", ["gelu_pytorch_tanh", "gelu"])
def test_the_features_are_transformers_own(official, folder, activation):
    from transformers import AutoTokenizer, SiglipModel

    config = json.loads((folder / "config.json").read_text())
    for tower in ("text_config", "vision_config"):
        config[tower]["hidden_act"] = activation
    (folder / "config.json").write_text(json.dumps(config))
    ours, theirs = load_siglip(folder), SiglipModel.from_pretrained(folder).eval()
    clean = [ours.tokenizer.cleaned(prompt) for prompt in PROMPTS]
    tokens = AutoTokenizer.from_pretrained(folder)(
        clean, padding="max_length", truncation=True, max_length=24, return_tensors="pt"
    )
    assert torch.equal(ours.tokenizer.batch(PROMPTS).ids, tokens.input_ids)
    images, texts = features(ours)
    with torch.no_grad():
        seen = theirs.get_image_features(pixels_of(ours)).pooler_output
        read = theirs.get_text_features(tokens.input_ids).pooler_output
        logits = theirs(input_ids=tokens.input_ids, pixel_values=pixels_of(ours)).logits_per_image
    assert torch.allclose(images, functional.normalize(seen, dim=-1), atol=1e-6)
    assert torch.allclose(texts, functional.normalize(read, dim=-1), atol=1e-6)
    scale, bias = ours.model.logit_scale.exp(), ours.model.logit_bias
    assert torch.allclose(scale * images @ texts.T + bias, logits, atol=1e-5)


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_a_tower_can_be_cut_at_any_block(siglip, cut):
    images, texts = features(siglip)
    ids = siglip.tokenizer.batch(PROMPTS).ids
    with torch.no_grad():
        below = siglip.image_blocks(siglip.image_stem(pixels_of(siglip)), 0, cut)
        assert torch.equal(siglip.image_rest(below, cut), images)
        assert torch.equal(siglip.image_head(siglip.image_blocks(below, cut)), images)
        below = siglip.text_blocks(siglip.text_stem(ids), 0, cut)
        assert torch.equal(siglip.text_rest(below, cut, ids), texts)
        assert torch.equal(siglip.text_head(siglip.text_blocks(below, cut), ids), texts)


def test_checkpointing_changes_no_gradient():
    found = []
    for again in (False, True):
        siglip = tiny_siglip(0)
        siglip.model.requires_grad_(requires_grad=True)
        siglip.model.checkpointing = again
        ids = siglip.tokenizer.batch(PROMPTS).ids
        images, texts = siglip.image_features(pixels_of(siglip)), siglip.text_features(ids)
        (images @ texts.T).square().sum().backward()
        found.append({name: value.grad for name, value in siglip.model.named_parameters()})
    plain, checkpointed = found
    assert plain.keys() == checkpointed.keys()
    for name, grad in plain.items():
        if not name.startswith("logit_"):  # not in the cosine
            assert torch.equal(grad, checkpointed[name]), name


def test_padding_is_read(siglip):
    ids = siglip.tokenizer.batch(["a red fox"]).ids
    changed = ids.clone()
    changed[0, 15] = 2
    with torch.no_grad():
        first, second = siglip.text_features(ids), siglip.text_features(changed)
    assert not torch.allclose(first, second, atol=1e-4)


def test_weights_are_frozen_and_in_float32(official):
    siglip = load_siglip(official)
    assert {value.dtype for value in siglip.model.parameters()} == {torch.float32}
    assert not siglip.model.training
    assert not any(value.requires_grad for value in siglip.model.parameters())
    assert not any(value.is_meta for value in siglip.model.buffers())


def test_a_saved_folder_is_the_same_function(official, tmp_path):
    siglip = load_siglip(official)
    save_siglip(siglip, tmp_path / "a", name="fox", unit="logit")
    again = load_siglip(tmp_path / "a")
    assert again.about["name"] == "fox"
    assert again.preparation == siglip.preparation
    assert again.fingerprint() == siglip.fingerprint()
    assert again.image_fingerprint() == siglip.image_fingerprint()
    for ours, theirs in zip(features(again), features(siglip), strict=True):
        assert torch.equal(ours, theirs)
    save_siglip(again, tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_a_saved_folder_loads_in_transformers(siglip, tmp_path):
    from transformers import AutoTokenizer, SiglipImageProcessorPil, SiglipModel

    save_siglip(siglip, tmp_path)
    model, found = SiglipModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    for name, value in siglip.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    words = AutoTokenizer.from_pretrained(tmp_path)
    tokens = words(["a red fox"], padding="max_length", return_tensors="pt").input_ids
    assert torch.equal(tokens, siglip.tokenizer.batch(["a red fox"]).ids)
    picture = Image.effect_noise((300, 260), 80).convert("RGB")
    prepared = SiglipImageProcessorPil.from_pretrained(tmp_path)(picture, return_tensors="pt")
    expected = prepare([picture], siglip.preparation)
    assert torch.allclose(prepared.pixel_values, expected, atol=1e-6)


def test_half_precision_halves_the_file(siglip, tmp_path):
    save_siglip(siglip, tmp_path / "whole")
    save_siglip(siglip, tmp_path / "half", half=True)
    whole, half = (tmp_path / name / "model.safetensors" for name in ("whole", "half"))
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    again = load_siglip(half.parent)
    assert {value.dtype for value in again.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("number", "name"), [(2, "bilinear"), (3, "bicubic")])
def test_images_are_prepared_as_the_folder_says(folder, number, name):
    from transformers import SiglipImageProcessorPil

    (folder / "processor_config.json").unlink()
    theirs = SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=number)
    theirs.save_pretrained(folder)
    how = load_siglip(folder).preparation
    assert how == Preparation(size=32, resize="exact", interpolation=name, mean=HALF, std=HALF)
    for size in ((300, 40), (32, 32), (5, 64)):
        picture = Image.effect_noise(size, 80).convert("RGB")
        expected = theirs(picture, return_tensors="pt").pixel_values
        assert torch.allclose(prepare([picture], how), expected, atol=1e-6)


def test_the_processor_file_of_transformers_5_is_read(official, tmp_path):
    assert (official / "processor_config.json").is_file()
    assert not (official / "preprocessor_config.json").exists()
    assert load_siglip(official).preparation.interpolation == "bilinear"
    clip = tiny_clip(0)
    save_clip(clip, tmp_path)
    processor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "processor_config.json").write_text(
        json.dumps({"image_processor": processor | {"resample": 1}})
    )
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "palate.json").unlink()
    how = load_clip(tmp_path).preparation
    assert (how.resize, how.interpolation) == ("exact", "lanczos")


def test_files_of_other_ages_and_kinds_are_read(folder, siglip):
    weights = load_file(folder / "model.safetensors")
    weights["text_model.embeddings.position_ids"] = torch.arange(24)[None]
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"eos_token_id": 49407, "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    images, texts = features(load_siglip(folder))
    assert torch.equal(images, features(siglip)[0])
    assert torch.equal(texts, features(siglip)[1])


def test_the_fingerprint_sees_every_part(siglip):
    first, image = siglip.fingerprint(), siglip.image_fingerprint()
    assert tiny_siglip(0).fingerprint() == first
    assert tiny_siglip(1).fingerprint() != first
    other = tiny_siglip(0)
    with torch.no_grad():
        other.model.logit_bias += 1e-3
    assert other.fingerprint() != first
    assert other.image_fingerprint() == image
    other = tiny_siglip(0)
    other.tokenizer.clean = "lower"
    assert other.fingerprint() != first
    other = tiny_siglip(0)
    other.model.config.vision_config.num_attention_heads = 4
    assert other.image_fingerprint() != image


def test_towers_are_told_apart_by_their_config(official, tmp_path):
    assert isinstance(load_towers(official), Siglip)
    save_clip(tiny_clip(0), tmp_path)
    assert isinstance(load_towers(tmp_path), Clip)
    with pytest.raises(CheckpointError, match="a folder says its own architecture"):
        load_towers(official, architecture=tmp_path / "architecture.json")


# --------------------------------------------------------------------------------------------- prompts


def write_gemma(folder):
    """A tokenizer of byte pairs like Gemma's, with the settings of the SigLIP 2 folders."""
    from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE

    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *"▁arefox,!ARF", "re", "fo"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = [("r", "e"), ("f", "o")]
    cutter = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    cutter.normalizer = normalizers.Replace(" ", "▁")
    cutter.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    cutter.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    cutter.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    cutter.enable_truncation(64)
    cutter.enable_padding(length=64, pad_id=0, pad_token="<pad>")
    cutter.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": False,
        "add_eos_token": True,
        **{f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk")},
        "model_max_length": 1000000000000000019884624838656,
        "padding_side": "right",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(pieces)


def test_a_prompt_of_siglip_2_is_lowered_and_cut_as_transformers_does(folder):
    from transformers import AutoTokenizer

    count = write_gemma(folder)
    ours = read_siglip_tokenizer(folder, context=12, vocabulary_size=count)
    prompts = ["A Red FOX, fox!", "", "猫 fox", "fox " * 40, "..."]
    theirs = AutoTokenizer.from_pretrained(folder)(
        [prompt.lower() for prompt in prompts],
        padding="max_length",
        truncation=True,
        max_length=12,
        return_tensors="pt",
    )
    found = ours.batch(prompts)
    assert torch.equal(found.ids, theirs.input_ids)
    assert (found.kept <= 12).all()
    assert (found.given[3], found.kept[3], found.ids[3, -1]) == (len(ours.ids(prompts[3])), 12, 1)


@pytest.mark.parametrize(
    ("prompt", "cleaned"),
    [
        ("A red, Fox!", "a red fox"),
        ("  two\t\nrobots  ", "two robots"),
        ("e-mail: it's_8k", "email its8k"),
        ("...", ""),
        ("café — 猫", "café — 猫"),
        ("half \ud83d surrogate", "half surrogate"),
        ("</s>", "s"),
    ],
)
def test_a_prompt_is_canonical_before_it_is_cut(siglip, prompt, cleaned):
    assert siglip.tokenizer.cleaned(prompt) == cleaned
    assert siglip.tokenizer.cleaned(cleaned) == cleaned
    tokens = siglip.tokenizer.batch([prompt, cleaned])
    assert torch.equal(tokens.ids[0], tokens.ids[1])


def test_tokens_are_counted_and_the_end_is_kept(siglip):
    tokens = siglip.tokenizer.batch(["fox", "", "x" * 50])
    assert tokens.given.tolist() == [5, 1, 52]  # a mark for the word, its letters, the end
    assert tokens.kept.tolist() == [5, 1, 24]
    assert tokens.ids[:, -1].tolist() == [1, 1, 1]
    assert siglip.tokenizer.batch([]).ids.shape == (0, 24)


def test_the_first_side_is_padded_where_the_folder_says_so(folder):
    change_json(folder / "tokenizer_config.json", padding_side="left")
    right, left = tiny_siglip(0).tokenizer, load_siglip(folder).tokenizer
    assert left.batch(["fox"]).ids[0, -5:].tolist() == right.batch(["fox"]).ids[0, :5].tolist()
    assert left.batch(["fox"]).ids[0, 0] == left.pad
    assert left.fingerprint == right.fingerprint


def train_sentence_pieces(spm):
    """A Unigram model with T5's first three pieces."""
    sink = io.BytesIO()
    lines = ["a red fox under an old oak", "two robots and one cat", "castle tower number one"]
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 9),
        model_writer=sink,
        vocab_size=50,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return sink.getvalue()


def test_an_old_folder_is_read_with_sentencepiece(folder, tmp_path):
    from transformers import AutoTokenizer

    spm = pytest.importorskip("sentencepiece")
    (folder / "tokenizer.json").unlink()
    (folder / "spiece.model").write_bytes(train_sentence_pieces(spm))
    change_json(folder / "tokenizer_config.json", tokenizer_class="SiglipTokenizer")
    theirs = AutoTokenizer.from_pretrained(folder)(
        PROMPTS, padding="max_length", truncation=True, max_length=24, return_tensors="pt"
    )
    siglip = load_siglip(folder)
    assert torch.equal(siglip.tokenizer.batch(PROMPTS).ids, theirs.input_ids)
    save_siglip(siglip, tmp_path / "again")
    assert load_siglip(tmp_path / "again").fingerprint() == siglip.fingerprint()


@pytest.mark.skipif(
    importlib.util.find_spec("sentencepiece") is not None, reason="sentencepiece is installed"
)
def test_an_old_folder_says_what_to_install(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "spiece.model").write_bytes(b"pieces")
    with pytest.raises(CheckpointError, match="pip install sentencepiece protobuf"):
        load_siglip(folder)


# --------------------------------------------------------------------------------------------- refusals


def spoil_tower(folder, tower, **values):
    config = json.loads((folder / "config.json").read_text())
    config[tower] |= values
    (folder / "config.json").write_text(json.dumps(config))


def spoil_processor(folder, **values):
    path = folder / "processor_config.json"
    said = json.loads(path.read_text())
    said["image_processor"] |= values
    path.write_text(json.dumps(said))


def spoil_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


FAULTS = {
    "no config.json, expected a folder with a saved SigLIP": lambda folder: (
        folder / "config.json"
    ).unlink(),
    "model_type is 'clip', expected 'siglip'": lambda folder: change_json(
        folder / "config.json", model_type="clip"
    ),
    "model_type is 'siglip2', which is NaFlex": lambda folder: change_json(
        folder / "config.json", model_type="siglip2"
    ),
    "sizes that are not understood": lambda folder: spoil_tower(
        folder, "text_config", hidden_size="wide"
    ),
    "patch_size is [8, 8], expected one number": lambda folder: spoil_tower(
        folder, "vision_config", patch_size=[8, 8]
    ),
    "num_channels is 1, expected 3": lambda folder: spoil_tower(
        folder, "vision_config", num_channels=1
    ),
    "vision_use_head is false": lambda folder: spoil_tower(
        folder, "vision_config", vision_use_head=False
    ),
    "features of 16 numbers, but images of 32": lambda folder: spoil_tower(
        folder, "text_config", projection_size=16
    ),
    "5 attention heads do not divide the width 32": lambda folder: spoil_tower(
        folder, "vision_config", num_attention_heads=5
    ),
    "hidden_act is 'gulp', expected one of gelu_pytorch_tanh": lambda folder: spoil_tower(
        folder, "text_config", hidden_act="gulp"
    ),
    "no tokenizer, expected tokenizer.json or spiece.model": lambda folder: (
        folder / "tokenizer.json"
    ).unlink(),
    "tokenizer.json: not a tokenizer that can be read": lambda folder: (
        folder / "tokenizer.json"
    ).write_text("{"),
    "no padding token, expected pad_token in tokenizer_config.json": lambda folder: change_json(
        folder / "tokenizer_config.json", drop=["pad_token"]
    ),
    "but the weights know 90": lambda folder: spoil_tower(folder, "text_config", vocab_size=90),
    "does not say how images are prepared": lambda folder: (
        folder / "processor_config.json"
    ).unlink(),
    "do_normalize is False, expected true": lambda folder: spoil_processor(
        folder, do_normalize=False
    ),
    "rescale_factor is 1.0, expected 1/255": lambda folder: spoil_processor(
        folder, rescale_factor=1.0
    ),
    "but the weights take images of 32 × 32 pixels": lambda folder: spoil_processor(
        folder, size={"height": 64, "width": 32}
    ),
    "a preparation that is not understood": lambda folder: spoil_processor(folder, resample=9),
    "model.safetensors: no such weights file": lambda folder: (
        folder / "model.safetensors"
    ).unlink(),
    "1 missing: logit_bias": lambda folder: spoil_weights(
        folder, lambda weights: weights.pop("logit_bias")
    ),
    "1 tensors hold values that are not finite: logit_scale": lambda folder: spoil_weights(
        folder, lambda weights: weights["logit_scale"].fill_(float("nan"))
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_that_cannot_be_read_is_refused_in_a_sentence(folder, fault):
    FAULTS[fault](folder)
    with pytest.raises(CheckpointError, match=re.escape(fault)) as caught:
        load_siglip(folder)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_of_another_kind_is_refused(folder):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    Tokenizer(WordLevel({"</s>": 0, "a": 1}, unk_token="</s>")).save(str(folder / "tokenizer.json"))
    with pytest.raises(
        CheckpointError, match=r"a WordLevel tokenizer, expected Unigram \(SigLIP\)"
    ):
        load_siglip(folder)


def test_a_clean_up_that_is_not_known_is_refused(siglip, tmp_path):
    save_siglip(siglip, tmp_path)
    change_json(tmp_path / "palate.json", tokens={"clean": "scrub"})
    with pytest.raises(CheckpointError, match="clean is 'scrub', expected one of canonical, lower"):
        load_siglip(tmp_path)
