"""Chosen against not chosen images: what is planted is found, what is not is not, and the null is the right one."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest

from palate.data.records import Choice, Score
from palate.data.tables import load_dataset, to_table
from palate.errors import DataError, SettingsError
from palate.evaluation.correlation_study import (
    CorrelationSettings,
    correlation_study,
)
from palate.evaluation.distribution import frechet_inception_distance, inception_score
from palate.evaluation.looks import Looks, colour_histogram, eye_look, look_at
from palate.evaluation.relabelling import Shown

QUICK = {"relabellings": 99, "resamples": 100}


def some_choices(
    prompts: int, images: int = 4, people: int = 1, seed: int = 0, picked=None
) -> list[Choice]:
    """Choices of people who pick at random, or what `picked` says of a prompt."""
    rng, rows = np.random.default_rng(seed), []
    for prompt in range(prompts):
        keys = [f"{prompt:03d}-{place}" for place in range(images)]
        for person in range(people):
            best = rng.integers(images) if picked is None else picked(prompt)
            ranks = tuple(1 if place == best else 2 for place in range(images))
            rows.append(Choice(f"c{prompt:03d}-{person}", f"p{prompt:03d}", tuple(keys), ranks))
    return rows


def keys_of(choices) -> list[str]:
    return sorted({image for choice in choices for image in choice.images})


def chosen_of(choices) -> set[str]:
    return {choice.images[choice.ranks.index(min(choice.ranks))] for choice in choices}


def some_looks(
    choices, dims: int = 3, seed: int = 0, shift: float = 0.0, sharpen: float = 0.0
) -> Looks:
    """Random features; those of chosen images are moved by `shift`, and their classes are surer by `sharpen`."""
    keys, rng, chosen = keys_of(choices), np.random.default_rng(seed), chosen_of(choices)
    liked = np.array([key in chosen for key in keys], dtype=float)[:, None]
    features = rng.normal(size=(len(keys), dims)) + shift * liked
    chances = np.exp(rng.normal(size=(len(keys), 5)) * (1 + sharpen * liked))
    return Looks(tuple(keys), features, chances / chances.sum(axis=1, keepdims=True), {})


def some_scores(choices, seed: int = 0, shift: float = 0.0, name: str = "clip"):
    rng, chosen, prompt_of = np.random.default_rng(seed), chosen_of(choices), {}
    for choice in choices:
        prompt_of |= dict.fromkeys(choice.images, choice.prompt)
    rows = [
        Score(
            key,
            prompt_of[key],
            name,
            "overall",
            float(rng.normal() + shift * (key in chosen)),
            "cosine",
            "f",
        )
        for key in keys_of(choices)
    ]
    return to_table(rows, "scores")


def run(choices, looks=None, scores=(), reference=None, **settings):
    wanted = CorrelationSettings(**(QUICK | settings))
    return correlation_study(to_table(choices, "choices"), looks, scores, reference, wanted)


def by_name(study):
    return {contrast.measure: contrast for contrast in study.contrasts}


def test_what_is_planted_is_found_and_points_the_right_way() -> None:
    choices = some_choices(40)
    reference = np.random.default_rng(9).normal(size=(80, 3)) + 1.5
    looks = some_looks(choices, shift=1.5, sharpen=1.0)
    scores = [
        some_scores(choices, shift=1.0),
        some_scores(choices, 1, shift=-1.0, name="upside down"),
    ]
    found = by_name(run(choices, looks, scores, reference))
    assert list(found) == [
        *("Inception Score", "FID to the reference", "KID to the reference", "clip", "upside down")
    ]
    verdicts = [contrast.verdict for contrast in found.values()]
    assert verdicts == ["follows"] * 4 + ["goes against"]
    assert found["FID to the reference"].difference < 0 < found["Inception Score"].difference
    assert found["clip"].accuracy > 0.5
    assert found["FID to the reference"].accuracy is None
    for contrast in found.values():
        assert contrast.low < contrast.difference < contrast.high
        assert not contrast.low < 0 < contrast.high
        assert contrast.chosen - contrast.others == pytest.approx(contrast.difference)


def test_what_is_not_there_is_not_found() -> None:
    choices = some_choices(60)
    study = run(choices, some_looks(choices), [some_scores(choices)])
    found = by_name(study)
    assert [row.verdict for row in found.values()] == ["not separable"] * 4
    distance = found["FID of chosen to others"]
    assert distance.chosen is distance.others is distance.low is None
    # the distance of two sets alike is no 0, and relabelling knows it
    assert 0 < distance.null_low < distance.difference < distance.null_high
    assert abs(found["KID of chosen to others"].null_mean) < 0.1


def test_sets_that_differ_are_told_apart_without_a_reference() -> None:
    choices = some_choices(60)
    found = by_name(run(choices, some_looks(choices, shift=1.5)))
    assert found["FID of chosen to others"].verdict == "the sets differ"
    assert found["KID of chosen to others"].separable


def test_the_values_are_those_of_the_functions_on_equal_sets() -> None:
    choices = some_choices(30, images=2)
    looks = some_looks(choices)
    chosen = [looks.keys.index(key) for key in sorted(chosen_of(choices))]
    others = [row for row in range(len(looks.keys)) if row not in chosen]
    reference = np.random.default_rng(1).normal(size=(50, 3))
    found = by_name(run(choices, looks, reference=reference))
    fid = found["FID to the reference"]
    assert fid.chosen == pytest.approx(
        frechet_inception_distance(looks.features[chosen], reference).value
    )
    assert fid.others == pytest.approx(
        frechet_inception_distance(looks.features[others], reference).value
    )
    score = inception_score(looks.probabilities[chosen])
    assert found["Inception Score"].chosen == pytest.approx(score.value)
    between = by_name(run(choices, looks))["FID of chosen to others"]
    both = frechet_inception_distance(looks.features[chosen], looks.features[others])
    assert between.difference == pytest.approx(both.value)


def test_the_p_value_is_that_of_all_relabellings() -> None:
    choices = some_choices(5, images=2)
    scores = some_scores(choices, seed=4, shift=0.8)
    value = {row["image"]: row["value"] for row in scores.to_pylist()}
    gaps = []
    for choice in choices:
        best = choice.images[choice.ranks.index(1)]
        (other,) = set(choice.images) - {best}
        gaps.append(value[best] - value[other])
    every = [abs(np.dot(gaps, signs)) for signs in product([1, -1], repeat=5)]
    exact = np.mean([gap >= abs(sum(gaps)) - 1e-12 for gap in every])
    found = run(choices, None, [scores], relabellings=8000).contrasts[0]
    assert found.p_value == pytest.approx(exact, abs=0.02)
    assert found.difference == pytest.approx(np.mean(gaps))


def test_people_who_agree_about_few_prompts_prove_little() -> None:
    # a hundred people who all pick the first of two images of four prompts are four facts, not a hundred
    choices = some_choices(4, images=2, people=25, picked=lambda _: 0)
    found = run(choices, None, [some_scores(choices, shift=3.0)], relabellings=999).contrasts[0]
    assert found.difference > 2
    assert found.p_value == pytest.approx(2 / 16, abs=0.05)
    assert not found.separable


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["FID of chosen to others", "Inception Score", "clip"])
def test_false_alarms_are_as_rare_as_the_level_says(measure) -> None:
    alarms, total = 0, 100
    for seed in range(total):
        choices = some_choices(8, images=3, people=2, seed=seed)
        looks, scores = some_looks(choices, 2, seed), []
        if measure == "clip":
            looks, scores = None, [some_scores(choices, seed)]
        elif measure != "Inception Score":
            looks = Looks(looks.keys, looks.features, None, {})
        study = run(choices, looks, scores, relabellings=19, seed=seed)
        alarms += by_name(study)[measure].p_value <= 0.05
    assert alarms / total <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / total)


def test_neither_rows_nor_the_order_shown_matter() -> None:
    choices = some_choices(12, people=2)
    looks, scores = some_looks(choices, shift=0.4), some_scores(choices, shift=0.4)
    there = run(choices, looks, [scores], draws=2)
    rng = np.random.default_rng(0)
    turned = []
    for choice in choices:
        order = rng.permutation(4)
        images, ranks = (
            tuple(column[k] for k in order) for column in (choice.images, choice.ranks)
        )
        turned.append(Choice(choice.choice, choice.prompt, images, ranks))
    rows = rng.permutation(len(looks.keys))
    moved = Looks(
        tuple(looks.keys[k] for k in rows), looks.features[rows], looks.probabilities[rows], {}
    )
    again = run(turned[::-1], moved, [scores.take(rows)], draws=2)
    assert again.to_text() == there.to_text()
    assert json.dumps(again.to_dict()) == json.dumps(there.to_dict())


def test_every_image_that_was_not_chosen_is_drawn_as_often_as_the_others() -> None:
    shown = Shown(to_table(some_choices(4, images=3, people=2), "choices"), 2000, 0)
    for choice, chosen in enumerate(shown.chosen):
        drawn = np.array([others[choice] for others in shown.others])
        first = shown.flat[shown.starts[choice]]
        assert set(drawn) == set(range(first, first + 3)) - {chosen}
        assert abs((drawn == drawn.min()).mean() - 0.5) < 4 * np.sqrt(0.25 / 2000)


def test_draws_are_averaged() -> None:
    choices = some_choices(8)
    looks = some_looks(choices)
    found = by_name(run(choices, looks, draws=3, relabellings=19))
    shown = Shown(to_table(choices, "choices"), 3, 0)
    each = [inception_score(looks.probabilities[rows]).value for rows in shown.others]
    assert found["Inception Score"].others == pytest.approx(np.mean(each))
    far = [
        frechet_inception_distance(looks.features[shown.chosen], looks.features[rows]).value
        for rows in shown.others
    ]
    assert found["FID of chosen to others"].difference == pytest.approx(np.mean(far))


def test_an_image_shown_for_two_prompts_is_two_nodes_and_one_image() -> None:
    choices = [Choice("c0", "p", ("a", "b"), (1, 2)), Choice("c1", "q", ("a", "b"), (2, 1))]
    choices += [Choice("c2", "q", ("b", "c"), (1, 2))]
    shown = Shown(to_table(choices, "choices"), 1, 0)
    assert shown.keys == ["a", "b", "a", "b", "c"]
    assert shown.chosen.tolist() == [0, 3, 3]
    assert shown.others[0].tolist() == [1, 2, 4]
    # a, b and c of q were shown together through b; those of p stay among themselves
    assert (
        shown.groups[0] == shown.groups[1] != shown.groups[2] == shown.groups[3] == shown.groups[4]
    )
    places = np.array(list(shown.relabellings(300)))
    assert {tuple(row) for row in places[:, :2]} == {(0, 1), (1, 0)}
    assert len({tuple(row) for row in places[:, 2:]}) == 6
    assert set(places[:, 2:].ravel()) == {2, 3, 4}


def test_prompts_are_resampled_with_all_their_choices() -> None:
    shown = Shown(to_table(some_choices(5, people=3), "choices"), 1, 0)
    for rows in shown.resamples(20):
        assert len(rows) == 15
        times = np.bincount(rows, minlength=15).reshape(5, 3)
        assert (times == times[:, :1]).all()


def test_choices_that_decide_nothing_are_counted() -> None:
    choices = [*some_choices(6), Choice("tie", "p0", ("000-0", "000-1"), (1, 1))]
    choices += [Choice("two", "p0", ("000-0", "000-1", "000-2"), (1, 1, 2))]
    study = run(choices, some_looks(choices))
    assert (study.choices, study.prompts, study.images) == (6, 6, 24)
    assert study.left_out == {"no single best image": 2}
    assert "2 choices left out: no single best image" in study.to_text()


def test_missing_looks_and_scores_are_refused_or_counted() -> None:
    choices = some_choices(6)
    whole, scores = some_looks(choices), some_scores(choices)
    looks = Looks(whole.keys[1:], whole.features[1:], None, {"000-0": "000-0.png: no such file"})
    with pytest.raises(DataError, match=r"'000-0' was not looked at: 000-0\.png: no such file"):
        run(choices, looks)
    fewer = scores.slice(0, len(scores) - 1)
    with pytest.raises(DataError, match="image '005-3' is not in the table of scores"):
        run(choices, None, [fewer])
    study = run(choices, looks, [fewer], missing="leave-out")
    assert study.choices == 4
    assert study.left_out == {
        "an image that was not looked at": 1,
        "an image without a score": 1,
    }
    assert "Inception Score" not in by_name(study)


def test_dimensions_are_told_apart() -> None:
    choices = some_choices(4)
    other = [
        Choice(c.choice + "d", c.prompt, c.images, c.ranks, dimension="detail") for c in choices
    ]
    with pytest.raises(DataError, match=r"choices on 2 dimensions \(detail, overall\)"):
        run([*choices, *other], some_looks(choices))
    one = run([*choices, *other], some_looks(choices), dimension="detail")
    assert one.contrasts == run(other, some_looks(choices)).contrasts
    with pytest.raises(DataError, match="no choices on the dimension 'x'"):
        run(choices, some_looks(choices), dimension="x")


def test_what_cannot_be_compared_is_refused() -> None:
    choices = some_choices(4)
    with pytest.raises(DataError, match="neither features nor scores were given"):
        run(choices)
    with pytest.raises(DataError, match="there are no choices"):
        run([], some_looks(choices))
    with pytest.raises(DataError, match="1 of 1 choices can be compared, expected at least 2"):
        run(choices[:1], some_looks(choices))
    tie = [Choice("t", "p", ("000-0", "000-1"), (1, 1))]
    with pytest.raises(DataError, match=r"0 of 1 choices .*: 1 have no single best image"):
        run(tie, some_looks(choices))
    with pytest.raises(
        SettingsError, match=r"5 relabellings cannot reach the level 0\.95, expected at least 19"
    ):
        CorrelationSettings(relabellings=5)
    with pytest.raises(SettingsError, match="draws is 0"):
        CorrelationSettings(draws=0)


def test_one_prompt_has_no_interval() -> None:
    choices = some_choices(1, people=4)
    study = run(choices, some_looks(choices), [some_scores(choices)])
    assert all(contrast.low is None for contrast in study.contrasts)
    assert "1 prompts: intervals" in study.cautions[-1]


def test_the_text_is_a_table_with_its_cautions() -> None:
    choices = some_choices(20)
    text = run(choices, some_looks(choices, dims=60), [some_scores(choices)]).to_text()
    lines = text.splitlines()
    assert lines[0] == "20 choices of 20 prompts, 80 images"
    assert lines[2].split() == [
        *("measure", "chosen", "others", "difference", "by", "relabelling", "p", "top-1", "verdict")
    ]
    assert any(line.startswith("clip") and "not separable" in line for line in lines)
    assert "no full rank" in text
    assert "an Inception Score of so few is too low" in text


@pytest.mark.slow
def test_on_the_simulated_world_from_files_to_table(tmp_path) -> None:
    from palate.evaluation.distribution import clip_score
    from palate.miniature.pictures import draw_dataset
    from palate.miniature.study import simulated_study
    from palate.miniature.world import all_scenes
    from palate.models.inception import InceptionLook, random_inception
    from palate.scoring.catalog import load
    from palate.scoring.score import score_table
    from palate.study.design import StudySettings

    prompts = [scene.text for scene in all_scenes()[:240:4]]
    draw_dataset(prompts, tmp_path / "drawn")
    simulated_study(tmp_path / "drawn", tmp_path / "asked", StudySettings(answers_per_question=1))
    dataset, scorer = load_dataset(tmp_path / "asked"), load("miniature")
    scores = score_table(dataset.images, dataset.folder, scorer)
    looks = look_at(dataset.images, dataset.folder, eye_look(scorer.eye))
    study = correlation_study(
        dataset.choices, looks, [scores], settings=CorrelationSettings(relabellings=199)
    )
    found = by_name(study)
    assert found["miniature"].verdict == "follows"
    assert 0.25 < found["miniature"].accuracy < 1
    assert clip_score(scores).value > 0
    # colours alone, and a network that learnt nothing, give every row of the table as well
    assert look_at(dataset.images, dataset.folder, colour_histogram).keys == looks.keys
    few = dataset.choices.slice(0, 8)
    only = {image for row in few.to_pylist() for image in row["images"]}
    random = look_at(dataset.images, dataset.folder, InceptionLook(random_inception()), only=only)
    names = by_name(correlation_study(few, random, settings=CorrelationSettings(**QUICK)))
    assert "Inception Score" in names


def test_the_example_of_the_page_prints_what_the_page_says(root, capsys) -> None:
    page = (root / "docs" / "statistics" / "distribution.md").read_text("utf-8")
    code, printed = (page.split(f"```{kind}\n")[1].split("```")[0] for kind in ("python", "text"))
    exec(compile(code, "distribution.md", "exec"), {})
    assert capsys.readouterr().out == printed
