"""A loss is its equation: against a slow twin, by finite differences, and by its symmetries."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn.functional import cross_entropy, kl_div

from palate.data.duels import pair_index
from palate.training.losses import (
    choice_cross_entropy,
    choice_target,
    decided_pairs,
    pair_cross_entropy,
    prompt_weights,
    ranking_logistic,
    weighted_mean,
)

ROW = st.integers(2, 6).flatmap(
    lambda count: st.tuples(
        hnp.arrays(np.float64, count, elements=st.floats(-60, 60, width=32)),
        st.lists(st.integers(1, 3), min_size=count, max_size=count),
        st.integers(0, 3),
    )
)


PAIRS = st.lists(
    st.tuples(
        st.floats(-60, 60, width=32),
        st.floats(-60, 60, width=32),
        st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1),
    ),
    min_size=1,
    max_size=6,
)


def side_by_side(rows, *, filler=1e6, rank=1, dtype=torch.float64):
    """Put rows of different lengths side by side, with nonsense in the padding."""
    most = max(len(logits) + extra for logits, _, extra in rows)
    logits = torch.full((len(rows), most), filler, dtype=dtype)
    ranks = torch.full((len(rows), most), rank, dtype=torch.int64)
    mask = torch.zeros((len(rows), most), dtype=torch.bool)
    for row, (values, places, _) in enumerate(rows):
        logits[row, : len(values)] = torch.from_numpy(values)
        ranks[row, : len(values)] = torch.tensor(places)
        mask[row, : len(values)] = True
    return logits, ranks, mask


def padded(rows):
    """Give the logits, the mask and the target of a choice."""
    logits, ranks, mask = side_by_side(rows)
    return logits, mask, choice_target(ranks, mask).double()


def shuffled(rows, random):
    """Put the images of every row into another order."""
    found = []
    for logits, ranks, extra in rows:
        order = list(range(len(logits)))
        random.shuffle(order)
        found.append((logits[order], [ranks[place] for place in order], extra))
    return found


def columns(pairs):
    """Give the pairs as three tensors."""
    return torch.tensor(pairs, dtype=torch.float64).unbind(-1)


def slow_loss(logits, ranks):
    """Cross-entropy of one prompt, written with nothing but a loop."""
    best = min(ranks)
    winners = [place for place, rank in enumerate(ranks) if rank == best]
    highest = max(logits)
    total = sum(math.exp(value - highest) for value in logits)
    surprise = [-(value - highest - math.log(total)) for value in logits]
    return sum(surprise[place] / len(winners) for place in winners)


@given(st.lists(ROW, min_size=1, max_size=4))
def test_the_loss_is_its_slow_twin(rows):
    found = choice_cross_entropy(*padded(rows))
    for loss, (logits, ranks, _) in zip(found.tolist(), rows, strict=True):
        assert math.isclose(loss, slow_loss(logits.tolist(), ranks), rel_tol=1e-6, abs_tol=1e-6)


@given(st.lists(ROW, min_size=1, max_size=4), st.randoms())
def test_the_order_of_the_images_does_not_matter(rows, random):
    first, second = (
        choice_cross_entropy(*padded(rows)),
        choice_cross_entropy(*padded(shuffled(rows, random))),
    )
    assert torch.allclose(first, second, rtol=1e-12, atol=1e-9)


def test_the_gradient_is_that_of_finite_differences():
    random = np.random.default_rng(0)
    rows = [
        (random.normal(size=n), [1, 2, 2, 1, 3][:n], extra) for n, extra in ((2, 2), (4, 0), (5, 1))
    ]
    logits, mask, target = padded(rows)
    logits = logits.clamp(max=5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: choice_cross_entropy(x, mask, target), (logits,))


def test_padding_gets_no_gradient():
    logits = torch.zeros(1, 4, requires_grad=True)
    mask = torch.tensor([[True, True, False, False]])
    choice_cross_entropy(logits, mask, torch.tensor([[1.0, 0, 0, 0]])).sum().backward()
    assert logits.grad.tolist() == [[-0.5, 0.5, 0.0, 0.0]]


def test_a_constant_scorer_is_surprised_by_log_n():
    mask = torch.ones(1, 4, dtype=torch.bool)
    loss = choice_cross_entropy(torch.full((1, 4), 7.0), mask, torch.tensor([[0, 1.0, 0, 0]]))
    assert math.isclose(loss.item(), math.log(4), rel_tol=1e-6)


def test_ties_share_the_target_and_the_lowest_rank_is_best_wherever_it_starts():
    ranks = torch.tensor([[2, 1, 2, 2], [1, 1, 2, 1], [3, 5, 3, 1]])
    mask = torch.tensor([[True] * 4, [True] * 3 + [False], [True] * 3 + [False]])
    assert choice_target(ranks, mask).tolist() == [[0, 1, 0, 0], [0.5, 0.5, 0, 0], [0.5, 0, 0.5, 0]]


# pairs


def slow_pair(first, second, target):
    """Divergence of a two-way softmax from the target, written with nothing but logarithms."""
    highest = max(first, second)
    total = math.log(math.exp(first - highest) + math.exp(second - highest))
    model = (first - highest - total, second - highest - total)
    people = (target, 1 - target)
    return sum(p * (math.log(p) - m) for p, m in zip(people, model, strict=True) if p > 0)


@given(PAIRS)
def test_the_pair_loss_is_its_slow_twin(pairs):
    found = pair_cross_entropy(*columns(pairs))
    for loss, pair in zip(found.tolist(), pairs, strict=True):
        assert math.isclose(loss, slow_pair(*pair), rel_tol=1e-9, abs_tol=1e-9)


@given(PAIRS)
def test_pickscore_and_mps_are_one_equation(pairs):
    first, second, target = columns(pairs)
    logits = torch.stack([first, second], -1)
    loss = pair_cross_entropy(first, second, target)
    divergence = kl_div(
        logits.log_softmax(-1), torch.stack([target, 1 - target], -1), reduction="none"
    ).sum(-1)
    assert torch.allclose(loss, divergence, rtol=1e-9, atol=1e-9)
    for label in (1.0, 0.5, 0.0):
        zeros = torch.zeros(len(pairs), dtype=torch.int64)
        pickscore = label * cross_entropy(logits, zeros, reduction="none")
        pickscore = pickscore + (1 - label) * cross_entropy(logits, zeros + 1, reduction="none")
        if label == 0.5:
            pickscore = pickscore + math.log(0.5)
        loss = pair_cross_entropy(first, second, torch.full_like(first, label))
        assert torch.allclose(loss, pickscore, rtol=1e-9, atol=1e-9)


@given(PAIRS)
def test_swapping_images_and_target_changes_no_pair_and_a_tie_has_no_sides(pairs):
    first, second, target = columns(pairs)
    loss = pair_cross_entropy(first, second, target)
    assert torch.allclose(loss, pair_cross_entropy(second, first, 1 - target), atol=1e-9)
    tie = torch.full_like(target, 0.5)
    assert torch.equal(
        pair_cross_entropy(first, second, tie), pair_cross_entropy(second, first, tie)
    )


@given(PAIRS, st.floats(-100, 100))
def test_only_the_difference_of_a_pair_counts_and_no_loss_is_below_zero(pairs, shift):
    first, second, target = columns(pairs)
    loss = pair_cross_entropy(first, second, target)
    assert torch.allclose(
        loss, pair_cross_entropy(first + shift, second + shift, target), atol=1e-9
    )
    assert (loss >= -1e-12).all()


def test_a_pair_costs_log_2_at_chance_and_nothing_where_people_are_met():
    zero, log2, log3 = torch.zeros(4), math.log(2), math.log(3)
    target = torch.tensor([1.0, 0.0, 0.5, 0.75])
    chance = [log2, log2, 0.0, 0.75 * log3 - log2]
    assert pair_cross_entropy(zero, zero, target).tolist() == pytest.approx(chance, abs=1e-6)
    met = pair_cross_entropy(torch.tensor([log3, 7.0]), torch.tensor([0.0, 7.0]), target[[3, 2]])
    assert met.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_the_gradient_of_a_pair_is_the_models_chance_less_the_target():
    random = torch.Generator().manual_seed(0)
    first, second = (torch.randn(2, 6, generator=random, dtype=torch.float64) * 3).unbind()
    target = torch.tensor([0, 1, 0.5, 0.2, 1, 0.5], dtype=torch.float64)
    first, second = first.clone().requires_grad_(), second.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: pair_cross_entropy(a, b, target), (first, second))
    pair_cross_entropy(first, second, target).sum().backward()
    expected = (first - second).sigmoid() - target
    assert torch.allclose(first.grad, expected)
    assert torch.allclose(second.grad, -expected)


def test_a_choice_between_two_is_a_pair():
    logits = torch.tensor([[1.5, -0.5], [0.2, 3.0]])
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    choice = choice_cross_entropy(logits, torch.ones(2, 2, dtype=torch.bool), target)
    assert torch.allclose(choice, pair_cross_entropy(*logits.unbind(-1), target[:, 0]))


# rankings


def slow_surprises(scores, ranks):
    """Give -log sigmoid of the lead of every better image over every worse one, with loops."""
    found = []
    for better in range(len(scores)):
        for worse in range(len(scores)):
            if ranks[better] < ranks[worse]:
                lead = scores[better] - scores[worse]
                found.append(math.log1p(math.exp(-abs(lead))) + max(0.0, -lead))
    return found


@given(st.lists(ROW, min_size=1, max_size=4))
def test_the_ranking_loss_is_its_slow_twin(rows):
    scores, ranks, mask = side_by_side(rows)
    losses, counts = ranking_logistic(scores, ranks, mask), decided_pairs(ranks, mask)
    for loss, count, row in zip(losses.tolist(), counts.tolist(), rows, strict=True):
        surprises = slow_surprises(row[0].tolist(), row[1])
        assert count == len(surprises)
        mean = sum(surprises) / len(surprises) if surprises else 0.0
        assert math.isclose(loss, mean, rel_tol=1e-9, abs_tol=1e-9)


@given(st.lists(ROW, min_size=1, max_size=4))
def test_a_ranking_is_the_mean_of_its_decided_pairs(rows):
    scores, ranks, mask = side_by_side(rows)
    group, first, second = map(torch.from_numpy, pair_index(mask.sum(-1).numpy()))
    left, right = ranks[group, first], ranks[group, second]
    pairs = pair_cross_entropy(scores[group, first], scores[group, second], (left < right).double())
    for row, loss in enumerate(ranking_logistic(scores, ranks, mask)):
        decided = pairs[(group == row) & (left != right)]
        assert torch.allclose(loss, decided.mean() if len(decided) else torch.zeros_like(loss))


@given(st.lists(ROW, min_size=1, max_size=4))
def test_weighed_by_its_decided_pairs_a_ranking_counts_as_in_imagerewards_code(rows):
    scores, ranks, mask = side_by_side(rows)
    weights = decided_pairs(ranks, mask)
    pooled = [s for values, places, _ in rows for s in slow_surprises(values.tolist(), places)]
    if pooled:
        losses = ranking_logistic(scores, ranks, mask)
        mean = weighted_mean(losses, weights, float(weights.sum())).item()
        assert math.isclose(mean, sum(pooled) / len(pooled), rel_tol=1e-9, abs_tol=1e-9)


@given(st.lists(ROW, min_size=1, max_size=4), st.randoms(), st.floats(-100, 100))
def test_order_shift_and_the_names_of_the_ranks_do_not_matter(rows, random, shift):
    scores, ranks, mask = side_by_side(rows)
    loss = ranking_logistic(scores, ranks, mask)
    for same in (
        ranking_logistic(*side_by_side(shuffled(rows, random))),
        ranking_logistic(scores + shift, ranks, mask),
        ranking_logistic(scores, 10 * ranks + 3, mask),
        ranking_logistic(-scores, -ranks, mask),
    ):
        assert torch.allclose(loss, same, rtol=1e-9, atol=1e-9)


def test_the_gradient_follows_its_image():
    random = torch.Generator().manual_seed(1)
    scores = torch.randn(3, 5, generator=random, dtype=torch.float64, requires_grad=True)
    ranks = torch.tensor([[1, 2, 2, 3, 9], [2, 1, 9, 9, 9], [1, 1, 1, 4, 2]])
    mask = torch.tensor([[True] * 4 + [False], [True] * 2 + [False] * 3, [True] * 5])
    assert torch.autograd.gradcheck(lambda x: ranking_logistic(x, ranks, mask), (scores,))
    (gradient,) = torch.autograd.grad(ranking_logistic(scores, ranks, mask).sum(), scores)
    order = torch.tensor([3, 0, 4, 1, 2])
    moved = scores.detach()[:, order].requires_grad_()
    ranking_logistic(moved, ranks[:, order], mask[:, order]).sum().backward()
    assert torch.allclose(moved.grad, gradient[:, order])
    assert torch.allclose(gradient.sum(-1), torch.zeros(3, dtype=torch.float64))


def test_a_constant_scorer_is_surprised_by_log_2_and_ties_say_nothing():
    scores = torch.full((2, 4), 7.0, requires_grad=True)
    ranks = torch.tensor([[1, 2, 3, 3], [2, 2, 2, 1]])
    mask = torch.tensor([[True] * 4, [True] * 3 + [False]])
    loss = ranking_logistic(scores, ranks, mask)
    assert loss.tolist() == pytest.approx([math.log(2), 0.0])
    assert decided_pairs(ranks, mask).tolist() == [5, 0]
    loss.sum().backward()
    assert scores.grad[1].tolist() == [0.0] * 4


# padding and size


def losses_of(scores, ranks, mask):
    """Both losses of groups, added up."""
    target = choice_target(ranks, mask).to(scores.dtype)
    return choice_cross_entropy(scores, mask, target) + ranking_logistic(scores, ranks, mask)


@pytest.mark.parametrize("filler", [math.nan, math.inf, -math.inf, 3e38, -3e38])
@pytest.mark.parametrize("rank", [0, 1, -5, 2**62])
def test_nothing_in_the_padding_has_any_influence(filler, rank):
    random = np.random.default_rng(2)
    rows = [
        (random.normal(size=n).astype(np.float32), [1, 3, 2, 2][:n], extra)
        for n, extra in ((2, 3), (4, 0), (3, 2))
    ]
    scores, ranks, mask = side_by_side(rows, filler=filler, rank=rank, dtype=torch.float32)
    scores.requires_grad_()
    losses = losses_of(scores, ranks, mask)
    (gradient,) = torch.autograd.grad(losses.sum(), scores)
    assert (gradient[~mask] == 0).all()
    for row, (values, places, _) in enumerate(rows):
        alone = torch.from_numpy(values)[None].requires_grad_()
        loss = losses_of(alone, torch.tensor([places]), torch.ones(1, len(places)).bool())
        loss.sum().backward()
        assert torch.allclose(losses[row], loss[0], atol=1e-6)
        assert torch.allclose(gradient[row, : len(places)], alone.grad[0], atol=1e-6)


def test_extreme_scores_do_not_overflow():
    scores = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], requires_grad=True)
    ranks = torch.tensor([[1, 2, 2], [1, 2, 2]])
    losses = ranking_logistic(scores, ranks, torch.tensor([[True, True, False]] * 2))
    assert losses.tolist() == [0.0, 2e4]
    losses.sum().backward()
    assert scores.grad.tolist() == [[0, 0, 0], [-1, 1, 0]]
    first = torch.tensor([1e4, -1e4, 1e4, -1e4], requires_grad=True)
    target = torch.tensor([1.0, 1.0, 0.5, 0.0])
    pairs = pair_cross_entropy(first, -first.detach(), target)
    assert pairs.tolist() == pytest.approx([0.0, 2e4, 1e4 - math.log(2), 0.0])
    pairs.sum().backward()
    assert first.grad.tolist() == [0.0, -1.0, 0.5, 0.0]


# weights


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_the_weights_of_a_prompt_add_up_to_one(prompts):
    weights = prompt_weights(torch.tensor(prompts)).tolist()
    counts = Counter(prompts)
    assert weights == pytest.approx([1 / counts[prompt] for prompt in prompts])
    for prompt in counts:
        own = [weight for weight, of in zip(weights, prompts, strict=True) if of == prompt]
        assert sum(own) == pytest.approx(1)


@given(
    st.lists(
        st.tuples(st.floats(0, 9, width=32), st.integers(0, 3), st.integers(0, 2)),
        min_size=1,
        max_size=20,
    )
)
def test_shares_of_a_batch_add_up_to_the_mean_over_prompts(rows):
    losses = torch.tensor([loss for loss, _, _ in rows], dtype=torch.float64)
    prompts, process = (torch.tensor([row[place] for row in rows]) for place in (1, 2))
    weights = prompt_weights(prompts)
    total = weights.sum()
    shares = [weighted_mean(losses[process == n], weights[process == n], total) for n in range(3)]
    means = [losses[prompts == prompt].mean() for prompt in prompts.unique()]
    assert torch.allclose(sum(shares), torch.stack(means).mean(), rtol=1e-5, atol=1e-6)


def test_a_share_passes_its_weight_on_to_the_gradient():
    losses = torch.tensor([1.0, 5.0, 2.0], requires_grad=True)
    share = weighted_mean(losses, torch.tensor([0.5, 0.25, 0.0]), 2.0)
    assert share.item() == (0.5 * 1 + 0.25 * 5) / 2
    share.backward()
    assert losses.grad.tolist() == [0.25, 0.125, 0.0]
