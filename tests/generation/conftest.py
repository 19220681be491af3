"""One tiny random generator for all tests of this folder."""

from __future__ import annotations

import pytest
import torch

from palate.generation.families import FAMILIES
from palate.generation.generator import load_generator
from palate.generation.tiny import tiny_pipeline, tiny_tokenizer, write_tiny_pipeline


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return write_tiny_pipeline(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def generator(base):
    """The generator, not to be changed."""
    return load_generator(base)


@pytest.fixture
def fresh(base):
    """The generator, to be changed."""
    return load_generator(base)


@pytest.fixture(scope="session")
def adapter(base, tmp_path_factory):
    """A LoRA with alpha 3 and rank 2 whose product is not zero."""
    from palate.adaptation.lora_files import add_lora, save_adapter

    folder = tmp_path_factory.mktemp("adapter") / "weird"
    folder.mkdir()
    unet = load_generator(base).pipeline.unet
    draw = torch.Generator().manual_seed(1)
    targets = FAMILIES[0].targets
    for name, part in add_lora(unet, targets, rank=2, alpha=3.0, seed=0).items():
        if "lora_B" in name:
            part.data = torch.randn(part.shape, generator=draw)
    details = {"method": "identifier", "identifier": "Weird. ", "rank": 2, "alpha": 3.0}
    return save_adapter(unet, "unet", folder, details)


@pytest.fixture(scope="session", params=["sdxl", "sd3"])
def other_kind(request):
    """A family whose images are made by the pipeline's own call."""
    return request.param


@pytest.fixture(scope="session")
def other_base(other_kind, tmp_path_factory):
    return write_tiny_pipeline(tmp_path_factory.mktemp(other_kind) / other_kind, other_kind)


@pytest.fixture(scope="session")
def lcm(tmp_path_factory):
    """A pipeline of no family without a negative prompt, which draws noise at every step."""
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler, UNet2DConditionModel

    parts = tiny_pipeline()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = {**parts.unet.config, "time_cond_proj_dim": 8}
        del config["_use_default_values"]
        unet = UNet2DConditionModel.from_config(config)
    pipeline = LatentConsistencyModelPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=unet,
        scheduler=LCMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = tmp_path_factory.mktemp("lcm") / "lcm"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def flux(tmp_path_factory):
    """A pipeline of no family with a transformer, and guidance as one of its inputs."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    parts = tiny_pipeline()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=24,
            pooled_projection_dim=16,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=True,
        )
        words = T5EncoderModel(
            T5Config(vocab_size=514, d_model=24, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
        )
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        text_encoder_2=words,
        tokenizer_2=tiny_tokenizer(512),
        transformer=transformer,
    )
    pipeline.vae.register_to_config(shift_factor=0.1)
    folder = tmp_path_factory.mktemp("flux") / "flux"
    pipeline.save_pretrained(folder)
    return folder


def plain(picture, base, path):
    """The picture after diffusers' own call on a file."""
    generator = load_generator(base)
    generator.pipeline.load_lora_weights(
        str(path.parent), weight_name=path.name, local_files_only=True
    )
    return picture(generator)


def hooked(picture, base, layers):
    """The slow obvious twin: each layer's output, plus alpha / rank × up(down(input))."""
    generator = load_generator(base)
    for name, layer in layers.items():

        def add(module, given, answer, layer=layer):
            inner = torch.nn.functional.linear(given[0], layer.down)
            scale = layer.alpha / layer.rank
            return answer + torch.nn.functional.linear(inner, layer.up) * scale

        part, _, inner = name.partition(".")
        module = getattr(generator.pipeline, part)
        inner = inner if hasattr(module, "text_model") else inner.removeprefix("text_model.")
        module.get_submodule(inner).register_forward_hook(add)
    return picture(generator)
