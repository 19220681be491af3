"""docs/sources shows the figures of the readers and of inferred picks that were kept."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from palate.cli.importing.sets import SETS

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "sources"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    return __import__


def test_the_figures_of_the_readers_are_those_that_were_kept(script):
    page, made = (PAGES / "README.md").read_text("utf-8"), script("readers_page")
    assert made.sources_page(page, made.kept("readers")) == page


def test_the_figures_of_discord_are_those_that_were_kept(script):
    page, made = (PAGES / "discord.md").read_text("utf-8"), script("readers_page")
    assert made.discord_page(page, made.kept("discord-picks")) == page


def test_every_reader_of_a_set_is_measured(script):
    measured = {reader for reader, _ in script("readers").READERS.values()}
    assert measured >= {known.reader for known in SETS.values()} | {"folder", "ratings"}
    assert (
        script("readers_page").kept("readers")["readers"].keys() == script("readers").READERS.keys()
    )


def test_marks_that_are_not_there_are_told(script):
    with pytest.raises(ValueError, match="no marks"):
        script("readers_page").filled("a page\n", {"readers": ["x"]})


@pytest.mark.parametrize("name", ["hpd-v2 pairs", "diffusion-db", "mhp"])
def test_what_is_measured_is_an_import(script, tmp_path, name):
    found = script("readers").measure(name, 40, tmp_path)
    assert max(found["choices"], found["images"]) == 40
    assert found["peak_bytes"] >= found["start_bytes"] > 0
