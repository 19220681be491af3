"""Tiny random generators of each family: the test doubles for everything that takes a generator.

The weights are random, so the images mean nothing. The classes and the files are the real ones: a folder loads with
``DiffusionPipeline.from_pretrained`` and nothing is downloaded.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Literal

from palate.generation.quiet import quiet_bars, quiet_messages

Kind = Literal["sd", "sdxl", "sd3"]
"""A family, by its name in ``palate.generation.families``."""


def tiny_tokenizer(length: int = 24) -> Any:
    """Give a CLIP tokenizer of bytes: 514 entries, no merges, so any text has one token per byte."""
    from transformers import CLIPTokenizer

    quiet_messages()
    symbols = _byte_symbols()
    entries = [
        *symbols,
        *(symbol + "</w>" for symbol in symbols),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vocabulary = {entry: number for number, entry in enumerate(entries)}
        (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=length)


def tiny_pipeline(
    kind: Kind = "sd",
    *,
    seed: int = 0,
    prediction: str = "epsilon",
    channels: tuple[int, int] = (8, 16),
    text_width: int = 16,
    tokens: int = 24,
) -> Any:
    """Build a random pipeline of 16 x 16 pixels and 4 x 8 x 8 latents.

    - ``sd``: two cross-attention levels, DDIM.
    - ``sdxl``: one level without attention and one of two layers, two text models, DDIM.
    - ``sd3``: two joint blocks, the first with a second attention as in SD3.5, two text models and no T5, flow
      matching; its inner width is ``channels[1]``, and it always predicts the velocity.
    """
    quiet_messages()
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "sdxl":
            return _tiny_sdxl(prediction, channels, text_width, tokens)
        if kind == "sd3":
            return _tiny_sd3(channels[1], text_width, tokens)
        return _tiny_sd(prediction, channels, text_width, tokens)


def _tiny_sd(prediction: str, channels: tuple[int, int], width: int, tokens: int) -> Any:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    return StableDiffusionPipeline(
        text_encoder=_text_encoder(width, tokens),
        unet=_unet(channels, width),
        vae=_vae(),
        tokenizer=tiny_tokenizer(tokens),
        scheduler=DDIMScheduler(**_NOISE, prediction_type=prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _tiny_sdxl(prediction: str, channels: tuple[int, int], width: int, tokens: int) -> Any:
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline

    second = width + 8
    return StableDiffusionXLPipeline(
        text_encoder=_text_encoder(width, tokens),
        text_encoder_2=_text_encoder(second, tokens, projection=second),
        unet=_unet(
            channels,
            width + second,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            # six numbers about the size, and the pooled vector
            projection_class_embeddings_input_dim=6 * 8 + second,
        ),
        vae=_vae(),
        tokenizer=tiny_tokenizer(tokens),
        tokenizer_2=tiny_tokenizer(tokens),
        scheduler=DDIMScheduler(**_NOISE, prediction_type=prediction),
        add_watermarker=False,
    )


def _tiny_sd3(inner: int, width: int, tokens: int) -> Any:
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    second = width + 8
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=inner // 2,
        caption_projection_dim=inner,
        joint_attention_dim=width + second,
        pooled_projection_dim=width + second,
        pos_embed_max_size=16,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        text_encoder=_text_encoder(width, tokens, projection=width),
        text_encoder_2=_text_encoder(second, tokens, projection=second),
        text_encoder_3=None,
        vae=_vae(shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        tokenizer=tiny_tokenizer(tokens),
        tokenizer_2=tiny_tokenizer(tokens),
        tokenizer_3=None,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


_NOISE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}


def _text_encoder(width: int, tokens: int, projection: int | None = None) -> Any:
    """Build a CLIP text model, with a projected pooled vector if its width is given."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=514,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokens,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
        **({} if projection is None else {"projection_dim": projection}),
    )
    return CLIPTextModel(config) if projection is None else CLIPTextModelWithProjection(config)


def _unet(channels: tuple[int, int], width: int, **more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    levels: dict[str, Any] = {
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    }
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=channels,
        layers_per_block=1,
        cross_attention_dim=width,
        attention_head_dim=2,
        norm_num_groups=4,
        **{**levels, **more},
    )


def _vae(**more: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        norm_num_groups=4,
        latent_channels=4,
        sample_size=16,
        **more,
    )


def write_tiny_pipeline(
    folder: Path, kind: Kind = "sd", *, seed: int = 0, prediction: str = "epsilon"
) -> Path:
    """Write a tiny random pipeline as a diffusers folder, and give the folder back."""
    with quiet_bars():
        tiny_pipeline(kind, seed=seed, prediction=prediction).save_pretrained(folder)
    return folder


def _byte_symbols() -> list[str]:
    """Give the printable stand-in of every byte, as GPT-2's byte-level tokenizer names them."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(rest))]
