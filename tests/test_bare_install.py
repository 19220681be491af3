"""The bare install: the core without torch, as `pip install palate` gives it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

uv = pytest.importorskip("uv", reason="the fresh environment is made by uv")

IMPORT_EVERYTHING_LIGHT = """
import importlib, pkgutil, sys, palate
for part in ("data", "stats", "study", "runs"):
    package = importlib.import_module(f"palate.{part}")
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
print(palate.__file__)
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory, root) -> Path:
    """The programs of a fresh environment with the core and nothing else."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    installer = uv.find_uv_bin()
    python = folder / "bin" / "python"
    subprocess.run([installer, "venv", "-q", "--python", sys.executable, str(folder)], check=True)
    subprocess.run(
        [
            *(installer, "pip", "install", "-q", "--python", str(python)),
            *("-c", str(root / "constraints.txt"), str(root)),
        ],
        check=True,
    )
    return folder / "bin"


@pytest.fixture
def call(bare, tmp_path):
    """Run a program of that environment, far from the repository."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(bare / words[0]), *words[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_there_is_no_torch(call):
    said = call("python", "-c", "import torch")
    assert said.returncode == 1
    assert "No module named 'torch'" in said.stderr


def test_collecting_and_analysing_work(call, root):
    said = call("python", "-c", IMPORT_EVERYTHING_LIGHT)
    assert said.returncode == 0, said.stderr
    assert not Path(said.stdout.strip()).is_relative_to(root / "src")


@pytest.mark.parametrize("words", [("--help",), ("data", "--help"), ("study", "--help")])
def test_help_needs_no_extra(call, words):
    said = call("palate", *words)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("Usage: palate")


def test_every_file_of_the_package_is_installed(bare, root):
    site = next(bare.parent.glob("lib/python*/site-packages"))
    here, there = root / "src" / "palate", site / "palate"
    files = {path.relative_to(here) for path in here.rglob("*") if path.is_file()}
    wanted = {path for path in files if not any(part.startswith(".") for part in path.parts)}
    wanted = {path for path in wanted if "__pycache__" not in path.parts}
    assert Path("py.typed") in wanted
    assert sorted(path for path in wanted if not (there / path).exists()) == []
    assert next(site.glob("palate-*.dist-info/licenses/LICENSE")).exists()


def test_what_needs_torch_says_so_in_one_sentence(call, tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    said = call(
        *("palate", "score", "a.png", "--scorer", "miniature"),
        *("--prompt", "a red ball", "--out", "scores.parquet"),
    )
    assert said.returncode == 2
    assert said.stderr == (
        "error: palate score needs the extra 'models': pip install 'palate[models]'\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
