"""A scorer is held against numbers from elsewhere, and a wrong picture or file is told."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import official
import pytest
from official import FOLDERS, HERE, OFFICIAL

from palate.errors import DataError, SettingsError
from palate.models.tiny import tiny_clip
from palate.runs import hash_file
from palate.scoring import verify as module
from palate.scoring.catalog import SCORERS, load
from palate.scoring.networks import ClipScorer
from palate.scoring.verify import (
    PUBLISHED,
    Case,
    published_for,
    read_cases,
    verify_cases,
    verify_published,
)

IMAGES = HERE / "images"
NUMBERS = {
    "aesthetic": 8,
    "hps-v1": 40,
    "hps-v2": 40,
    "image-reward": 40,
    "mps": 160,
    "pickscore": 40,
}


def cases_of(name):
    return HERE / FOLDERS[name] / "cases.json"


@pytest.mark.parametrize("name", list(OFFICIAL))
def test_every_fixture_matches(name):
    scorer = official.official_case(name).scorer
    found = verify_cases(scorer, cases_of(name), IMAGES)
    assert len(found.rows) == NUMBERS[name]
    assert found.matched
    assert found.tolerance == pytest.approx(0.01 if scorer.unit == "hps" else 1e-3)
    assert abs(found.worst.difference) < 2e-4
    told = found.to_dict()
    assert told["matched"]
    assert told["largest_difference"] == abs(found.worst.difference)
    assert json.loads(json.dumps(told))["rows"][0]["image"] == found.rows[0].image


@pytest.mark.parametrize("name", list(OFFICIAL))
def test_a_changed_number_does_not_match(name, tmp_path):
    cases = json.loads(cases_of(name).read_text())
    key = "cosine" if "cosine" in cases[0] else "score"
    cases[3][key] += 2e-4 if key == "cosine" else 2e-3
    path = tmp_path / "cases.json"
    path.write_text(json.dumps(cases))
    scorer = official.official_case(name).scorer
    found = verify_cases(scorer, path, IMAGES)
    assert not found.matched
    assert [row.matched for row in found.rows].index(False) == 3
    assert sum(row.matched for row in found.rows) == len(cases) - 1
    assert found.worst == found.rows[3]
    assert verify_cases(scorer, path, IMAGES, tolerance=0.1).matched


def test_a_wrong_profile_does_not_match():
    scorer = load("hps-v1@gelu", **OFFICIAL["hps-v1"][0])
    assert not verify_cases(scorer, cases_of("hps-v1"), IMAGES).matched


def test_every_published_score_says_where_it_is_from():
    for name, published in PUBLISHED.items():
        assert set(published.profiles) <= set(SCORERS[name].profiles)
        assert "https://github.com/" in published.source
        assert published.why
        for case in published.cases:
            assert len(case.sha256) == 64


def test_the_published_pictures_are_told_by_their_hash(shared):
    images = shared / "data" / "image_reward" / "images"
    for case in PUBLISHED["image-reward"].cases:
        assert hash_file(images / case.image) == case.sha256


def test_other_weights_do_not_give_the_published_rewards(shared):
    scorer = official.official_case("image-reward").scorer
    published = published_for(scorer)
    found = verify_published(scorer, published, shared / "data" / "image_reward" / "images")
    assert [row.expected for row in found.rows] == [
        0.5811622738838196,
        0.2745276093482971,
        -1.4131819009780884,
        -2.029569625854492,
    ]
    assert not found.matched
    assert found.source == published.source


def test_published_scores_match_where_they_are_the_scorers(monkeypatch):
    scorer = official.official_case("hps-v2").scorer
    name = "square_256.png"
    cosine = float(scorer.judge([official.picture(name)], ["a fox"]).values[0]) / 100
    case = Case(
        image=name,
        prompt="a fox",
        value=cosine + 4e-4,
        measure="cosine",
        sha256=hash_file(IMAGES / name),
    )
    published = replace(PUBLISHED["hps-v2"], cases=(case,))
    monkeypatch.setitem(module.PUBLISHED, "hps-v2", published)
    found = verify_published(scorer, published_for(scorer), IMAGES)
    assert found.matched
    assert found.rows[0].difference == pytest.approx(-0.04, abs=1e-5)
    wrong = replace(published, cases=(replace(case, sha256="0" * 64),))
    with pytest.raises(DataError, match=r"is another picture than the one of that score .*0{12}…"):
        verify_published(scorer, wrong, IMAGES)
    absent = replace(published, cases=(replace(case, image="demo.jpg"),))
    with pytest.raises(
        DataError, match=r"demo\.jpg: no such picture; expected that of hpsv2/assets"
    ):
        verify_published(scorer, absent, IMAGES)


def test_only_the_published_function_has_published_scores():
    assert published_for(official.official_case("image-reward").scorer) is not None
    assert published_for(official.official_case("hps-v1").scorer) is None
    trained = ClipScorer(tiny_clip(0), "hps-v2", about={"weights": "a run called so"})
    assert published_for(trained) is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[", "not a readable JSON file"),
        ("{}", "found no list of cases"),
        ("[]", "found no list of cases"),
        ("[3]", "case 1: found 3, expected an object"),
        ('[{"image": "a.png"}]', "expected either a cosine or a score, found image"),
        ('[{"image": "a", "score": 1, "cosine": 1}]', "expected either a cosine or a score"),
        ('[{"image": "a", "score": "1"}]', "score is '1', expected a number"),
        ('[{"image": "a", "score": true}]', "score is True, expected a number"),
        ('[{"score": 1}]', "image is None, expected a text"),
        ('[{"image": "a", "score": 1, "prompt": 3}]', "prompt is 3, expected a text"),
        ('[{"image": "a", "score": 1, "mask_threshold": "x"}]', "'x', expected a number"),
    ],
)
def test_a_file_of_cases_that_is_none_is_refused(content, sentence, tmp_path):
    path = tmp_path / "cases.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"cases\.json") as caught:
        read_cases(path)
    assert sentence in str(caught.value)


def test_cases_say_all_that_a_case_can(tmp_path):
    path = tmp_path / "cases.json"
    facts = {"image": "a.png", "score": 1, "mask_threshold": 0.0, "condition": "detail"}
    path.write_text(json.dumps([facts | {"prompt": None, "tokens_kept": 4}]))
    assert read_cases(path) == [
        Case(image="a.png", value=1.0, condition="detail", mask_threshold=0.0)
    ]


def test_what_does_not_fit_the_scorer_is_refused(tmp_path):
    path = tmp_path / "cases.json"
    hps, reward = (official.official_case(name).scorer for name in ("hps-v1", "image-reward"))
    path.write_text(json.dumps([{"image": "square_256.png", "cosine": 0.2}]))
    with pytest.raises(DataError, match="gives a cosine, but image-reward gives reward"):
        verify_cases(reward, path, IMAGES)
    path.write_text(json.dumps([{"image": "square_256.png", "score": 1, "condition": "detail"}]))
    with pytest.raises(DataError, match="hps-v1 takes no condition or mask threshold"):
        verify_cases(hps, path, IMAGES)
    path.write_text(json.dumps([{"image": "nowhere.png", "score": 1}]))
    with pytest.raises(DataError, match=r"nowhere\.png"):
        verify_cases(hps, path, IMAGES)


def test_mps_takes_the_name_of_a_dimension(tmp_path):
    path = tmp_path / "cases.json"
    scorer = official.official_case("mps").scorer
    value = float(scorer.on("detail").judge([official.picture("exact_224.png")], ["a"]).values[0])
    case = {"image": "exact_224.png", "prompt": "a", "score": value, "condition": "detail"}
    path.write_text(json.dumps([case]))
    assert verify_cases(scorer, path, IMAGES).worst.difference == 0


def test_a_number_that_is_none_never_matches(tmp_path):
    path = tmp_path / "cases.json"
    path.write_text('[{"image": "exact_224.png", "score": NaN}]')
    found = verify_cases(official.official_case("hps-v1").scorer, path, IMAGES)
    assert not found.matched
    assert math.isnan(found.worst.difference)


@pytest.mark.parametrize("tolerance", [-1.0, math.nan, math.inf])
def test_a_tolerance_that_is_none_is_refused(tolerance):
    scorer = official.official_case("hps-v1").scorer
    with pytest.raises(SettingsError, match=f"tolerance is {tolerance:g}, expected 0 or a larger"):
        verify_cases(scorer, cases_of("hps-v1"), IMAGES, tolerance)
