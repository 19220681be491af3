from __future__ import annotations

import io
import itertools

import pytest

from palate.runs import progress, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(params=["quiet", "lines", "bar"])
def stderr(request, monkeypatch):
    stream = Terminal() if request.param == "bar" else io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("PALATE_QUIET", "1" if request.param == "quiet" else "0")
    return stream


def test_every_item_comes_through_in_order(stderr):
    assert list(track(range(50), "scoring")) == list(range(50))
    assert list(track(iter("abc"), "scoring", total=3)) == ["a", "b", "c"]
    assert list(track(iter("abc"), "scoring")) == ["a", "b", "c"]
    assert list(track([], "scoring")) == []


def test_quiet_is_silent(monkeypatch, capsys):
    monkeypatch.setenv("PALATE_QUIET", "1")
    list(track(range(3), "scoring"))
    assert capsys.readouterr() == ("", "")


def test_a_log_gets_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setenv("PALATE_QUIET", "0")
    clock = itertools.count(0, 4)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    list(track(range(7), "scoring"))
    assert capsys.readouterr() == (
        "",
        "scoring: 2 of 7, 12 s, 0.167/s\nscoring: 5 of 7, 24 s, 0.208/s\n",
    )


def test_a_terminal_gets_a_bar_on_stderr(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("PALATE_QUIET", "0")
    list(track(range(3), "scoring"))
    assert "scoring" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
    assert capsys.readouterr().out == ""
