"""`palate train` from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.training.conftest import write_dataset

from palate.cli.main import main
from palate.models.clip_files import save_clip
from palate.models.tiny import tiny_clip


def test_the_command_trains_tells_and_does_not_repeat(dataset, held_out, tmp_path, capsys):
    save_clip(tiny_clip(0), tmp_path / "base")
    command = ["train", str(dataset.folder), "--base", str(tmp_path / "base")]
    command += ["--out", str(tmp_path / "run"), "--validation", str(held_out.folder)]
    command += ["--steps", "4", "--batch", "6", "--image-layers", "1", "--text-layers", "1"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "4 steps on 24 choices" in told
    assert "16 choices, ties: expected" in told
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["validation_choices"] == 16
    scores = ["score", str(held_out.folder), "--scorer", str(tmp_path / "run"), "--json"]
    assert main(scores) == 0
    assert json.loads(capsys.readouterr().out)["scores"][0]["scorer"] == "run"


def test_wrong_input_is_one_sentence(dataset, tmp_path, capsys):
    out = ["--out", str(tmp_path / "run")]
    assert main(["train", str(dataset.folder), "--base", str(tmp_path / "nowhere"), *out]) == 2
    assert capsys.readouterr().err.endswith("nowhere: no such weights file or folder\n")
    assert main(["train", str(tmp_path / "none"), "--base", "miniature", *out]) == 2
    assert "does not exist, expected the folder of a data set" in capsys.readouterr().err
    recipe = tmp_path / "r.toml"
    recipe.write_text("[train]\nsteps = 3\nwarmup_step = 2\n")
    assert main(["train", str(dataset.folder), "--base", "x", "--recipe", str(recipe), *out]) == 2
    assert "did you mean 'warmup_steps'?" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_page_on_training_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    write_dataset(tmp_path / "choices" / "train", 12, seed=1)
    write_dataset(tmp_path / "choices" / "val", 12, seed=2)
    save_clip(tiny_clip(0), tmp_path / "clip")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/training.md", "exec"), {})
    assert "by chance" in capsys.readouterr().out
    assert (tmp_path / "runs" / "fox" / "model.safetensors").is_file()
