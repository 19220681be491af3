"""A tiny random Stable Diffusion folder: the test double for everything that takes a generator.

The weights are random, so the images mean nothing. The classes and the files are the real ones: the folder loads with
``StableDiffusionPipeline.from_pretrained`` and nothing is downloaded.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from palate.generation.quiet import quiet_bars, quiet_messages


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
    *,
    seed: int = 0,
    prediction: str = "epsilon",
    channels: tuple[int, int] = (8, 16),
    text_width: int = 16,
    tokens: int = 24,
) -> Any:
    """Build a random pipeline: 16 x 16 pixels, 4 x 8 x 8 latents, two cross-attention levels, DDIM."""
    quiet_messages()
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = {
            "text_encoder": _text_encoder(text_width, tokens),
            "unet": _unet(channels, text_width),
            "vae": _vae(),
        }
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )
    return StableDiffusionPipeline(
        **parts,
        tokenizer=tiny_tokenizer(tokens),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _text_encoder(width: int, tokens: int) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

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
    )
    return CLIPTextModel(config)


def _unet(channels: tuple[int, int], width: int) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=2,
        norm_num_groups=4,
    )


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        norm_num_groups=4,
        latent_channels=4,
        sample_size=16,
    )


def write_tiny_pipeline(folder: Path, *, seed: int = 0, prediction: str = "epsilon") -> Path:
    """Write a tiny random pipeline as a diffusers folder, and give the folder back."""
    with quiet_bars():
        tiny_pipeline(seed=seed, prediction=prediction).save_pretrained(folder)
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
