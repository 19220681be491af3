"""The README's commands, run as they stand in one folder, one block after the other."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from palate.data.tables import read_table

RECIPE = """[adapt]
rank = 4
steps = 4
batch = 8
learning_rate = 1e-3
identifier_alone = 0.2
role_weights = { preferred = 0.5, rejected = 0.5, regularisation = 0.0 }
"""


def blocks(root: Path) -> list[str]:
    return re.findall(r"```console\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)


def prepare(folder: Path, root: Path, shared: Path) -> None:
    """Put the files that the README names into a folder."""
    fixtures = root / "tests" / "parity" / "fixtures"
    shutil.copytree(fixtures / "images", folder / "images")
    for image in (shared / "data" / "image_reward" / "images").iterdir():
        shutil.copy(image, folder / "images" / f"ocean-{image.name}")
    shutil.copy(fixtures / "hps_v1" / "hpc_tiny.pt", folder / "hpc.pt")
    shutil.copy(fixtures / "hps_v1" / "architecture.json", folder / "architecture.json")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(fixtures / "tokenizer" / name, folder / name)
    annotations = shared / "data" / "hpd_v1" / "preference_test_500.json"
    shutil.copy(annotations, folder / "preference_test.json")
    shutil.copytree(shared / "data" / "avt", folder / "avt")
    grounds = ("white", "grey", "black")
    prompts = [
        f"a {c} {s} on {g}" for c in ("red", "blue") for s in ("ring", "cross") for g in grounds
    ]
    (folder / "prompts.txt").write_text("\n".join(prompts) + "\n")
    (folder / "adapt.toml").write_text(RECIPE)


@pytest.mark.slow
def test_every_command_of_the_readme_does_what_it_says(root, shared, tmp_path):
    prepare(tmp_path, root, shared)
    said = {}
    lines = "".join(blocks(root)).splitlines()
    assert len(lines) == 15
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "palate"
        run = subprocess.run(
            [sys.executable, "-m", "palate", *words[1:]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, f"{line}\n{run.stdout}\n{run.stderr}"
        said[" ".join(words[1:4])] = run.stdout

    scores = read_table(tmp_path / "scores.parquet", "scores")
    assert len(scores) == 12
    assert set(scores["unit"].to_pylist()) == {"hps"}
    assert re.search(r"always the last\s+32\.4 %", said["data audit hpd"])
    assert re.search(r"at random \(chance\)\s+25\.7 %", said["data audit hpd"])
    assert "chance" in said["evaluate parts/test --scores"]
    curves = json.loads((tmp_path / "scorer" / "curves.json").read_text())
    assert curves["train"][-1]["step"] == 60
