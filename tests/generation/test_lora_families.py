"""Adapters of SDXL, SD3 and pipelines of no family: the same pixels here and in plain diffusers, in every form."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.generation.conftest import hooked, plain

from palate.adaptation.lora_files import convert_adapter
from palate.errors import CheckpointError
from palate.generation.adapters import FILE_NAME, read_adapter
from palate.generation.families import FAMILIES, denoiser_of, family_of
from palate.generation.generator import load_generator
from palate.generation.kohya_names import dotted_name, kohya_names
from palate.generation.lora_formats import (
    Lora,
    LoraLayer,
    layers_of_peft,
    lora_bytes,
    read_lora,
    same_lora,
)
from palate.generation.sampling import to_bytes
from palate.generation.tiny import tiny_pipeline, write_tiny_pipeline

PLAN = {"steps": 2, "guidance": 3.0, "height": 16, "width": 16, "eta": 0.0, "negative_prompt": ""}


def picture(generator):
    return to_bytes(generator.sample(["a red ball", "a blue cube"], [1, 2], PLAN)[0])


def layers_of(pipeline, parts, pattern, alpha=3.0):
    """A LoRA of rank 2 on the linear layers whose names match."""
    draw, layers = torch.Generator().manual_seed(4), {}
    for part in parts:
        for name, module in getattr(pipeline, part).named_modules():
            if isinstance(module, torch.nn.Linear) and re.search(pattern, name):
                outputs, inputs = module.weight.shape
                text = "text_model." if part.startswith("text_encoder") else ""
                layers[f"{part}.{text}{name.removeprefix(text)}"] = LoraLayer(
                    torch.randn(2, inputs, generator=draw) / 3,
                    torch.randn(outputs, 2, generator=draw) / 3,
                    alpha,
                )
    return layers


ATTENTION = r"to_[qkv]$|to_out\.0$|add_[qkv]_proj$|to_add_out$"


@pytest.fixture(scope="module")
def layers(other_base):
    pipeline = load_generator(other_base).pipeline
    family = family_of(pipeline)
    found = layers_of(pipeline, [family.denoiser], ATTENTION)
    assert len(found) == {"sdxl": 64, "sd3": 19}[family.name]
    return found


def write(path, layers, form="diffusers", **details):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(lora_bytes(Lora(layers, form, details), form))
    return path


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_a_written_form_gives_the_adapters_pixels_here_and_in_plain_diffusers(
    other_base, other_kind, layers, tmp_path, form
):
    """Its alpha is 3 and its rank 2: a form that forgets either fails here."""
    if form == "kohya" and other_kind == "sd3":
        pytest.skip("kohya's form has no names for a transformer")
    path = write(tmp_path / "new.safetensors", layers, form, identifier="Weird. ")
    assert read_adapter(path).identifier == "Weird. "
    expected = hooked(picture, other_base, layers)
    assert (expected.int() - picture(load_generator(other_base)).int()).abs().max() > 10
    ours = picture(load_generator(other_base, path, merge=False))
    assert torch.equal(ours, expected)
    assert torch.equal(plain(picture, other_base, path), expected)
    merged = picture(load_generator(other_base, path))
    assert (merged.int() - expected.int()).abs().max() <= 1


def test_what_diffusers_writes_is_read(other_base, layers, tmp_path):
    from peft import LoraConfig, get_peft_model_state_dict

    generator = load_generator(other_base)
    family, pipeline = family_of(generator.pipeline), generator.pipeline
    config = LoraConfig(r=2, lora_alpha=3.0, target_modules=list(family.targets))
    denoiser, draw = denoiser_of(pipeline), torch.Generator().manual_seed(7)
    denoiser.add_adapter(config, adapter_name="default")
    for name, part in denoiser.named_parameters():
        if "lora_B" in name:
            part.data = torch.randn(part.shape, generator=draw)
    weights = get_peft_model_state_dict(denoiser, adapter_name="default")
    pipeline.save_lora_weights(
        tmp_path,
        **{
            f"{family.denoiser}_lora_layers": weights,
            f"{family.denoiser}_lora_adapter_metadata": config.to_dict(),
        },
    )
    found = read_lora(tmp_path / FILE_NAME)
    assert found.layers.keys() == layers.keys()
    ours = Lora(layers_of_peft(weights, 3.0, tmp_path, family.denoiser), "diffusers")
    assert same_lora(found, ours)
    assert torch.equal(
        picture(load_generator(other_base, tmp_path, merge=False)), picture(generator)
    )


def test_adapters_of_the_text_models_count(other_base, other_kind, tmp_path):
    pipeline = load_generator(other_base).pipeline
    layers = layers_of(pipeline, ["text_encoder", "text_encoder_2"], r"layers\.0.*(_proj|fc\d)$")
    assert {name.partition(".")[0] for name in layers} == {"text_encoder", "text_encoder_2"}
    path = write(tmp_path / "words.safetensors", layers)
    expected = hooked(picture, other_base, layers)
    assert not torch.equal(expected, picture(load_generator(other_base)))
    assert torch.equal(picture(load_generator(other_base, path, merge=False)), expected)
    assert torch.equal(plain(picture, other_base, path), expected)
    kohya = write(tmp_path / "kohya.safetensors", layers, "kohya")
    heads = {name.split("_text_model")[0] for name in load_file(kohya)}
    assert heads == {"lora_te1", "lora_te2"}
    assert read_lora(kohya).layers.keys() == layers.keys()
    if other_kind == "sdxl":  # diffusers reads this form for UNets only
        assert torch.equal(plain(picture, other_base, kohya), expected)


def test_every_layer_of_sdxl_has_its_name_in_kohyas_form(tmp_path):
    unet = real_sdxl_unet()
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    names = {f"unet.{name}" for name, one in unet.named_modules() if isinstance(one, kinds)}
    assert sum(".to_" in name for name in names) == 560
    layers = {name: LoraLayer(torch.ones(1, 1), torch.ones(1, 1), 2.0) for name in names}
    path = write(tmp_path / "xl.safetensors", layers, "kohya")
    assert read_lora(path).layers.keys() == names


def real_sdxl_unet():
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )


def test_the_names_of_sdxls_own_code_are_read_as_diffusers_reads_them():
    """Attention, residual layers and changes of size, on every level."""
    from diffusers.loaders.lora_conversion_utils import (
        _convert_non_diffusers_lora_to_diffusers,
        _maybe_map_sgm_blocks_to_diffusers,
    )

    known = {name for name, _ in real_sdxl_unet().named_modules()}
    attention = ["proj_in", *(f"transformer_blocks_1_attn2_to_{n}" for n in ("q", "v", "out_0"))]
    attention += ["transformer_blocks_0_ff_net_0_proj", "transformer_blocks_0_ff_net_2"]
    residual = ["in_layers_2", "emb_layers_1", "out_layers_3"]
    names = [f"input_blocks_{n}_1_{one}" for n in (4, 5, 7, 8) for one in attention]
    names += [f"output_blocks_{n}_1_{one}" for n in (0, 1, 2, 3, 5) for one in attention]
    names += [f"middle_block_1_{one}" for one in attention]
    names += [f"input_blocks_{n}_0_{one}" for n in (1, 2, 4, 8) for one in residual]
    names += [f"output_blocks_{n}_0_{one}" for n in (0, 4, 8) for one in residual]
    names += [f"middle_block_{n}_{one}" for n in (0, 2) for one in residual]
    names += ["input_blocks_3_0_op", "input_blocks_6_0_op", "input_blocks_4_0_skip_connection"]
    names += [
        "output_blocks_2_2_conv",
        "output_blocks_5_2_conv",
        "output_blocks_0_0_skip_connection",
    ]
    tensors = {}
    for number, name in enumerate(names):
        tensors[f"lora_unet_{name}.lora_down.weight"] = torch.full((1, 1), float(number))
        tensors[f"lora_unet_{name}.lora_up.weight"] = torch.full((1, 1), float(number))
    config = type("Config", (), {"layers_per_block": 2})()
    theirs, _ = _convert_non_diffusers_lora_to_diffusers(
        _maybe_map_sgm_blocks_to_diffusers(dict(tensors), config)
    )
    for number, name in enumerate(names):
        ours = dotted_name(name)
        assert ours in known, name
        down = theirs[next(key for key in theirs if _layer(key) == ours and ".down." in key)]
        assert down.item() == number


def _layer(key):
    """The layer of one of diffusers' own names, old ones too."""
    key = re.sub(r"\.processor\.(to_[qkv]|to_out)_lora\.(down|up)\.weight$", r".\1", key)
    key = re.sub(r"\.lora\.(down|up)\.weight$", "", key).removeprefix("unet.")
    return key + ".0" if key.endswith("to_out") else key


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("time_embed_0", "time_embedding.linear_1"),
        ("label_emb_0_2", "add_embedding.linear_2"),
        ("input_blocks_0_0", "conv_in"),
        ("out_2", "conv_out"),
        ("add_embedding_linear_1", "add_embedding.linear_1"),
    ],
)
def test_layers_outside_the_blocks_are_read(name, expected):
    assert dotted_name(name) == expected


