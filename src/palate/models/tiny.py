"""A CLIP small enough to build in a blink, with random weights: for tests and trials."""

from __future__ import annotations

import torch

from palate.models.clip import Clip
from palate.models.clip_network import ClipConfig, ClipNetwork, TextConfig, VisionConfig
from palate.models.pixels import Preparation
from palate.models.tokens import END, START, Tokenizer, byte_pieces


def tiny_clip(
    seed: int = 0,
    *,
    size: int = 32,
    patch: int = 8,
    width: int = 32,
    layers: int = 2,
    text_width: int = 32,
    text_layers: int = 2,
    dim: int = 16,
) -> Clip:
    """Build a CLIP with random weights: its scores mean nothing, but every part is real.

    Images become ``size`` pixels square. Words are spelled in bytes, in 24 positions. The same
    seed gives the same weights, and the caller's random numbers are left alone.
    """
    pieces = [*byte_pieces(), START, END]
    tokenizer = Tokenizer({piece: number for number, piece in enumerate(pieces)}, [], context=24)
    text = TextConfig(
        vocab_size=len(pieces),
        hidden_size=text_width,
        intermediate_size=4 * text_width,
        num_hidden_layers=text_layers,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.context,
        projection_dim=dim,
        bos_token_id=tokenizer.start,
        eos_token_id=tokenizer.end,
        pad_token_id=tokenizer.pad,
    )
    vision = VisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        image_size=size,
        patch_size=patch,
        projection_dim=dim,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = ClipConfig(text_config=text, vision_config=vision, projection_dim=dim)
        model = ClipNetwork(config)
        # PyTorch starts embeddings and maps in ways of their own; all are made to carry about as much
        for value in model.parameters():
            if value.ndim >= 1:
                torch.nn.init.normal_(value, std=value.shape[-1] ** -0.5)
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.reset_parameters()
    model.requires_grad_(requires_grad=False).eval()
    return Clip(model, tokenizer, Preparation(size=size, resize="exact"))
