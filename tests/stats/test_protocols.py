"""Every protocol against loops that count as the published scripts do, and what ties do to it."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.errors import DataError
from palate.stats.accuracy import NothingDecidedError
from palate.stats.breakdowns import breakdown, facts_of, sizes_of
from palate.stats.intervals import Bootstrap
from palate.stats.protocols import PROTOCOLS, THRESHOLDS, accuracy_under, named, tune_threshold

QUICK = Bootstrap(resamples=100)
TWO = {"scale": 1.0, "threshold": 0.1}


def rankings(low: int, high: int):
    """Groups of (score, rank), with ties in both."""
    row = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), min_size=low, max_size=high)
    return st.lists(row, min_size=1, max_size=8)


def decided(rows) -> bool:
    return any(len({rank for _, rank in row}) > 1 for row in rows)


def columns(rows):
    scores = [float(score) for row in rows for score, _ in row]
    ranks = [rank for row in rows for _, rank in row]
    return scores, ranks, np.concatenate([[0], np.cumsum([len(row) for row in rows])])


def measured(name: str, rows, **given):
    wanted = {"bootstrap": QUICK, **(TWO if PROTOCOLS[name].pairs_only else {}), **given}
    return accuracy_under(name, *columns(rows), **wanted)


# --------------------------------------------------------- loops that count as the scripts do


def pairs_of(row):
    return itertools.combinations(range(len(row)), 2)


def slow_argmax(rows) -> float:
    """HPS: argmax takes the first of equal scores; the label is the image that was put first."""
    hits = []
    for row in rows:
        scores, ranks = zip(*row, strict=True)
        if len(set(ranks)) > 1:
            hits.append(ranks[scores.index(max(scores))] == min(ranks))
    return sum(hits) / len(hits)


def slow_ordered(row) -> tuple[int, int]:
    """ImageReward: right and counted pairs of one ranking; a pair that people tie is passed by."""
    right = counted = 0
    for i, j in pairs_of(row):
        (score_i, rank_i), (score_j, rank_j) = row[i], row[j]
        if rank_i > rank_j:
            counted += 1
            right += score_i < score_j
        elif rank_i < rank_j:
            counted += 1
            right += score_i > score_j
    return right, counted


def slow_pooled(rows) -> float:
    right, counted = np.sum([slow_ordered(row) for row in rows], axis=0)
    return right / counted


def slow_per_ranking(rows) -> float:
    """HPS v2 on the ImageReward set; the script divides by zero where all of a ranking ties."""
    shares = [right / counted for right, counted in map(slow_ordered, rows) if counted]
    return sum(shares) / len(shares)


def slow_inversions(rows) -> float:
    """HPS v2: the place of every image in the descending order, against the person's rank."""
    total = 0.0
    for row in rows:
        order = sorted(range(len(row)), key=lambda place: -row[place][0])
        mine = [order.index(place) for place in range(len(row))]
        theirs = [rank for _, rank in row]
        wrong = sum((mine[i] - mine[j]) * (theirs[i] - theirs[j]) < 0 for i, j in pairs_of(row))
        total += 1 - wrong / math.comb(len(row), 2)
    return total / len(rows)


def slow_value_inversions(rows) -> float:
    """MPS on HPD v2: the higher value should have the lower rank; equal values are no inversion."""
    total = 0.0
    for row in rows:
        wrong = sum((row[i][0] - row[j][0]) * (row[i][1] - row[j][1]) > 0 for i, j in pairs_of(row))
        total += 1 - wrong / math.comb(len(row), 2)
    return total / len(rows)


def slow_three_way(rows, scale: float, threshold: float) -> float:
    """Pick-a-Pic: label and prediction are each one of 0, 1 and tie."""
    earned = []
    for (score_0, rank_0), (score_1, rank_1) in rows:
        label = "tie" if rank_0 == rank_1 else str(int(rank_1 < rank_0))
        power_0, power_1 = math.exp(scale * score_0), math.exp(scale * score_1)
        gap = (power_0 - power_1) / (power_0 + power_1)
        said = "tie" if abs(gap) <= threshold else str(int(gap < 0))
        earned.append(1.0 if label == said else 0.5 if "tie" in (label, said) else 0.0)
    return sum(earned) / len(earned)


def slow_half_ties(rows) -> float:
    earned = []
    for row in rows:
        for i, j in pairs_of(row):
            gap = (row[i][0] - row[j][0]) * (row[j][1] - row[i][1])
            if row[i][1] != row[j][1]:
                earned.append(0.5 if row[i][0] == row[j][0] else float(gap > 0))
    return sum(earned) / len(earned)


