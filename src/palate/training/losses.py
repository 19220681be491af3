"""One pure function per equation.

A loss has one value per group, in nats; lower is better. Nothing is reduced here but by `weighted_mean`.
Scores are multiplied by the model's scale before. Ratings need no function of ours: `torch`'s own
`mse_loss` with ``reduction="none"`` is their equation.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor
from torch.nn.functional import logsigmoid


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


def pair_cross_entropy(
    first: Float[Tensor, " pairs"], second: Float[Tensor, " pairs"], target: Float[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    """Say how far the model is from what people said of two images.

    ``KL((t, 1 - t) || softmax(first, second))`` where ``target`` t is how often people prefer the
    first image: 1 or 0 for a decision, ½ for a tie, or the share of several people's votes. It is the
    cross-entropy less the entropy of the target, so that 0 is perfect for every target, and the
    gradient is that of the cross-entropy. Chance is log 2 for a decision and 0 for a tie.

    PickScore (arXiv 2305.01569; its code adds log ½ to ties, their entropy taken away), HPS v2
    (arXiv 2306.09341; decisions only, and its code takes the sum over a batch) and MPS (arXiv
    2405.14705; the divergence of the predicted from people's distribution) are this one equation.
    Swapping the images and taking 1 - t changes nothing.
    """
    lead = first - second
    surprise = -target * logsigmoid(lead) - (1 - target) * logsigmoid(-lead)
    return surprise + torch.xlogy(target, target) + torch.xlogy(1 - target, 1 - target)


def ranking_logistic(
    scores: Float[Tensor, "groups most"],
    ranks: Int[Tensor, "groups most"],
    mask: Bool[Tensor, "groups most"],
) -> Float[Tensor, " groups"]:
    """Say how surprised the model is by the order in which people put the images of each prompt.

    The mean of ``-log sigmoid(score of the better - score of the worse)`` over the pairs of images
    with different ``ranks`` (1 is best); tied pairs are left out. Where ``mask`` is false there is
    padding, without influence. A ranking without a decided pair has loss 0: `decided_pairs` tells.
    Chance is log 2. It is the mean of `pair_cross_entropy` over the decided pairs, so HPS v2, whose code
    is trained on pairs with one winner, needs no loss of its own for rankings.

    ImageReward (arXiv 2304.05977). Its code pools the pairs of a batch and takes their mean, so that a
    ranking counts by its decided pairs; for that, weigh these losses with `decided_pairs`. Equal
    weights let each ranking count the same, as in InstructGPT (arXiv 2203.02155, equation 1).
    """
    filled = scores.masked_fill(~mask, 0.0)
    leads = filled[:, :, None] - filled[:, None, :]
    decided = _decided(ranks, mask)
    surprise = (-logsigmoid(leads)).masked_fill(~decided, 0.0).sum((-2, -1))
    return surprise / decided.sum((-2, -1)).clamp(min=1)


def decided_pairs(
    ranks: Int[Tensor, "groups most"], mask: Bool[Tensor, "groups most"]
) -> Int[Tensor, " groups"]:
    """Count the pairs of images with different ranks in each group; 0 where all are tied."""
    return _decided(ranks, mask).sum((-2, -1))


def prompt_weights(prompts: Int[Tensor, " choices"]) -> Float[Tensor, " choices"]:
    """Weigh each choice by one over the number of choices on its prompt, so that prompts count the same.

    ``prompts`` are the places of the prompts of a whole data set, from 0. The weights of a prompt add
    up to 1. PickScore (its code, ``num_example_per_prompt``).
    """
    return 1 / prompts.bincount()[prompts].to(torch.float32)


def weighted_mean(
    losses: Float[Tensor, " groups"],
    weights: Real[Tensor, " groups"],
    total: float | Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Give ``sum_i weight_i loss_i / total``: the share of these groups in the mean of a batch.

    ``total``, above 0, is the sum of the weights of the whole batch, over all its parts and all
    processes. Then the shares add up to the mean, however the batch is cut. PickScore's code gathers
    the batch of all processes for it.
    """
    return (losses * weights).sum() / total


def _decided(
    ranks: Int[Tensor, "groups most"], mask: Bool[Tensor, "groups most"]
) -> Bool[Tensor, "groups most most"]:
    """Mark where the image of the row is ranked better than that of the column."""
    both = mask[:, :, None] & mask[:, None, :]
    return (ranks[:, :, None] < ranks[:, None, :]) & both
