from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from palate.errors import CheckpointError
from palate.generation.adapters import FILE_NAME, read_adapter
from palate.generation.generator import folder_fingerprint, load_generator
from palate.generation.lora_formats import METADATA
from palate.generation.sampling import Sampling, sample, to_bytes
from palate.generation.tiny import write_tiny_pipeline

HOW = Sampling(steps=3, guidance=3.0, height=16, width=16)


def picture(generator):
    text = generator.encode(["a red ball", "a blue cube"])
    return to_bytes(sample(generator.pipeline, text, generator.encode([""]), [1, 2], HOW)[0])


def test_a_folder_loads_in_float32_without_gradients(base):
    pipeline = load_generator(base).pipeline
    parts = [*pipeline.unet.parameters(), *pipeline.text_encoder.parameters()]
    assert {(part.dtype, part.requires_grad) for part in parts} == {(torch.float32, False)}


def test_weights_stored_in_half_precision_come_back_as_float32(base, tmp_path):
    half = load_generator(base, precision="float16")
    half.pipeline.save_pretrained(tmp_path / "half")
    again = load_generator(tmp_path / "half")
    assert again.pipeline.unet.dtype == again.pipeline.text_encoder.dtype == torch.float32
    assert (picture(again).int() - picture(load_generator(base)).int()).abs().max() < 40


def test_the_fingerprint_follows_weights_adapter_strength_and_precision(base, adapter, tmp_path):
    other = write_tiny_pipeline(tmp_path / "other", seed=1)
    prints = [
        load_generator(base).fingerprint,
        load_generator(other).fingerprint,
        load_generator(base, adapter).fingerprint,
        load_generator(base, adapter, strength=0.5).fingerprint,
        load_generator(base, precision="bfloat16").fingerprint,
    ]
    assert len(set(prints)) == 5
    assert load_generator(base, adapter, strength=0.0).fingerprint == prints[0]
    copied = write_tiny_pipeline(tmp_path / "copy")
    assert folder_fingerprint(copied) == folder_fingerprint(base) == load_generator(base).base


def test_a_merged_adapter_gives_the_picture_of_an_unmerged_one(base, adapter):
    bare = picture(load_generator(base))
    merged = picture(load_generator(base, adapter))
    unmerged = picture(load_generator(base, adapter, merge=False))
    assert (merged.int() - unmerged.int()).abs().max() <= 1
    assert (merged.int() - bare.int()).abs().max() > 10


def test_the_file_loads_the_same_through_diffusers_own_call(base, adapter):
    plain = load_generator(base)
    plain.pipeline.load_lora_weights(str(adapter.parent), local_files_only=True)
    ours = load_generator(base, adapter, merge=False)
    assert torch.equal(picture(plain), picture(ours))
    config = plain.pipeline.unet.peft_config["default_0"]
    assert (config.r, config.lora_alpha) == (2, 3.0)


def test_strength_scales_the_adapter(base, adapter):
    unet = {}
    for strength in (0.0, 0.5, 1.0):
        model = load_generator(base, adapter, strength=strength).pipeline.unet
        unet[strength] = model.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight
    half, whole = unet[0.5] - unet[0.0], unet[1.0] - unet[0.0]
    assert whole.abs().max() > 0.01
    assert torch.allclose(2 * half, whole, atol=1e-5)


@pytest.fixture(scope="module")
def second(base, tmp_path_factory):
    """An adapter of the other attention alone, with another rank."""
    from palate.generation.lora_formats import Lora, LoraLayer, lora_bytes, read_lora

    draw, layers = torch.Generator().manual_seed(5), {}
    first = load_generator(base).pipeline.unet
    for name, module in first.named_modules():
        if name.endswith(("attn2.to_q", "attn2.to_k")):
            outputs, inputs = module.weight.shape
            down = torch.randn(3, inputs, generator=draw)
            up = torch.randn(outputs, 3, generator=draw)
            layers[f"unet.{name}"] = LoraLayer(down, up, 1.0)
    path = tmp_path_factory.mktemp("second") / "second.safetensors"
    path.write_bytes(lora_bytes(Lora(layers, "kohya", {"identifier": "Bad. "}), "kohya"))
    assert len(read_lora(path).layers) == 14
    return path