SLOW = {
    "hpd-v1-top1": slow_argmax,
    "image-reward-pairs": slow_pooled,
    "image-reward-macro": slow_per_ranking,
    "hps-v2-inversions": slow_inversions,
    "mps-hpd-v2": slow_value_inversions,
    "pick-a-pic-threshold": lambda rows: slow_three_way(rows, 1.0, 0.1),
    "pick-a-pic-no-ties": slow_half_ties,
    "mhp-pairs": slow_pooled,
}


def test_every_protocol_has_a_twin_a_source_and_a_rule() -> None:
    assert set(SLOW) == set(PROTOCOLS)
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert protocol.source
        assert protocol.says.endswith(".")
        assert json.loads(json.dumps(protocol.to_dict()))["grade"] in "ABC"


@pytest.mark.parametrize("name", PROTOCOLS)
@settings(max_examples=30)
@given(data=st.data())
def test_a_protocol_counts_as_the_published_script_does(name: str, data) -> None:
    high = 2 if PROTOCOLS[name].pairs_only else 5
    rows = data.draw(rankings(2, high).filter(decided))
    assert measured(name, rows).value == pytest.approx(SLOW[name](rows), abs=1e-12)


@given(rankings(2, 2), st.sampled_from(THRESHOLDS), st.sampled_from([0.1, 1.0, 2.5]))
def test_three_way_counts_as_the_script_does_at_every_threshold(rows, threshold, scale) -> None:
    found = measured("pick-a-pic-threshold", rows, scale=scale, threshold=threshold)
    assert found.value == pytest.approx(slow_three_way(rows, scale, threshold), abs=1e-12)
    assert (found.scale, found.threshold) == (scale, threshold)


@given(rankings(2, 2))
def test_the_threshold_is_the_first_of_the_best(rows) -> None:
    found = tune_threshold(*columns(rows), scale=1.0)
    tried = [slow_three_way(rows, 1.0, threshold) for threshold in THRESHOLDS]
    assert found.accuracies == pytest.approx(tried, abs=1e-12)
    assert found.threshold == THRESHOLDS[int(np.argmax(found.accuracies))]
    assert found.to_dict()["tried"] == THRESHOLDS


# ------------------------------------------------------------------- the constant and the oracle

PAIRS = [[(0, 1), (0, 2)], [(0, 2), (0, 1)], [(0, 1), (0, 1)], [(0, 2), (0, 1)]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hpd-v1-top1", 1 / 3),  # as often as the first is right
        ("image-reward-pairs", 0.0),
        ("image-reward-macro", 0.0),
        ("hps-v2-inversions", 2 / 4),  # the first pair by its place, the person's tie for nothing
        ("mps-hpd-v2", 1.0),
        ("pick-a-pic-threshold", (0.5 + 0.5 + 1 + 0.5) / 4),
        ("pick-a-pic-no-ties", 0.5),
        ("mhp-pairs", 0.0),
    ],
)
def test_a_constant_scorer_gets_from_nothing_to_everything(name: str, value: float) -> None:
    found = measured(name, PAIRS)
    assert found.value == pytest.approx(value)
    assert found.constant == found.value
    assert found.fair == pytest.approx(0.5)


@pytest.mark.parametrize("name", PROTOCOLS)
@settings(max_examples=30)
@given(data=st.data())
def test_an_oracle_is_always_right_and_a_constant_scorer_is_fair_chance(name: str, data) -> None:
    high = 2 if PROTOCOLS[name].pairs_only else 5
    rows = data.draw(rankings(2, high).filter(decided))
    oracle = measured(name, [[(-rank, rank) for _, rank in row] for row in rows])
    assert oracle.value == pytest.approx(1)
    assert oracle.fair == pytest.approx(1)
    flat = measured(name, [[(0, rank) for _, rank in row] for row in rows])
    assert flat.value == pytest.approx(flat.constant)
    if PROTOCOLS[name].counts == "pair":
        assert flat.fair == pytest.approx(0.5)
    else:
        assert flat.fair == pytest.approx(flat.chance)


