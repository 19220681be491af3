"""Published values are what was printed, found by name, and set beside a scorer's own."""

from __future__ import annotations

import json
import tomllib
from collections import Counter

import pytest

from palate.data.records import Choice, Image, Score
from palate.data.tables import to_table
from palate.errors import DataError
from palate.evaluation.published import (
    OTHER_PROTOCOLS,
    BenchmarkSettings,
    benchmark_scorer,
    benchmarks,
    published_value,
    published_values,
)
from palate.stats.protocols import PROTOCOLS

ALL = published_values(unverified=True, superseded=True)
STYLES = ("anime", "concept-art", "paintings", "photo")


def test_every_value_says_where_it_is_from() -> None:
    assert len(ALL) > 250
    for one in ALL:
        assert one.source
        assert one.grade in "ABCD"
        assert one.protocol in {*PROTOCOLS, *OTHER_PROTOCOLS}
        assert one.unit in {"%", "share", "correlation", "wins", "100 × cosine", "each its own"}
        assert json.loads(json.dumps(one.to_dict()))["name"] == one.name


def test_a_value_is_printed_once_per_source() -> None:
    keys = Counter((one.benchmark, one.protocol, one.name, one.part, one.source) for one in ALL)
    assert [key for key, count in keys.items() if count > 1] == []


def test_the_digits_are_those_of_the_file(root) -> None:
    path = root / "src" / "palate" / "evaluation" / "published.toml"
    tables = tomllib.loads(path.read_text(encoding="utf-8"))["table"]
    texts = []
    for table in tables:
        for told in table["values"].values():
            texts += [told] if isinstance(told, str) else told
    assert [one.printed() for one in ALL] == texts


def test_accuracies_are_shares_and_wins_are_not() -> None:
    for one in ALL:
        if one.protocol in PROTOCOLS:
            assert one.share is not None
            assert 0.2 < one.share < 0.9
        if one.protocol == "wins":
            assert one.share is None
            assert one.value == int(one.value)


@pytest.mark.parametrize("benchmark", ["hps-v2-benchmark", "hps-v2.1-benchmark"])
def test_the_average_of_a_generator_is_that_of_its_styles(benchmark: str) -> None:
    values = published_values(benchmark)
    rows = {(one.name, one.source) for one in values}
    assert len(rows) >= 22
    for name, source in rows:
        told = {one.part: one.value for one in values if (one.name, one.source) == (name, source)}
        mean = sum(told[style] for style in STYLES) / 4
        # four rounded values and a rounded mean
        assert told["average"] == pytest.approx(mean, abs=0.0101), name


@pytest.mark.parametrize(
    ("benchmark", "pairs"),
    [("image-reward-test", 6399), ("hpd-v2-test", 15300), ("pick-a-pic-v2-test", 424)],
)
def test_shares_with_six_digits_are_whole_numbers_of_pairs(benchmark: str, pairs: int) -> None:
    values = published_values(benchmark, protocol="pick-a-pic-no-ties")
    assert len(values) == 6
    for one in values:
        assert round(one.value * pairs) / pairs == pytest.approx(one.value, abs=one.rounding)


def test_values_are_found_by_name_protocol_and_part() -> None:
    assert published_value("hpd-v1-test", "hpd-v1-top1", "hps").value == 43.5
    assert published_value("hpd-v2-test", "hps-v2-inversions", "HPS").value == 77.6
    assert published_value("image-reward-test", "image-reward-macro", "hps_v2.1").digits == 1
    sd = published_value(
        "hps-v2-benchmark", "hps-benchmark", "stable diffusion v1.4", part="average"
    )
    assert (sd.value, sd.digits, sd.rounding) == (26.95, 2, 0.005)
    assert published_value("hps-v2.1-benchmark", "hps-benchmark", "SDXL Base 0.9", part="photo")
    assert published_value("mhp-test", "mhp-pairs", "MPS").share == pytest.approx(0.742)


def test_the_two_estimators_of_the_image_reward_set_stay_apart() -> None:
    pooled = published_value("image-reward-test", "image-reward-pairs", "HPS")
    macro = published_value("image-reward-test", "image-reward-macro", "HPS")
    assert (pooled.value, macro.value) == (60.79, 61.2)


def test_the_surest_value_is_taken() -> None:
    found = published_value("hps-v2.1-benchmark", "hps-benchmark", "SDXL Base 0.9", part="average")
    assert (found.value, found.grade) == (30.63, "B")


def test_what_was_never_verified_or_was_replaced_comes_only_if_asked_for() -> None:
    assert {one.grade for one in published_values()} == {"A", "B", "C"}
    assert "D" in {one.grade for one in published_values(unverified=True)}
    with pytest.raises(DataError, match="no published value of 'ReFL' on refl-466 under wins"):
        published_value("refl-466", "wins", "ReFL")
    assert published_value("refl-466", "wins", "ReFL", unverified=True).value == 1508
    assert not any(one.superseded for one in published_values("hpd-v2-test"))
    old = published_values("hpd-v2-test", name="HPS", superseded=True)
    assert {73.1, 77.6} <= {one.value for one in old}


