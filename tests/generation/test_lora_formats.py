"""Every form of a LoRA file is the same adapter: the same pixels, here and in plain diffusers."""

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
from palate.generation.generator import load_generator
from palate.generation.lora_formats import Lora, LoraLayer, lora_bytes, read_lora, same_lora
from palate.generation.sampling import Sampling, sample, to_bytes
from palate.generation.tiny import tiny_pipeline

HOW = Sampling(steps=3, guidance=3.0, height=16, width=16)
FORMS = ["diffusers", "kohya", "processors"]


def picture(generator):
    text = generator.encode(["a red ball", "a blue cube"])
    negative = generator.encode(["Weird. "])
    return to_bytes(sample(generator.pipeline, text, negative, [1, 2], HOW)[0])


def as_processors(adapter, path):
    """The tensors of an adapter as the code of HPS pickles them: no part, no alpha, old names."""
    old = {}
    for name, value in load_file(adapter).items():
        layer, last, side = re.fullmatch(
            r"unet\.(.+)\.(to_q|to_k|to_v|to_out\.0)\.lora\.(down|up)\.weight", name
        ).groups()
        old[f"{layer}.processor.{last.removesuffix('.0')}_lora.{side}.weight"] = value
    path.parent.mkdir(exist_ok=True)
    torch.save(old, path)
    return path


def adapter_in(form, adapter, folder):
    if form == "processors":
        return as_processors(adapter, folder / "adapted_model.bin")
    convert_adapter(adapter, folder / f"{form}.safetensors", form)
    return folder / f"{form}.safetensors"


def random_layers(base, kinds=(torch.nn.Linear, torch.nn.Conv2d), seed=0, parts=("unet",)):
    """A LoRA on every layer of some kinds, with ranks from 1 to 3 and alphas that are not the rank."""
    pipeline, draw = load_generator(base).pipeline, torch.Generator().manual_seed(seed)
    layers = {}
    for part in parts:
        for name, module in getattr(pipeline, part).named_modules():
            if isinstance(module, kinds):
                outputs, inputs, *kernel = module.weight.shape
                rank = 1 + len(layers) % 3
                down = torch.randn(rank, inputs, *kernel, generator=draw) / 3
                up = torch.randn(outputs, rank, *(1 for _ in kernel), generator=draw) / 3
                text = "text_model." if part == "text_encoder" else ""
                name = f"{part}.{text}{name.removeprefix(text)}"  # noqa: PLW2901
                layers[name] = LoraLayer(down, up, (0.1, 4.0, 2.5, 6.0)[len(layers) % 4])
    return layers


def write(path, lora, form):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(lora_bytes(lora, form))
    return path


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_a_written_form_gives_the_pixels_of_the_adapter_here_and_in_plain_diffusers(
    base, adapter, tmp_path, form
):
    """Its alpha is 3 and its rank 2: a form that forgets either fails here."""
    expected = picture(load_generator(base, adapter, merge=False))
    assert (expected.int() - picture(load_generator(base)).int()).abs().max() > 10
    path = adapter_in(form, adapter, tmp_path)
    assert read_adapter(path).form == form
    assert torch.equal(picture(load_generator(base, path, merge=False)), expected)
    assert torch.equal(plain(picture, base, path), expected)
    assert torch.equal(expected, hooked(picture, base, read_lora(adapter).layers))


def test_the_adapter_that_hps_published_is_read_as_its_code_applies_it(base, adapter, tmp_path):
    """There the product counts as it is: alpha is the rank, whatever the new file's alpha."""
    path = adapter_in("processors", adapter, tmp_path / "hps")
    ours = {
        name: LoraLayer(layer.down, layer.up, 2.0)
        for name, layer in read_lora(adapter).layers.items()
    }
    expected = hooked(picture, base, ours)
    assert not torch.equal(expected, picture(load_generator(base, adapter, merge=False)))
    assert torch.equal(picture(load_generator(base, path, merge=False)), expected)
    found = read_adapter(path)
    assert (found.form, found.identifier, found.name) == ("processors", None, "adapted_model")
    for form in ("diffusers", "kohya"):
        result = convert_adapter(path, tmp_path / form, form)
        assert (result["ranks"], result["alphas"], result["layers"]) == ([2], [2.0], 56)
        assert torch.equal(plain(picture, base, tmp_path / form / FILE_NAME), expected)
        details = read_adapter(tmp_path / form).details
        assert details == {"source": "adapted_model.bin", "source_sha256": found.fingerprint}