@pytest.mark.parametrize("name", PROTOCOLS)
@settings(max_examples=30)
@given(data=st.data())
def test_the_baselines_are_what_such_scorers_get(name: str, data) -> None:
    high = 2 if PROTOCOLS[name].pairs_only else 4
    rows = data.draw(rankings(2, high).filter(decided))
    found = measured(name, rows)
    first = [[(-place, rank) for place, (_, rank) in enumerate(row)] for row in rows]
    last = [[(place, rank) for place, (_, rank) in enumerate(row)] for row in rows]
    sure = {"scale": 1000.0} if PROTOCOLS[name].pairs_only else {}
    assert measured(name, first, **sure).value == pytest.approx(found.always_first)
    assert measured(name, last, **sure).value == pytest.approx(found.always_last)


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "pick-a-pic-threshold"])
def test_chance_is_what_random_scores_get_on_average(name: str) -> None:
    rows = [[(0, 1), (0, 2), (0, 2)], [(0, 2), (0, 1)], [(0, 1), (0, 1), (0, 3)], [(0, 1), (0, 1)]]
    orders = [list(itertools.permutations(range(len(row)))) for row in rows]
    values = []
    for drawn in itertools.product(*orders):
        shuffled = [
            [(place, rank) for place, (_, rank) in zip(order, row, strict=True)]
            for order, row in zip(drawn, rows, strict=True)
        ]
        values.append(SLOW[name](shuffled))
    assert measured(name, rows).chance == pytest.approx(np.mean(values))


def test_chance_of_three_ways_is_the_formula_of_the_script() -> None:
    found = measured("pick-a-pic-threshold", PAIRS, threshold=0.3)
    assert found.chance == pytest.approx((0.3 + 0.7 / 2) * 1 / 4 + 0.5 * 3 / 4)


# ---------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("name", PROTOCOLS)
@settings(max_examples=30)
@given(data=st.data())
def test_the_order_of_the_choices_does_not_matter_and_twice_is_the_same(name: str, data) -> None:
    high = 2 if PROTOCOLS[name].pairs_only else 5
    rows = data.draw(rankings(2, high).filter(decided))
    before = measured(name, rows)
    again = measured(name, data.draw(st.permutations(rows)))
    twice = measured(name, rows + rows)
    for fact in ("value", "fair", "chance", "constant", "always_first", "always_last"):
        assert getattr(again, fact) == pytest.approx(getattr(before, fact))
        assert getattr(twice, fact) == pytest.approx(getattr(before, fact))
    assert twice.tied == 2 * before.tied


@pytest.mark.parametrize("name", [name for name, one in PROTOCOLS.items() if one.ties != "first"])
@settings(max_examples=30)
@given(data=st.data())
def test_where_no_rule_goes_by_position_the_order_shown_does_not_matter(name: str, data) -> None:
    high = 2 if PROTOCOLS[name].pairs_only else 5
    rows = data.draw(rankings(2, high).filter(decided))
    before, after = measured(name, rows), measured(name, [row[::-1] for row in rows])
    assert after.value == pytest.approx(before.value)
    assert after.always_first == pytest.approx(before.always_last)


@given(rankings(2, 5).filter(decided))
def test_half_precision_can_only_help_where_ties_are_right(rows) -> None:
    rows = [[(score / 5000, rank) for score, rank in row] for row in rows]
    exact = measured("mps-hpd-v2", rows)
    rounded = measured("mps-hpd-v2", rows, scale=100.0)
    assert rounded.value >= exact.value
    assert rounded.tied >= exact.tied


def test_half_precision_makes_ties_of_scores_that_are_close() -> None:
    rows = [[(0.21000, 2), (0.21001, 1)], [(0.21001, 2), (0.21, 1)], [(0.3, 1), (0.2, 2)]]
    exact, rounded = measured("mps-hpd-v2", rows), measured("mps-hpd-v2", rows, scale=100.0)
    assert (exact.value, exact.tied) == (pytest.approx(2 / 3), 0)
    assert (rounded.value, rounded.tied) == (1, 2)


def test_the_unit_of_the_average_is_the_ranking_and_that_of_the_interval_the_prompt() -> None:
    rows = [[(2, 1), (1, 2), (0, 3)], [(0, 1), (1, 2)], [(0, 1), (1, 2)]]
    found = measured("image-reward-macro", rows, prompts=["p", "q", "q"])
    assert found.value == pytest.approx(1 / 3)
    assert (found.accuracy.estimate.count, found.accuracy.estimate.clusters) == (3, 2)
    assert measured("image-reward-pairs", rows).value == pytest.approx(3 / 5)


