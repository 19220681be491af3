"""Generators are scored by style as the HPS v2 benchmark does, beside what was printed for them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from palate.cli.main import main
from palate.data.records import Image, Score
from palate.data.tables import save_dataset, to_table, write_table
from palate.errors import DataError
from palate.evaluation.board_tables import NONE
from palate.evaluation.styles import benchmark_styles, style_csv, style_table

STYLES = ("anime", "concept-art", "paintings", "photo")


def keys_of(*generators: str, prompts: int = 80) -> list[str]:
    return [
        f"{name}/{style}/{k:05d}.jpg"
        for name in generators
        for style in STYLES
        for k in range(prompts)
    ]


def scored(keys, values, scorer="hps-v2"):
    rows = [
        Score(key, "p", scorer, "overall", float(value), "hps", "f" * 64)
        for key, value in zip(keys, values, strict=True)
    ]
    return to_table(rows, "scores")


def images_of(keys):
    return to_table([Image(key, "p") for key in keys], "images")


def test_styles_are_scored_in_chunks_of_eighty() -> None:
    keys = keys_of("sd", prompts=800)
    values = np.arange(3200, dtype=float)
    found = {row.style: row for row in benchmark_styles(images_of(keys), scored(keys, values))}
    assert list(found) == [*STYLES, "all"]
    assert found["anime"].mean == pytest.approx(values[:800].mean())
    chunks = values[:800].reshape(10, 80).mean(axis=1)
    assert found["anime"].deviation == pytest.approx(chunks.std())
    assert (found["anime"].chunks, found["all"].images) == (10, 3200)
    with pytest.raises(DataError, match="has no score"):
        benchmark_styles(images_of(keys), scored(keys[:-1], values[:-1]))


def test_the_order_of_the_rows_does_not_matter() -> None:
    keys = keys_of("a", "b")
    values = np.random.default_rng(0).normal(size=len(keys))
    mixed = np.random.default_rng(1).permutation(len(keys))
    again = [keys[place] for place in mixed]
    one = benchmark_styles(images_of(keys), scored(keys, values))
    other = benchmark_styles(images_of(again), scored(again, values[mixed]))
    assert [row.to_dict() for row in one] == [row.to_dict() for row in other]


def test_the_interval_of_a_mean_is_that_of_its_prompts() -> None:
    keys, chance = keys_of("a", prompts=400), np.random.default_rng(0)
    values = chance.normal(26, 2, len(keys))
    found = benchmark_styles(images_of(keys), scored(keys, values))
    for row in found:
        half = 1.96 * 2 / np.sqrt(row.images)
        assert (row.high - row.low) / 2 == pytest.approx(half, rel=0.15)
        assert row.low < row.mean < row.high


@pytest.mark.parametrize(
    ("folder", "scorer", "style", "printed"),
    [
        ("sd14", "hps-v2", "anime", 27.26),
        ("Stable Diffusion v1.4", "hps-v2@official", "all", 26.95),
        ("stable-diffusion-v1-4", "hps-v2.1", "photo", 25.70),
        ("sdxl_base_0.9", "hps-v2", "concept-art", 27.63),
        ("sd-2.0", "hps-v2", "paintings", 26.86),
        ("sd14", "pickscore", "anime", None),
        ("mine", "hps-v2", "anime", None),
    ],
)
def test_what_was_printed_stands_beside(folder, scorer, style, printed) -> None:
    keys = keys_of(folder)
    rows = benchmark_styles(images_of(keys), scored(keys, [27.0] * len(keys), scorer))
    row = next(row for row in rows if row.style == style)
    assert (None if row.published is None else row.published.value) == printed
    wanted = None if printed is None else pytest.approx(27.0 - printed)
    assert row.difference == wanted


def test_each_scorer_of_a_table_is_taken_alone() -> None:
    keys = keys_of("a")
    both = pa.concat_tables(
        [scored(keys, [1.0] * len(keys)), scored(keys, [3.0] * len(keys), "mps")]
    )
    found = benchmark_styles(images_of(keys), both)
    assert {(row.scorer, row.mean) for row in found} == {("hps-v2", 1.0), ("mps", 3.0)}
    place = both.schema.get_field_index("dimension")
    named = pa.array(["detail"] * len(both))
    detail = both.set_column(place, both.schema.field(place), named)
    apart = benchmark_styles(images_of(keys), pa.concat_tables([both, detail]))
    assert len(apart) == 4 * 5
    twice = pa.concat_tables([scored(keys, [1.0] * len(keys))] * 2)
    with pytest.raises(DataError, match="two scores of one scorer"):
        benchmark_styles(images_of(keys), twice)


def test_another_unit_has_nothing_printed() -> None:
    keys = keys_of("sd14")
    table = scored(keys, [0.27] * len(keys))
    place = table.schema.get_field_index("unit")
    table = table.set_column(place, table.schema.field(place), pa.array(["cosine"] * len(keys)))
    assert {row.published for row in benchmark_styles(images_of(keys), table)} == {None}


def test_what_is_not_of_these_images_is_refused() -> None:
    keys = keys_of("a")
    table = scored(keys, [1.0] * len(keys))
    place = table.schema.get_field_index("prompt")
    other = table.set_column(place, table.schema.field(place), pa.array(["other"] * len(keys)))
    with pytest.raises(DataError, match=r"has no score for its prompt \(320 in all\)"):
        benchmark_styles(images_of(keys), other)
    with pytest.raises(DataError, match="the table of scores is empty"):
        benchmark_styles(images_of(keys), table.slice(0, 0))
    named = [key.replace("anime", "all") for key in keys]
    with pytest.raises(DataError, match="a style called 'all'"):
        benchmark_styles(images_of(named), scored(named, [1.0] * len(keys)))


def test_a_style_of_one_image_has_no_interval() -> None:
    keys = ["a/anime/00000.jpg"]
    row = benchmark_styles(images_of(keys), scored(keys, [1.0]))[0]
    assert row.to_dict()["low"] is None
    assert NONE in style_table([row]).rows[0]
    assert "nan" not in style_csv([row])


def test_the_command_keeps_what_it_prints(tmp_path: Path, capsys) -> None:
    keys = keys_of("sd14")
    save_dataset(tmp_path / "bench", images_of(keys), to_table([], "choices"))
    values = [26.0 + (key[5] == "a") for key in keys]
    write_table(scored(keys, values), tmp_path / "s.parquet")
    out = tmp_path / "out"
    command = ["evaluate", str(tmp_path / "bench"), "--benchmark", "hps-v2-bench"]
    command += ["--scores", str(tmp_path / "s.parquet"), "--seed", "1", "--out", str(out)]
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = {row["style"]: row["mean"] for row in told}
    assert found == {"anime": 27.0, **dict.fromkeys(STYLES[1:], 26.0), "all": 26.25}
    assert json.loads((out / "styles.json").read_text()) == told
    lines = list(csv.DictReader((out / "styles.csv").read_text().splitlines()))
    assert [line["published"] for line in lines] == ["27.26", "26.61", "26.66", "27.27", "26.95"]
    assert "| hps-v2 | overall | sd14 | anime | 80 | 27.00 |" in (out / "styles.md").read_text()
    again = [*command[:-2], "--scores", str(tmp_path / "s.parquet")]
    assert main(again) == 2
    assert "two tables have scores of 'sd14' by 'hps-v2'" in capsys.readouterr().err
    before = (out / "styles.md").stat().st_mtime_ns
    assert main(command) == 0
    assert "Published for Stable Diffusion v1.4: tgxs002/HPSv2" in capsys.readouterr().out
    assert (out / "styles.md").stat().st_mtime_ns == before


def test_choices_without_images_are_refused(tmp_path: Path, capsys) -> None:
    keys = keys_of("sd14")
    write_table(scored(keys, [1.0] * len(keys)), tmp_path / "s.parquet")
    write_table(to_table([], "choices"), tmp_path / "choices.parquet")
    command = ["evaluate", str(tmp_path / "choices.parquet"), "--benchmark"]
    assert main([*command, "hps-v2-bench", "--scores", str(tmp_path / "s.parquet")]) == 2
    assert "no images, expected the folder" in capsys.readouterr().err


def test_styles_that_stand_there_are_not_replaced(tmp_path: Path, capsys) -> None:
    keys = keys_of("sd14")
    save_dataset(tmp_path / "bench", images_of(keys), to_table([], "choices"))
    write_table(scored(keys, [1.0] * len(keys)), tmp_path / "s.parquet")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "styles.json").write_text("mine")
    command = ["evaluate", str(tmp_path / "bench"), "--benchmark", "hps-v2-bench", "--scores"]
    assert main([*command, str(tmp_path / "s.parquet"), "--out", str(tmp_path / "out")]) == 2
    assert "styles.json: exists and is no run's; choose another --out" in capsys.readouterr().err
    assert (tmp_path / "out" / "styles.json").read_text() == "mine"