def test_sd_keeps_its_word_for_the_one_text_model():
    unet = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    text = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
    assert kohya_names([unet, text])[text] == "lora_te_text_model_encoder_layers_0_mlp_fc1"
    both = kohya_names([unet.replace("blocks.0.attn1", "blocks.7.attn1"), text])
    assert both[text] == "lora_te1_text_model_encoder_layers_0_mlp_fc1"


def test_kohyas_form_of_a_transformer_is_refused_in_both_directions(tmp_path):
    layer = LoraLayer(torch.ones(2, 4), torch.ones(4, 2), 2.0)
    layers = {"transformer.transformer_blocks.0.attn.to_q": layer}
    path = write(tmp_path / "sd3.safetensors", layers)
    assert set(load_file(path)) == {
        "transformer.transformer_blocks.0.attn.to_q.lora_A.weight",
        "transformer.transformer_blocks.0.attn.to_q.lora_B.weight",
    }
    with pytest.raises(
        CheckpointError, match=r"'transformer\.\S+' has no name in the form 'kohya'"
    ):
        convert_adapter(path, tmp_path / "kohya.safetensors", "kohya")
    assert not (tmp_path / "kohya.safetensors").exists()
    for name in ("joint_blocks_0_x_block_attn_qkv", "single_transformer_blocks_0_attn_to_q"):
        save_file(
            {
                f"lora_unet_{name}.lora_down.weight": torch.ones(2, 4),
                f"lora_unet_{name}.lora_up.weight": torch.ones(4, 2),
            },
            tmp_path / "odd.safetensors",
        )
        with pytest.raises(CheckpointError, match=r"is of a transformer .* read for UNets only"):
            read_lora(tmp_path / "odd.safetensors")


