"""The verb `score`: any images in, one row each out, resumable and honest about failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from palate.cli.main import main
from palate.data.records import Image
from palate.data.tables import read_table, save_dataset, to_table, write_table
from palate.errors import CheckpointError, DataError, RunError, SettingsError
from palate.models.clip_files import save_clip
from palate.models.tiny import tiny_clip
from palate.scoring.cache import FeatureCache
from palate.scoring.catalog import SCORERS, load
from palate.scoring.inputs import gather_images
from palate.scoring.networks import ClipScorer
from palate.scoring.output import cut_rows, error_rows
from palate.scoring.prompts import read_prompts
from palate.scoring.score import ScoreSettings, score_images, score_table

LONG = "an extremely long prompt " * 10


@pytest.fixture
def scorer():
    return ClipScorer(tiny_clip(0), "tiny")


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures of four prompts, mixed."""
    random = np.random.default_rng(0)
    place = tmp_path / "pictures"
    place.mkdir()
    lines = ["image,prompt"]
    for number in range(12):
        side = 20 + 3 * number
        pixels = random.integers(0, 256, (side, 30, 3), dtype=np.uint8)
        Picture.fromarray(pixels, "RGB").save(place / f"{number:02d}.png")
        prompt = ("a fox", "", "two cats", LONG)[number % 4]
        lines.append(f'{number:02d}.png,"{prompt}"')
    (place / "prompts.csv").write_text("\n".join(lines) + "\n")
    return place


@pytest.fixture
def saved(tmp_path):
    save_clip(tiny_clip(0), tmp_path / "tiny", name="tiny", unit="hps")
    return tmp_path / "tiny"


def values(table):
    return dict(zip(table["image"].to_pylist(), table["value"].to_pylist(), strict=True))


def test_every_image_is_a_row_in_its_place(folder, scorer):
    gathered = gather_images([folder])
    scores = score_table(gathered.images, gathered.folder, scorer, ScoreSettings(batch=5))
    assert scores["image"].to_pylist() == [f"{number:02d}.png" for number in range(12)]
    for row in scores.to_pylist():
        alone = scorer.judge([Picture.open(folder / row["image"])], [row["prompt"]])
        assert row["value"] == pytest.approx(alone.values[0], abs=1e-4)
        assert (row["unit"], row["scorer"], row["error"]) == ("hps", "tiny", None)
        assert row["fingerprint"] == scorer.fingerprint
    assert set(cut_rows(scores)["prompt"].to_pylist()) == {LONG}


@pytest.mark.parametrize(("batch", "shard"), [(1, 1), (3, 4), (32, 2048)])
def test_batches_and_shards_do_not_matter(folder, scorer, tmp_path, batch, shard):
    gathered = gather_images([folder])
    whole = score_table(gathered.images, gathered.folder, scorer)
    how = ScoreSettings(batch=batch, shard=shard)
    parts = score_table(gathered.images, gathered.folder, scorer, how, tmp_path / "shards")
    assert parts["image"].equals(whole["image"])
    assert np.allclose(parts["value"], whole["value"], atol=1e-4)


def test_a_prompts_features_are_computed_once(folder, scorer, tmp_path, monkeypatch):
    asked = []
    real = scorer.clip.tokenizer.batch

    def batch(prompts):
        asked.extend(prompts)
        return real(prompts)

    monkeypatch.setattr(scorer.clip.tokenizer, "batch", batch)
    gathered = gather_images([folder])
    with FeatureCache(tmp_path / "cache", 10**8) as cache:
        how = ScoreSettings(batch=2, shard=2)
        score_table(gathered.images, gathered.folder, scorer, how, cache=cache)
    assert sorted(asked) == sorted({"a fox", "", "two cats", LONG})


def test_an_interrupted_run_goes_on_and_ends_the_same(folder, scorer, tmp_path, monkeypatch):
    gathered = gather_images([folder])
    how = ScoreSettings(batch=2, shard=3)
    score_images(gathered, scorer, tmp_path / "whole", how)
    real, calls = ClipScorer.judge_seen, []

    def crash(self, seen, images, prompts):
        calls.append(len(images))
        if sum(calls) > 6:
            raise KeyboardInterrupt
        return real(self, seen, images, prompts)

    monkeypatch.setattr(ClipScorer, "judge_seen", crash)
    with pytest.raises(KeyboardInterrupt):
        score_images(gathered, ClipScorer(tiny_clip(0), "tiny"), tmp_path / "part", how)
    assert not (tmp_path / "part" / "scores.parquet").exists()
    before, calls[:] = sum(calls), []

    def count(self, seen, images, prompts):
        calls.append(len(images))
        return real(self, seen, images, prompts)

    monkeypatch.setattr(ClipScorer, "judge_seen", count)
    score_images(gathered, ClipScorer(tiny_clip(0), "tiny"), tmp_path / "part", how)
    assert before > 6
    assert sum(calls) == 6  # the two finished shards of three were found again
    whole, part = (
        read_table(tmp_path / name / "scores.parquet", "scores") for name in ("whole", "part")
    )
    assert whole.equals(part)
    assert not (tmp_path / "part" / "shards").exists()


