"""ImageReward reads, writes, and refuses what does not fit."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from palate.errors import CheckpointError
from palate.models.image_reward import load_image_reward, save_image_reward
from palate.models.pixels import Preparation

FOLDER = Path(__file__).parents[1] / "parity" / "fixtures" / "image_reward"
OFFICIAL = FOLDER / "ImageReward_tiny.pt"
PROMPTS = ["a red fox", "", "two cats & a dog, watercolor"]


@pytest.fixture(scope="module")
def official():
    return load_image_reward(OFFICIAL)


@pytest.fixture
def copy(tmp_path):
    """The official files, to be damaged."""
    for name in ("architecture.json", "med_config.json", "vocab.txt"):
        shutil.copy(FOLDER / name, tmp_path)
    return tmp_path


def example(model):
    generator = torch.Generator().manual_seed(0)
    size = model.preparation.size
    tokens = model.tokenizer.batch(PROMPTS)
    return torch.randn(3, 3, size, size, generator=generator), tokens.ids, tokens.mask


def rewards(model):
    pixels, ids, mask = example(model)
    with torch.inference_mode():
        return model.reward(model.image_states(pixels), ids, mask)


def change(path, **entries):
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def rewrite(folder, edit):
    """Write the official weights after an edit."""
    weights = torch.load(OFFICIAL, weights_only=True)
    edit(weights)
    torch.save(weights, folder / "w.pt")
    return folder / "w.pt"


def test_it_is_computed_in_float32_with_the_official_preparation(official):
    parts = (official.vision, official.text, official.head)
    values = [value for part in parts for value in part.parameters()]
    assert {value.dtype for value in values} == {torch.float32}
    assert not any(value.requires_grad for value in values)
    assert not any(part.training for part in parts)
    assert official.preparation == Preparation(size=224, convert="after")
    assert official.device == torch.device("cpu")
    assert (official.mean, official.std) == (0.16717362830052426, 1.0333394966054072)


def test_half_precision_weights_are_read_into_float32(copy):
    def halve(weights):
        for name, value in weights.items():
            weights[name] = value.half() if value.is_floating_point() else value

    model = load_image_reward(rewrite(copy, halve))
    assert rewards(model).dtype == torch.float32


def test_a_saved_folder_is_the_same_function(official, tmp_path):
    save_image_reward(official, tmp_path / "a", name="fox", unit="reward")
    again = load_image_reward(tmp_path / "a")
    assert again.about["name"] == "fox"
    assert again.about["kind"] == "image-reward"
    assert again.preparation == official.preparation
    assert again.fingerprint() == official.fingerprint()
    assert torch.equal(rewards(again), rewards(official))
    save_image_reward(again, tmp_path / "b")
    for name in ("config.json", "model.safetensors", "vocab.txt", "palate.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_gradients_reach_the_pixels(official):
    pixels, ids, mask = example(official)
    pixels.requires_grad_()
    official.reward(official.image_states(pixels), ids, mask).sum().backward()
    assert torch.isfinite(pixels.grad).all()
    assert (pixels.grad.abs().amax((1, 2, 3)) > 0).all()


def test_the_gradient_is_the_slope_of_the_reward(copy):
    model = load_image_reward(OFFICIAL)
    for part in (model.vision, model.text, model.head):
        part.double()
    pixels, ids, mask = example(model)
    pixels = pixels.double()
    way = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(1)).double()

    def along(step):
        return model.reward(model.image_states(pixels + step * way), ids, mask)

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(along(step).sum(), step)
    rise = (along(1e-6) - along(-1e-6)).sum() / 2e-6
    assert float(slope) == pytest.approx(float(rise), rel=1e-5)


def test_the_five_maps_fold_into_one(official):
    """There is no activation between them, as in the official code."""
    layers = [layer for layer in official.head if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in layers] == [1024, 128, 64, 16, 1]
    width = layers[0].in_features
    weight, bias = torch.eye(width).double(), torch.zeros(width).double()
    for layer in layers:
        weight = layer.weight.double() @ weight
        bias = layer.weight.double() @ bias + layer.bias.double()
    features = torch.randn(50, width, generator=torch.Generator().manual_seed(0))
    folded = features.double() @ weight.T + bias
    with torch.inference_mode():
        found = official.head(features).double()
    assert torch.allclose(found, folded, rtol=1e-5, atol=1e-5 * float(folded.abs().max()))


def test_a_padded_position_changes_nothing(official):
    pixels, ids, mask = example(official)
    with torch.inference_mode():
        states = official.image_states(pixels)
        other = torch.where(mask == 1, ids, 7)
        assert torch.equal(official.reward(states, other, mask), rewards(official))


def test_no_images_give_no_rewards(official):
    pixels, ids, mask = example(official)
    found = official.reward(official.image_states(pixels[:0]), ids[:0], mask[:0])
    assert found.shape == (0,)


def test_the_fingerprint_sees_every_part(copy):
    first = load_image_reward(OFFICIAL).fingerprint()
    again = load_image_reward(OFFICIAL)
    assert again.fingerprint() == first
    with torch.no_grad():
        again.head[7].bias += 1e-3
    seen = {first, again.fingerprint()}
    shutil.copy(OFFICIAL, copy / "w.pt")
    for name, entries in (
        ("architecture.json", {"mean": 0.5}),
        ("med_config.json", {"num_attention_heads": 8}),
    ):
        change(copy / name, **entries)
        seen.add(load_image_reward(copy / "w.pt").fingerprint())
    words = (copy / "vocab.txt").read_text().replace("fox\n", "foxes\n")
    (copy / "vocab.txt").write_text(words)
    seen.add(load_image_reward(copy / "w.pt").fingerprint())
    assert len(seen) == 5


def test_loading_is_silent_and_leaves_the_callers_random_numbers_alone(capfd, caplog):
    before = torch.random.get_rng_state()
    with caplog.at_level(logging.WARNING):
        load_image_reward(OFFICIAL)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("place", ["file", "folder"])
def test_the_vocabulary_and_the_architecture_can_lie_elsewhere(official, tmp_path, place):
    shutil.copy(OFFICIAL, tmp_path)
    shutil.copy(FOLDER / "med_config.json", tmp_path)
    model = load_image_reward(
        tmp_path / OFFICIAL.name,
        tokenizer=FOLDER / "vocab.txt" if place == "file" else FOLDER,
        architecture=FOLDER / "architecture.json",
    )
    assert model.fingerprint() == official.fingerprint()


def test_weights_without_the_position_numbers_are_the_same(official, copy):
    """Newer versions of BERT do not store them."""
    path = rewrite(copy, lambda w: w.pop("blip.text_encoder.embeddings.position_ids"))
    assert load_image_reward(path).fingerprint() == official.fingerprint()


def test_the_official_encoder_width_is_not_looked_at(official, copy):
    """The real file says 768 while the image tower is 1024 wide; the official code overrides it."""
    shutil.copy(OFFICIAL, copy / "w.pt")
    change(copy / "med_config.json", encoder_width=768)
    assert load_image_reward(copy / "w.pt").fingerprint() == official.fingerprint()


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda w: w.pop("mlp.layers.7.bias"), r"1 missing: mlp\.layers\.7\.bias"),
        (lambda w: w.pop("blip.vision_proj.weight"), r"1 missing: blip\.vision_proj\.weight"),
        (lambda w: w.pop("blip.text_proj.bias"), r"1 missing: blip\.text_proj\.bias"),
        (
            lambda w: w.pop("blip.visual_encoder.blocks.1.attn.qkv.bias"),
            r"1 missing: blip\.visual_encoder\.blocks\.1\.attn\.qkv\.bias",
        ),
        (lambda w: w.update(other=torch.zeros(1)), "1 extra: other"),
        (lambda w: w.update({"mlp.layers.5.weight": torch.zeros(1)}), r"1 extra: mlp\.layers\.5"),
        (
            lambda w: w.update({"blip.text_proj.weight": torch.zeros(256, 32)}),
            r"1 misshapen: blip\.text_proj\.weight is \(256, 32\), expected \(256, 64\)",
        ),
        (
            lambda w: w.update({"blip.visual_encoder.pos_embed": torch.zeros(1, 199, 64)}),
            r"1 misshapen: blip\.visual_encoder\.pos_embed",
        ),
        (
            lambda w: w.pop("blip.visual_encoder.cls_token"),
            r"1 missing: blip\.visual_encoder\.cls_token",
        ),
        (lambda w: w.pop("blip.visual_encoder.pos_embed"), "not an ImageReward in the official"),
        (lambda w: w["mlp.layers.0.bias"].fill_(float("nan")), "not finite: mlp"),
    ],
)
def test_tensors_that_do_not_fit_are_listed(copy, edit, told):
    with pytest.raises(CheckpointError, match=told):
        load_image_reward(rewrite(copy, edit))


@pytest.mark.parametrize(
    ("name", "entries", "told"),
    [
        ("architecture.json", {"vit": {"num_heads": 7}}, "7 attention heads do not divide"),
        ("architecture.json", {"vit": {"num_heads": "4"}}, "is '4', expected a positive integer"),
        ("architecture.json", {"vit": {}}, r"do not say how many attention heads.* vit\.num_heads"),
        ("architecture.json", {"vit": [4]}, r"vit is \[4\], expected an object"),
        ("architecture.json", {"vit": {"depth": 3}}, r"vit\.depth is 3, but the weights have 2"),
        ("architecture.json", {"mlp_input": 768}, "mlp_input is 768, but the weights have 64"),
        ("architecture.json", {"heads": 4}, "unknown entry 'heads'"),
        ("architecture.json", {"std": 0}, "std is 0, expected"),
        ("architecture.json", {"mean": "0"}, "mean is '0'"),
        ("med_config.json", {"num_attention_heads": 5}, "5 attention heads do not divide"),
        ("med_config.json", {"num_attention_heads": 0}, "is 0, expected a positive integer"),
        ("med_config.json", {"num_attention_heads": None}, r"num_attention_heads in med_config"),
        ("med_config.json", {"hidden_size": 768}, "hidden_size is 768, but the weights have 64"),
        ("med_config.json", {"hidden_act": "relu"}, "hidden_act is relu"),
        ("med_config.json", {"layer_norm_eps": 1e-5}, "layer_norm_eps is 1e-05"),
    ],
)
def test_a_file_that_does_not_fit_the_weights_is_refused(copy, name, entries, told):
    shutil.copy(OFFICIAL, copy / "w.pt")
    change(copy / name, **entries)
    with pytest.raises(CheckpointError, match=told):
        load_image_reward(copy / "w.pt")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("vocab.txt", "no such vocabulary file"),
        ("med_config.json", "do not say how many attention heads"),
        ("architecture.json", "do not say how many attention heads"),
    ],
)
def test_a_file_that_is_missing_is_told(copy, name, told):
    shutil.copy(OFFICIAL, copy / "w.pt")
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=told):
        load_image_reward(copy / "w.pt")


def test_a_vocabulary_of_another_size_is_refused(copy):
    shutil.copy(OFFICIAL, copy / "w.pt")
    with (copy / "vocab.txt").open("a") as file:
        file.write("zebra\n")
    with pytest.raises(CheckpointError, match=r"217 pieces .* the weights know 216"):
        load_image_reward(copy / "w.pt")


def test_wrong_folders_are_told_in_a_sentence(official, tmp_path):
    with pytest.raises(CheckpointError, match="no such weights file or folder"):
        load_image_reward(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"no config\.json, expected a saved ImageReward"):
        load_image_reward(tmp_path)
    save_image_reward(official, tmp_path)
    card, config = tmp_path / "palate.json", tmp_path / "config.json"
    written = config.read_text(), card.read_text()
    change(card, preparation={"size": 32})
    with pytest.raises(CheckpointError, match="224 pixels, but the preparation makes 32"):
        load_image_reward(tmp_path)
    card.write_text(written[1])
    change(config, text_config={"hidden_size": 64})
    with pytest.raises(CheckpointError, match=r"found the sizes \['hidden_size'\]"):
        load_image_reward(tmp_path)
    change(config, model_type="clip")
    with pytest.raises(CheckpointError, match="model_type is 'clip', expected 'image-reward'"):
        load_image_reward(tmp_path)
    config.write_text(written[0])
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(CheckpointError, match="no such vocabulary file"):
        load_image_reward(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no such weights file"):
        load_image_reward(tmp_path, tokenizer=FOLDER)
    card.unlink()
    with pytest.raises(CheckpointError, match=r"no palate\.json"):
        load_image_reward(tmp_path)


def test_a_full_disk_leaves_no_card(official, tmp_path, monkeypatch):
    """The card is written last: a folder with it is complete."""
    import palate.models.image_reward as module
    from palate.errors import RunError

    real = module.write_atomic

    def full(path, text):
        if path.name == "vocab.txt":
            raise RunError(f"{path}: could not be written: No space left on device")
        real(path, text)

    monkeypatch.setattr(module, "write_atomic", full)
    with pytest.raises(RunError, match="No space left"):
        save_image_reward(official, tmp_path)
    assert not (tmp_path / "palate.json").exists()


def test_the_official_size_is_known(tmp_path):
    """ViT-L with BERT base, from its shapes alone: 16 and 12 heads, 224 pixels."""
    import palate.models.image_reward_parts as module

    def empty(*shape):
        return torch.empty(shape, device="meta")

    weights = {
        "blip.visual_encoder.patch_embed.proj.weight": empty(1024, 3, 16, 16),
        "blip.visual_encoder.pos_embed": empty(1, 197, 1024),
        "blip.text_encoder.embeddings.word_embeddings.weight": empty(30_524, 768),
        "blip.text_encoder.embeddings.position_embeddings.weight": empty(512, 768),
    }
    for block in range(24):
        weights[f"blip.visual_encoder.blocks.{block}.mlp.fc1.weight"] = empty(4096, 1024)
    for layer in range(12):
        name = f"blip.text_encoder.encoder.layer.{layer}.intermediate.dense.weight"
        weights[name] = empty(3072, 768)
    vision, text = module.measure(weights, tmp_path)
    vision = module.add_architecture(vision, text, {}, tmp_path)
    text = module.add_med_config(text, tmp_path / "w.pt")
    assert (vision["num_attention_heads"], vision["image_size"]) == (16, 224)
    assert (text["num_attention_heads"], text["encoder_hidden_size"]) == (12, 1024)
    parts = module.lay_out(vision, text)
    numbers = sum(value.numel() for value in parts.parameters()) + 256 * (1024 + 768 + 2)
    assert 4 * numbers / 1e9 == pytest.approx(1.79, abs=0.005)  # the size of ImageReward.pt
