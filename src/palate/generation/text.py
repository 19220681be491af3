"""Prompts to the text embeddings of Stable Diffusion 1.x and 2.x, once per distinct prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 16
"""Prompts per forward of the text encoder. Chunks are always filled up to this size: a matrix product of another
shape may round differently, and an image must not depend on which other prompts were asked for."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of some prompts, and how much of each prompt the model can read."""

    ids: Int[Tensor, "prompts tokens"]
    mask: Int[Tensor, "prompts tokens"]
    """1 where the tokenizer put a token of the prompt, 0 where it filled up."""
    given: list[int]
    """Tokens of each prompt before truncation, start and end included."""

    def __len__(self) -> int:
        """Give the number of prompts."""
        return len(self.ids)


def tokenize(pipeline: Any, prompts: Sequence[str]) -> Tokens:
    """Turn prompts into token ids as the pipeline does: filled up, or cut at the end."""
    tokenizer = pipeline.tokenizer
    length = tokenizer.model_max_length
    if not prompts:
        empty = torch.zeros(0, length, dtype=torch.long)
        return Tokens(empty, empty, [])
    cut = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=length,
        truncation=True,
        return_tensors="pt",
    )
    given = [len(ids) for ids in tokenizer(list(prompts)).input_ids]
    return Tokens(cut.input_ids, cut.attention_mask, given)


@torch.no_grad()
def encode(pipeline: Any, tokens: Tokens) -> Float[Tensor, "prompts tokens dim"]:
    """Give the text embeddings that the denoiser attends to, one row per prompt."""
    encoder = pipeline.text_encoder
    masked = bool(getattr(encoder.config, "use_attention_mask", False))
    parts = []
    for start in range(0, len(tokens), CHUNK):
        rows = torch.arange(start, start + CHUNK).clamp(max=len(tokens) - 1)
        ids, mask = (part[rows].to(encoder.device) for part in (tokens.ids, tokens.mask))
        states = encoder(ids, attention_mask=mask if masked else None)[0]
        parts.append(states[: len(tokens) - start])
    if not parts:
        return torch.zeros(0, tokens.ids.shape[1], encoder.config.hidden_size)
    return torch.cat(parts)


def encode_prompts(pipeline: Any, prompts: Sequence[str]) -> Float[Tensor, "prompts tokens dim"]:
    """Give the text embeddings of prompts; equal prompts are encoded once and share the values."""
    distinct = list(dict.fromkeys(prompts))
    position = {prompt: row for row, prompt in enumerate(distinct)}
    embeddings = encode(pipeline, tokenize(pipeline, distinct))
    return embeddings[[position[prompt] for prompt in prompts]]
