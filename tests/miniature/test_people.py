from __future__ import annotations

import numpy as np
import pytest

from palate.data.tables import load_dataset
from palate.errors import DataError, RunError
from palate.miniature.people import People, expected_accuracy
from palate.miniature.pictures import draw_dataset
from palate.miniature.study import simulated_study
from palate.study.design import StudySettings

PROMPTS = ["a red circle above a blue square on white", "a green ring on black"]


def some_aspects(groups: int = 200, images: int = 4) -> np.ndarray:
    return np.random.default_rng(0).random((groups, images, 4))


def test_chances_add_up_to_one_and_follow_the_images():
    people, aspects = People.drawn(7, 0), some_aspects()
    chances = people.probabilities(aspects)
    assert chances.shape == (7, 200, 4)
    assert np.allclose(chances.sum(axis=-1), 1)
    order = [2, 0, 3, 1]
    assert np.allclose(people.probabilities(aspects[:, order]), chances[:, :, order])


def test_people_pick_as_often_as_their_chances_say():
    people, aspects = People.drawn(1, 0), some_aspects(1)
    chances = people.probabilities(aspects)[0, 0]
    picked = np.zeros(4)
    for seed in range(4000):
        order = np.random.default_rng(seed).permutation(4)
        picked[order[people.pick(0, aspects[0][order], seed)]] += 1
    assert np.abs(picked / 4000 - chances).max() < 4 * np.sqrt(0.25 / 4000)


def test_people_lean_to_the_last_place():
    people, same = People.drawn(1, 0), np.ones((4, 4))
    places = np.bincount([people.pick(0, same, seed) for seed in range(4000)], minlength=4) / 4000
    assert places[3] > places[:3].max() + 0.03


def test_nobody_beats_the_chances_themselves():
    chances = People.drawn(40, 0).probabilities(some_aspects()).mean(axis=0)
    best = expected_accuracy(chances, chances).mean()
    guesses = np.random.default_rng(1).random(chances.shape)
    assert best == pytest.approx(chances.max(axis=-1).mean())
    assert expected_accuracy(guesses, chances).mean() < best
    assert expected_accuracy(np.zeros_like(chances), chances) == pytest.approx(0.25)


def test_a_study_is_the_same_again_and_goes_on_after_a_kill(tmp_path):
    draw_dataset(PROMPTS, tmp_path / "drawn", per_prompt=8)
    settings = StudySettings(answers_per_question=3)
    result = simulated_study(tmp_path / "drawn", tmp_path / "one", settings)
    assert result["choices"] == 2 * 2 * 3
    assert sum(result["picked_by_place"]) == 12
    assert simulated_study(tmp_path / "drawn", tmp_path / "one", settings) == result
    whole = load_dataset(tmp_path / "one").choices

    simulated_study(tmp_path / "drawn", tmp_path / "two", settings)
    record = (tmp_path / "two" / "run.json").read_text().replace('"finished"', '"running"')
    (tmp_path / "two" / "run.json").write_text(record)
    (tmp_path / "two" / "choices.parquet").unlink()
    notes = (tmp_path / "two" / "answers.jsonl").read_text()
    (tmp_path / "two" / "answers.jsonl").write_text(notes[: len(notes) // 2])
    simulated_study(tmp_path / "drawn", tmp_path / "two", settings)
    assert load_dataset(tmp_path / "two").choices.equals(whole)
    with pytest.raises(RunError, match="images_per_question"):
        simulated_study(tmp_path / "drawn", tmp_path / "two", StudySettings(images_per_question=2))


def test_people_of_this_world_cannot_judge_another(tmp_path):
    with pytest.raises(DataError, match="not a prompt of the simulated world"):
        draw_dataset(["a horse"], tmp_path / "drawn")
