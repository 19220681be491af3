from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest

from palate.data.tables import load_dataset
from palate.errors import DataError, RunError, SettingsError
from palate.generation.generate import GenerateSettings, generate, list_requests
from palate.generation.generator import load_generator

PROMPTS = ["a red ball", "a blue cube", "an old tree"]
QUICK = GenerateSettings(images_per_prompt=3, steps=3, batch=4)


def pixels(folder, table):
    return {
        row["image"]: np.asarray(PIL.Image.open(folder / row["path"])).astype(int)
        for row in table.to_pylist()
    }


def content(table):
    return dict(zip(table["image"].to_pylist(), table["sha256"].to_pylist(), strict=True))


@pytest.fixture
def made(generator, tmp_path):
    return generate(PROMPTS, generator, tmp_path / "made", QUICK)


def test_it_writes_a_data_set_with_everything_about_each_image(generator, made, tmp_path):
    found = load_dataset(tmp_path / "made").images
    assert found.equals(made)
    assert found["prompt"].to_pylist() == [prompt for prompt in PROMPTS for _ in range(3)]
    assert len(set(content(found).values())) == 9
    row = found.to_pylist()[4]
    assert (row["width"], row["height"]) == (16, 16)
    assert row["generator"] == f"tiny@{generator.fingerprint[:12]}"
    settings = json.loads(row["settings"])
    assert settings["index"] == 1
    assert settings["scheduler"] == "DDIMScheduler"
    assert settings["negative_prompt"] == ""
    assert json.loads((tmp_path / "made" / "run.json").read_text())["result"]["images"] == 9


def test_an_image_is_the_same_bytes_alone_reordered_or_in_other_company(generator, made, tmp_path):
    turned = generate(PROMPTS[::-1], generator, tmp_path / "turned", QUICK)
    alone = generate(PROMPTS[1:2], generator, tmp_path / "alone", QUICK)
    assert content(turned) == content(made)
    assert content(alone).items() <= content(made).items()


@pytest.mark.parametrize("batch", [1, 2, 7, 16])
def test_another_batch_size_moves_no_pixel_by_more_than_a_level(generator, made, tmp_path, batch):
    settings = GenerateSettings(images_per_prompt=3, steps=3, batch=batch)
    other = generate(PROMPTS, generator, tmp_path / "other", settings)
    before, after = pixels(tmp_path / "made", made), pixels(tmp_path / "other", other)
    assert before.keys() == after.keys()
    assert max(abs(before[key] - after[key]).max() for key in before) <= 1


def test_more_images_per_prompt_leave_the_first_ones_as_they_are(generator, made, tmp_path):
    more = GenerateSettings(images_per_prompt=5, steps=3, batch=4)
    assert (
        content(made).items() <= content(generate(PROMPTS, generator, tmp_path / "m", more)).items()
    )


def test_another_run_name_gives_other_images(generator, made, tmp_path):
    named = GenerateSettings(images_per_prompt=3, steps=3, batch=4, run="second")
    other = generate(PROMPTS, generator, tmp_path / "other", named)
    assert not set(content(made).values()) & set(content(other).values())


def test_a_prompt_given_twice_is_generated_once(generator, tmp_path):
    table = generate(["a", "b", "a"], generator, tmp_path / "out", QUICK)
    assert table["prompt"].to_pylist() == ["a"] * 3 + ["b"] * 3
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["result"]["repeated_prompts"] == 1


def test_a_finished_run_is_not_repeated_and_another_is_refused(generator, made, tmp_path):
    before = (tmp_path / "made" / made["path"][0].as_py()).stat().st_mtime_ns
    assert generate(PROMPTS, generator, tmp_path / "made", QUICK).equals(made)
    assert (tmp_path / "made" / made["path"][0].as_py()).stat().st_mtime_ns == before
    with pytest.raises(RunError, match="other inputs"):
        generate(PROMPTS[:1], generator, tmp_path / "made", QUICK)


