"""`palate data audit` from the command line: other sets, vocabularies, and the folder it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from palate.cli.main import main
from palate.data.images import hash_image
from palate.data.records import Choice, Image
from palate.data.tables import save_dataset, to_table


def save(folder: Path, numbers: range) -> Path:
    folder.mkdir()
    images, choices = [], []
    for k in numbers:
        keys = (f"{k}a.png", f"{k}b.png")
        for n, key in enumerate(keys):
            pixels = np.random.default_rng(2 * k + n).integers(0, 256, (9, 9, 3), dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(folder / key)
            images.append(Image(key, f"fox {k}", key, hash_image(folder / key), 9, 9))
        ranks = (1, 2) if k % 2 else (2, 1)
        choices.append(Choice(f"c{k}", f"fox {k}", keys, ranks, annotator=f"u{k % 2}"))
    save_dataset(folder, to_table(images, "images"), to_table(choices, "choices"))
    return folder


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return save(tmp_path / "train", range(6))


def flat(text: str) -> str:
    return " ".join(text.split())


def test_other_sets_are_compared_and_kept(train: Path, tmp_path: Path, capsys) -> None:
    test, clean = save(tmp_path / "test", range(4, 8)), save(tmp_path / "clean", range(20, 24))
    out = tmp_path / "audit"
    command = ["data", "audit", str(train), "--against", str(test), "--against", str(clean)]
    assert main([*command, "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "test shared prompts 2 of 4 50.0 % 2 of 4 50.0 %" in flat(told)
    assert "clean shared prompts 0 of 4 0.0 % 0 of 4 0.0 %" in flat(told)
    assert "warning  shared images: 4 of 8 images of test stand here too, byte for byte" in told
    kept = json.loads((out / "audit.json").read_text())
    assert len(kept["facts"]["leaks"]) == 10
    page = (out / "audit.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "data:image/jpeg;base64," in page
    record = json.loads((out / "run.json").read_text())
    assert record["result"]["warning"] == 2
    assert main([*command, "--strict"]) == 1


def test_a_vocabulary_counts_exactly(train: Path, shared: Path, capsys) -> None:
    vocabulary = str(shared / "data" / "clip_tokenizer")
    assert main(["data", "audit", str(train), "--tokenizer", vocabulary, "--json"]) == 0
    clip, blip = json.loads(capsys.readouterr().out)["facts"]["lengths"]
    assert (clip["exact"], clip["longest"], clip["over"]) == (True, 4, 0)
    assert blip["exact"] is False


def test_the_vocabulary_of_bert_is_for_blip(train: Path, tmp_path: Path, capsys) -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "f", "##o", "##x"]
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    assert main(["data", "audit", str(train), "--tokenizer", str(tmp_path), "--json"]) == 0
    clip, blip = json.loads(capsys.readouterr().out)["facts"]["lengths"]
    assert (clip["exact"], blip["exact"], blip["longest"]) == (False, True, 6)


def test_wrong_arguments_are_refused_in_one_sentence(train: Path, tmp_path: Path, capsys) -> None:
    nowhere = str(tmp_path / "nowhere")
    for option, sentence in (
        ("--against", "does not exist, expected the folder of a data set"),
        ("--tokenizer", "no such tokenizer file or folder"),
    ):
        assert main(["data", "audit", str(train), option, nowhere]) == 2
        assert sentence in capsys.readouterr().err
    assert main(["data", "audit", str(train), "--hash-distance", "40"]) == 2
    assert "a distance of 40 bits is not between 0 and 31" in capsys.readouterr().err