def test_a_damaged_shard_is_made_again(folder, scorer, tmp_path):
    gathered = gather_images([folder])
    how = ScoreSettings(shard=3)
    whole = score_table(gathered.images, gathered.folder, scorer, how, tmp_path)
    (tmp_path / "000001-0.parquet").write_bytes(b"PAR1 half")
    assert score_table(gathered.images, gathered.folder, scorer, how, tmp_path).equals(whole)


def test_a_shard_of_another_scorer_is_not_taken(folder, scorer, tmp_path):
    gathered = gather_images([folder])
    score_table(gathered.images, gathered.folder, scorer, shards=tmp_path)
    other = ClipScorer(tiny_clip(1), "tiny")
    found = score_table(gathered.images, gathered.folder, other, shards=tmp_path)
    assert values(found) == values(score_table(gathered.images, gathered.folder, other))


def test_what_cannot_be_read_is_a_row_with_an_error(folder, scorer, tmp_path):
    (folder / "05.png").write_text("I am text")
    whole = (folder / "06.png").read_bytes()
    (folder / "06.png").write_bytes(whole[: len(whole) // 2])
    gathered = gather_images([folder])
    (folder / "07.png").unlink()
    out = tmp_path / "scores.parquet"
    with pytest.raises(
        DataError, match=r"3 of 12 scores could not be had.*05\.png.*--allow-errors"
    ):
        score_images(gathered, scorer, out)
    errors = error_rows(read_table(out, "scores"))
    assert errors["image"].to_pylist() == ["05.png", "06.png", "07.png"]
    result = score_images(gathered, scorer, out, allow_errors=True)
    assert (result["images"], result["errors"]) == (12, 3)
    with pytest.raises(DataError, match="3 of 12"):
        score_images(gathered, scorer, out)


def test_a_repaired_image_is_scored_the_next_time(folder, scorer, tmp_path):
    rows = [
        Image(image=f"{n:02d}.png", prompt="a fox", path=f"pictures/{n:02d}.png") for n in range(3)
    ]
    write_table(to_table(rows, "images"), tmp_path / "images.parquet")
    good = (folder / "01.png").read_bytes()
    (folder / "01.png").write_bytes(b"")
    gathered = gather_images([tmp_path / "images.parquet"])
    with pytest.raises(DataError, match=r"1 of 3.*empty file"):
        score_images(gathered, scorer, tmp_path / "run")
    (folder / "01.png").write_bytes(good)
    assert score_images(gathered, scorer, tmp_path / "run")["errors"] == 0


def test_a_score_that_is_not_finite_is_an_error(folder, scorer, monkeypatch):
    real = ClipScorer.judge_seen

    def spoilt(self, seen, images, prompts):
        scored = real(self, seen, images, prompts)
        scored.values[0] = np.nan
        return scored

    monkeypatch.setattr(ClipScorer, "judge_seen", spoilt)
    gathered = gather_images([folder])
    scores = score_table(gathered.images, gathered.folder, scorer)
    assert error_rows(scores)["error"].to_pylist() == ["the score is nan, which is not finite"]


def test_no_images_give_an_empty_table(scorer):
    assert len(score_table(to_table([], "images"), Path(), scorer)) == 0


def test_a_file_that_is_no_run_is_not_overwritten(folder, scorer, tmp_path):
    out = tmp_path / "scores.parquet"
    out.write_text("precious")
    with pytest.raises(RunError, match="exists already"):
        score_images(gather_images([folder]), scorer, out)
    assert out.read_text() == "precious"
    score_images(gather_images([folder]), scorer, out, overwrite=True)
    assert len(read_table(out, "scores")) == 12


def test_images_come_from_files_folders_tables_and_data_sets(folder, scorer, tmp_path):
    files = gather_images([folder / "00.png", folder / "01.png"], prompt="x")
    assert files.images["image"].to_pylist() == [str(folder / "00.png"), str(folder / "01.png")]
    (folder / "prompts.csv").rename(tmp_path / "p.csv")
    named = gather_images([folder], prompts=tmp_path / "p.csv")
    assert named.images["prompt"].to_pylist()[:3] == ["a fox", "", "two cats"]
    for number in range(12):
        (folder / f"{number:02d}.txt").write_text(f"prompt {number}\n")
    assert gather_images([folder]).images["prompt"].to_pylist()[11] == "prompt 11"
    save_dataset(tmp_path / "set", named.images, to_table([], "choices"))
    again = gather_images([tmp_path / "set"])
    assert again.images.equals(named.images)
    one = gather_images([tmp_path / "set" / "images.parquet"], prompt="all the same")
    assert set(one.images["prompt"].to_pylist()) == {"all the same"}


def test_prompts_are_read_from_three_kinds_of_file(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"image": "x.png", "prompt": "a, b"}\n')
    (tmp_path / "a.txt").write_text("x.png\ta, b\n\n")
    (tmp_path / "a.csv").write_text('image,prompt\nx.png,"a, b"\n')
    for name in ("a.jsonl", "a.txt", "a.csv"):
        assert read_prompts(tmp_path / name) == {"x.png": "a, b"}


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.txt", "x.png a fox\n", "line 1: expected image<TAB>prompt"),
        ("a.txt", "x.png\ta\nx.png\tb\n", "line 2: image 'x.png' was there before"),
        ("a.txt", "\n", "holds no prompt"),
        ("a.yaml", "x", r"read from \.csv"),
        ("a.jsonl", '{"image": "x.png"}\n', "prompt"),
        ("a.jsonl", '{"image": "x.png", "prompt": 3}\n', "must be texts"),
    ],
)
def test_a_wrong_prompts_file_is_told_in_a_sentence(tmp_path, name, text, told):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=told):
        read_prompts(tmp_path / name)


