"""Prompt lists: every official form, what is wrong with one, and the file that generation reads."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from palate.cli.importing.app import import_app
from palate.data.prompt_lists import (
    Prompt,
    expected_prompts,
    guess_list,
    read_prompt_list,
    write_prompts,
)
from palate.data.sources.common import Faults
from palate.errors import DataError
from palate.generation.prompts import read_prompts

PARTI = "Prompt\tCategory\tChallenge\tNote\n"


def write(folder: Path, name: str, text: str | bytes | list[Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if isinstance(text, bytes):
        path.write_bytes(text)
    else:
        path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return path


def test_parti_prompts_keep_their_quotation_marks(tmp_path: Path) -> None:
    lines = (
        '"G I G G L E" painted \tIllustrations\tWriting & Symbols\t\n"a"\tArts\tBasic\tsays "b"\n'
    )
    path = write(tmp_path, "PartiPrompts.tsv", PARTI + lines)
    first, second = read_prompt_list(path)
    assert first == Prompt(
        '"G I G G L E" painted ',
        "parti/0",
        "Illustrations",
        {"challenge": "Writing & Symbols"},
    )
    assert (second.prompt, second.id) == ('"a"', "parti/1")
    assert second.details == {"challenge": "Basic", "note": 'says "b"'}


def test_drawbench_is_a_csv_table(tmp_path: Path) -> None:
    path = write(tmp_path, "d.csv", '"Prompts","Category"\n"a ""red"" car, big","Colors"\nb,Text\n')
    assert list(read_prompt_list(path)) == [
        Prompt('a "red" car, big', "drawbench/0", "Colors"),
        Prompt("b", "drawbench/1", "Text"),
    ]


def test_a_list_of_the_hps_benchmark_or_all_of_them(tmp_path: Path) -> None:
    path = write(tmp_path, "anime.json", ["a", "b"])
    write(tmp_path, "photo.json", ["a"])
    write(tmp_path, "drawbench.json", ["c"])
    assert list(read_prompt_list(path)) == [
        Prompt("a", "anime/00000", "anime"),
        Prompt("b", "anime/00001", "anime"),
    ]
    both = [row.id for row in read_prompt_list(tmp_path)]
    assert both == ["anime/00000", "anime/00001", "photo/00000"]
    assert expected_prompts(path, "hps") == 800
    assert expected_prompts(tmp_path, "hps") == 1600
    assert expected_prompts(tmp_path / "drawbench.json", "hps") == 200
    assert expected_prompts(tmp_path / "mine.json", "hps") is None


def test_image_reward_names_its_prompts(tmp_path: Path) -> None:
    path = write(tmp_path, "benchmark-prompts.json", [{"id": "005695-0057", "prompt": "a"}])
    assert list(read_prompt_list(path)) == [Prompt("a", "005695-0057")]


def test_a_text_has_one_prompt_a_line(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.txt", "\ufeffa\r\n b \nc".encode())
    rows = list(read_prompt_list(path))
    assert [row.prompt for row in rows] == ["a", " b ", "c"]
    assert [row.id for row in rows] == ["mine/1", "mine/2", "mine/3"]


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("PartiPrompts.tsv", PARTI, "parti"),
        ("p.txt", PARTI + "a\tb\tc\td\n", "parti"),
        ("d.csv", "Prompts,Category\n", "drawbench"),
        ("anime.json", ["a"], "hps"),
        ("b.json", [{"id": "1", "prompt": "a"}], "image-reward"),
        ("p.txt", "a\nb\n", "text"),
    ],
)
def test_the_form_is_guessed(tmp_path: Path, name: str, text: str | list[Any], kind: str) -> None:
    assert guess_list(write(tmp_path, name, text)) == kind


def test_an_unknown_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no list of a known form; say which with --list"):
        guess_list(write(tmp_path, "a.xlsx", "x"))
    with pytest.raises(DataError, match="does not exist"):
        guess_list(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("p.tsv", PARTI + "a\tb\tc\t\n\tb\tc\t\n", "line 3: the prompt is empty"),
        ("p.tsv", PARTI + "a\tb\tc\t\na\tb\n", "line 3: has 2 cells, expected 4"),
        ("p.tsv", "Prompt\tCategory\n", r"the columns are \['Prompt', 'Category'\]"),
        ("p.tsv", "", "is an empty file"),
        ("d.csv", "Prompts,Category\n  ,Colors\n", "line 2: the prompt is empty"),
        ("d.csv", "Text,Category\na,b\n", "expected Prompts and Category"),
        ("d.csv", "Prompts,Category\na\n", "line 2: 1 cells, but the header has 2"),
        ("a.json", ["a", ""], "prompt 1: the prompt is empty"),
        ("a.json", ["a", 3], "prompt 1: is '3', expected a text"),
        ("a.json", '["a", ', "breaks off"),
        ("a.json", ["a", "\ud800"], "prompt 1: the prompt holds half a character"),
        ("b.json", [{"id": "1", "prompt": "a"}, {"id": "2"}], "record 1: has no 'prompt'"),
        ("b.json", [{"id": 1, "prompt": "a"}], "record 0: id is '1', expected a text"),
        ("p.txt", "a\n\nb\n", "line 2: the prompt is empty"),
        ("p.txt", b"a\n\xff\n", r"is no UTF-8 text \(byte 2\)"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, name: str, text: str | bytes | list[Any], told: str
) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(DataError, match=rf"{name}.*{told}"):
        list(read_prompt_list(path))


def test_allowed_faults_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path, "p.txt", "a\n\nb\n \n")
    faults = Faults(str(path), allowed=True)
    assert [row.prompt for row in read_prompt_list(path, "text", faults)] == ["a", "b"]
    assert (faults.count, faults.rows) == (2, 4)


def test_repeated_prompts_are_kept_and_counted(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    counts = write_prompts([Prompt("a", "1"), Prompt("b", "2", "x"), Prompt("a", "3")], out)
    assert counts.to_dict() == {
        "prompts": 3,
        "distinct": 2,
        "repeats": 1,
        "first_repeat": "a",
        "expected": None,
    }
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows[1] == {"prompt": "b", "id": "2", "category": "x"}
    assert read_prompts(out) == ["a", "b"]


def test_nothing_is_left_behind_where_it_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with pytest.raises(DataError, match="the id '1' comes twice"):
        write_prompts([Prompt("a", "1"), Prompt("b", "1")], out)
    with pytest.raises(DataError, match="there are no prompts"):
        write_prompts([], out)
    with pytest.raises(DataError, match="line 2"):
        write_prompts(read_prompt_list(write(tmp_path / "in", "p.txt", "a\n\n")), out)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


texts = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)


@given(prompts=st.lists(texts, min_size=1, unique=True))
def test_generation_reads_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[str]
) -> None:
    out = tmp_path_factory.mktemp("prompts") / "out.jsonl"
    write_prompts([Prompt(text, str(k)) for k, text in enumerate(prompts)], out)
    assert read_prompts(out) == prompts


def run(*arguments: object) -> Any:
    importlib.import_module("palate.cli.importing.prompts")
    return CliRunner().invoke(import_app, ["prompts", *map(str, arguments)])


def test_the_command_says_what_is_odd(tmp_path: Path) -> None:
    path = write(tmp_path, "PartiPrompts.tsv", PARTI + "a\tArts\tBasic\t\na\tArts\tBasic\t\n")
    said = run(path, "--out", tmp_path / "out.jsonl")
    assert said.exit_code == 0
    assert "2 prompts (parti)" in said.output
    assert "repeated prompts: 1, first 'a'" in said.output
    assert "the official list has 1,632 prompts" in said.output
    again = run(path, "--out", tmp_path / "out.jsonl")
    assert "--overwrite replaces it" in str(again.exception)
    told = run(path, "--out", tmp_path / "out.jsonl", "--overwrite", "--json")
    assert json.loads(told.output)["repeats"] == 1
    other = run(path, "--out", tmp_path / "out.csv")
    assert "expected a name in .jsonl" in str(other.exception)


def test_the_command_leaves_out_what_is_allowed(tmp_path: Path) -> None:
    path = write(tmp_path, "p.txt", "a\n\nb\n")
    assert "the prompt is empty" in str(run(path, "--out", tmp_path / "o.jsonl").exception)
    said = run(path, "--list", "text", "--out", tmp_path / "o.jsonl", "--allow-errors")
    assert "bad rows left out: 1" in said.output
