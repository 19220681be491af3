"""An MPS reads, writes, masks as its docstring says, and agrees with a slow obvious twin."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel

from palate.errors import CheckpointError, SettingsError
from palate.models.clip import encode_prompts
from palate.models.cross_attention import CrossModel, CrossSizes, rotary, turn
from palate.models.mps import Mps, load_mps, read_architecture, save_mps
from palate.models.mps_condition import CONDITIONS, Masking, tokens_kept
from palate.models.tiny import tiny_clip

SIZES = CrossSizes(dim=16, layer_num=2, heads=3, dim_head=8, ff_mult=2)
PROMPTS = ["a red fox", "", "two cats & a dog"]


def cross_model(sizes, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cross = CrossModel(sizes)
        for value in cross.parameters():
            torch.nn.init.normal_(value, std=value.shape[-1] ** -0.5)
    return cross.requires_grad_(False).eval()


def tiny_mps(seed=0):
    return Mps(tiny_clip(seed), cross_model(SIZES, seed))


def pixels(count=3, seed=0):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def scores(mps, images, prompts=PROMPTS, condition="overall", threshold=0.3):
    text, ends = mps.text_tokens(encode_prompts(mps.clip, prompts))
    asked, _ = mps.text_tokens(encode_prompts(mps.clip, [CONDITIONS[condition]]))
    kept = tokens_kept(text, asked, Masking(threshold=threshold))
    return mps.score(mps.image_tokens(images), text, ends, kept)


# ------------------------------------------------------------------------------- the slow twin


def normed(token, weight):
    centred = token - token.mean()
    return centred / np.sqrt((centred**2).mean() + 1e-5) * weight


def gated(both):
    half = len(both) // 2
    return np.array([both[i] * both[half + i] / (1 + np.exp(-both[half + i])) for i in range(half)])


def attended(query, keys, values):
    logits = [sum(q * k for q, k in zip(query, key, strict=True)) for key in keys]
    weights = [math.exp(logit / math.sqrt(len(query)) - max(logits)) for logit in logits]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def turned(vector, position):
    half = len(vector) // 2
    out = np.empty(len(vector))
    for i in range(half):
        angle = position * 10_000 ** (-2 * i / len(vector))
        out[i] = vector[i] * math.cos(angle) - vector[half + i] * math.sin(angle)
        out[half + i] = vector[half + i] * math.cos(angle) + vector[i] * math.sin(angle)
    return out


def read(images, prompt, kept, w, sizes):
    """One cross-attention of one image, token by token."""
    words = [w["to_kv.weight"] @ word for word, use in zip(prompt, kept, strict=True) if use]
    keys, values = [x[: sizes.dim_head] for x in words], [x[sizes.dim_head :] for x in words]
    out = []
    for token in images:
        x = normed(token, w["norm.weight"])
        queries = (w["to_q.weight"] @ x).reshape(sizes.heads, sizes.dim_head)
        heads = np.concatenate([attended(query, keys, values) for query in queries])
        thought = w["ff.2.weight"] @ gated(w["ff.0.weight"] @ x)
        out.append(token + w["to_out.weight"] @ heads + thought)
    return out


def reflect(images, w, sizes):
    """One parallel self-attention block of one image, token by token."""
    inner, width = sizes.heads * sizes.dim_head, sizes.dim_head
    fused = [w["fused_attn_ff_proj.weight"] @ normed(x, w["norm.weight"]) for x in images]
    keys = [turned(x[inner : inner + width], place) for place, x in enumerate(fused)]
    values = [x[inner + width : inner + 2 * width] for x in fused]
    out = []
    for place, (token, x) in enumerate(zip(images, fused, strict=True)):
        queries = x[:inner].reshape(sizes.heads, width)
        heads = np.concatenate([attended(turned(q, place), keys, values) for q in queries])
        thought = w["ff_out.1.weight"] @ gated(x[inner + 2 * width :])
        out.append(token + w["attn_out.weight"] @ heads + thought)
    return out


def slow(cross, images, prompt, kept):
    weights = {name: value.double().numpy() for name, value in cross.state_dict().items()}

    def block(prefix):
        return {n[len(prefix) :]: v for n, v in weights.items() if n.startswith(prefix)}

    for layer in range(cross.sizes.layer_num):
        images = read(images, prompt, kept, block(f"layers.{layer}.0.fn."), cross.sizes)
        images = reflect(images, block(f"layers.{layer}.1.fn."), cross.sizes)
    return np.array(images)


@settings(max_examples=40)
@given(
    sizes=st.builds(
        CrossSizes,
        dim=st.integers(1, 5),
        layer_num=st.integers(0, 2),
        heads=st.integers(1, 3),
        dim_head=st.sampled_from([2, 4, 6]),
        ff_mult=st.integers(1, 2),
    ),
    tokens=st.integers(1, 4),
    kept=st.lists(st.booleans(), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_the_cross_model_is_its_slow_twin(sizes, tokens, kept, seed):
    cross = cross_model(sizes, seed).double()
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(2, tokens, sizes.dim))
    prompts = rng.normal(size=(2, len(kept), sizes.dim))
    masks = np.array([kept, kept[::-1]])
    found = cross(*(torch.from_numpy(part) for part in (images, prompts, masks)))
    for row in range(2):
        used = masks[row] if any(kept) else ~masks[row]
        expected = slow(cross, list(images[row]), prompts[row], used)
        assert np.allclose(found[row].numpy(), expected, rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------------------------------- laws


def test_rotary_positions_are_relative():
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 8, generator=generator, dtype=torch.float64).expand(2, 9, 8)
    turns = rotary(9, 8, query)
    products = turn(query, turns) @ turn(key, turns).T
    for shift in range(-8, 9):
        diagonal = products.diagonal(shift)
        assert torch.allclose(diagonal, diagonal[:1].expand_as(diagonal))
    assert torch.equal(turn(query, turns)[0], query[0])
    assert torch.allclose(turn(query, turns).norm(dim=-1), query.norm(dim=-1))
    assert not torch.allclose(products[0, 0], products[0, 1])


def test_late_angles_are_exact_in_sixteen_bits():
    half, full = (
        rotary(257, 64, torch.zeros(1, dtype=kind)) for kind in (torch.half, torch.double)
    )
    assert (half[0].double() - full[0]).abs().max() < 1e-3


def test_words_left_out_do_not_matter_and_their_order_neither():
    cross = cross_model(SIZES)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 5, 16, generator=generator)
    prompts = torch.randn(2, 6, 16, generator=generator)
    kept = torch.tensor([[True, False, True, True, False, False], [False, True] * 3])
    found = cross(images, prompts, kept)
    others = torch.where(kept[..., None], prompts, 1e4)
    assert torch.allclose(cross(images, others, kept), found, atol=1e-5)
    assert torch.allclose(cross(images, prompts.flip(1), kept.flip(1)), found, atol=1e-5)
    assert not torch.allclose(cross(images, prompts, torch.ones_like(kept)), found, atol=1e-2)


def test_a_prompt_that_keeps_nothing_is_read_in_whole():
    cross = cross_model(SIZES)
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(2, 5, 16, generator=generator)
    prompts = torch.randn(2, 6, 16, generator=generator)
    nothing = torch.zeros(2, 6, dtype=torch.bool)
    assert torch.equal(cross(images, prompts, nothing), cross(images, prompts, ~nothing))


# ----------------------------------------------------------------------------------------- MPS


def test_different_prompts_together_are_as_alone():
    mps, images = tiny_mps(), pixels()
    together = scores(mps, images)
    alone = [scores(mps, images[row : row + 1], [prompt])[0] for row, prompt in enumerate(PROMPTS)]
    assert torch.allclose(together, torch.stack(alone), atol=1e-5)
    assert len(set(together.tolist())) == 3
    assert torch.allclose(scores(mps, images.flip(0), PROMPTS[::-1]).flip(0), together, atol=1e-5)


def test_nothing_in_nothing_out():
    mps = tiny_mps()
    kept = torch.ones(0, 24, dtype=torch.bool)
    tokens, text, ends = (torch.zeros(0, *shape) for shape in ((17, 16), (24, 16), (16,)))
    assert tokens_kept(text, torch.ones(1, 3, 16)).shape == kept.shape
    assert mps.score(tokens, text, ends, kept).shape == (0,)


def test_the_end_feature_is_that_of_the_clip():
    mps = tiny_mps()
    ids = encode_prompts(mps.clip, PROMPTS)
    tokens, ends = mps.text_tokens(ids)
    assert torch.allclose(ends, mps.clip.text_features(ids), atol=1e-6)
    rows = torch.arange(3)
    there = torch.nn.functional.normalize(tokens[rows, ids.argmax(-1)], dim=-1)
    assert torch.allclose(there, ends, atol=1e-6)


def test_the_image_tokens_are_not_normed():
    mps = tiny_mps()
    theirs = CLIPModel(CLIPConfig.from_dict(mps.clip.model.config.to_dict())).eval()
    theirs.load_state_dict(mps.clip.model.state_dict(), strict=True)
    with torch.no_grad():
        hidden = theirs.vision_model(pixels()).last_hidden_state
        theirs = theirs.visual_projection(hidden)
    assert torch.allclose(mps.image_tokens(pixels()), theirs, atol=1e-5)


def test_the_mask_is_the_largest_product_over_the_largest_of_the_prompt():
    text = torch.tensor([[[4.0, 0.0], [1.0, 9.0], [2.0, -1.0]], [[0.4, 0], [0.1, 0.9], [0.2, -1]]])
    condition = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    expected = torch.tensor([[True, False, True]] * 2)
    assert torch.equal(tokens_kept(text, condition), expected)
    assert torch.equal(tokens_kept(text, condition.expand(2, -1, -1)), expected)
    assert tokens_kept(text, condition, Masking(threshold=0.2)).all()
    assert torch.equal(tokens_kept(text[1:], condition), expected[1:])


@pytest.mark.parametrize("scale", [-1.0, 0.0])
def test_a_condition_that_no_token_meets_keeps_every_token(scale):
    mps = tiny_mps()
    text = torch.tensor([[[4.0], [1.0]]])
    kept = tokens_kept(text, torch.tensor([[[scale]]]))
    assert kept.all()
    images, ends = mps.image_tokens(pixels(1)), torch.ones(1, 16)
    assert mps.score(images, torch.zeros(1, 2, 16), ends, kept).isfinite().all()


@pytest.mark.parametrize("threshold", [1.0, 2.0, math.nan])
def test_a_threshold_that_nothing_passes_is_refused(threshold):
    with pytest.raises(SettingsError, match=r"mask threshold is .* expected below 1"):
        scores(tiny_mps(), pixels(), threshold=threshold)


def test_conditions_are_different_questions():
    mps = tiny_mps()
    values = {scores(mps, pixels(), condition=name, threshold=0.9)[0].item() for name in CONDITIONS}
    assert len(values) > 1


def test_gradients_reach_the_pixels_of_their_own_image():
    mps, images = tiny_mps(), pixels().requires_grad_()
    scores(mps, images)[1].backward()
    assert images.grad[1].abs().sum() > 0
    assert not images.grad[[0, 2]].any()


@pytest.mark.parametrize("bits", [32, 16])
def test_every_weight_that_matters_can_be_trained(bits):
    mps = tiny_mps()
    assert not any(value.requires_grad for value in mps.cross.parameters())
    parts = {"clip": mps.clip.model.requires_grad_(True), "cross": mps.cross.requires_grad_(True)}
    with torch.autocast("cpu", torch.bfloat16, enabled=bits == 16):
        scores(mps, pixels()).sum().backward()
    still = {
        f"{part}.{name}"
        for part, module in parts.items()
        for name, value in module.named_parameters()
        if value.grad is None or not value.grad.any()
    }
    # MPS takes image tokens before this norm, and a softmax does not see a shift of all keys
    assert {name for name in still if not name.endswith("k_proj.bias")} == {
        "clip.vision_model.post_layernorm.weight",
        "clip.vision_model.post_layernorm.bias",
    }


# --------------------------------------------------------------------------------------- files


@pytest.fixture
def saved(tmp_path):
    save_mps(tiny_mps(), tmp_path / "mps", name="small", unit="logit")
    return tmp_path / "mps"


@pytest.fixture
def official(saved, tmp_path):
    """A state dict as the official file has it, with constants, and its architecture beside."""
    folder = tmp_path / "official"
    folder.mkdir()
    weights = load_file(saved / "model.safetensors")
    for layer in range(SIZES.layer_num):
        prefix = f"cross_model.layers.{layer}"
        for part in (0, 1):
            weights[f"{prefix}.{part}.fn.norm.bias"] = torch.zeros(16, dtype=torch.half)
        frequencies = torch.tensor([1, 0.1, 0.01, 0.001], dtype=torch.half)
        weights[f"{prefix}.1.fn.rotary_emb.inv_freq"] = frequencies
    weights["model.text_model.embeddings.position_ids"] = torch.arange(24)[None]
    save_file(weights, folder / "mps.safetensors")
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_text((saved / name).read_text("utf-8"), "utf-8")
    (folder / "architecture.json").write_text((saved / "config.json").read_text())
    return folder / "mps.safetensors"


def rewrite(path, drop=(), **values):
    weights = load_file(path)
    weights = {name: value for name, value in weights.items() if name not in drop}
    save_file(weights | values, path)


def say(path, section, **values):
    """Change what an architecture file says; None takes an entry out."""
    said = json.loads(path.read_text())
    inner = said[section] if section else said
    inner |= values
    for name in [name for name, value in values.items() if value is None]:
        del inner[name]
    path.write_text(json.dumps(said))


def test_a_saved_folder_is_the_same_function(saved):
    mps, again = tiny_mps(), load_mps(saved)
    assert torch.equal(scores(again, pixels()), scores(mps, pixels()))
    assert again.fingerprint() == mps.fingerprint()
    assert again.about["name"] == "small"
    assert again.about["kind"] == "mps"
    assert again.cross.sizes == SIZES
    assert again.clip.preparation == mps.clip.preparation
    assert json.loads((saved / "config.json").read_text())["model_type"] == "mps"
    assert not any(p.requires_grad for p in again.cross.parameters())


def test_half_precision_halves_the_file(tmp_path):
    mps = tiny_mps()
    for name, half in (("whole", False), ("half", True)):
        save_mps(mps, tmp_path / name, half=half)
    whole, half = (tmp_path / name / "model.safetensors" for name in ("whole", "half"))
    assert half.stat().st_size < 0.7 * whole.stat().st_size
    again = load_mps(half.parent)
    assert {value.dtype for value in again.cross.parameters()} == {torch.float32}
    assert torch.allclose(scores(again, pixels()), scores(mps, pixels()), atol=0.1)


def test_the_official_names_are_read_with_their_constants(official):
    mps = load_mps(official)
    assert mps.cross.sizes == SIZES
    words = mps.clip.tokenizer
    assert words.pad == words.end
    assert words.clean == "transformers"
    assert mps.clip.preparation.resize == "shorter"
    assert mps.clip.preparation.size == 32
    assert mps.clip.model.config.text_config.eos_token_id == 2


def test_loading_leaves_the_callers_random_numbers_alone(saved):
    before = torch.random.get_rng_state()
    load_mps(saved)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_fingerprint_sees_both_parts():
    first = tiny_mps().fingerprint()
    assert tiny_mps().fingerprint() == first
    assert Mps(tiny_clip(1), cross_model(SIZES)).fingerprint() != first
    other = tiny_mps()
    next(other.cross.parameters())[0] += 1e-3
    assert other.fingerprint() != first


TO_Q = "cross_model.layers.1.0.fn.to_q.weight"
FIRST_Q = "cross_model.layers.0.0.fn.to_q.weight"
BIAS = "cross_model.layers.1.0.fn.norm.bias"
FREQUENCIES = "cross_model.layers.1.1.fn.rotary_emb.inv_freq"


@pytest.mark.parametrize(
    ("drop", "values", "message"),
    [
        ([TO_Q], {}, r"1 missing: layers\.1\.0\.fn\.to_q\.weight"),
        ([], {TO_Q: torch.zeros(8, 16)}, r"to_q\.weight is \(8, 16\), expected \(24, 16\)"),
        ([], {"cross_model.layers.0.0.fn.to_v.weight": torch.zeros(2)}, r"1 extra: .*to_v"),
        (
            [],
            {"cross_model.layers.7.0.fn.norm.weight": torch.ones(16)},
            r"layer_num is 2, but .* has 3",
        ),
        ([], {"head.weight": torch.zeros(2)}, r"1 tensors that MPS does not have: head\.weight"),
        ([], {"model.text_model.odd": torch.zeros(2)}, r"1 extra: text_model\.odd"),
        ([], {TO_Q: torch.full((24, 16), math.nan)}, "not finite: .*to_q"),
        ([], {BIAS: torch.ones(16)}, r"norm\.bias holds other values than expected \(16 zeros\)"),
        ([], {FREQUENCIES: torch.ones(4)}, "inv_freq holds other values than expected .*rotary"),
        ([], {FREQUENCIES: torch.ones(3)}, "inv_freq holds other values than expected .*rotary"),
        ([FIRST_Q], {}, "not an MPS checkpoint, 'cross_model.layers.0.0.fn.to_q.weight' is"),
        ([], {FIRST_Q: torch.zeros(25, 16)}, "25 query channels, keys of 8 .* whole heads"),
        (["model.text_projection.weight"], {}, "'model.text_projection.weight' is missing"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_listed(official, drop, values, message):
    rewrite(official, drop, **values)
    with pytest.raises(CheckpointError, match=message):
        load_mps(official)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("cross_model", {"heads": 2}, r"cross_model\.heads is 2, but .*safetensors has 3"),
        ("cross_model", {"layer_num": 4}, r"cross_model\.layer_num is 4, but .* has 2"),
        ("cross_model", {"head": 2}, r"unknown entry 'cross_model\.head', expected \["),
        ("vision_config", {"patch_size": 4}, r"vision_config\.patch_size is 4, but .* has 8"),
        ("text_config", {"vocab_size": 3}, r"text_config\.vocab_size is 3, but .* has 514"),
        ("", {"projection_dim": 17}, r"projection_dim is 17, but .* has 16"),
        ("", {"cross_model": 3}, "cross_model is 3, expected an object"),
        ("text_config", {"num_attention_heads": 5}, "is 5, which does not divide 32"),
        ("text_config", {"num_attention_heads": True}, "is True, which does not divide"),
        ("vision_config", {"hidden_act": "relu"}, r"hidden_act is 'relu', expected 'gelu'"),
        ("vision_config", {"num_attention_heads": None}, r"vision_config\.num_attention_heads is"),
    ],
)
def test_a_file_that_contradicts_the_weights_is_refused(official, section, values, message):
    architecture = official.parent / "architecture.json"
    say(architecture, section, **values)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_mps(official)
    assert "architecture.json" in str(caught.value)


def test_wrong_places_and_folders_are_told_in_a_sentence(official, saved, tmp_path):
    with pytest.raises(CheckpointError, match="no such weights file or folder"):
        load_mps(tmp_path / "nowhere")
    (official.parent / "architecture.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"num_attention_heads is not said and cannot be read"
    ):
        load_mps(official)
    assert load_mps(official, architecture=saved / "config.json").cross.sizes == SIZES
    (official.parent / "vocab.json").unlink()
    with pytest.raises(CheckpointError, match="no vocabulary beside the weights"):
        load_mps(official)
    say(saved / "palate.json", "preparation", size=64)
    with pytest.raises(CheckpointError, match="32 pixels, but the preparation makes 64"):
        load_mps(saved)
    (saved / "palate.json").unlink()
    with pytest.raises(CheckpointError, match=r"no palate\.json, expected a folder with a saved"):
        load_mps(saved)
    (saved / "palate.json").write_text("{}")
    say(saved / "config.json", "", model_type="clip")
    with pytest.raises(CheckpointError, match="model_type is 'clip', expected 'mps'"):
        load_mps(saved)


def test_a_full_disk_leaves_no_card(tmp_path, monkeypatch):
    """The card is written last: a folder with it is complete."""
    import palate.models.mps as module
    from palate.errors import RunError

    def full(path, text):
        raise RunError(f"{path}: could not be written: No space left on device")

    monkeypatch.setattr(module, "write_atomic", full)
    with pytest.raises(RunError, match="No space left"):
        save_mps(tiny_mps(), tmp_path)
    assert not (tmp_path / "palate.json").exists()


def test_the_published_sizes_need_no_architecture_file(tmp_path):
    """118,497,280 numbers in the cross model, and the heads of a CLIP ViT-H/14 are known."""
    text = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 8,
    }
    vision = {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "patch_size": 14,
        "num_attention_heads": 8,
    }
    published = CrossSizes(dim=1024, layer_num=4, heads=16, dim_head=64, ff_mult=4)
    with torch.device("meta"):
        clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=1024))
        cross = CrossModel(published)
    assert sum(value.numel() for value in cross.parameters()) == 118_497_280
    config, sizes = read_architecture(clip.state_dict(), cross.state_dict(), tmp_path)
    assert sizes == published
    assert config.vision_config.num_attention_heads == 16
    assert config.text_config.num_attention_heads == 16
    assert config.vision_config.hidden_act == config.text_config.hidden_act == "gelu"
    assert config.vision_config.image_size == 224
