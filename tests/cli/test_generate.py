"""`palate generate`: choosing the best, and what it draws to be looked at."""

from __future__ import annotations

import importlib
import json

import pytest

from palate.cli.main import main
from palate.data.tables import read_table
from palate.generation.tiny import write_tiny_pipeline


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_tiny_pipeline(tmp_path_factory.mktemp("generator") / "tiny")


def call(base, out, *words):
    prompts = ["--prompt", "a red ring", "--prompt", "a blue ring"]
    common = [*prompts, "--steps", "2", "--out", str(out)]
    return main(["generate", str(base), *common, *map(str, words)])


BEST = ("--best-of", "5", "--keep", "2", "--scorer", "miniature")


def test_the_best_are_kept_and_the_json_says_by_what(base, tmp_path, capsys):
    out = tmp_path / "out"
    assert call(base, out, *BEST, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["images"], told["prompts"]) == (4, 2)
    assert (told["best_of"]["images"], told["best_of"]["keep"]) == (5, 2)
    assert told["best_of"]["scorer"]["name"] == "miniature"
    assert told["best_of"]["mean_of_kept"] > told["best_of"]["mean_of_all"]
    assert told["gallery"] == str(out / "gallery.html")
    assert (out / "sheets" / "0001.png").is_file()
    assert "best 2 by miniature" in (out / "gallery.html").read_text()
    assert len(read_table(out / "scores.parquet", "scores")) == 10
    assert len(list((out / "images").glob("*.png"))) == 4
    assert call(base, out, *BEST) == 0
    said = capsys.readouterr().out
    assert f"4 images of 2 prompts: {out}\n" in said
    assert "the best 2 of 5 of each prompt by miniature [hps]: " in said
    assert "note: the scores of chosen images are too high to judge by; use another scorer" in said
    assert f"to look at: {out / 'gallery.html'}\n" in said


def test_a_recipe_and_an_option_together(base, tmp_path, capsys):
    recipe = tmp_path / "best.toml"
    recipe.write_text('[generate.best_of]\nimages = 3\nkeep = 2\nscorer = "miniature"\n')
    assert call(base, tmp_path / "out", "--recipe", recipe, "--keep", 1, "--keep-all") == 0
    assert "the best 1 of 3 of each prompt" in capsys.readouterr().out
    assert len(read_table(tmp_path / "out" / "images.parquet", "images")) == 2
    assert len(read_table(tmp_path / "out" / "candidates.parquet", "images")) == 6
    assert len(list((tmp_path / "out" / "images").glob("*.png"))) == 6


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--keep", 2), "--keep goes with --best-of N"),
        (("--scorer", "miniature"), "--scorer goes with --best-of N"),
        (("--keep-all",), "--keep-all goes with --best-of N"),
        (("--best-of", 2, "--scorer", "miniature"), "fewer than the 4 to keep of each prompt"),
        (("--best-of", 5), "best_of has no scorer that chooses"),
        (("--best-of", 5, "--scorer", "hps-v9"), "no scorer or folder called 'hps-v9'"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(base, tmp_path, capsys, words, sentence):
    assert call(base, tmp_path / "out", *words) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_few_images_are_drawn_and_many_only_if_asked_for(base, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    assert call(base, out, "--images", 1, "--no-sheets", "--no-gallery") == 0
    assert "to look at" not in capsys.readouterr().out
    monkeypatch.setattr(importlib.import_module("palate.cli.generate"), "_MANY", 1)
    assert call(base, out, "--images", 1) == 0
    assert sorted(path.name for path in out.iterdir()) == ["images", "images.parquet", "run.json"]
    assert call(base, out, "--images", 1, "--sheets") == 0
    assert (out / "sheets" / "0001.png").is_file()
    assert not (out / "gallery.html").exists()
    monkeypatch.setattr(importlib.import_module("palate.cli.generate"), "_MANY", 2)
    assert call(base, out, "--images", 1) == 0
    assert (out / "gallery.html").is_file()
