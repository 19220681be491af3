"""Scorers × benchmarks: published protocols, published values, differences, and the page."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from palate.cli.main import main
from palate.data.records import Choice, Image, Score
from palate.data.tables import Dataset, save_dataset, to_table, write_table
from palate.errors import DataError
from palate.evaluation.benchmarks import as_counted, benchmark_of, benchmark_styles
from palate.evaluation.board import BoardSettings, measure_board
from palate.evaluation.disagreement import disagreements


def data(
    folder: Path, prompts: int = 40, source: str = "image-reward/test.json", pictures: bool = False
) -> tuple[Dataset, dict[str, float]]:
    """Four images a prompt with a true quality; people rank by it, with a tie now and then."""
    rng = np.random.default_rng(0)
    images, choices, quality = [], [], {}
    for number in range(prompts):
        keys = tuple(f"{number}/{k}.png" for k in range(4))
        worth = rng.permutation(4)
        quality |= dict(zip(keys, worth.astype(float), strict=True))
        for key in keys:
            path = None
            if pictures:
                path = f"images/{key}"
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                PIL.Image.new("RGB", (24, 16), (number, 90, 200)).save(folder / path)
            images.append(Image(key, f"prompt {number}", path=path))
        ranks = tuple(int(4 - value) for value in worth)
        if number % 5 == 0:
            ranks = tuple(min(rank, 3) for rank in ranks)
        choices.append(
            Choice(
                f"c{number}",
                f"prompt {number}",
                keys,
                ranks,
                annotator=f"a{number % 7}",
                source=source,
            )
        )
    tables = to_table(images, "images"), to_table(choices, "choices")
    return save_dataset(folder, *tables), quality


def scores(quality: dict[str, float], name: str, noise: float, seed: int = 1) -> object:
    rng = np.random.default_rng(seed)
    rows = [
        Score(
            key,
            f"prompt {key.split('/')[0]}",
            name,
            "overall",
            value + noise * rng.normal(),
            "hps",
            "f" * 64,
        )
        for key, value in quality.items()
    ]
    return to_table(rows, "scores")


def test_a_perfect_scorer_and_its_reverse(tmp_path: Path) -> None:
    found, quality = data(tmp_path)
    good = scores(quality, "hps-v2", 0.0)
    bad = scores({key: -value for key, value in quality.items()}, "pickscore", 0.0)
    board = measure_board([("ir", found)], [good, bad])
    main_rows = {row.scorer: row for row in board.rows if row.main}
    assert main_rows["hps-v2"].result.value == 1.0
    assert main_rows["pickscore"].result.value == 0.0
    assert main_rows["hps-v2"].result.protocol.name == "image-reward-pairs"
    [versus] = board.versus
    assert versus.comparison.better == "a"
    assert versus.comparison.difference.value == 1.0
    assert not [one for one in board.worst if one.scorer == "hps-v2" and one.questions]
    assert len(next(one for one in board.worst if one.scorer == "pickscore").questions) == 12


def test_equal_scorers_are_not_separable(tmp_path: Path) -> None:
    found, quality = data(tmp_path)
    pair = [scores(quality, "hps-v1", 2.0, 5), scores(quality, "hps-v2", 2.0, 6)]
    [versus] = measure_board([("ir", found)], pair).versus
    assert versus.comparison.better == "not separable"


def test_only_a_value_of_the_same_protocol_stands_beside(tmp_path: Path) -> None:
    found, quality = data(tmp_path)
    board = measure_board([("ir", found)], [scores(quality, "image-reward", 1.0)])
    by_protocol = {row.result.protocol.name: row for row in board.rows}
    printed = by_protocol["image-reward-pairs"].published
    assert printed is not None
    assert printed.printed() == "65.14"
    difference = by_protocol["image-reward-pairs"].difference
    assert difference == pytest.approx(by_protocol["image-reward-pairs"].result.value - 0.6514)
    other, quality = data(tmp_path / "own", source="mine")
    board = measure_board([("own", other)], [scores(quality, "image-reward", 1.0)])
    assert all(row.published is None for row in board.rows)


def test_hpd_v2_is_counted_by_the_ranking_that_was_agreed_on() -> None:
    rows = [
        Choice(
            f"hpd-v2/test/0/{k}", "p", ("a", "b", "c"), ranks, annotator=str(k),
            source="hpd-v2/test.json", details=json.dumps({"agreed": False, "rank": [0, 2, 1]}),
        )
        for k, ranks in enumerate([(1, 2, 3), (3, 2, 1)])
    ]  # fmt: skip
    choices = to_table(rows, "choices")
    benchmark = benchmark_of(choices)
    assert benchmark.name == "hpd-v2"
    counted = as_counted(choices, benchmark)
    assert counted.column("ranks").to_pylist() == [[1, 3, 2]]


def test_a_benchmark_takes_its_own_choices_alone(tmp_path: Path) -> None:
    found, _ = data(tmp_path, source="mine")
    with pytest.raises(DataError, match="choices from 'mine' are not of HPD v1 test"):
        benchmark_of(found.choices, "hpd-v1")
    with pytest.raises(DataError, match="no benchmark 'hpd'"):
        benchmark_of(found.choices, "hpd")


def test_styles_are_scored_in_chunks_of_eighty() -> None:
    keys = [f"sd/{style}/{k:05d}.jpg" for style in ("anime", "photo") for k in range(800)]
    images = to_table([Image(key, "p") for key in keys], "images")
    values = np.arange(1600, dtype=float)
    rows = [
        Score(key, "p", "hps-v2", "overall", float(value), "hps", "f" * 64)
        for key, value in zip(keys, values, strict=True)
    ]
    found = {row.style: row for row in benchmark_styles(images, to_table(rows, "scores"))}
    assert found["anime"].mean == pytest.approx(values[:800].mean())
    chunks = values[:800].reshape(10, 80).mean(axis=1)
    assert found["anime"].deviation == pytest.approx(chunks.std())
    assert (found["anime"].chunks, found["all"].images) == (10, 1600)
    with pytest.raises(DataError, match="has no score"):
        benchmark_styles(images, to_table(rows[:-1], "scores"))


def test_disagreements_count_people_and_name_favourites() -> None:
    rows = [
        Choice(f"c{k}", "p", images, ranks, annotator=str(k))
        for k, (images, ranks) in enumerate(
            [(("a", "b"), (1, 2)), (("b", "a"), (2, 1)), (("a", "b"), (1, 1))]
        )
    ]
    values = np.array([0.0, 2.0, 2.0, 0.0, 0.0, 2.0])
    [found] = disagreements(to_table(rows, "choices"), values)
    assert (found.people, found.images, found.votes) == (3, ("a", "b"), (2.5, 0.5))
    assert found.scores == (0.0, 2.0)
    assert found.gap == pytest.approx(2.0 / 2**0.5 / 2**0.5)


def test_the_command_writes_a_table_and_a_page(tmp_path: Path, capsys) -> None:
    pytest.importorskip("jinja2")
    found, quality = data(tmp_path / "data", pictures=True)
    for name, noise in (("hps-v1", 2.0), ("image-reward", 0.5)):
        write_table(scores(quality, name, noise), tmp_path / f"{name}.parquet")
    command = ["evaluate", str(tmp_path / "data"), "--by", "size", "--out", str(tmp_path / "out")]
    for name in ("hps-v1", "image-reward"):
        command += ["--scores", str(tmp_path / f"{name}.parquet")]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "65.14 (B)" in told
    assert "image-reward is better" in told
    page = (tmp_path / "out" / "board.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 24
    assert "http" not in page.replace("http://www.w3.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "").replace("https://matplotlib.org", "")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "board.csv").read_text())))
    assert {row["scorer"] for row in rows} == {"hps-v1", "image-reward"}
    assert json.loads((tmp_path / "out" / "board.json").read_text())["versus"]
    assert (tmp_path / "out" / "board.md").read_text().startswith("| data |")
    assert len(found.images) == 160


def test_a_choice_without_a_score_is_refused_or_left_out(tmp_path: Path) -> None:
    found, quality = data(tmp_path)
    short = scores(
        {key: value for key, value in quality.items() if key != "3/1.png"}, "hps-v1", 0.0
    )
    with pytest.raises(DataError, match="1 of 40 choices have an image without a score"):
        measure_board([("ir", found)], [short])
    board = measure_board([("ir", found)], [short], BoardSettings(missing="leave-out"))
    assert {row.left_out for row in board.rows} == {1}


def test_the_command_scores_generators_by_style(tmp_path: Path, capsys) -> None:
    keys = [f"sd/{style}/{k:05d}.jpg" for style in ("anime", "photo") for k in range(80)]
    images = to_table([Image(key, "p") for key in keys], "images")
    save_dataset(tmp_path / "bench", images, to_table([], "choices"))
    rows = [
        Score(key, "p", "hps-v2", "overall", 26.0 + (key[3] == "a"), "hps", "f" * 64)
        for key in keys
    ]
    write_table(to_table(rows, "scores"), tmp_path / "s.parquet")
    command = ["evaluate", str(tmp_path / "bench"), "--benchmark", "hps-v2-bench", "--json"]
    assert main([*command, "--scores", str(tmp_path / "s.parquet")]) == 0
    found = {row["style"]: row["mean"] for row in json.loads(capsys.readouterr().out)}
    assert found == {"all": 26.5, "anime": 27.0, "photo": 26.0}
