"""`palate data export`: what it prints, its exit status, and that every command has an example."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from palate.cli.exporting import export_app
from palate.errors import DataError

run = CliRunner().invoke
COMMANDS = ("hpd", "hpd-v2", "pairs", "imagereward", "webdataset", "hf")


def said(*words: object) -> str:
    found = run(export_app, [str(word) for word in words])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    text = said(command, "--help")
    assert f"Example: palate data export {command} " in " ".join(text.split())


@pytest.mark.parametrize(
    ("command", "first"),
    [
        ("hpd", "3 records, 8 images: "),
        ("hpd-v2", "3 records, 2 pairs, 6 images: "),
        ("pairs", "5 pairs, 3 choices, 6 images: "),
        ("imagereward", "3 records, 6 images: "),
        ("webdataset", "1 tar, 3 choices, 6 images: "),
        ("hf", "8 pairs, 3 choices, 6 images: "),
    ],
)
def test_what_was_written_is_said(command: str, first: str, dataset, tmp_path: Path) -> None:
    text = said(command, dataset.folder, "--out", tmp_path / "out")
    assert text.startswith(f"{first}{tmp_path / 'out'}\n")
    again = said(command, dataset.folder, "--out", tmp_path / "out", "--json")
    assert json.loads(again) == json.loads((tmp_path / "out" / "run.json").read_text())["result"]
    bare = said(
        command, dataset.folder, "--out", tmp_path / "out", "--without-images", "--overwrite"
    )
    assert str(tmp_path / "out") in bare
    assert not list((tmp_path / "out").rglob("*.jpg"))


def test_what_was_left_out_is_said(make, tmp_path: Path) -> None:
    from palate.data.records import Choice

    data = make(
        [Choice("x", "p", ("a", "b", "c"), (1, 2, 2)), Choice("y", "p", ("a", "b"), (1, 1))]
    )
    with pytest.raises(DataError, match="--leave-out leaves them out"):
        said("hpd", data.folder, "--out", tmp_path / "out")
    text = said("hpd", data.folder, "--out", tmp_path / "out", "--leave-out")
    assert "1 choice left out, first choice 'y': its ranks (1, 1) tie at the best" in text
    assert "tied pairs left out: 2" in said("pairs", data.folder, "--out", tmp_path / "pairs")


def test_copy_and_no_images_do_not_go_together(dataset, tmp_path: Path) -> None:
    words = ["hpd", str(dataset.folder), "--out", str(tmp_path / "o"), "--copy", "--without-images"]
    found = run(export_app, words)
    assert found.exit_code == 2
    assert not (tmp_path / "o").exists()


def test_options_reach_the_settings(dataset, tmp_path: Path) -> None:
    options = {
        "hpd": ["--annotator-key", "k", "--copy"],
        "hpd-v2": ["--form", "rankings"],
        "pairs": ["--format", "csv", "--ties", "--annotators", "hash"],
        "webdataset": ["--images-per-tar", "2", "--megabytes-per-tar", "7"],
        "hf": ["--split", "test", "--columns", "bytes", "--dimension", "overall"],
    }
    settings = {}
    for command, words in options.items():
        out = tmp_path / command
        said(command, dataset.folder, "--out", out, *words)
        settings[command] = json.loads((out / "run.json").read_text())["settings"]
    assert re.fullmatch("[0-9a-f]{8}", settings["hpd"]["annotator_key"])
    assert settings["hpd"]["images"] == "copy"
    assert settings["hpd-v2"]["form"] == "rankings"
    assert [settings["pairs"][name] for name in ("format", "ties", "annotators")] == [
        "csv",
        True,
        "hash",
    ]
    assert settings["webdataset"]["images_per_tar"] == 2
    assert settings["webdataset"]["megabytes_per_tar"] == 7
    hf = settings["hf"]
    assert (hf["split"], hf["columns"], hf["dimension"]) == ("test", "bytes", "overall")
