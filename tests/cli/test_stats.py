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


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The one sentence in which a command is refused."""
    assert main(list(map(str, words))) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith("error: ")
    assert found.err.count("\n") == 1
    return found.err


def test_agreement_says_what_it_counted(study: Path, capsys) -> None:
    told = run(capsys, "agreement", study / "data", "--resamples", "100")
    assert "order of two images: 360 answers by 12 people to pairs of images" in told
    assert "intervals hold for other prompts and people" in told
    facts = json.loads(run(capsys, "agreement", study / "data", "--resamples", "100", "--json"))
    question = facts["questions"]["order of two images"]
    assert question["counts"]["repeats"] == 0
    assert question["coefficients"][1]["two_way"]
    assert facts["annotators"]["people"][0]["name"].startswith("person ")


def test_rank_counts_picks_as_picks(tmp_path: Path, capsys) -> None:
    rng = np.random.default_rng(1)
    worth = np.array([1.0, 0.3, -0.3, -1.0])
    images, choices = [], []
    for number in range(150):
        keys = tuple(f"{number}/{k}" for k in range(4))
        images += [Image(key, f"p{number}", generator=f"g{key[-1]}") for key in keys]
        best = (worth + rng.gumbel(size=4)).argmax()
        ranks = tuple(1 if k == best else 2 for k in range(4))
        choices.append(Choice(f"c{number}", f"p{number}", keys, ranks, annotator=f"x{number % 15}"))
    save_dataset(tmp_path, to_table(images, "images"), to_table(choices, "choices"))
    told = run(capsys, "rank", tmp_path)
    assert "Plackett-Luce, 150 picks (450 duels), 150 prompts, 15 people" in told
    assert "450 pairs between images that nobody picked are no ties and do not count" in told
    facts = json.loads(run(capsys, "rank", tmp_path, "--ties", "half", "--json"))
    assert (facts["counted_as"], facts["n_duels"]) == ("duels", 450)
    assert facts["win_rates"]["ties"] == np.zeros((4, 4)).tolist()
    assert facts["command"] == "stats rank"


def test_rank_takes_the_images_of_a_prompt(study: Path, capsys) -> None:
    by_image = ("rank", study / "data", "--by", "image")
    told = run(capsys, *by_image, "--prompt", "prompt 3", "--prior", "1")
    assert "3/good" in told
    assert "1 prompt" in told
    assert "name one prompt whose images are ranked" in refused(capsys, "stats", *by_image)
    assert "no choices on the prompt 'x'" in refused(capsys, "stats", *by_image, "--prompt", "x")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("rank D --prompt x", "--prompt does not go with --by generator"),
        ("rank D --model picks --ties half", "--ties does not go with --model picks"),
        ("rank D/choices.parquet", "choices.parquet: has choices and no table of images"),
        ("rank D --level 0", "an interval of level 0.0, expected between 0 and 1"),
        ("rank D --prior -1", "a prior of -1.0 pseudo-ties"),
        ("rank D --dimension x", "has no choices on 'x'; it has choices on overall"),
        ("agreement D --resamples 5", "5 resamples, expected 100 to 1,000,000"),
        ("agreement D --level 2", "an interval of level 2.0"),
        ("agreement nowhere", "nowhere: does not exist"),
        ("bias D --scores S --level 3", "an interval of level 3.0"),
        ("bias D --scores S --scorer x", "scores.parquet: no scores by 'x'"),
        ("calibrate D --scores S --scorer x", "scores.parquet: no scores by 'x'"),
        (
            "plan --prompts 50 --power 0.9",
            "--power does not go with --prompts: the power is what is",
        ),
        ("plan --runs 100000000", "would run for hours"),
        ("plan --votes-per-prompt 0", "0 votes each"),
        ("agreement D --out D", "is a folder, expected the name of a JSON file"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(study: Path, capsys, words, told) -> None:
    places = {"D": study / "data", "S": study / "scores.parquet"}
    given = [word.replace("D/", f"{study}/data/") if "D/" in word else str(places.get(word, word)) for word in words.split()]  # fmt: skip
    assert told in refused(capsys, "stats", *given)


@pytest.mark.parametrize("verb", ["agreement", "rank", "bias", "calibrate", "evaluate"])
def test_a_data_set_without_choices_is_refused(tmp_path: Path, study: Path, capsys, verb) -> None:
    save_dataset(tmp_path / "empty", to_table([Image("a", "p")], "images"), to_table([], "choices"))
    words = [verb, tmp_path / "empty"]
    words += [] if verb in {"agreement", "rank"} else ["--scores", study / "scores.parquet"]
    stats = [] if verb == "evaluate" else ["stats"]
    assert "no choices" in refused(capsys, *stats, *words)


def test_generators_that_nobody_named_are_refused(tmp_path: Path, capsys) -> None:
    choices = [Choice(f"c{k}", "p", ("a", "b"), (1, 2)) for k in range(3)]
    images = [Image("a", "p"), Image("b", "p")]
    save_dataset(tmp_path / "data", to_table(images, "images"), to_table(choices, "choices"))
    told = refused(capsys, "stats", "rank", tmp_path / "data")
    assert "no two images of a choice have a known generator" in told


def test_a_file_that_is_another_result_stays(study: Path, capsys) -> None:
    out = study / "kept.json"
    words = ("agreement", study / "data", "--resamples", "100", "--out", out)
    run(capsys, *words)
    first = out.read_text()
    run(capsys, *words)  # the same command may replace its own result
    assert out.read_text() == first
    told = refused(capsys, "stats", "rank", study / "data", "--out", out)
    assert "is no result of `palate stats rank`" in told
    assert out.read_text() == first
    table = study / "scores.parquet"
    before = table.read_bytes()
    refused(capsys, "stats", "plan", "--prompts", "20", "--runs", "100", "--out", table)
    assert table.read_bytes() == before
    run(capsys, "rank", study / "data", "--out", out, "--overwrite")
    assert json.loads(out.read_text())["command"] == "stats rank"


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
