"""A run that takes the place of a former one: the former stays until the new one is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from palate.errors import DataError, RunError
from palate.runs import RECORD, fresh_run, start_run


def make(
    out: Path, text: str, *, overwrite: bool = False, fail: bool = False, **more: object
) -> None:
    with fresh_run("verb", out, {"text": text}, {}, overwrite=overwrite, **more) as run:
        if not run.finished:
            (run.out / "result.txt").write_text(text)
            if fail:
                raise DataError("refused")
            run.finish({}, files=["result.txt"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_run_takes_the_place_of_the_former(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out, "one")
    make(out, "two", overwrite=True)
    assert (out / "result.txt").read_text() == "two"
    assert json.loads((out / RECORD).read_text())["status"] == "finished"
    assert names(tmp_path) == ["out"]


def test_the_former_run_survives_a_refusal(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out, "one")
    with pytest.raises(DataError, match="refused"):
        make(out, "two", overwrite=True, fail=True)
    assert (out / "result.txt").read_text() == "one"
    assert names(tmp_path) == ["out"]


def test_a_refused_first_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="refused"):
        make(tmp_path / "out", "one", fail=True)
    assert names(tmp_path) == []


def test_what_is_read_is_never_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out, "one")
    (out / "key").write_text("secret")
    with pytest.raises(RunError, match="holds 'key', which is read"):
        make(out, "two", overwrite=True, keep=[out / "key"])
    assert (out / "key").read_text() == "secret"


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out, "one")
    with (
        pytest.raises(RunError, match="the former one is untouched"),
        fresh_run("verb", out, {"text": "two"}, {}, overwrite=True),
        pytest.raises(RunError, match="another process is at work"),
    ):
        make(out, "three", overwrite=True)
    assert (out / "result.txt").read_text() == "one"


def test_a_link_and_the_folder_itself_may_be_named(tmp_path: Path, monkeypatch) -> None:
    real = tmp_path / "real"
    make(real, "one")
    (tmp_path / "link").symlink_to(real)
    make(tmp_path / "link", "two", overwrite=True)
    assert (real / "result.txt").read_text() == "two"
    assert (tmp_path / "link").is_symlink()
    monkeypatch.chdir(real)
    make(Path(), "three", overwrite=True)
    assert (real / "result.txt").read_text() == "three"


def test_what_a_killed_run_left_is_swept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out, "one")
    (tmp_path / ".out.tmp0123abcd").mkdir()
    make(out, "two", overwrite=True)
    assert names(tmp_path) == ["out"]


def test_a_folder_that_holds_no_run_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="holds no run"):
        make(tmp_path, "one", overwrite=True)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_other_inputs_are_refused_without_overwrite(tmp_path: Path) -> None:
    make(tmp_path / "out", "one")
    with pytest.raises(RunError, match="other settings"):
        make(tmp_path / "out", "two")
    with start_run("verb", tmp_path / "out", {"text": "one"}, {}) as run:
        assert run.finished