def test_the_folder_of_an_old_training_run_is_read(base, adapter, tmp_path):
    as_processors(adapter, tmp_path / "run" / "pytorch_lora_weights.bin")
    assert read_adapter(tmp_path / "run").name == "run"
    load_generator(base, tmp_path / "run")


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_ranks_and_alphas_that_differ_by_layer_are_kept(base, tmp_path, form):
    layers = random_layers(base, torch.nn.Linear)
    path = write(tmp_path / "mixed.safetensors", Lora(layers, form), form)
    linear = {name: layer for name, layer in layers.items() if ".to_" in name}
    some = write(tmp_path / "some.safetensors", Lora(linear, form), form)
    assert torch.equal(
        picture(load_generator(base, some, merge=False)), hooked(picture, base, linear)
    )
    convert_adapter(path, tmp_path / "out", "diffusers")
    expected = picture(load_generator(base, path, merge=False))
    assert torch.equal(plain(picture, base, tmp_path / "out" / FILE_NAME), expected)


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_every_layer_of_the_pipeline_is_written_and_read_back(base, tmp_path, form):
    layers = random_layers(base, parts=("unet", "text_encoder"))
    assert any(layer.down.ndim == 4 and layer.down.shape[2] == 3 for layer in layers.values())
    lora = Lora(layers, form, {"identifier": "Weird. ", "note": "é"})
    again = read_lora(write(tmp_path / "all.safetensors", lora, form))
    assert again.form == form
    assert again.layers.keys() == layers.keys()
    assert same_lora(again, lora)
    changed = {**layers, next(iter(layers)): LoraLayer(*_first(layers), alpha=9.0)}
    assert not same_lora(again, Lora(changed, form, lora.details))


def _first(layers):
    layer = next(iter(layers.values()))
    return layer.down, layer.up


def test_every_layer_of_stable_diffusion_has_its_name_in_kohyas_form(tmp_path):
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    names = {f"unet.{name}" for name, one in unet.named_modules() if isinstance(one, kinds)}
    assert sum(".to_" in name for name in names) == 128
    layers = {name: LoraLayer(torch.ones(1, 1), torch.ones(1, 1), 2.0) for name in names}
    path = write(tmp_path / "sd.safetensors", Lora(layers, "kohya"), "kohya")
    assert read_lora(path).layers.keys() == names


def test_a_kohya_file_from_elsewhere_is_read_as_diffusers_reads_it(base, tmp_path):
    """Attention, feed-forward, convolutions and the text model; one alpha, which diffusers can read."""
    layers = {
        name: LoraLayer(layer.down, layer.up, 1.5)
        for name, layer in random_layers(base, parts=("unet", "text_encoder")).items()
        if re.search(r"\.to_|\.ff\.|\.proj_|_proj$|\.fc", name)
    }
    assert {name.partition(".")[0] for name in layers} == {"unet", "text_encoder"}
    path = write(tmp_path / "style.safetensors", Lora(layers, "kohya"), "kohya")
    ours = picture(load_generator(base, path, merge=False))
    assert torch.equal(ours, plain(picture, base, path))
    convert_adapter(path, tmp_path / "out", "diffusers")
    assert torch.equal(ours, plain(picture, base, tmp_path / "out" / FILE_NAME))
    merged = picture(load_generator(base, path))
    assert (merged.int() - ours.int()).abs().max() <= 1
    alone = {name: layer for name, layer in layers.items() if name.startswith("text_encoder.")}
    words = write(tmp_path / "words.safetensors", Lora(alone, "kohya"), "kohya")
    assert not torch.equal(picture(load_generator(base, words)), picture(load_generator(base)))


def test_converted_there_and_back_it_is_the_same_file(adapter, tmp_path):
    convert_adapter(adapter, tmp_path / "kohya.safetensors", "kohya")
    convert_adapter(tmp_path / "kohya.safetensors", tmp_path / "back", "diffusers")
    assert (tmp_path / "back" / FILE_NAME).read_bytes() == adapter.read_bytes()
    assert read_adapter(tmp_path / "kohya.safetensors").details == read_adapter(adapter).details


def test_a_kohya_file_says_alpha_as_sd_scripts_does(adapter, tmp_path):
    path = adapter_in("kohya", adapter, tmp_path)
    tensors = load_file(path)
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0"
    alpha = tensors[f"{name}.alpha"]
    assert (alpha.item(), alpha.dtype, alpha.shape) == (3.0, torch.float32, ())
    assert tensors[f"{name}.lora_down.weight"].shape[0] == 2
    assert len(tensors) == 3 * 56
    with safe_open(path, framework="pt") as opened:
        said = opened.metadata()
    assert (said["ss_network_dim"], said["ss_network_alpha"]) == ("2", "3.0")
    assert json.loads(said["palate"])["identifier"] == "Weird. "


def test_a_layer_without_an_alpha_counts_as_it_is(adapter, tmp_path):
    path = adapter_in("kohya", adapter, tmp_path)
    save_file(
        {n: v for n, v in load_file(path).items() if "alpha" not in n}, tmp_path / "k.safetensors"
    )
    save_file(load_file(adapter), tmp_path / "d.safetensors")
    for name in ("k", "d"):
        layers = read_lora(tmp_path / f"{name}.safetensors").layers.values()
        assert {layer.alpha for layer in layers} == {2.0}


