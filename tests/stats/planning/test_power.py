"""Plans hold what they promise: simulated studies, the closed form, and the published table."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.errors import DataError
from palate.stats.planning.power import (
    Design,
    PlanSettings,
    Truth,
    approximate_power,
    approximate_prompts,
    plan,
    separated,
    simulated_power,
)
from palate.stats.planning.simulated import simulate_votes, vote_moments
from palate.stats.two_way.clusters import clustered_share

PUBLISHED = {  # prompts for 80 % power, intraclass correlation 0.2, by win rate and votes per prompt
    0.55: {1: 783, 3: 366, 5: 282, 20: 188},
    0.60: {1: 194, 3: 91, 5: 70, 20: 47},
    0.65: {1: 85, 3: 40, 5: 31, 20: 21},
    0.70: {1: 47, 3: 22, 5: 17, 20: 12},
}
CELLS = [(rate, each) for rate, row in PUBLISHED.items() for each in row]


@pytest.mark.parametrize(("rate", "each"), CELLS)
def test_the_closed_form_gives_the_published_table(rate, each):
    truth = Truth(rate, icc=0.2, rater_sd=0.0)
    prompts = approximate_prompts(truth, each)
    assert prompts == PUBLISHED[rate][each]
    assert approximate_power(truth, Design(prompts, each)) >= 0.8
    assert approximate_power(truth, Design(prompts - 1, each)) < 0.8


@pytest.mark.parametrize(("rate", "each"), [(0.55, 3), (0.6, 1), (0.6, 5), (0.65, 1)])
def test_simulated_studies_of_the_table_have_its_power(rate, each):
    truth = Truth(rate, icc=0.2, rater_sd=0.0)
    power, low, high = simulated_power(
        truth, Design(PUBLISHED[rate][each], each), PlanSettings(runs=2000)
    )
    assert low <= power <= high
    assert low - 0.01 <= 0.8 <= high + 0.01


@pytest.mark.parametrize(
    ("truth", "design"),
    [
        (Truth(0.6), Design(120, 3, 30)),
        (Truth(0.6, tie_share=0.3), Design(80, 5, 40)),
        (Truth(0.4, spam_share=0.2), Design(150, 3, 60)),
        (Truth(0.65, prompt_sd=1.0, rater_sd=1.0), Design(100, 2, 40)),
    ],
)
def test_the_closed_form_is_within_three_points_of_the_simulation(truth, design):
    found = plan(truth, votes_per_prompt=design.votes_per_prompt, people=design.people,
                 prompts=design.prompts, settings=PlanSettings(runs=3000))  # fmt: skip
    assert found.power == pytest.approx(found.approximate, abs=0.03)


# ------------------------------------------------------------------------------------- slow twins


@pytest.mark.parametrize("people", [None, 7])
def test_a_plan_analyses_studies_as_the_library_does(people):
    design = Design(15, 3, people)
    rng = np.random.default_rng(0)
    who = design.assignment(rng)
    truth = Truth(0.7, tie_share=0.1)
    votes = simulate_votes(truth, who, (60, 15, 3), rng)
    votes[0], votes[1] = 1.0, 0.5
    signs = separated(votes, who, 0.95)
    prompts = np.repeat(np.arange(15), 3)
    for own, sign in zip(votes, signs, strict=True):
        found = clustered_share(own.ravel(), prompts, None if who is None else who.ravel())
        expected = {"higher": 1, "lower": -1, "not separable": 0}[found.decision(0.5)]
        assert sign == expected
    assert 0 < (signs == 1).mean() < 1


@pytest.mark.parametrize(
    "truth",
    [
        Truth(0.6),
        Truth(0.7, tie_share=0.3, prompt_sd=1.5, rater_sd=1.0),
        Truth(0.3, spam_share=0.3, icc=0.3),
        Truth(0.55, icc=0.0, rater_sd=0.0),
    ],
)
def test_simulated_votes_have_the_moments_that_are_worked_out(truth):
    rng = np.random.default_rng(0)
    votes = simulate_votes(truth, None, (1, 100_000, 8), rng)[0]
    found = vote_moments(truth)
    assert votes.mean() == pytest.approx(found.mean, abs=0.005)
    assert votes.var() == pytest.approx(found.variance, rel=0.01)
    # Two votes of one prompt share what the prompt explains, two votes of one person likewise.
    halves = votes[:, ::2].mean(axis=1), votes[:, 1::2].mean(axis=1)
    assert np.cov(*halves)[0, 1] == pytest.approx(found.prompts * found.variance, abs=0.002)


def test_what_people_explain_is_worked_out_right():
    truth = Truth(0.65, prompt_sd=0.8, rater_sd=1.0, spam_share=0.2, tie_share=0.1)
    rng = np.random.default_rng(0)
    # In each study one person votes on eight prompts: what the votes share is the person.
    who = np.zeros((8, 1), dtype=np.int64)
    votes = simulate_votes(truth, who, (60_000, 8, 1), rng)[:, :, 0]
    halves = votes[:, ::2].mean(axis=1), votes[:, 1::2].mean(axis=1)
    found = vote_moments(truth)
    assert np.cov(*halves)[0, 1] == pytest.approx(found.people * found.variance, abs=0.002)


@given(st.integers(2, 40), st.integers(1, 5), st.integers(5, 12))
def test_everyone_votes_about_equally_often_and_once_on_a_prompt(prompts, each, people):
    who = Design(prompts, each, people).assignment(np.random.default_rng(prompts))
    assert who is not None
    assert all(len(set(row)) == each for row in who.tolist())
    counts = np.bincount(who.ravel(), minlength=people)
    assert counts.max() - counts.min() <= each


# ----------------------------------------------------------------------------------------- the plan


def test_the_plan_finds_a_number_that_is_enough_and_not_many_more():
    truth = Truth(0.65, tie_share=0.1)
    settings = PlanSettings(runs=2000)
    found = plan(truth, people=25, settings=settings)
    assert found.power >= 0.8
    fewer = Design(math.floor(found.design.prompts * 0.93), 3, 25)
    assert simulated_power(truth, fewer, settings)[0] < 0.81
    assert plan(truth, people=25, settings=settings) == found
    kept = found.to_dict()
    assert kept["votes"] == 3 * found.design.prompts
    assert kept["simulated"] is True


def test_few_prompts_need_more_than_the_closed_form_says():
    found = plan(Truth(0.7, icc=0.2, rater_sd=0.0), votes_per_prompt=20)
    assert found.approximate_prompts == 12
    assert found.design.prompts > 12


def test_spam_and_ties_cost_votes():
    plain, spam, ties = (
        approximate_prompts(truth, 3, 50)
        for truth in (Truth(0.6), Truth(0.6, spam_share=0.2), Truth(0.6, tie_share=0.3))
    )
    assert spam > 1.3 * plain
    assert ties < plain  # the same win rate with less noise
    independent = [
        approximate_prompts(Truth(0.55, icc=0.0, rater_sd=0.0, spam_share=share), 1)
        for share in (0.0, 0.2)
    ]
    assert independent[1] / independent[0] == pytest.approx(1 / 0.8**2, rel=0.02)


def test_equals_raise_few_alarms():
    power, _, _ = simulated_power(Truth(0.5), Design(100, 3, 20), PlanSettings(runs=2000))
    assert power == pytest.approx(0.05, abs=0.02)
    assert plan(Truth(0.5), prompts=50).approximate_prompts is None


def test_swapping_sides_changes_no_plan():
    there, back = Truth(0.6, tie_share=0.2), Truth(0.4, tie_share=0.2)
    assert approximate_prompts(there, 3, 30) == approximate_prompts(back, 3, 30)
    assert simulated_power(there, Design(80, 3, 30))[0] == pytest.approx(
        simulated_power(back, Design(80, 3, 30))[0], abs=0.04
    )


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Truth(1.0), "expected shares below 1"),
        (lambda: Truth(0.9, tie_share=0.5), "cannot be had with a share of 0.5 ties"),
        (lambda: Truth(0.6, prompt_sd=1.0, icc=0.2), "expected one of them"),
        (lambda: Truth(0.6, rater_sd=-1.0), "0 and -1 logits"),
        (lambda: Truth(0.6, spam_share=1.0), "a spam share of 1.0"),
        (lambda: vote_moments(Truth(0.6, icc=0.99)), "cannot explain 0.99"),
        (lambda: Design(1, 3), "1 prompts with 3 votes each"),
        (lambda: Design(10, 3, 2), "2 people for 3 votes per prompt"),
        (lambda: PlanSettings(power=0.02), "a power of 0.02"),
        (lambda: PlanSettings(runs=5), "5 simulated studies"),
        (lambda: plan(Truth(0.5)), "there is nothing to find"),
        (lambda: plan(Truth(0.6), votes_per_prompt=0), "2 prompts with 0 votes each"),
        (lambda: plan(Truth(0.6), people=10**7), "leave the number out"),
        (lambda: plan(Truth(0.5001)), "more than the 100,000 that are simulated"),
        (lambda: plan(Truth(0.6), prompts=10**8), "does not fit into memory"),
        (lambda: plan(Truth(0.6), settings=PlanSettings(runs=10**9)), "would run for hours"),
        (lambda: PlanSettings(seed=-1), "a seed of -1"),
        (lambda: Truth(0.6, rater_sd=float("inf")), "expected 0 to 10 logits"),
        (lambda: plan(Truth(0.55, rater_sd=2.0), people=4), "more people are needed"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_a_sentence(call, sentence):
    with pytest.raises(DataError, match=sentence):
        call()
