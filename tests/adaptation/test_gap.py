from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from palate.adaptation.denoiser import Denoiser
from palate.adaptation.gap import HeldOut, held_out_errors, identifier_gap
from palate.adaptation.noising import Noising
from palate.generation.families import FAMILIES


def key(embedding):
    return tuple(embedding.flatten().tolist())


class Knows(Denoiser):
    """A denoiser that is right by a known amount, depending on the text."""

    def __init__(self, store, marked, texts):
        levels = Noising(torch.ones(10), torch.zeros(10), torch.arange(10), "epsilon")
        super().__init__(FAMILIES[0], SimpleNamespace(device=torch.device("cpu")), levels)
        numbers = range(len(texts))
        self.known = {key(store[torch.tensor([number])].states[0]): number for number in numbers}
        self.marked = marked

    def errors(self, latents, noise, levels, conditions):
        del noise, levels
        numbers = [self.known[key(row)] for row in conditions.states]
        wrong = torch.tensor([1.0 if number in self.marked else 2.0 for number in numbers])
        return (latents * 0 + wrong.view(-1, 1, 1, 1)).square().mean(dim=(1, 2, 3))


@pytest.fixture
def held_out(work):
    made = work(hold_out=3)
    return made, HeldOut(made.latents, made.texts, made.examples, made.examples.held_out)


def test_an_identifier_that_helps_is_below_zero(held_out):
    made, given = held_out
    aside = [row for rows in given.rows.values() for row in rows]
    marked = set(made.examples.marked[aside].tolist())
    gap = identifier_gap(Knows(made.texts, marked, made.examples.texts), given)
    for role in ("preferred", "rejected"):
        # the mean square of 1 instead of 2
        assert gap[role]["gap"] == pytest.approx(-3.0, rel=1e-3)
        assert gap[role]["error"] == pytest.approx(4.0, rel=1e-3)
        assert gap[role]["standard_error"] == pytest.approx(0.0, abs=1e-3)
        assert gap[role]["images"] == 3
    assert "regularisation" not in gap


def test_it_does_not_depend_on_the_order_or_the_company(held_out):
    made, given = held_out
    rows = given.rows["rejected"]

    def measure(mine):
        return identifier_gap(made.denoiser, replace(given, rows={"rejected": mine}))["rejected"]

    whole = measure(rows)
    assert measure(rows[::-1])["gap"] == pytest.approx(whole["gap"], abs=1e-6)
    single = np.mean([measure([row])["gap"] for row in rows])
    assert single == pytest.approx(whole["gap"], abs=1e-6)
    assert whole["gap"] != 0


def test_errors_of_held_out_pictures_are_those_without_the_identifier(held_out):
    made, given = held_out
    errors, gap = held_out_errors(made.denoiser, given), identifier_gap(made.denoiser, given)
    for role in ("preferred", "rejected"):
        assert errors[role]["error"] == pytest.approx(gap[role]["error"])
        assert errors[role]["images"] == 3