def test_an_unknown_benchmark_is_refused() -> None:
    with pytest.raises(DataError, match="no benchmark 'hpd', expected one of hpd-v1-test"):
        published_values("hpd")
    assert "pick-a-pic-v1-test" in benchmarks()


# ------------------------------------------------------------------------- a scorer's own number


def score(image: str, value: float | None, prompt: str) -> Score:
    base = {"scorer": "mine", "dimension": "overall", "unit": "hps", "fingerprint": "f"}
    error = "no file" if value is None else None
    return Score(image=image, prompt=prompt, value=value, error=error, **base)


CHOICES = [
    Choice("c0", "p", ("a", "b", "c"), (1, 2, 2), details='{"category": "people"}'),
    Choice("c1", "p", ("a", "b"), (2, 1)),
    Choice("c2", "q", ("d", "e"), (1, 2)),
]
SCORES = [
    *(score(image, value, "p") for image, value in zip("abc", (3.0, 2.0, 1.0), strict=True)),
    score("d", 1.0, "q"),
    score("e", 0.0, "q"),
]
IMAGES = [
    *(Image(image, "p", details='{"category": "arts"}') for image in "abc"),
    *(Image(image, "q") for image in "de"),
]


def run(choices=CHOICES, scores=SCORES, images=None, **settings):
    wanted = BenchmarkSettings(**({"protocol": "image-reward-pairs", "resamples": 100} | settings))
    table = None if images is None else to_table(images, "images")
    return benchmark_scorer(
        to_table(choices, "choices"), to_table(scores, "scores"), wanted, images=table
    )


def test_the_number_stands_beside_those_of_the_same_protocol() -> None:
    found = run(benchmark="image-reward-test")
    assert (found.scorer, found.result.value) == ("mine", pytest.approx(3 / 4))
    assert {one.name for one in found.published} == {
        *("ImageReward", "BLIP", "Aesthetic", "CLIP", "HPS", "MPS")
    }
    assert {one.protocol for one in found.published} == {"image-reward-pairs"}
    assert "image-reward-macro" in {one.protocol for one in found.other}
    told = json.loads(json.dumps(found.to_dict()))
    assert told["settings"]["benchmark"] == "image-reward-test"
    lines = found.to_markdown().splitlines()
    assert lines[0] == "| image-reward-pairs | % | |"
    assert lines[2].startswith("| **mine** | 75.00 |")
    assert "| ImageReward | 65.14 | published, B: ImageReward (NeurIPS 2023)" in found.to_markdown()
    assert "| constant scorer | 0.00 | same choices |" in lines


def test_shares_are_printed_with_no_more_digits_than_there_were() -> None:
    found = run(protocol="pick-a-pic-no-ties", benchmark="hpd-v2-test")
    assert "| MPS | 83.8562 |" in found.to_markdown()


@pytest.mark.parametrize(
    ("by", "images", "names"),
    [
        ("size", None, ["2", "3"]),
        ("dimension", None, ["overall"]),
        ("source", None, [""]),
        ("category", None, ["(none)", "people"]),
        ("category", IMAGES, ["(none)", "arts", "people"]),
    ],
)
def test_parts_by_a_column_a_size_or_a_fact(by: str, images, names) -> None:
    found = run(by=by, images=images)
    assert [part.name for part in found.parts] == names
    assert sum(part.choices for part in found.parts) == len(CHOICES)
    assert "| part | choices | % | fair | chance |" in found.to_markdown()


def test_parts_without_a_decision_are_dashes() -> None:
    tie = Choice("c3", "q", ("d", "e"), (1, 1), dimension="detail")
    found = run([*CHOICES, tie], by="dimension")
    assert "| detail | 1 | – | – | – | – | – |" in found.to_markdown()


def test_a_choice_without_scores_is_refused_or_counted() -> None:
    missing = [*SCORES[:-1], score("e", None, "q")]
    with pytest.raises(DataError, match="1 of 3 choices have an image without a score"):
        run(scores=missing)
    assert run(scores=missing, missing="leave-out").left_out == 1


def test_a_fact_that_nobody_has_is_refused() -> None:
    with pytest.raises(DataError, match="no choice has 'style' in its details"):
        run(by="style")


def test_the_order_of_the_rows_does_not_matter() -> None:
    there = run(benchmark="image-reward-test", by="size").to_dict()
    back = run(CHOICES[::-1], SCORES[::-1], benchmark="image-reward-test", by="size").to_dict()
    assert json.dumps(there) == json.dumps(back)


def test_probabilities_are_compared_where_the_protocol_does() -> None:
    two = [choice for choice in CHOICES if len(choice.images) == 2]
    found = run(two, protocol="pick-a-pic-threshold", scale=1.0, threshold=0.5)
    assert found.result.value == pytest.approx(1 / 2)
    assert found.result.tied == 2
