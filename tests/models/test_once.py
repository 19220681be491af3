"""A file that several scorers are made of is read once."""

from __future__ import annotations

import os

from official import HERE, WORDS

from palate.models import checkpoint
from palate.models.once import once, reading_once
from palate.scoring.catalog import load

HPC = HERE / "hps_v1/hpc_tiny.pt"


def counted(monkeypatch):
    real, read = checkpoint._read_file, []

    def count(path):
        read.append(path)
        return real(path)

    monkeypatch.setattr(checkpoint, "_read_file", count)
    return read


def load_three():
    head = HERE / "aesthetic/aesthetic_mlp_tiny.pth"
    return [
        load("hps-v1", HPC, tokenizer=WORDS),
        load("clip-score@hessel", HPC, tokenizer=WORDS),
        load("aesthetic", head, clip=HPC, tokenizer=WORDS),
    ]


def test_three_scorers_of_one_file_read_it_once_and_share_its_memory(monkeypatch):
    alone = [scorer.fingerprint for scorer in load_three()]
    read = counted(monkeypatch)
    with reading_once():
        together = load_three()
    assert read.count(HPC) == 1
    assert len({scorer.clip.model.visual_projection.weight.data_ptr() for scorer in together}) == 1
    assert [scorer.fingerprint for scorer in together] == alone


def test_outside_each_load_reads(monkeypatch):
    read = counted(monkeypatch)
    load_three()
    assert read.count(HPC) == 3


def test_a_file_that_changed_is_read_again(tmp_path):
    path = tmp_path / "a"
    path.write_text("1")
    with reading_once():
        assert once("text", path, path.read_text) == "1"
        path.write_text("2")
        os.utime(path, ns=(1, 1))
        assert once("text", path, path.read_text) == "2"
    assert once("text", path, path.read_text) == "2"
