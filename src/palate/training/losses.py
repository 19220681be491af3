"""One pure function per equation."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def choice_cross_entropy(
    logits: Float[Tensor, "prompts images"],
    mask: Bool[Tensor, "prompts images"],
    target: Float[Tensor, "prompts images"],
) -> Float[Tensor, " prompts"]:
    """Say how surprised the model is by what people chose among the images of each prompt.

    ``-sum_i target_i log softmax(logits)_i`` over the images of a prompt where ``mask`` is true;
    the rest is padding and has no influence. ``target`` is the distribution of the choice: one for
    the chosen image, equal shares for tied winners; it sums to one over the mask. In nats, lower is
    better; chance is log n. The HPS paper (arXiv 2303.14420, section 4) with logits = exp(logit
    scale) * cosine; its training code takes the mean over prompts. Without order: permuting the
    images of a prompt with mask and target changes nothing.
    """
    lowest = torch.finfo(logits.dtype).min
    chances = logits.masked_fill(~mask, lowest).log_softmax(-1)
    return -(target * chances.masked_fill(~mask, 0.0)).sum(-1)


def choice_target(
    ranks: Int[Tensor, "prompts images"], mask: Bool[Tensor, "prompts images"]
) -> Float[Tensor, "prompts images"]:
    """Share one equally among the images with the best rank of each prompt; 1 is the best rank.

    Ranks ``(2, 1, 2, 2)`` give ``(0, 1, 0, 0)`` and the tie ``(1, 1, 2)`` gives ``(½, ½, 0)``.
    """
    far = torch.iinfo(ranks.dtype).max
    filled = ranks.masked_fill(~mask, far)
    best = (filled == filled.amin(-1, keepdim=True)) & mask
    return best.to(torch.float32) / best.sum(-1, keepdim=True)
