"""The generator that a command means: a folder, the shipped one, or a Hub id that the user wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from palate.cli.shipped import generator_folder
from palate.errors import CheckpointError
from palate.generation.generator import load_generator
from palate.generation.tiny import write_tiny_pipeline


def test_a_path_and_the_shipped_generator(tmp_path, monkeypatch):
    assert generator_folder(tmp_path) == tmp_path
    monkeypatch.chdir(tmp_path)
    shipped = generator_folder(Path("miniature"))
    assert (shipped / "model_index.json").is_file()
    Path("miniature").mkdir()
    assert generator_folder(Path("miniature")) == Path("miniature")


def test_a_hub_id_is_found_in_the_cache_and_refused_offline_where_it_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set"):
        generator_folder(Path("fox/tiny"))
    commit, storage = "a" * 40, tmp_path / "cache" / "models--fox--tiny"
    write_tiny_pipeline(storage / "snapshots" / commit, "sdxl")
    (storage / "refs").mkdir()
    (storage / "refs" / "main").write_text(commit)
    for word in ("fox/tiny", "fox/tiny@main", f"fox/tiny@{commit}", "hf:fox/tiny"):
        assert generator_folder(Path(word)) == storage / "snapshots" / commit
    assert load_generator(generator_folder(Path("fox/tiny"))).name == "tiny"
    with pytest.raises(CheckpointError, match="nowhere: no such generator folder"):
        generator_folder(Path("nowhere"))