def test_wrong_paths_are_told_in_a_sentence(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no such file or folder"):
        gather_images([tmp_path / "nowhere.png"], prompt="x")
    with pytest.raises(DataError, match="holds no image file"):
        gather_images([tmp_path / "empty"], prompt="x")
    with pytest.raises(DataError, match="give --prompt or --prompts"):
        gather_images([folder], prompt="x", prompts=folder / "prompts.csv")
    with pytest.raises(DataError, match="given twice"):
        gather_images([folder / "00.png", folder / "00.png"], prompt="x")
    with pytest.raises(DataError, match=r"prompts\.csv: has no prompt for image '.*other\.png'"):
        (folder / "other.png").write_bytes((folder / "00.png").read_bytes())
        gather_images([folder])
    (folder / "prompts.csv").unlink()
    with pytest.raises(DataError, match="has no prompt; give --prompt TEXT"):
        gather_images([folder])


def test_the_catalogue_tells_what_it_lacks(saved):
    assert [name for name in SCORERS if name != "miniature"] == [
        *("hps-v1", "hps-v2", "hps-v2.1", "pickscore", "image-reward", "mps"),
        *("clip-score", "aesthetic"),
    ]
    with pytest.raises(CheckpointError, match="did you mean 'hps-v1'"):
        load("hpsv1")
    with pytest.raises(CheckpointError, match="needs its weights"):
        load("hps-v1")
    with pytest.raises(CheckpointError, match="does not say which scorer"):
        load(str(saved / "model.safetensors"))
    with pytest.raises(CheckpointError, match="brings its own weights"):
        load(str(saved), saved / "model.safetensors")
    card = json.loads((saved / "palate.json").read_text()) | {"unit": "parsec"}
    (saved / "palate.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match="unit is 'parsec'"):
        load(str(saved))


@pytest.mark.parametrize("name", ["batch", "shard", "workers"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(SettingsError, match=f"{name} is 0"):
        ScoreSettings(**{name: 0})


def test_one_prompt_can_serve_all_images_and_counts_must_match(scorer):
    images = [Picture.new("RGB", (9, 9)), Picture.new("RGB", (8, 8))]
    assert np.allclose(scorer.judge(images, "x").values, scorer.judge(images, ["x", "x"]).values)
    with pytest.raises(DataError, match="2 images but 1 prompts"):
        scorer.judge(images, ["x"])


def test_the_units_are_one_cosine(saved):
    clip = tiny_clip(0)
    image = [Picture.effect_noise((40, 40), 90).convert("RGB")]
    cosine, hps, logit = (
        ClipScorer(clip, "tiny", unit=unit).judge(image, ["a fox"]).values[0]
        for unit in ("cosine", "hps", "logit")
    )
    assert hps == pytest.approx(100 * cosine)
    assert logit == pytest.approx(cosine * float(clip.model.logit_scale.exp()))


def test_the_differentiable_forward_is_the_score_up_to_rounding(scorer):
    import torch

    image = Picture.effect_noise((61, 47), 60).convert("RGB")
    pixels = torch.from_numpy(np.array(image, dtype=np.float32) / 255).permute(2, 0, 1)[None]
    pixels.requires_grad_()
    value = scorer.forward(pixels, ["a fox"])
    assert value.item() == pytest.approx(scorer.judge([image], ["a fox"]).values[0], abs=0.3)
    value.sum().backward()
    step = 1e-3 * pixels.grad / pixels.grad.abs().max()
    better = scorer.forward((pixels + step).detach(), ["a fox"])
    assert better.item() > value.item()


def test_the_command_prints_scores_for_people_and_machines(folder, saved, capsys):
    assert main(["score", str(folder), "--scorer", str(saved)]) == 0
    told = capsys.readouterr().out
    assert "'a fox'" in told
    assert "tiny [hps]" in told
    assert "(read 24 of " in told
    table = told.split("tiny [hps]")[1].splitlines()[1:4]
    first = [float(line.split()[0]) for line in table]
    assert sum(float(line.split()[1]) for line in table) == pytest.approx(100, abs=0.2)
    assert [line.split()[3] for line in table] == ["100", "50", "0"]
    assert first == sorted(first, reverse=True)
    assert main(["score", str(folder), "--scorer", str(saved), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["scores"]) == 12


def test_the_command_writes_a_table_and_tells_errors(folder, saved, tmp_path, capsys):
    out = tmp_path / "s.parquet"
    command = ["score", str(folder), "--scorer", str(saved), "--out", str(out)]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 12
    assert len(read_table(out, "scores")) == 12
    (folder / "03.png").write_text("hello")
    assert main(command) == 2
    assert "on other inputs (changed: 'images')" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 2
    assert "1 of 12 scores could not be had" in capsys.readouterr().err
    assert main([*command, "--allow-errors"]) == 0
    assert main(["score", str(folder), "--scorer", str(saved)]) == 2
    assert "error" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0 or sys.platform != "linux", reason="needs to mount a small disk"
)
def test_a_full_disk_is_a_sentence_and_leaves_no_table(folder, saved, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small disk")
    try:
        (disk / "ballast").write_bytes(b"x" * 4096)
        command = [sys.executable, "-m", "palate", "score", str(folder), "--scorer", str(saved)]
        source = str(Path(__file__).parents[2] / "src")
        found = subprocess.run(
            [*command, "--out", str(disk / "scores.parquet")],
            env=os.environ | {"PYTHONPATH": source},
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 2
        assert "No space left on device" in found.stderr
        assert "Traceback" not in found.stderr
        assert not list(disk.rglob("*.parquet"))
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_an_image_without_a_file_is_a_row_with_an_error(folder, scorer):
    rows = [
        Image(image="00.png", prompt="a fox", path="00.png"),
        Image(image="lost", prompt="a fox"),
    ]
    scores = score_table(to_table(rows, "images"), folder, scorer)
    assert scores["error"].to_pylist() == [
        None,
        "image 'lost' has no file in the table of images",
    ]


def test_the_command_keeps_features_and_says_so(folder, saved, tmp_path, capsys, monkeypatch):
    cache = str(tmp_path / "cache")
    command = ["score", str(folder), "--scorer", str(saved), "--cache", cache]
    assert main([*command, "--out", str(tmp_path / "a.csv")]) == 0
    assert "from the cache" not in capsys.readouterr().out
    assert main([*command, "--out", str(tmp_path / "b.csv"), "--workers", "1"]) == 0
    assert "(100 % of the image features from the cache)" in capsys.readouterr().out
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert main([*command, "--no-cache"]) == 2
    assert "--no-cache and --cache exclude each other" in capsys.readouterr().err
    assert main([*command[:-2], "--no-cache", "--workers", "0"]) == 2
    assert "workers is 0" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_of_a_large_table_the_command_prints_the_first_rows(
    folder, saved, tmp_path, capsys, monkeypatch, ending
):
    monkeypatch.setattr("palate.cli.score._READ_BACK", 5)
    monkeypatch.setattr("palate.cli.score._SHOWN", 3)
    (folder / "01.png").write_text("no image")
    out = str(tmp_path / f"a.{ending}")
    assert main(["score", str(folder), "--scorer", str(saved), "--out", out]) == 2
    told = capsys.readouterr().out.splitlines()
    assert told[0].endswith("  00.png  'a fox'")
    assert told[1] == "error  01.png  ''"
    assert told[3:] == ["… and 9 scores more", f"12 scores: {out}"]
