"""What the arms of an adapter say: laws of the comparison, when it warns, and what is measured of pictures."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.records import Image
from palate.data.tables import to_table, write_table
from palate.errors import DataError, SettingsError
from palate.evaluation.arms.effects import Effect, Reading, measure_effect, read_effects, warn
from palate.evaluation.arms.measures import (
    PIXELS,
    SIDE,
    Measure,
    feature_diversity,
    picture_measures,
    pixel_diversity,
    read_arm,
)
from palate.evaluation.arms.plan import ArmsSettings, plan_arms, refuse_settings
from palate.evaluation.arms.run import find
from palate.evaluation.arms.tables import arms_csv, arms_markdown, arms_tables
from palate.evaluation.looks import NamedExtractor
from palate.generation.generate import GenerateSettings
from palate.stats.intervals import Bootstrap

QUICK = Bootstrap(resamples=200)
LABELLED = Measure("hps", "labelling", "100 × cosine", "hps", "overall", "hps", "f1")
WATCHES = Measure("pick", "watching", "logit", "pick", "overall", "logit", "f2")
SECOND = replace(WATCHES, name="reward", fingerprint="f3")
SATURATION = Measure("saturation", "statistic", "mean saturation")
DIVERSITY = Measure(PIXELS, "diversity", "pixels")


def values(seed: int, prompts: int = 30, images: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(prompts, images))


def test_an_arm_against_itself_is_exactly_zero():
    own = values(0)
    found = measure_effect(LABELLED, own, own, QUICK)
    its = found.difference.estimate
    assert (its.value, its.low, its.high) == (0.0, 0.0, 0.0)
    assert found.wins is not None
    assert (found.wins.estimate.value, found.wins.ties) == (0.5, own.size)
    assert found.direction == 0
    assert not found.falls_clearly


@given(st.integers(0, 1000), st.integers(2, 40), st.integers(1, 4))
def test_swapping_the_arms_flips_every_sign(seed, prompts, images):
    a, b = values(seed, prompts, images), values(seed + 1, prompts, images) + 0.3
    there, back = measure_effect(LABELLED, a, b, QUICK), measure_effect(LABELLED, b, a, QUICK)
    one, other = there.difference.estimate, back.difference.estimate
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert there.direction == -back.direction
    assert there.wins is not None
    assert back.wins is not None
    assert there.wins.estimate.value == pytest.approx(1 - back.wins.estimate.value)


@given(st.integers(0, 1000))
def test_the_order_of_prompts_and_of_seeds_is_nothing(seed):
    a, b, rng = values(seed), values(seed + 1), np.random.default_rng(seed)
    places = rng.permutation(a.shape[1])
    turned = measure_effect(LABELLED, a[:, places], b[:, places], QUICK)
    plain = measure_effect(LABELLED, a, b, QUICK)
    assert turned.difference.estimate.value == pytest.approx(plain.difference.estimate.value)
    order = rng.permutation(len(a))
    mixed = measure_effect(LABELLED, a[order], b[order], QUICK)
    assert mixed.difference.estimate.value == pytest.approx(plain.difference.estimate.value)


def test_the_images_of_a_prompt_are_one_cluster():
    shift = np.random.default_rng(3).normal(size=(40, 1))
    once, four = np.repeat(shift, 1, axis=1), np.repeat(shift, 4, axis=1)
    zero = np.zeros_like
    alone, together = (measure_effect(LABELLED, own, zero(own), QUICK) for own in (once, four))
    one, other = alone.difference.estimate, together.difference.estimate
    assert (one.low, one.high) == pytest.approx((other.low, other.high))
    assert alone.wins is not None
    assert together.wins is not None
    assert alone.wins.estimate.low == pytest.approx(together.wins.estimate.low)


def effects(**shifts: float) -> list[Effect]:
    """An arm against the original, with a shift of each measure far beyond its noise, or none."""
    measures = {"labelled": LABELLED, "watches": WATCHES, "second": SECOND, "diversity": DIVERSITY}
    found = []
    for place, (name, shift) in enumerate(shifts.items()):
        noise, level = 0.01 * values(place), 1.0 if name == "diversity" else 0.0
        original = np.full_like(noise, level)
        found.append(measure_effect(measures[name], original + noise + shift, original, QUICK))
    return found


def kinds(**shifts: float) -> list[str]:
    return [
        one.kind for one in warn({"adapted": read_effects(effects(**shifts))}, {"adapted": "a"})
    ]


@pytest.mark.parametrize(
    ("shifts", "answer", "warned"),
    [
        ({"labelled": 1, "watches": -1, "second": -1}, "score alone", ["score alone"]),
        ({"labelled": 1, "watches": 1, "second": 1}, "better", []),
        ({"labelled": 1, "watches": 1, "second": 0}, "better", []),
        ({"labelled": 1, "watches": 1, "second": -1}, "disputed", ["disputed"]),
        ({"labelled": 1, "watches": 0, "second": -1}, "unconfirmed", ["unconfirmed"]),
        ({"labelled": 1, "watches": 0}, "unconfirmed", ["unconfirmed"]),
        ({"labelled": 1}, "unconfirmed", ["unconfirmed"]),
        ({"labelled": -1, "watches": -1}, "worse", []),
        ({"labelled": 0, "watches": -1}, "not separable", []),
        ({"labelled": 1, "watches": 1, "diversity": -0.2}, "better", ["less diverse"]),
        ({"labelled": 1, "watches": 1, "diversity": -0.03}, "better", []),
        (
            {"labelled": 1, "watches": -1, "diversity": -0.2},
            "score alone",
            ["score alone", "less diverse"],
        ),
    ],
)
def test_it_warns_where_the_score_rises_alone_and_not_elsewhere(shifts, answer, warned):
    assert read_effects(effects(**shifts)).answer == answer
    assert kinds(**shifts) == warned


def test_a_warning_names_every_arm_that_shows_it_once():
    bad, good = Reading(1, (), ("pick",), 1, ()), Reading(1, ("pick",), (), 1, (PIXELS,))
    found = warn({"a": bad, "b": good, "c": bad}, {"a": "A", "b": "B", "c": "C"})
    assert [(one.kind, one.arms) for one in found] == [
        ("score alone", ("a", "c")),
        ("less diverse", ("b",)),
    ]
    assert found[0].sentence == "the score rises and everything else falls (pick): A; C"
    assert found[1].sentence.endswith(f"({PIXELS}): B")


def test_one_prompt_has_no_interval_and_gives_no_answer():
    found = measure_effect(LABELLED, values(0, 1, 2) + 9, values(1, 1, 2), QUICK)
    assert found.direction == 0
    assert found.to_dict()["a_minus_b"]["low"] is None
    assert read_effects([found]).answer == "not separable"


def test_an_identifier_gives_four_arms_and_the_sweep_shares_them():
    plan = plan_arms("Weird. ", (1.5, 0.0, 0.5, 1.0))
    assert plan.four == ("original", "original-negative", "adapted", "adapted-negative")
    assert plan.sweep == ("original-negative", "strength-0.5", "adapted-negative", "strength-1.5")
    assert [arm.name for arm in plan.arms] == [*plan.four, "strength-0.5", "strength-1.5"]
    assert {arm.name for arm in plan.arms if arm.negative == "Weird. "} == {
        *plan.sweep,
        "adapted-negative",
    }
    assert plan.main == "adapted-negative"
    assert plan.against()[-2:] == (
        ("adapted-negative", "adapted"),
        ("adapted-negative", "original-negative"),
    )


def test_without_an_identifier_there_are_two_arms():
    plan = plan_arms("", (0.0, 1.0, 2.0))
    assert plan.four == ("original", "adapted")
    assert plan.sweep == ("original", "adapted", "strength-2")
    assert plan.main == "adapted"
    assert plan.against() == (("adapted", "original"), ("strength-2", "original"))
    assert [arm.name for arm in plan_arms("").arms] == ["original", "adapted"]


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(SettingsError, match="strengths are 0, 1, 1, expected each once"):
        ArmsSettings(strengths=(0.0, 1.0, 1.0))
    with pytest.raises(SettingsError, match="expected finite numbers"):
        ArmsSettings(strengths=(float("nan"),))
    with pytest.raises(DataError, match="99 resamples"):
        ArmsSettings(resamples=99)
    with pytest.raises(SettingsError, match=r"which cannot use the identifier 'Weird\. '"):
        refuse_settings(GenerateSettings(guidance=1.0), "Weird. ")
    with pytest.raises(SettingsError, match="the arms set it themselves"):
        refuse_settings(GenerateSettings(negative_prompt="blurry"), "")
    refuse_settings(GenerateSettings(guidance=1.0), "")


def made_up(sign: float) -> dict[str, object]:
    """All that is found where the watching scorer goes the way of `sign`."""
    plan = plan_arms("Weird. ", (0.0, 0.5, 1.0))
    measures = [LABELLED, WATCHES, SATURATION, DIVERSITY]
    made = {}
    for place, arm in enumerate(plan.arms):
        base, noise = values(7), 0.05 * values(place + 10)
        made[arm.name] = {
            "hps": base + noise + arm.strength,
            "pick": base + noise + sign * arm.strength,
            "saturation": np.abs(base),
            PIXELS: np.full((30, 1), 0.3),
        }
    found = find(plan, made, measures, ArmsSettings(strengths=(0.0, 0.5, 1.0), resamples=200))
    return found | {
        "asked": {"level": 0.95},
        "prompts": 30,
        "identifier": "Weird. ",
        "adapter": {"name": "mine"},
        "cautions": [],
    }


def test_the_findings_of_all_arms_hold_together():
    good, bad = made_up(1), made_up(-1)
    assert (good["verdict"]["answer"], good["warnings"]) == ("better", [])
    assert bad["verdict"]["answer"] == "score alone"
    assert bad["warnings"][0]["arms"] == ["adapted-negative", "adapted", "strength-0.5"]
    assert "identifier as negative is not shown to be better" in bad["verdict"]["sentence"]
    pairs = {(one["arm"], one["against"]): one["measures"] for one in good["effects"]}
    total, first, second = (
        pairs[pair]["hps"]["a_minus_b"]["value"]
        for pair in (
            ("adapted-negative", "original"),
            ("adapted-negative", "adapted"),
            ("adapted", "original"),
        )
    )
    assert total == pytest.approx(first + second)
    means = {arm["name"]: arm["means"]["hps"] for arm in good["arms"]}
    assert total == pytest.approx(means["adapted-negative"] - means["original"])


def test_the_tables_say_every_effect_with_its_interval():
    found = made_up(-1)
    titles = [table.title for table in arms_tables(found)]
    assert len(titles) == 3
    first = arms_tables(found)[0]
    assert first.header[1:] == (
        "original",
        "original, identifier as negative",
        "adapted",
        "adapted, identifier as negative",
    )
    rows = {row[0]: row for row in first.rows}
    assert rows["hps (labelled)"][-1].endswith(" *")
    assert rows["pick (watches)"][-1].startswith("-")
    assert rows["saturation"][-1] == "+0 (+0 to +0)"
    assert "**warning**: the score rises and everything else falls" in arms_markdown(found)
    lines = arms_csv(found).splitlines()
    assert len(lines) == 1 + len(found["effects"]) * 4
    assert lines[0].startswith("arm,against,strength,negative,measure,")


@pytest.fixture
def arm(tmp_path: Path):
    """Three prompts of four pictures: all the same, one apart, and all different."""
    rng = np.random.default_rng(0)
    one = rng.integers(0, 256, (4, 64, 48, 3), dtype=np.uint8)
    groups = {"same": one[[0] * 4], "odd": one[[0, 0, 0, 1]], "all": one}
    rows = []
    for prompt, pictures in groups.items():
        for place, picture in enumerate(pictures):
            key = f"{prompt}-{place}"
            PIL.Image.fromarray(picture).save(tmp_path / f"{key}.png")
            rows.append(
                Image(
                    image=key,
                    prompt=prompt,
                    path=f"{key}.png",
                    width=48,
                    height=64,
                    seed=place,
                )
            )
    write_table(to_table(rows, "images"), tmp_path / "images.parquet")
    return read_arm(tmp_path)


def test_diversity_of_pixels_is_the_mean_difference_of_two_images(arm):
    found = pixel_diversity(arm)[:, 0]
    assert found[0] == 0
    # the odd one is in three of six pairs
    assert 0 < found[1] < found[2] < 1
    pictures = [PIL.Image.open(arm.folder / f"all-{k}.png") for k in range(4)]
    small = [np.asarray(p.resize((SIDE, SIDE), PIL.Image.Resampling.BOX)) / 255 for p in pictures]
    slow = [abs(small[a] - small[b]).mean() for a, b in combinations(range(4), 2)]
    assert found[2] == pytest.approx(np.mean(slow))


def test_diversity_of_features_is_one_minus_the_mean_cosine(arm):
    def look(images):
        return np.array([np.asarray(p).mean(axis=0)[:6].ravel() for p in images], dtype=float)

    found = feature_diversity(arm, NamedExtractor("means", "m1", look))[:, 0]
    assert found[0] == pytest.approx(0, abs=1e-12)
    seen = look([PIL.Image.open(arm.folder / f"all-{k}.png") for k in range(4)])
    slow = [
        1 - seen[a] @ seen[b] / np.linalg.norm(seen[a]) / np.linalg.norm(seen[b])
        for a, b in combinations(range(4), 2)
    ]
    assert found[2] == pytest.approx(np.mean(slow))


def test_one_image_of_a_prompt_has_no_diversity():
    assert {one.kind for one in picture_measures(1, None)} == {"statistic"}
    assert [one.name for one in picture_measures(2, None) if one.kind == "diversity"] == [PIXELS]
