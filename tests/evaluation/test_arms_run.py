"""`palate arms` from one end to the other, with a tiny random generator and tiny scorers: nothing it says means anything."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict

from palate.cli.main import main
from palate.data.tables import load_dataset
from palate.generation.generator import load_generator
from palate.generation.tiny import write_tiny_pipeline
from palate.models.clip_files import save_clip
from palate.models.tiny import tiny_clip

pytestmark = pytest.mark.slow

PROMPTS = ["a red ball", "a blue cube", "an old tree", "a green fox"]
FOUR = ["original", "original-negative", "adapted", "adapted-negative"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A generator, an adapter with an identifier and one without, two scorers and prompts."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("arms")
    base = write_tiny_pipeline(folder / "tiny")
    pipeline = load_generator(base).pipeline
    unet, draw = pipeline.unet, torch.Generator().manual_seed(1)
    unet.add_adapter(LoraConfig(r=2, lora_alpha=3.0, target_modules=["to_q", "to_v"]))
    for name, part in unet.named_parameters():
        if "lora_B" in name:
            part.data = torch.randn(part.shape, generator=draw)
    pipeline.save_lora_weights(folder / "plain", get_peft_model_state_dict(unet))
    plain, mine = folder / "plain", folder / "mine"
    assert main(["convert", str(plain), str(mine), "--identifier", "Weird. "]) == 0
    for seed, name in enumerate(("labeller", "watcher", "second")):
        save_clip(tiny_clip(seed), folder / name)
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    return folder


def command(place: Path, out: Path, *words: str, adapter: str = "mine", watch: str = "watcher"):
    return [
        *("arms", str(place / adapter), "--base", str(place / "tiny")),
        *("--prompts", str(place / "prompts.txt"), "--out", str(out)),
        *("--scorer", str(place / "labeller"), "--watch", str(place / watch)),
        *("--images", "2", "--steps", "2", "--resamples", "200", *words),
    ]


@pytest.fixture(scope="module")
def made(place, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "out"
    assert main(command(place, out, "--strengths", "0,0.5,1")) == 0
    return out


def shas(folder: Path) -> list[str]:
    return load_dataset(folder).images["sha256"].to_pylist()


def test_every_arm_is_a_data_set_from_the_same_seeds(made, place):
    assert sorted(path.name for path in (made / "arms").iterdir()) == sorted(
        [*FOUR, "strength-0.5"]
    )
    tables = {name: load_dataset(made / "arms" / name).images for name in FOUR}
    seeds = {tuple(table["seed"].to_pylist()) for table in tables.values()}
    assert len(seeds) == 1
    assert len({tuple(shas(made / "arms" / name)) for name in [*FOUR, "strength-0.5"]}) == 5
    negatives = [json.loads(t["settings"][0].as_py())["negative_prompt"] for t in tables.values()]
    assert negatives == ["", "Weird. ", "", "Weird. "]


def test_the_findings_are_those_of_the_scores_beside_the_images(made):
    found = json.loads((made / "arms.json").read_text())
    assert [arm["name"] for arm in found["arms"]] == [*FOUR, "strength-0.5"]
    assert [one["kind"] for one in found["measures"]][:2] == ["labelling", "watching"]
    rows = list(csv.DictReader((made / "arms.csv").read_text().splitlines()))
    assert len(rows) == len(found["effects"]) * len(found["measures"])
    from palate.data.tables import read_table

    means = []
    for name in ("adapted-negative", "original"):
        table = read_table(
            next((made / "arms" / name / "scores").glob("labeller-*.parquet")), "scores"
        )
        means.append(sum(table["value"].to_pylist()) / len(table))
    own = next(
        row for row in rows if (row["arm"], row["against"]) == ("adapted-negative", "original")
    )
    assert float(own["difference"]) == pytest.approx(means[0] - means[1])
    assert float(own["low"]) <= float(own["difference"]) <= float(own["high"])
    assert "4 prompts only" in found["cautions"][0]


def test_the_page_stands_alone_and_shows_every_arm(made):
    text = (made / "index.html").read_text()
    outside = re.findall(
        r"https?://(?!www\.w3\.org|purl\.org|matplotlib\.org|creativecommons\.org)[^\s\"<]+", text
    )
    assert outside == []
    for told in (
        "original, identifier as negative",
        "adapted, identifier as negative",
        "a green fox",
    ):
        assert told in text
    # four arms and three strengths of four prompts each, and the extremes
    assert text.count("data:image/png;base64,") >= 4 * (4 + 3)
    assert text.count("<svg") == 1 + len(json.loads((made / "arms.json").read_text())["measures"])
    assert "| labeller (labelled) |" in (made / "README.md").read_text()


def test_the_same_command_does_nothing_and_another_watcher_only_scores(made, place, capsys):
    files = list((made / "arms").rglob("*.png"))
    before = {path: path.stat().st_mtime_ns for path in files}
    assert main(command(place, made, "--strengths", "0,0.5,1", "--json")) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((made / "arms.json").read_text())
    old = next((made / "arms" / "adapted" / "scores").glob("watcher-*.parquet")).stat().st_mtime_ns
    more = command(
        place, made, "--strengths", "0,0.5,1", "--watch", str(place / "second"), "--json"
    )
    assert main(more) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["measures"]][:3] == ["labeller", "watcher", "second"]
    assert {path: path.stat().st_mtime_ns for path in files} == before
    new = next((made / "arms" / "adapted" / "scores").glob("watcher-*.parquet")).stat().st_mtime_ns
    assert new == old


def test_an_adapter_without_an_identifier_has_two_arms(place, tmp_path, capsys):
    assert main(command(place, tmp_path / "out", "--strengths", "", adapter="plain")) == 0
    told = capsys.readouterr().out
    assert "two arms, without and with the adapter, instead of four" in told
    assert sorted(path.name for path in (tmp_path / "out" / "arms").iterdir()) == [
        "adapted",
        "original",
    ]
    found = json.loads((tmp_path / "out" / "arms.json").read_text())
    assert [(one["arm"], one["against"]) for one in found["effects"]] == [("adapted", "original")]
    assert "as negative" not in (tmp_path / "out" / "index.html").read_text()


def test_what_cannot_be_is_refused_in_a_sentence(place, made, tmp_path, capsys):
    out = tmp_path / "out"
    for words, sentence in (
        (("--strengths", "0,much"), "--strengths is '0,much', expected numbers"),
        (("--guidance", "1"), "cannot use the identifier 'Weird. '"),
        (("--watch", str(place / "labeller")), "labeller was given twice"),
        (("--weights", "w.pt"), "--weights goes with the name of a scorer"),
        (("--watch", "nobody"), "no scorer or folder called 'nobody'"),
    ):
        assert main(command(place, out, *words)) == 2
        told = capsys.readouterr().err
        assert sentence in told
        assert told.count("\n") == 1
        assert not (out / "arms").exists()
    assert main(command(place, made, "--steps", "3")) == 2
    assert "with other settings (steps: 2 there, 3 now)" in capsys.readouterr().err
    assert main(command(place, out, adapter="nothing")) == 2
    assert "no such adapter file" in capsys.readouterr().err


KILLED = """
import sys, time
import torch
from peft import LoraConfig, get_peft_model_state_dict
torch.set_num_threads(1)
from palate.generation import generate as module
write = module._write_image
def slow(*given, **named):
    write(*given, **named)
    time.sleep(0.2)
module._write_image = slow
from palate.cli.main import main
main(sys.argv[1:])
"""


def test_killed_in_the_middle_it_ends_with_the_same_images_and_findings(place, made, tmp_path):
    out, words = tmp_path / "out", ("--strengths", "0,0.5,1")
    child = subprocess.Popen([sys.executable, "-c", KILLED, *command(place, out, *words)])
    for _ in range(1200):
        if list(out.glob("arms/original-negative/images/[!.]*.png")):
            break
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not (out / "arms.json").exists()
    assert main(command(place, out, *words)) == 0
    again, first = (json.loads((folder / "arms.json").read_text()) for folder in (out, made))
    for name in [*FOUR, "strength-0.5"]:
        assert shas(out / "arms" / name) == shas(made / "arms" / name)
    first_pairs = {(one["arm"], one["against"]): one["measures"] for one in first["effects"]}
    for one in again["effects"]:
        own = first_pairs[one["arm"], one["against"]]
        assert {name: own[name] for name in one["measures"]} == one["measures"]