# --------------------------------------------------------------------------- refusals and edges


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("top1", {}, "no protocol 'top1', expected one of hpd-v1-top1"),
        ("pick-a-pic-threshold", {}, "needs a scale, and none is given"),
        ("pick-a-pic-threshold", {"scale": 1.0}, "needs a threshold"),
        ("pick-a-pic-threshold", {"scale": 1.0, "threshold": 1.5}, "a threshold of 1.5"),
        ("pick-a-pic-threshold", {"scale": -1.0, "threshold": 0.1}, "a scale of -1"),
        ("image-reward-pairs", {"scale": 2.0}, "takes no scale"),
        ("mps-hpd-v2", {"threshold": 0.1}, "takes no threshold"),
        ("mps-hpd-v2", {"scale": 1e6}, "too large for mps-hpd-v2"),
    ],
)
def test_a_setting_out_of_place_is_refused(name: str, given, message: str) -> None:
    with pytest.raises(DataError, match=message):
        accuracy_under(name, [1.0, 0.0], [1, 2], [0, 2], **given)


def test_columns_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="is for two images, but a choice has 3"):
        accuracy_under("pick-a-pic-threshold", [1, 2, 3], [1, 2, 2], [0, 3], **TWO)
    with pytest.raises(DataError, match="is for two images, but a choice has 3"):
        tune_threshold([1, 2, 3], [1, 2, 2], [0, 3], scale=1.0)
    with pytest.raises(DataError, match="scores do not match"):
        accuracy_under("mhp-pairs", [1.0], [1, 2], [0, 2])
    with pytest.raises(DataError, match="a score is not a number"):
        accuracy_under("mhp-pairs", [1.0, math.nan], [1, 2], [0, 2])
    with pytest.raises(DataError, match="2 values but clusters"):
        accuracy_under("mhp-pairs", [1, 0, 1, 0], [1, 2, 1, 2], [0, 2, 4], ["p"])
    with pytest.raises(DataError, match="there is no threshold to try"):
        tune_threshold([1, 2], [1, 2], [0, 2], scale=1.0, thresholds=[])


def test_where_everyone_ties_some_protocols_count_and_others_refuse() -> None:
    rows = [[(1, 1), (0, 1)]]
    assert measured("hps-v2-inversions", rows).value == 1
    assert measured("hps-v2-inversions", rows).fair is None
    for name in ("hpd-v1-top1", "image-reward-pairs", "mhp-pairs"):
        with pytest.raises(NothingDecidedError, match="has a decision that can be counted"):
            measured(name, rows)


def test_a_result_says_how_it_was_counted() -> None:
    told = json.loads(json.dumps(measured("pick-a-pic-threshold", PAIRS).to_dict()))
    assert told["protocol"]["name"] == "pick-a-pic-threshold"
    assert (told["scale"], told["threshold"], told["choices"]) == (1.0, 0.1, 4)
    assert (told["measure"], told["human_ties"], told["level"]) == ("pairwise", "match", 0.95)
    assert named("mhp-pairs") is PROTOCOLS["mhp-pairs"]


# ---------------------------------------------------------------------------------- breakdowns


@given(rankings(2, 4).filter(decided), st.data())
def test_a_part_is_measured_as_if_it_stood_alone(rows, data) -> None:
    labels = data.draw(st.lists(st.sampled_from("ab"), min_size=len(rows), max_size=len(rows)))
    parts = breakdown("image-reward-pairs", *columns(rows), by=labels, bootstrap=QUICK)
    assert [part.name for part in parts] == sorted(set(labels))
    assert sum(part.choices for part in parts) == len(rows)
    for part in parts:
        own = [row for row, label in zip(rows, labels, strict=True) if label == part.name]
        if decided(own):
            assert part.result is not None
            assert part.result.to_dict() == measured("image-reward-pairs", own).to_dict()
        else:
            assert part.result is None
            assert part.to_dict()["result"] is None


def test_parts_by_size_and_by_a_fact() -> None:
    rows = [[(1, 1), (0, 2)], [(1, 1), (0, 2), (0, 2)]]
    parts = breakdown("hpd-v1-top1", *columns(rows), ["p", "q"], by=sizes_of([0, 2, 5]))
    assert [(part.name, part.result.chance) for part in parts] == [("2", 1 / 2), ("3", 1 / 3)]
    assert facts_of(['{"category": "People"}', None, "{}"], "category") == [
        "People",
        "(none)",
        "(none)",
    ]
    with pytest.raises(DataError, match="2 choices but labels of shape"):
        breakdown("hpd-v1-top1", *columns(rows), by=["a"])
    with pytest.raises(DataError, match=r"scores, .* ranks and the offsets do not match"):
        breakdown("hpd-v1-top1", [1.0], [1], [0, 2], by=["a"])


