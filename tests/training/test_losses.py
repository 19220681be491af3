"""The loss is its equation: against a slow twin, by finite differences, and by its symmetries."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from palate.training.losses import choice_cross_entropy, choice_target

ROW = st.integers(2, 6).flatmap(
    lambda count: st.tuples(
        hnp.arrays(np.float64, count, elements=st.floats(-60, 60, width=32)),
        st.lists(st.integers(1, 3), min_size=count, max_size=count),
        st.integers(0, 3),
    )
)


def padded(rows):
    """Put rows of different lengths side by side, with nonsense in the padding."""
    most = max(len(logits) + extra for logits, _, extra in rows)
    logits = torch.full((len(rows), most), 1e6, dtype=torch.float64)
    ranks = torch.ones((len(rows), most), dtype=torch.int64)
    mask = torch.zeros((len(rows), most), dtype=torch.bool)
    for row, (values, places, _) in enumerate(rows):
        logits[row, : len(values)] = torch.from_numpy(values)
        ranks[row, : len(values)] = torch.tensor(places)
        mask[row, : len(values)] = True
    return logits, mask, choice_target(ranks, mask).double()


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
    shuffled = []
    for logits, ranks, extra in rows:
        order = list(range(len(logits)))
        random.shuffle(order)
        shuffled.append((logits[order], [ranks[place] for place in order], extra))
    first, second = choice_cross_entropy(*padded(rows)), choice_cross_entropy(*padded(shuffled))
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