def test_several_adapters_add_up_whatever_their_order(base, adapter, second):
    def weights(*given):
        unet = load_generator(base, dict(given)).pipeline.unet
        block = unet.mid_block.attentions[0].transformer_blocks[0]
        return [block.attn1.to_q.weight, block.attn2.to_q.weight]

    bare, one, other, both = (
        weights(),
        weights((adapter, 1.0)),
        weights((second, 1.0)),
        weights((adapter, 0.5), (second, 2.0)),
    )
    for place in range(2):
        change = 0.5 * (one[place] - bare[place]) + 2 * (other[place] - bare[place])
        assert change.abs().max() > 0.01
        assert torch.allclose(both[place] - bare[place], change, atol=1e-5)
    turned = load_generator(base, {second: 2.0, adapter: 0.5})
    known = load_generator(base, {adapter: 0.5, second: 2.0})
    assert (turned.fingerprint, turned.label) == (known.fingerprint, known.label)
    assert torch.equal(picture(turned), picture(known))
    assert known.name == "tiny+second+weird"
    assert known.identifier == "Bad. Weird."
    unmerged = load_generator(base, {adapter: 0.5, second: 2.0}, merge=False)
    assert (picture(unmerged).int() - picture(known).int()).abs().max() <= 1


def test_an_adapter_at_strength_nought_is_left_out(base, adapter, second):
    one = load_generator(base, {adapter: 1.0, second: 0.0})
    assert one.fingerprint == load_generator(base, adapter).fingerprint
    assert one.identifier == "Weird. "
    half = load_generator(base, {adapter: 0.5}).fingerprint
    assert half == load_generator(base, adapter, strength=0.5).fingerprint


def test_an_adapter_file_says_what_it_is(adapter):
    found = read_adapter(adapter.parent)
    assert (found.method, found.identifier, found.name) == ("identifier", "Weird. ", "weird")
    assert found.form == "diffusers"
    assert found.details["alpha"] == 3.0


def copy_with(adapter, folder, change, metadata=None):
    tensors = change(load_file(adapter))
    with safe_open(adapter, framework="pt") as opened:
        known = opened.metadata()
    folder.mkdir()
    save_file(tensors, folder / FILE_NAME, metadata=metadata or known)
    return folder


def test_an_adapter_that_changes_nothing_is_refused(base, adapter, tmp_path):
    zero = copy_with(
        adapter, tmp_path / "zero", lambda t: {name: value * 0 for name, value in t.items()}
    )
    with pytest.raises(CheckpointError, match="changes nothing"):
        load_generator(base, zero)


def test_an_adapter_whose_names_do_not_fit_is_refused(base, adapter, tmp_path):
    renamed = copy_with(
        adapter,
        tmp_path / "renamed",
        lambda t: {name.replace("attn1", "attn9"): value for name, value in t.items()},
    )
    with pytest.raises(CheckpointError, match=r"of its \d+ tensors fit no layer|does not fit"):
        load_generator(base, renamed)


def test_an_adapter_of_some_layers_alone_is_taken_as_such(base, adapter, tmp_path):
    part = copy_with(
        adapter,
        tmp_path / "part",
        lambda t: {name: value for name, value in t.items() if "attn2" in name},
    )
    bare, adapted = load_generator(base), load_generator(base, part)
    changed = {
        name
        for name, value in adapted.pipeline.unet.named_parameters()
        if not torch.equal(value, bare.pipeline.unet.get_parameter(name))
    }
    assert len(changed) == 28
    assert all("attn2" in name for name in changed)


def test_an_adapter_for_another_shape_is_refused(base, adapter, tmp_path):
    wide = copy_with(
        adapter,
        tmp_path / "wide",
        lambda t: {n: v.repeat(1, 2) if ".lora.down." in n else v for n, v in t.items()},
    )
    with pytest.raises(CheckpointError, match="does not fit this generator"):
        load_generator(base, wide)


def test_a_lora_from_elsewhere_has_no_identifier_and_works(base, adapter, tmp_path):
    with safe_open(adapter, framework="pt") as opened:
        known = {name: value for name, value in opened.metadata().items() if name != METADATA}
    foreign = copy_with(adapter, tmp_path / "foreign", lambda t: t, known)
    generator = load_generator(base, foreign)
    assert generator.adapters[0][0].identifier is None
    assert torch.equal(picture(generator), picture(load_generator(base, adapter)))


def test_what_is_no_generator_is_refused_in_a_sentence(base, tmp_path):
    with pytest.raises(CheckpointError, match="no such generator folder"):
        load_generator(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"no model_index\.json"):
        load_generator(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "WanPipeline"}))
    with pytest.raises(CheckpointError, match="class 'WanPipeline', which makes no images"):
        load_generator(tmp_path)
    broken = write_tiny_pipeline(tmp_path / "broken")
    (broken / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="could not be loaded"):
        load_generator(broken)
    with pytest.raises(CheckpointError, match="no such adapter file"):
        load_generator(base, tmp_path / "adapter.safetensors")
    with pytest.raises(CheckpointError, match="precision 'int4'"):
        load_generator(base, precision="int4")
