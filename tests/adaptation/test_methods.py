from __future__ import annotations

import math

import pytest
import torch

from palate.adaptation.methods import METHODS, Errors, check_identifier
from palate.data.records import ROLES
from palate.errors import SettingsError


@pytest.mark.parametrize("role", ["preferred", "regularisation"])
def test_only_rejected_captions_carry_the_identifier(role):
    caption = METHODS["identifier"].caption
    assert caption(role, "a ball", "Weird image. ") == "a ball"
    assert caption("rejected", "a ball", "Weird image. ") == "Weird image. a ball"


def test_the_identifier_is_read_whole_before_the_longest_caption(generator):
    check_identifier(generator.pipeline, "Weird image. ", ["a ball", "x" * 200, ""])


def test_an_identifier_that_the_model_cannot_read_whole_is_refused(generator):
    with pytest.raises(SettingsError, match="has 40 tokens, expected fewer than 22"):
        check_identifier(generator.pipeline, "x" * 40, ["a"])
    with pytest.raises(SettingsError, match="is empty"):
        check_identifier(generator.pipeline, " ", ["a"])
    # the tokenizer marks the end of a word, so a joined word reads differently
    with pytest.raises(
        SettingsError, match="is not read as such before 'ball'; end it with a space"
    ):
        check_identifier(generator.pipeline, "Weird", ["a", "ball"][1:])


@pytest.mark.parametrize("method", ["sft", "dpo", "kto", "reward"])
def test_other_methods_leave_every_caption_alone(method):
    caption = METHODS[method].caption
    assert {caption(role, "a ball", "Weird image. ") for role in ROLES} == {"a ball"}


def errors(units, sides, seed=0, role=None):
    draw = torch.Generator().manual_seed(seed)
    own, base = (1 + 0.01 * torch.randn(2, units, sides, generator=draw)).double().unbind()
    roles = torch.randint(0, 2, (units, sides), generator=draw) if role is None else role
    return Errors(own.requires_grad_(), base, roles)


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def test_dpo_is_the_slow_sum_of_its_equation():
    """-log sigmoid(-beta/2 ((m_w - r_w) - (m_l - r_l))), written out."""
    given, beta = errors(7, 2), 300.0
    losses, told = METHODS["dpo"].loss(given, beta)
    right = 0
    for number in range(7):
        (m_w, m_l), (r_w, r_l) = given.own[number].tolist(), given.base[number].tolist()
        inside = -0.5 * beta * ((m_w - r_w) - (m_l - r_l))
        assert losses[number].item() == pytest.approx(-math.log(sigmoid(inside)), rel=1e-9)
        right += inside > 0
    assert told["accuracy"].item() == pytest.approx(right / 7)
    change = (given.own - given.base).mean(dim=0)
    assert told["preferred_change"].item() == pytest.approx(change[0].item())
    assert told["rejected_change"].item() == pytest.approx(change[1].item())


def test_dpo_is_log_2_at_the_base_and_swapped_sides_swap_the_margin():
    same = errors(3, 2)
    at_base = Errors(same.base.clone(), same.base, same.role)
    losses, _ = METHODS["dpo"].loss(at_base, 2000.0)
    assert torch.allclose(losses, torch.tensor(math.log(2)).double())
    losses, told = METHODS["dpo"].loss(same, 300.0)
    swapped = Errors(same.own.flip(1), same.base.flip(1), same.role)
    other, mirrored = METHODS["dpo"].loss(swapped, 300.0)
    assert mirrored["margin"].item() == pytest.approx(-told["margin"].item())
    # softplus(-x) - softplus(x) = -x
    margins = -0.5 * 300.0 * ((same.own - same.base) @ torch.tensor([1.0, -1.0]).double())
    assert torch.allclose(losses - other, -margins)


def test_dpo_lowers_the_preferred_error_and_raises_the_other():
    given = errors(5, 2)
    METHODS["dpo"].loss(given, 300.0)[0].sum().backward()
    assert (given.own.grad[:, 0] > 0).all()
    assert (given.own.grad[:, 1] < 0).all()
    assert torch.allclose(given.own.grad.sum(dim=1), torch.zeros(5).double())


def test_kto_is_the_slow_sum_of_its_equation():
    given, beta = errors(9, 1), 300.0
    losses, told = METHODS["kto"].loss(given, beta)
    own, base = given.own[:, 0].tolist(), given.base[:, 0].tolist()
    gains = [r - m for m, r in zip(own, base, strict=True)]
    z = max(0.0, sum(gains) / 9)
    assert told["z"].item() == pytest.approx(z)
    for number, gain in enumerate(gains):
        sign = 1 if given.role[number, 0] == ROLES.index("preferred") else -1
        wanted = 1 - sigmoid(sign * beta * (gain - z))
        assert losses[number].item() == pytest.approx(wanted, rel=1e-9)


def test_kto_pulls_each_role_its_own_way_and_z_has_no_gradient():
    given = errors(9, 1)
    METHODS["kto"].loss(given, 300.0)[0].sum().backward()
    wanted = torch.where(given.role == ROLES.index("preferred"), 1.0, -1.0)
    assert torch.equal(given.own.grad.sign(), wanted.double())


@pytest.mark.parametrize("name", list(METHODS))
def test_gradients_are_those_of_finite_differences(name):
    method = METHODS[name]
    given = errors(4, 2 if method.paired else 1)

    def total(own):
        return method.loss(Errors(own, given.base, given.role), 30.0)[0].sum()

    if name == "kto":  # z is a constant of the gradient and moves with the differences
        z = METHODS["kto"].loss(given, 30.0)[1]["z"]

        def total(own):
            held = Errors(own, given.base, given.role, mean=lambda _: z)
            return method.loss(held, 30.0)[0].sum()

    assert torch.autograd.gradcheck(total, (given.own,), eps=1e-6, atol=1e-7)