def test_lost_and_damaged_images_are_made_again(generator, made, tmp_path):
    folder = tmp_path / "made"
    paths = [folder / path for path in made["path"].to_pylist()]
    paths[0].unlink()
    (folder / "images.parquet").unlink()
    paths[5].write_bytes(paths[5].read_bytes()[:40])
    again = generate(PROMPTS, generator, folder, QUICK)
    assert again.equals(made)
    assert json.loads((folder / "run.json").read_text())["notes"]["already_there"] == 7


KILLED = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from palate.generation import generate as module
from palate.generation.generator import load_generator
write = module._write_image
def slow(*given, **named):
    write(*given, **named)
    time.sleep(0.2)
module._write_image = slow
settings = module.GenerateSettings(images_per_prompt=3, steps=3, batch=4)
module.generate({prompts!r}, load_generator(Path(sys.argv[1])), Path(sys.argv[2]), settings)
"""


@pytest.mark.slow
def test_killed_in_the_middle_nothing_is_doubled_or_lost(base, generator, made, tmp_path):
    out = tmp_path / "killed"
    code = KILLED.format(prompts=PROMPTS)
    child = subprocess.Popen([sys.executable, "-c", code, str(base), str(out)])
    for _ in range(600):
        if len(list(out.glob("images/[!.]*.png"))) >= 2:
            break
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    there = len(list(out.glob("images/[!.]*.png")))
    assert 2 <= there < 9
    assert not (out / "images.parquet").exists()
    table = generate(PROMPTS, generator, out, QUICK)
    assert table.equals(made)
    assert len(list(out.glob("images/[!.]*.png"))) == 9
    assert json.loads((out / "run.json").read_text())["notes"]["already_there"] == there


def test_the_seed_comes_from_run_prompt_and_index_alone(base, adapter):
    plain = list_requests(PROMPTS, load_generator(base), QUICK)
    adapted = list_requests(PROMPTS, load_generator(base, adapter), QUICK)
    assert [one.seed for one in plain] == [one.seed for one in adapted]
    assert not {one.image for one in plain} & {one.image for one in adapted}


def test_the_adapters_identifier_is_the_negative_prompt_unless_told_otherwise(
    base, adapter, tmp_path
):
    adapted = load_generator(base, adapter)
    own = generate(["a"], adapted, tmp_path / "own", QUICK)
    same = GenerateSettings(images_per_prompt=3, steps=3, batch=4, negative_prompt="Weird. ")
    none = GenerateSettings(images_per_prompt=3, steps=3, batch=4, negative_prompt="")
    assert json.loads(own["settings"][0].as_py())["negative_prompt"] == "Weird. "
    assert content(generate(["a"], adapted, tmp_path / "same", same)) == content(own)
    other = generate(["a"], adapted, tmp_path / "none", none)
    assert not set(content(other).values()) & set(content(own).values())


def test_what_makes_no_image_is_refused_in_a_sentence(generator, base, adapter, tmp_path):
    with pytest.raises(DataError, match="no prompts"):
        generate([], generator, tmp_path / "a")
    with pytest.raises(SettingsError, match="batch is 0, expected at least 1"):
        GenerateSettings(batch=0)
    with pytest.raises(SettingsError, match="height is 20, expected a multiple of 8"):
        generate(["a"], generator, tmp_path / "a", GenerateSettings(height=20))
    with pytest.raises(SettingsError, match=r"cannot use the negative prompt 'Weird\. '"):
        generate(
            ["a"], load_generator(base, adapter), tmp_path / "a", GenerateSettings(guidance=1.0)
        )
    assert not (tmp_path / "a").exists()


def test_a_prefix_changes_the_words_and_keeps_the_noise_and_the_prompt(generator, made, tmp_path):
    images = generate(
        PROMPTS, generator, tmp_path / "prefixed", replace(QUICK, prefix="Weird image. ")
    )
    assert images["seed"].equals(made["seed"])
    assert images["prompt"].equals(made["prompt"])
    assert not set(images["image"].to_pylist()) & set(made["image"].to_pylist())
    assert images["sha256"].to_pylist() != made["sha256"].to_pylist()
    whole = ["Weird image. " + prompt for prompt in PROMPTS]
    other = generate(whole, generator, tmp_path / "whole", QUICK)
    assert not set(images["seed"].to_pylist()) & set(other["seed"].to_pylist())
