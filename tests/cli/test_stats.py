"""`palate stats`: agreement, rankings, plans, calibration and bias from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from palate.cli.main import main
from palate.data.records import Choice, Image, Score
from palate.data.tables import save_dataset, to_table, write_table


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three generators, a clearly best one; twelve people judge the same pairs of 30 prompts."""
    rng = np.random.default_rng(0)
    worth = {"good": 1.2, "fair": 0.0, "poor": -1.2}
    images, choices, scores = [], [], []
    for number in range(30):
        keys = [f"{number}/{name}" for name in worth]
        images += [
            Image(
                key, f"prompt {number}", generator=key.split("/")[1], width=64, height=64 + number
            )
            for key in keys
        ]
        scores += [
            Score(key, f"prompt {number}", "hps-v1", "overall", worth[key.split("/")[1]] + rng.normal(),
                  "hps", "f" * 64)
            for key in keys
        ]  # fmt: skip
        for person in range(12):
            a, b = rng.choice(3, 2, replace=False)
            gap = worth[keys[a].split("/")[1]] - worth[keys[b].split("/")[1]]
            wins = rng.random() < 1 / (1 + np.exp(-gap))
            choices.append(
                Choice(f"{number}-{person}", f"prompt {number}", (keys[a], keys[b]),
                       (1, 2) if wins else (2, 1), annotator=f"person {person}", source="study")
            )  # fmt: skip
    save_dataset(tmp_path / "data", to_table(images, "images"), to_table(choices, "choices"))
    write_table(to_table(scores, "scores"), tmp_path / "scores.parquet")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main(["stats", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_agreement_names_measures_and_ceilings(study: Path, capsys) -> None:
    told = run(capsys, "agreement", study / "data", "--resamples", "100", "--out", study / "a.json")
    assert "Fleiss' kappa" in told
    assert "one person and the majority of the others" in told
    facts = json.loads((study / "a.json").read_text())
    assert 0 < facts["ceilings"]["pair"]["value"] < 1


def test_rank_orders_what_is_certain(study: Path, capsys) -> None:
    told = run(capsys, "rank", study / "data", "--ties", "half")
    assert "good > fair > poor" in told
    facts = json.loads(run(capsys, "rank", study / "data", "--json"))
    assert [item["item"] for item in facts["items"]] == ["fair", "good", "poor"]
    assert main(["stats", "rank", str(study / "data"), "--dimension", "detail"]) == 2
    assert "has no choices on 'detail'" in capsys.readouterr().err


def test_plan_says_how_many_prompts(capsys) -> None:
    words = ("plan", "--win-rate", "0.6", "--people", "30", "--runs", "100", "--json")
    facts = json.loads(run(capsys, *words))
    assert 60 < facts["design"]["prompts"] < 250
    assert main(["stats", "plan", "--win-rate", "0.5", "--runs", "100"]) == 2
    assert "nothing to find" in capsys.readouterr().err


def test_calibrate_and_bias_read_scores(study: Path, capsys) -> None:
    table = study / "scores.parquet"
    assert "held out" in run(capsys, "calibrate", study / "data", "--scores", table)
    told = run(capsys, "bias", study / "data", "--scores", table, "--no-files")
    assert "position" in told


@pytest.mark.slow
def test_probe_tries_the_miniature(tmp_path: Path, capsys) -> None:
    pytest.importorskip("torch")
    import PIL.Image

    rng = np.random.default_rng(0)
    images = []
    for number in range(4):
        for k in range(2):
            path = tmp_path / "data" / "images" / f"{number}-{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
            images.append(Image(path.stem, f"a red circle {number}", path=f"images/{path.name}"))
    save_dataset(tmp_path / "data", to_table(images, "images"), to_table([], "choices"))
    told = run(capsys, "probe", tmp_path / "data", "--scorer", "miniature")
    assert "JPEG" in told