def test_exceptions_and_root_scaling_in_pefts_configuration_are_read(base, tmp_path):
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig, get_peft_model_state_dict

    generator = load_generator(base)
    unet, draw = generator.pipeline.unet, torch.Generator().manual_seed(3)
    config = LoraConfig(
        r=4,
        lora_alpha=2,
        target_modules=["to_q", "to_k"],
        rank_pattern={"attn2.to_k": 3},
        alpha_pattern={"attn2.to_k": 7},
        use_rslora=True,
    )
    unet.add_adapter(config, adapter_name="default")
    for name, part in unet.named_parameters():
        if "lora_B" in name:
            part.data = torch.randn(part.shape, generator=draw)
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(unet, adapter_name="default"),
        unet_lora_adapter_metadata=config.to_dict(),
    )
    found = read_lora(tmp_path / FILE_NAME).layers
    alphas = {(layer.rank, layer.alpha) for layer in found.values()}
    assert alphas == {(4, 4.0), (3, 7 * 3**0.5)}
    ours = picture(load_generator(base, tmp_path, merge=False))
    assert (ours.int() - picture(generator).int()).abs().max() <= 1


@pytest.mark.parametrize("form", FORMS)
def test_a_base_of_another_width_is_refused_before_anything_is_loaded(adapter, tmp_path, form):
    tiny_pipeline(channels=(16, 32)).save_pretrained(tmp_path / "wide")
    path = adapter_in(form, adapter, tmp_path / "made")
    expected = r"does not fit this generator: its layer 'unet\.\S+' is for a weight of 8 × 8, here it is 16 × 16"
    with pytest.raises(CheckpointError, match=expected):
        load_generator(tmp_path / "wide", path)


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("diffusers", "unet.mid_block.attentions.0.proj_in.lora_magnitude_vector"),
        ("kohya", "lora_unet_mid_block_attentions_0_proj_in.hada_w1_a"),
        ("kohya", "lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_down.weight"),
        ("processors", "time_embedding.linear_1.weight"),
    ],
)
def test_a_file_with_an_unknown_tensor_is_refused_by_its_name(base, adapter, tmp_path, form, name):
    path = adapter_in(form, adapter, tmp_path)
    tensors = torch.load(path) if form == "processors" else load_file(path)
    tensors[name] = torch.ones(2, 2)
    odd = tmp_path / "odd.safetensors"
    save_file(tensors, odd)
    said = f"its tensor '{name}' is no part of a LoRA in the form '{form}'"
    with pytest.raises(CheckpointError, match=re.escape(said)):
        load_generator(base, odd)


def test_what_is_no_whole_lora_is_refused_in_a_sentence(adapter, tmp_path):
    one = {
        "unet.a.to_q.lora.down.weight": torch.ones(2, 4),
        "unet.a.to_q.lora.up.weight": torch.ones(4, 2),
    }
    path = tmp_path / "x.safetensors"

    def refused(changes, match, metadata=None):
        tensors = {name: value for name, value in {**one, **changes}.items() if value is not None}
        save_file(tensors, path, metadata=metadata)
        with pytest.raises(CheckpointError, match=match):
            read_lora(path)

    refused(
        {}.fromkeys(one) | {"visual.proj": torch.ones(2)}, "first tensor is 'visual.proj', expected"
    )
    refused({"unet.a.to_q.lora.up.weight": None}, r"layer 'unet\.a\.to_q' has no tensor for 'up'")
    refused({"unet.a.to_q.lora_A.weight": torch.ones(2, 4)}, "gives the layer 'unet.a.to_q' twice")
    refused({"unet.a.to_q.lora.up.weight": torch.ones(4, 3)}, r"has shapes \(2, 4\) and \(4, 3\)")
    refused({"unet.a.to_q.lora.up.weight": torch.full((4, 2), torch.nan)}, "are not finite")
    refused({"unet.a.to_q.lora.up.weight": torch.ones(4, 2, dtype=torch.int8)}, "torch.int8")
    for content, match in (
        ("{", "is no JSON"),
        ("[]", "is a list, expected an object"),
        ('{"unet.lora_alpha": NaN}', "has the alpha nan, expected a number"),
        ('{"unet.lora_alpha": 2, "unet.alpha_pattern": {"(a+)+": 3}}', "alpha for '\\(a"),
        ('{"unet.alpha_pattern": [2]}', r"has the alpha \[2\]"),
    ):
        refused({}, match, {"lora_adapter_metadata": content})
    refused({}, "'palate' metadata is no JSON", {"palate": "{"})
    save_file(one, path, metadata={"palate": '{"identifier": 3}'})
    with pytest.raises(CheckpointError, match="its identifier is 3, expected a text"):
        read_adapter(path)
    names = {f"lora_{part}_text_model_x": torch.ones(1, 1) for part in ("te", "te1")}
    both = {f"{n}.{side}.weight": v for n, v in names.items() for side in ("lora_down", "lora_up")}
    save_file({name: value.clone() for name, value in both.items()}, path)
    with pytest.raises(CheckpointError, match="twice"):
        read_lora(path)
    path.write_bytes(adapter.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        read_lora(path)
