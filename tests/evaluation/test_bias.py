"""A scorer that goes by something is told apart from people who do, and slopes are those of a plain logit."""

from __future__ import annotations

import json
import math
import re
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from palate.data.records import Choice, Image, Score
from palate.data.tables import to_table
from palate.errors import DataError
from palate.evaluation.bias import BiasSettings, audit_bias, bias_table
from palate.evaluation.bias_slopes import MEANINGS
from palate.evaluation.changes import PROBES
from palate.evaluation.covariates import (
    FROM_FILES,
    file_covariates,
    jpeg_quality,
    measure,
    table_covariates,
)
from palate.stats.slopes import holm, logit_slope


def drawn(count=400, seed=0, slope=0.8, other=0.5, clusters=40):
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(2, count))
    won = (rng.random(count) < 1 / (1 + np.exp(-slope * x - other * z))).astype(float)
    won[rng.random(count) < 0.05] = 0.5
    return 3 * x, won, rng.integers(0, clusters, count), z


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
def test_slopes_equal_those_of_statsmodels_with_clustered_errors(beside, intercept) -> None:
    api = pytest.importorskip("statsmodels.api")
    x, won, clusters, z = drawn()
    other = z if beside else None
    found = logit_slope(x, won, clusters, beside=other, intercept=intercept)
    columns = [x, *([z] if beside else []), *([np.ones(len(x))] if intercept else [])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = api.GLM(won, np.stack(columns, axis=1), family=api.families.Binomial())
        options = {"groups": clusters, "use_correction": False}
        oracle = model.fit(cov_type="cluster", cov_kwds=options, tol=1e-14)
    total = len(np.unique(clusters))
    assert found.step == pytest.approx(np.std(x) if intercept else math.sqrt(np.mean(x**2)))
    assert found.value == pytest.approx(oracle.params[0] * found.step, abs=1e-6)
    from scipy.stats import t

    half = t.ppf(0.975, total - 1) * oracle.bse[0] * math.sqrt(total / (total - 1)) * found.step
    assert found.high - found.value == pytest.approx(half, abs=1e-6)
    assert (found.rows, found.clusters, found.separated) == (400, total, False)


def slow_p_value(x, won, clusters, z):
    """The score test by hand: fit the other slope, take what is left of x, sum by cluster."""
    from scipy.stats import t

    def loss(slope):
        return np.sum(np.logaddexp(0, slope * z) - won * slope * z)

    said = 1 / (1 + np.exp(-optimize.minimize_scalar(loss, tol=1e-12).x * z))
    weight = said * (1 - said)
    left = x - z * np.sum(weight * x * z) / np.sum(weight * z * z)
    sums = [np.sum((left * (won - said))[clusters == name]) for name in np.unique(clusters)]
    statistic = abs(sum(sums)) / math.sqrt(sum(one**2 for one in sums))
    return 2 * t.sf(statistic, len(sums) - 1)


def test_the_test_is_the_obvious_one_and_false_finds_are_few() -> None:
    x, won, clusters, z = drawn(slope=0.15)
    found = logit_slope(x, won, clusters, beside=z)
    assert found.p_value == pytest.approx(slow_p_value(x, won, clusters, z), rel=1e-5)
    values = []
    for seed in range(400):
        x, won, clusters, z = drawn(120, seed, slope=0.0, clusters=30)
        values.append(logit_slope(x, won, clusters, beside=z).p_value)
    assert np.mean(np.array(values) < 0.05) < 0.08
    assert np.mean(np.array(values) < 0.5) == pytest.approx(0.5, abs=0.08)


@settings(max_examples=30)
@given(st.integers(0, 30), st.randoms())
def test_sides_order_and_units_do_not_matter(seed, random) -> None:
    x, won, clusters, z = drawn(80, seed, clusters=15)
    there = logit_slope(x, won, clusters, beside=z)
    rows = list(range(80))
    random.shuffle(rows)
    side = np.array([random.choice([1, -1]) for _ in rows])
    turned = (5 * side * x, np.where(side > 0, won, 1 - won), clusters, side * z)
    x, won, clusters, z = (column[rows] for column in turned)
    back = logit_slope(x, won, clusters, beside=z)
    assert (back.value, back.low, back.high) == pytest.approx((there.value, there.low, there.high))
    assert back.p_value == pytest.approx(there.p_value)
    assert back.step == pytest.approx(5 * there.step)


def test_a_covariate_that_decides_everything_has_an_infinite_slope_and_a_p_value() -> None:
    x = np.random.default_rng(0).normal(size=60)
    found = logit_slope(x, (x > 0).astype(float))
    assert found.separated
    assert (found.low, found.high) == (None, None)
    assert found.value > 5
    assert found.p_value < 1e-6
    three = logit_slope([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    assert three.separated
    assert three.p_value > 0.1  # three of three is no evidence
    people = np.sign(x)
    same = logit_slope(x[::-1].copy(), (people + 1) / 2, beside=people)
    assert same.separated  # the other regressor leaves nothing to explain
    assert same.p_value > 0.05
    assert logit_slope([1.0, 2.0], [1.0, 0.0], ["a", "a"]).p_value == 1


def slow_two_way(x, won, prompts, people):
    """Standard error of one slope without others: three sandwiches, one row at a time."""
    slope = optimize.brentq(
        lambda b: np.sum(x * (won - 1 / (1 + np.exp(-b * x)))), -9, 9, xtol=1e-13
    )
    said = 1 / (1 + np.exp(-slope * x))
    bread = 1 / np.sum(said * (1 - said) * x * x)
    found = []
    for labels in (prompts, people, [f"{a} {b}" for a, b in zip(prompts, people, strict=True)]):
        sums: dict = {}
        for row, label in enumerate(labels):
            sums[label] = sums.get(label, 0) + x[row] * (won[row] - said[row])
        squares = sum(one**2 for one in sums.values())
        found.append(bread**2 * squares * len(sums) / (len(sums) - 1))
    return slope, math.sqrt(max(found[0] + found[1] - found[2], found[0], found[1]))


def test_errors_allow_for_people_too() -> None:
    x, won, prompts, _ = drawn(300, clusters=30)
    x = x / math.sqrt(np.mean(x**2))
    rng = np.random.default_rng(2)
    people = np.array([f"x{k}" for k in rng.integers(0, 7, 300)])
    found = logit_slope(x, won, prompts, people=people)
    slope, error = slow_two_way(x, won, prompts, people)
    assert (found.clusters, found.people) == (30, 7)
    assert found.value == pytest.approx(slope, abs=1e-6)
    assert found.error == pytest.approx(error, rel=1e-6)
    from scipy.stats import t

    assert found.high - found.value == pytest.approx(t.ppf(0.975, 6) * error, rel=1e-6)
    assert found.p_of_interval == pytest.approx(2 * t.sf(abs(slope) / error, 6))
    alone = logit_slope(x, won, prompts)
    nobody = logit_slope(x, won, prompts, people=[None] * 300)
    assert nobody == alone


def test_people_who_lean_make_false_finds_unless_they_are_allowed_for() -> None:
    alarms = {"prompts": 0, "both": 0}
    rng = np.random.default_rng(0)
    for _ in range(150):
        prompts, people = np.repeat(np.arange(100), 4), rng.integers(0, 12, 400)
        x = rng.normal(size=400)
        lean = rng.normal(size=12)[people] * x
        won = (rng.random(400) < 1 / (1 + np.exp(-lean))) * 1.0
        alarms["prompts"] += logit_slope(x, won, prompts).certain
        alarms["both"] += logit_slope(x, won, prompts, people=people).certain
    assert alarms["both"] <= 15
    assert alarms["prompts"] > 40


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_the_verdict_and_the_interval_say_the_same(level) -> None:
    for seed in range(20):
        x, won, clusters, z = drawn(120, seed, slope=0.3, clusters=20)
        found = logit_slope(x, won, clusters, beside=z, level=level)
        assert found.certain == (found.p_of_interval < 1 - level)


@pytest.mark.parametrize(
    ("x", "won", "options", "message"),
    [
        ([0.0, 0.0], [1.0, 0.0], {}, "the same in all rows"),
        ([2.0, 2.0], [1.0, 0.0], {"intercept": True}, "the same in all rows"),
        ([1.0, 2.0], [1.0], {}, "do not match"),
        ([1.0, math.inf], [1.0, 0.0], {}, "not a finite number"),
        ([1.0, 2.0], [1.0, 2.0], {}, "not between 0 and 1"),
        ([1.0, 2.0], [1.0, 0.0], {"beside": [2.0, 4.0]}, "exactly along with"),
    ],
)
def test_slopes_that_do_not_exist_are_refused(x, won, options, message) -> None:
    with pytest.raises(DataError, match=message):
        logit_slope(x, won, **options)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_obvious_one(values) -> None:
    found = holm(values)
    order = sorted(range(len(values)), key=lambda k: values[k])
    highest = 0.0
    for place, k in enumerate(order):
        highest = max(highest, min(1.0, values[k] * (len(values) - place)))
        assert found[k] == pytest.approx(highest)


def world(score, likes, seed=0, prompts=120, noise=1.0, cut=False):
    """Two images of each prompt; people choose by `likes`, the scorer by `score`.

    Both are functions of brightness, log2 of the area, and quality that no covariate tells.
    """
    rng = np.random.default_rng(seed)
    images, scores, choices = [], [], []
    for number in range(prompts):
        prompt = f"prompt {number} {'word ' * (number % 5)}"
        names = [f"{number}-{side}" for side in "ab"]
        worth = []
        for name in names:
            bright, area, quality = rng.normal(size=3)
            side = int(256 * 2 ** (area / 4))
            facts = {"width": side, "height": side, "path": f"{name}.png"}
            images.append((Image(name, prompt, **facts), 128 + 30 * bright))
            value = float(score(bright, area, quality))
            told = 30 if cut and number % 2 else 10
            scores.append(
                Score(name, prompt, "s", "overall", value, "hps", "f", told, min(told, 20), 1.0)
            )
            worth.append(likes(bright, area, quality))
        for person in range(4):
            best = np.argmax(np.array(worth) + noise * rng.gumbel(size=2))
            ranks = (1, 2) if best == 0 else (2, 1)
            choices.append(Choice(f"{number}-{person}", prompt, tuple(names), ranks))
    return images, to_table(scores, "scores"), to_table(choices, "choices")


@pytest.fixture
def audited(tmp_path):
    """Audit a world whose images are flat grey files of a known brightness."""

    def run(score, likes, **options):
        images, scores, choices = world(score, likes, **options)
        for image, grey in images:
            pixel = tuple([int(np.clip(grey, 0, 255))] * 3)
            PIL.Image.new("RGB", (8, 8), pixel).save(tmp_path / image.path)
        table = to_table([image for image, _ in images], "images")
        found = audit_bias(choices, scores, table, tmp_path)
        return found, {bias.name: bias for bias in found.images}

    return run


def test_who_goes_for_the_middle_is_told_to_bend(audited) -> None:
    found, by_name = audited(lambda bright, _, q: q - 1.5 * bright**2, lambda _, __, q: q)
    bright = by_name["brightness"]
    assert "scorer" in bright.bent
    assert bright.bends["scorer"].high < 0
    assert "brightness: no straight line, the scorer goes for the middle" in bias_table(found)
    straight, others = audited(lambda bright, _, q: q + bright, lambda _, __, q: q)
    assert others["brightness"].bent == ()
    assert "no bend was found" in bias_table(straight)


def test_known_people_are_clusters_and_few_of_them_a_caution() -> None:
    images, scores, choices = world(lambda _, __, q: q, lambda _, __, q: q, prompts=40)
    table = to_table([image for image, _ in images], "images")
    rows = [row | {"annotator": f"x{k % 4}"} for k, row in enumerate(choices.to_pylist())]
    named = choices.from_pylist(rows, schema=choices.schema)
    unknown, known = (audit_bias(one, scores, table) for one in (choices, named))
    assert (unknown.n_people, known.n_people, known.n_prompts) == (0, 4, 40)
    assert unknown.cautions() == []
    assert "errors over 4 people" in known.cautions()[0]
    told = bias_table(known)
    assert "errors over 40 prompts and 4 people" in told
    assert told.endswith(known.cautions()[0])


def test_a_scorer_that_loves_brightness_is_caught(audited) -> None:
    found, by_name = audited(lambda bright, _, q: 2 * bright + q, lambda _, __, q: q)
    assert by_name["brightness"].verdict in ("overrated", "scorer only")
    assert by_name["brightness"].beyond.low > 0
    assert by_name["brightness"].residual.high < 0
    assert by_name["area"].verdict == "none found"
    assert "brightness" in bias_table(found)
    assert "overrated" in bias_table(found)
    assert found.duels == 480
    assert json.dumps(found.to_dict(), allow_nan=False)


def test_a_scorer_that_is_nothing_but_brightness_is_caught(audited) -> None:
    found, by_name = audited(lambda bright, _, __: bright, lambda _, __, q: q)
    bright = by_name["brightness"]
    assert bright.scorer.separated
    assert bright.holm["scorer"] < 0.001
    assert bright.holm["people"] > 0.05
    assert bright.verdict == "scorer only"
    assert "∞" in bias_table(found)


def test_a_scorer_that_is_right_in_everything_is_not_blamed_for_what_people_like(audited) -> None:
    def worth(bright, _, quality):
        return bright + quality

    _, by_name = audited(worth, worth, seed=1)
    bright = by_name["brightness"]
    assert bright.people.low > 0
    assert bright.beyond.low > 0  # one answer is a noisy view of what people like
    assert bright.residual.low < 0 < bright.residual.high
    assert bright.verdict == "as people"


def test_a_scorer_that_misses_what_people_like_underrates_it(audited) -> None:
    _, by_name = audited(lambda _, __, q: q, lambda bright, _, q: 1.5 * bright + q)
    assert by_name["brightness"].verdict == "underrated"
    assert by_name["brightness"].residual.low > 0


def test_a_scorer_that_goes_by_nothing_is_left_in_peace(audited) -> None:
    found, by_name = audited(lambda _, __, q: q, lambda _, __, q: q, prompts=200)
    assert {bias.verdict for bias in found.images} == {"none found"}
    assert {"position", "area", "brightness"} <= set(by_name)
    assert "contrast" not in by_name  # even pictures do not differ by rounding noise
    assert all(slope.holm > 0.05 for slope in found.prompts)


def test_what_cannot_be_tested_says_why(audited) -> None:
    found, by_name = audited(lambda _, __, q: q, lambda _, __, q: q, prompts=30, cut=True)
    assert found.not_tested["shape"] == "it never differs"
    assert found.not_tested["area kept"] == "it never differs"
    assert found.not_tested["JPEG quality"] == "it is not known"
    assert "tokens cut" in {bias.name for bias in found.prompts}
    assert "JPEG quality: not tested, it is not known" in bias_table(found)
    assert not set(found.not_tested) & set(by_name)


def test_agreement_may_fall_where_the_prompt_was_cut() -> None:
    rng = np.random.default_rng(0)
    _, scores, choices = world(lambda *_: 0, lambda *_: 0, cut=True, prompts=200)
    rows = scores.to_pylist()
    answers = {row["choice"]: row for row in choices.to_pylist()}
    better = {  # where the prompt was read the scorer knows the answer of the first person
        f"{number}-{side}": float(answers[f"{number}-0"]["ranks"][place] == 1)
        if number % 2 == 0
        else float(rng.random())
        for number in range(200)
        for place, side in enumerate("ab")
    }
    known = [Score(**{**row, "value": better[row["image"]]}) for row in rows]
    first = [
        Choice(**{**row, "images": tuple(row["images"]), "ranks": tuple(row["ranks"])})
        for row in answers.values()
        if row["choice"].endswith("-0")
    ]
    found = audit_bias(to_table(first, "choices"), to_table(known, "scores"))
    (cut,) = (bias for bias in found.prompts if bias.name == "tokens cut")
    assert cut.slope.value < 0
    assert cut.holm < 0.001
    assert found.not_tested["brightness"] == "no table of images"


def test_duels_between_images_that_nobody_picked_do_not_count() -> None:
    _, _, choices = world(lambda _, __, q: q, lambda _, __, q: q, prompts=30)
    images = tuple(dict.fromkeys(name for row in choices.to_pylist() for name in row["images"]))
    pick = [Choice("c", "p", images[:4], (2, 1, 2, 2))]
    known = [
        Score(name, "p", "s", "overall", float(k), "hps", "f") for k, name in enumerate(images[:4])
    ]
    found = audit_bias(to_table(pick, "choices"), to_table(known, "scores"))
    assert (found.duels, found.uncompared, found.images) == (3, 3, ())
    assert found.not_tested["position"] == "it is known in 3 cases, fewer than 20"


def test_choices_without_scores_are_refused_or_left_out() -> None:
    _, scores, choices = world(lambda _, __, q: q, lambda _, __, q: q, prompts=30)
    with pytest.raises(DataError, match="no choices to audit"):
        audit_bias(choices.slice(0, 0), scores)
    with pytest.raises(DataError, match="4 of 120 choices have an image without a score"):
        audit_bias(choices, scores.slice(1))
    found = audit_bias(choices, scores.slice(1), settings=BiasSettings(missing="leave-out"))
    assert (found.left_out, found.duels) == (4, 116)


def test_the_order_of_the_tables_does_not_matter() -> None:
    images, scores, choices = world(lambda b, _, q: b + q, lambda _, __, q: q, prompts=40)
    table = to_table([image for image, _ in images], "images")
    there = audit_bias(choices, scores, table)
    order = np.random.default_rng(1).permutation
    back = audit_bias(*(t.take(order(len(t))) for t in (choices, scores, table)))
    for one, other in zip(there.images, back.images, strict=True):
        assert (one.name, one.verdict) == (other.name, other.verdict)
        assert one.people.value == pytest.approx(other.people.value)
        assert one.holm == pytest.approx(other.holm)


def test_covariates_are_what_they_are_called(tmp_path) -> None:
    grey = PIL.Image.new("RGB", (40, 30), (51, 51, 51))
    red = PIL.Image.new("RGB", (40, 30), (255, 0, 0))
    noise = PIL.Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    )
    assert measure(grey)["brightness"] == pytest.approx(0.2)
    assert measure(grey)["contrast"] == pytest.approx(0, abs=1e-6)
    assert measure(grey)["saturation"] == 0
    assert measure(red)["saturation"] == 1
    assert measure(red)["brightness"] == pytest.approx(0.299)
    assert measure(noise)["sharpness"] > measure(grey)["sharpness"] + 5
    half = PIL.Image.new("RGB", (40, 30), "black")
    half.paste("white", (0, 0, 20, 30))
    assert measure(half)["contrast"] == pytest.approx(0.5)
    large = noise.resize((2000, 1500))
    assert measure(large)["brightness"] == pytest.approx(measure(noise)["brightness"], abs=0.01)
    for turned in (noise.transpose(PIL.Image.Transpose.ROTATE_90), noise.transpose(0)):
        assert measure(turned) == pytest.approx(measure(noise), abs=1e-5)
    assert measure(PIL.Image.new("RGB", (1, 1)))["sharpness"] < 0


@pytest.mark.parametrize("quality", [5, 30, 49, 50, 75, 90, 95, 100])
def test_the_quality_of_a_jpeg_is_read_from_its_tables(tmp_path, quality) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    path = tmp_path / "a.jpg"
    PIL.Image.fromarray(pixels).save(path, quality=quality)
    assert jpeg_quality(path) == quality
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    assert jpeg_quality(tmp_path / "a.png") is None


def test_files_that_do_not_open_are_counted_and_named_without_their_folder(tmp_path) -> None:
    PIL.Image.new("RGB", (8, 8), "white").save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("no picture")
    rows = [Image(name, "p", f"{name}.png") for name in ("good", "bad", "gone")]
    rows.append(Image("none", "p", width=64, height=32))
    table = to_table(rows, "images")
    found = file_covariates(table, tmp_path, workers=2)
    assert found.unreadable == 3
    assert [fault.split(":")[0] for fault in found.faults[:2]] == ["bad.png", "gone.png"]
    assert str(tmp_path) not in " ".join(found.faults)
    assert found.columns["brightness"][0] == 1
    assert np.isnan(found.columns["brightness"][1:]).all()
    assert set(found.columns) == set(FROM_FILES)
    sizes = table_covariates(table)
    assert (sizes["area"][3], sizes["shape"][3], sizes["elongation"][3]) == (11, 1, 1)
    assert np.isnan(sizes["area"][:3]).all()


def test_the_example_of_the_page_runs(root: Path) -> None:
    page = (root / "docs" / "statistics" / "bias.md").read_text(encoding="utf-8")
    for verdict, meaning in MEANINGS.items():
        assert f"| {verdict} | {meaning}" in page
    code, probing = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    told, probed = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["table"] == told.rstrip("\n")
    assert "probe_scorer" in probing
    lines = probed.splitlines()[3:]
    assert [line[:16].strip() for line in lines] == [probe.name for probe in PROBES]
    assert all(probe.wanted in line for probe, line in zip(PROBES, lines, strict=True))