def test_an_adapter_of_another_family_is_refused_by_its_layer(
    other_base, other_kind, base, tmp_path
):
    other = {"sdxl": "sd3", "sd3": "sdxl"}[other_kind]
    pipeline = tiny_pipeline(other)
    layers = layers_of(pipeline, [family_of(pipeline).denoiser], ATTENTION)
    path = write(tmp_path / "other.safetensors", layers)
    for folder in (other_base, base):
        with pytest.raises(CheckpointError, match="does not fit this generator"):
            load_generator(folder, path)


def test_an_adapter_that_changes_nothing_is_refused(other_base, layers, tmp_path):
    zero = {n: LoraLayer(one.down, one.up * 0, one.alpha) for n, one in layers.items()}
    with pytest.raises(CheckpointError, match="changes nothing"):
        load_generator(other_base, write(tmp_path / "zero.safetensors", zero))
    # without a tensor that is zero: the probe of the denoiser finds it
    tiny = {n: LoraLayer(one.down * 1e-30, one.up * 1e-15, one.alpha) for n, one in layers.items()}
    with pytest.raises(CheckpointError, match="changes nothing"):
        load_generator(other_base, write(tmp_path / "tiny.safetensors", tiny))


def test_a_pipeline_of_no_family_takes_adapters_as_diffusers_does(flux, tmp_path):
    pipeline = load_generator(flux).pipeline
    layers = layers_of(pipeline, ["transformer"], r"blocks.*(to_[qkv]|add_[qkv]_proj)$")
    path = write(tmp_path / "flux.safetensors", layers)
    expected = hooked(picture, flux, layers)
    assert not torch.equal(expected, picture(load_generator(flux)))
    assert torch.equal(picture(load_generator(flux, path, merge=False)), expected)
    zero = {n: LoraLayer(one.down, one.up * 0, one.alpha) for n, one in layers.items()}
    with pytest.raises(CheckpointError, match="changes nothing"):
        load_generator(flux, write(tmp_path / "zero.safetensors", zero))


def test_a_class_that_takes_no_adapters_is_refused(flux, layers, tmp_path, monkeypatch):
    from diffusers import FluxPipeline

    monkeypatch.setattr(FluxPipeline, "_lora_loadable_modules", [])
    path = write(tmp_path / "new.safetensors", layers)
    with pytest.raises(CheckpointError, match="no adapters on a generator of class FluxPipeline"):
        load_generator(flux, path)


def test_there_and_back_it_is_the_same_file(other_base, other_kind, layers, tmp_path):
    path = write(tmp_path / "new.safetensors", layers, identifier="Weird. ")
    forms = ["diffusers"] if other_kind == "sd3" else ["kohya", "diffusers"]
    source = path
    for number, form in enumerate(forms):
        convert_adapter(source, tmp_path / f"{number}.safetensors", form)
        source = tmp_path / f"{number}.safetensors"
    assert source.read_bytes() == path.read_bytes()
    with safe_open(path, framework="pt") as opened:
        said = json.loads(opened.metadata()["lora_adapter_metadata"])
    denoiser = next(one.denoiser for one in FAMILIES if one.name == other_kind)
    assert (said[f"{denoiser}.r"], said[f"{denoiser}.lora_alpha"]) == (2, 3.0)


def test_the_tiny_folders_of_one_seed_are_equal(other_kind, other_base, tmp_path):
    again = write_tiny_pipeline(tmp_path / "again", other_kind)
    other = write_tiny_pipeline(tmp_path / "other", other_kind, seed=1)
    prints = [load_generator(folder).fingerprint for folder in (other_base, again, other)]
    assert prints[0] == prints[1] != prints[2]
