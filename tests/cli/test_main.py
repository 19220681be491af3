from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import ModuleType
from typing import Annotated

import pytest
import typer

import palate
from palate.cli import main as main_module
from palate.cli.main import VERBS, main
from palate.errors import DataError


@pytest.fixture
def verb(monkeypatch):
    """Put a function in the place of the command `palate score`."""

    def put(function) -> None:
        module = ModuleType("palate.cli.score")
        module.score = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "palate.cli.score", module)

    return put


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"palate {palate.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_lists_every_verb(capsys, arguments):
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert said.startswith("Usage: palate")
    for name, summary in VERBS.items():
        assert f"  {name} " in said
        assert summary in said
    assert "Example: palate demo --quick" in said


def test_an_unknown_verb_is_refused_with_the_nearest(capsys):
    assert main(["scroe"]) == 2
    assert "No such command 'scroe'. Did you mean 'score'?" in capsys.readouterr().err
    assert main(["zzz"]) == 2
    assert "No such command 'zzz'." in capsys.readouterr().err


def test_a_verb_gets_its_arguments_and_gives_its_status(verb, capsys):
    def score(image: str, times: Annotated[int, typer.Option(help="How often.")] = 1) -> None:
        """Score images."""
        print(image * times)
        raise typer.Exit(1 if times == 3 else 0)

    verb(score)
    assert main(["score", "a", "--times", "2"]) == 0
    assert main(["score", "a", "--times", "3"]) == 1
    assert capsys.readouterr().out == "aa\naaa\n"
    assert main(["score", "a", "--time", "2"]) == 2
    assert "No such option: --time" in capsys.readouterr().err
    assert main(["score", "--help"]) == 0
    assert "How often." in capsys.readouterr().out


def test_a_fault_of_the_user_is_one_sentence(verb, capsys):
    def score() -> None:
        raise DataError("choices.parquet, row 41: 4 images but 3 ranks: (1, 2, 2)")

    verb(score)
    assert main(["score"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "error: choices.parquet, row 41: 4 images but 3 ranks: (1, 2, 2)\n"


def test_where_it_happened_can_be_asked_for(verb, monkeypatch):
    def score() -> None:
        raise DataError("wrong")

    verb(score)
    monkeypatch.setenv("PALATE_DEBUG", "1")
    with pytest.raises(DataError):
        main(["score"])


def test_a_bug_is_not_hidden(verb):
    def score() -> None:
        raise ZeroDivisionError

    verb(score)
    with pytest.raises(ZeroDivisionError):
        main(["score"])


def test_a_missing_file_is_one_sentence(verb, capsys):
    def score() -> None:
        with open("none.txt", encoding="utf-8"):  # noqa: PTH123
            pass

    verb(score)
    assert main(["score"]) == 2
    assert capsys.readouterr().err == "error: none.txt: No such file or directory\n"


def test_a_missing_library_names_its_extra(verb, capsys):
    def score() -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch.nn")

    verb(score)
    assert main(["score"]) == 2
    assert capsys.readouterr().err == (
        "error: palate score needs the extra 'models': pip install 'palate[models]'\n"
    )


def test_a_library_that_no_extra_brings_is_a_bug(verb):
    def score() -> None:
        raise ModuleNotFoundError("No module named 'zzz'", name="zzz")

    verb(score)
    with pytest.raises(ModuleNotFoundError):
        main(["score"])


def test_ctrl_c_says_how_to_go_on(verb, capsys):
    def score() -> None:
        raise KeyboardInterrupt

    verb(score)
    assert main(["score"]) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to resume\n"


# A shell's background job starts with interrupts ignored, and a terminal's command does not.
INTERRUPTED = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from types import ModuleType
from palate.cli.main import main
def score():
    print("ready", flush=True)
    time.sleep(60)
sys.modules["palate.cli.score"] = module = ModuleType("palate.cli.score")
module.score = score
sys.exit(main(["score"]))
"""


def test_a_real_ctrl_c(tmp_path):
    command = [sys.executable, "-c", INTERRUPTED]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert process.stderr.read() == "interrupted; run the same command again to resume\n"


def test_a_closed_pipe_is_silent():
    shell = f"{sys.executable} -m palate --help | true"
    said = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert said.stderr == ""


def test_every_verb_has_a_command_that_can_be_loaded():
    for name in VERBS:
        command = main_module.load_verb(name)
        assert command.name == name