# ------------------------------------------------------------------------------------ real data


@pytest.fixture(scope="module")
def image_reward(shared):
    records = json.loads((shared / "data" / "image_reward" / "test.json").read_text())
    return [record["ranking"] for record in records], [record["prompt"] for record in records]


@pytest.fixture(scope="module")
def hpd_v1(shared):
    records = json.loads((shared / "data" / "hpd_v1" / "preference_test_500.json").read_text())
    return [
        [1 if place == record["human_preference"] else 2 for place in range(len(paths))]
        for record in records
        for paths in [record["file_path"]]
    ]


def test_the_order_of_the_image_reward_test_set_leaks(image_reward) -> None:
    given_ranks, prompts = image_reward
    rows = [[(-place, rank) for place, rank in enumerate(ranks)] for ranks in given_ranks]
    found = measured("image-reward-pairs", rows, prompts=prompts)
    assert (found.accuracy.estimate.count, found.accuracy.left_out) == (6399, 831)
    assert found.value == found.always_first == pytest.approx(0.590, abs=5e-4)
    assert found.always_last == pytest.approx(0.410, abs=5e-4)
    assert found.chance == 0.5
    assert found.accuracy.estimate.low > 0.55
    macro = measured("image-reward-macro", rows, prompts=prompts)
    assert (macro.accuracy.estimate.count, macro.accuracy.estimate.clusters) == (466, 463)
    parts = breakdown("image-reward-pairs", *columns(rows), by=sizes_of(columns(rows)[2]))
    sizes = {int(part.name): part.choices for part in parts}
    assert sizes == {4: 194, 5: 2, 6: 45, 7: 159, 8: 43, 9: 23}


def test_one_ranking_of_the_image_reward_set_is_worth_zero_to_all(image_reward) -> None:
    rows = [[(0, rank) for rank in ranks] for ranks in image_reward[0]]
    found = {name: one for name, one in PROTOCOLS.items() if not one.pairs_only}
    values = {name: measured(name, rows).value for name in found}
    assert values["image-reward-pairs"] == values["image-reward-macro"] == 0
    assert values["mps-hpd-v2"] == 1
    assert values["hps-v2-inversions"] == pytest.approx(0.635, abs=5e-3)


def test_the_last_image_of_hpd_v1_is_picked_too_often(hpd_v1) -> None:
    rows = [[(0, rank) for rank in ranks] for ranks in hpd_v1]
    found = measured("hpd-v1-top1", rows)
    assert found.choices == 500
    assert found.always_last == pytest.approx(0.324)
    assert found.chance == pytest.approx(0.258, abs=5e-3)
    assert found.value == found.always_first
    assert found.fair == pytest.approx(found.chance)


def test_choices_made_of_mean_opinions_follow_a_noisy_copy_of_them(shared) -> None:
    with (shared / "data" / "agiqa_3k" / "data.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    rng = np.random.default_rng(0)
    prompts = sorted({row["prompt"] for row in table})
    accuracies = []
    for noise in (0.0, 0.3, 1.0, 100.0):
        rows = []
        for prompt in prompts:
            means = [float(row["mos_quality"]) for row in table if row["prompt"] == prompt]
            best = sorted(set(means), reverse=True)
            noisy = np.array(means) + noise * rng.standard_normal(len(means))
            rows.append([(v, best.index(m) + 1) for v, m in zip(noisy, means, strict=True)])
        accuracies.append(measured("image-reward-pairs", rows).value)
    assert accuracies[0] == 1
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[-1] == pytest.approx(0.5, abs=0.03)


# ----------------------------------------------------------------------------------- its page


def test_the_examples_of_the_page_run_and_its_table_is_what_is_counted(root) -> None:
    page = (root / "docs" / "statistics" / "accuracy.md").read_text(encoding="utf-8")
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(code, "accuracy.md", "exec"), {})
    for name, protocol in PROTOCOLS.items():
        told = f"| `{name}` | {protocol.counts}s, {protocol.average} | {protocol.ties} |"
        assert told in page
    pairs = dict(re.findall(r"^\| `([\w-]+)` \| (\d+\.\d) \|$", page, re.MULTILINE))
    for name in PROTOCOLS:
        assert pairs[name] == f"{100 * measured(name, PAIRS).value:.1f}"
