"""How the miniature's models are built: real CLIP, autoencoder and UNet classes, made tiny."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from palate.miniature.words import TOKENS, write_tokenizer

WIDTH = 64
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 4 * WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": TOKENS,
    "projection_dim": WIDTH,
}


def tokenizer_folder() -> Path:
    """Write the world's tokenizer to a temporary folder, once per process."""
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"palate-words-{os.getpid()}"  # noqa: S108
    if not (folder / "vocab.json").exists():
        write_tokenizer(folder)
    return folder


def new_vae() -> AutoencoderKL:
    """The autoencoder: 32 × 32 × 3 to 8 × 8 × 8."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 48, 64),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=32,
    )


def new_clip() -> CLIPModel:
    """The tiny CLIP: patches of 4 pixels, 96 wide and 4 deep for pictures, 64 wide and 3 deep for text."""
    vocabulary = len(CLIPTokenizer.from_pretrained(tokenizer_folder()))
    special = {
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }
    vision = {
        "hidden_size": 96,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "image_size": 32,
        "patch_size": 4,
        "projection_dim": WIDTH,
    }
    text = {**TEXT, "vocab_size": vocabulary, **special}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


class TextAndUNet(torch.nn.Module):
    """The two parts that learn together to make pictures from words."""

    def __init__(self) -> None:
        """Build both from nothing."""
        super().__init__()
        vocabulary = len(CLIPTokenizer.from_pretrained(tokenizer_folder()))
        special = {
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
            "pad_token_id": vocabulary - 1,
        }
        config = CLIPTextConfig(**TEXT, vocab_size=vocabulary, **special)
        self.text = CLIPTextModel(config)
        self.unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=8,
            out_channels=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(64, 96),
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
            norm_num_groups=8,
        )


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, sampled by DDIM from its very end."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )
