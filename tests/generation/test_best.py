"""Best of n: which images are kept, and that neither order nor interruption changes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from palate.data.records import Score
from palate.data.tables import load_dataset, read_table, to_table
from palate.errors import DataError, RunError, SettingsError
from palate.generation import best as best_module
from palate.generation import generate as generate_module
from palate.generation.best import BestOf, best_first, standings
from palate.generation.generate import GenerateSettings, generate
from palate.runs import hash_text
from palate.scoring.scorer import Scored, Scorer
from palate.settings import read_settings

PROMPTS = ["a red ball", "a blue cube", "an old tree"]
PLAIN = GenerateSettings(images_per_prompt=5, steps=2, batch=5)
BEST = GenerateSettings(images_per_prompt=2, steps=2, batch=5, best_of=BestOf(images=5))


class Redness(Scorer):
    """The mean of the red channel; it counts how often it has judged each picture."""

    name, dimension, unit, fingerprint = "redness", "overall", "rating", "redness-1"

    def __init__(self):
        self.judged = Counter()

    def judge(self, images, prompts):
        arrays = [np.asarray(image) for image in images]
        self.judged.update(hash_text(array.tobytes().hex()) for array in arrays)
        values = np.array([self.value(array) for array in arrays], dtype=np.float64)
        none = np.zeros(len(arrays), dtype=np.int32)
        return Scored(values, none, none, np.ones(len(arrays)))

    def value(self, array):
        return array[..., 0].mean()

    def forward(self, pixels, prompts):
        return 255 * pixels[:, 0].mean((1, 2))


class Same(Redness):
    def value(self, array):
        return 1.0


class Moody(Redness):
    """Cannot score the picture of a hash."""

    def __init__(self, array):
        super().__init__()
        self.array = array

    def value(self, array):
        return np.nan if np.array_equal(array, self.array) else super().value(array)


def files(folder):
    return {path.stem for path in (folder / "images").glob("*.png")}


def without_details(table):
    return table.drop_columns(["details"])


def scored(folder):
    return read_table(folder / "scores.parquet", "scores")


def details(table):
    return [json.loads(text)["best_of"] for text in table["details"].to_pylist()]


@pytest.fixture(scope="module")
def plain(generator, tmp_path_factory):
    """Every image that the choices below are made from."""
    out = tmp_path_factory.mktemp("plain") / "run"
    return out, generate(PROMPTS, generator, out, PLAIN)


def twin(out, table, prompt, keep):
    """The slow way: open every image of a prompt, and sort."""
    rows = [row for row in table.to_pylist() if row["prompt"] == prompt]
    value = {
        row["image"]: np.asarray(PIL.Image.open(out / row["path"]))[..., 0].mean() for row in rows
    }
    return sorted(value, key=lambda image: (-value[image], image))[:keep]


@pytest.mark.parametrize("keep", [1, 2, 3])
@pytest.mark.parametrize("at_once", [1, 7, 240])
def test_the_kept_have_the_highest_scores(generator, plain, tmp_path, monkeypatch, keep, at_once):
    monkeypatch.setattr(best_module, "_AT_ONCE", at_once)
    settings = replace(BEST, best_of=BestOf(images=5, keep=keep))
    table = generate(PROMPTS, generator, tmp_path / "best", settings, scorer=Redness())
    wanted = [image for prompt in PROMPTS for image in twin(*plain, prompt, keep)]
    assert table["image"].to_pylist() == wanted
    assert files(tmp_path / "best") == set(wanted)
    assert load_dataset(tmp_path / "best").images.equals(table)


def test_the_order_of_the_prompts_changes_no_choice_and_no_score(generator, tmp_path):
    there = generate(PROMPTS, generator, tmp_path / "a", BEST, scorer=Redness())
    back = generate(PROMPTS[::-1], generator, tmp_path / "b", BEST, scorer=Redness())
    alone = generate(PROMPTS[1:2], generator, tmp_path / "c", BEST, scorer=Redness())
    rows = {row["image"]: row for row in there.to_pylist()}
    assert {row["image"]: row for row in back.to_pylist()} == rows
    assert alone.to_pylist() == there.to_pylist()[2:4]


def test_best_of_one_is_the_plain_run(generator, tmp_path):
    one = GenerateSettings(images_per_prompt=1, steps=2, batch=5)
    plain = generate(PROMPTS, generator, tmp_path / "plain", one)
    settings = replace(one, best_of=BestOf(images=1))
    best = generate(PROMPTS, generator, tmp_path / "best", settings, scorer=Redness())
    assert without_details(best).equals(without_details(plain))
    assert plain["details"].null_count == 3


def test_to_keep_all_of_n_is_the_plain_run_in_another_order(generator, plain, tmp_path):
    settings = replace(PLAIN, best_of=BestOf(images=5, keep=5))
    best = generate(PROMPTS, generator, tmp_path / "best", settings, scorer=Redness())
    rows = {row["image"]: row for row in without_details(best).to_pylist()}
    assert rows == {row["image"]: row for row in without_details(plain[1]).to_pylist()}


def test_what_was_chosen_from_what_is_on_record(generator, plain, tmp_path):
    table = generate(PROMPTS, generator, tmp_path / "best", BEST, scorer=Redness())
    scores = scored(tmp_path / "best")
    assert set(scores["image"].to_pylist()) == set(plain[1]["image"].to_pylist())
    value = dict(zip(scores["image"].to_pylist(), scores["value"].to_pylist(), strict=True))
    for row, told in zip(table.to_pylist(), details(table), strict=True):
        assert told["score"] == value[row["image"]]
        assert (told["images"], told["fingerprint"]) == (5, "redness-1")
    assert [told["rank"] for told in details(table)] == [1, 2] * 3
    result = json.loads((tmp_path / "best" / "run.json").read_text())["result"]["best_of"]
    assert result["mean_of_all"] == pytest.approx(np.mean(list(value.values())))
    assert result["mean_of_kept"] == pytest.approx(
        np.mean([told["score"] for told in details(table)])
    )
    assert result["mean_of_kept"] > result["mean_of_all"]
    assert not list((tmp_path / "best").glob(".best*"))


def test_keep_all_leaves_every_image_and_tells_which_were_chosen(generator, plain, tmp_path):
    settings = replace(BEST, best_of=BestOf(images=5, keep=1, keep_all=True))
    table = generate(PROMPTS, generator, tmp_path / "best", settings, scorer=Redness())
    candidates = read_table(tmp_path / "best" / "candidates.parquet", "images")
    assert files(tmp_path / "best") == set(plain[1]["image"].to_pylist())
    assert candidates["image"].to_pylist() == scored(tmp_path / "best")["image"].to_pylist()
    first = [
        row
        for row, told in zip(candidates.to_pylist(), details(candidates), strict=True)
        if told["rank"] == 1
    ]
    assert table.to_pylist() == first


def test_equal_scores_are_decided_by_the_key(generator, plain, tmp_path):
    table = generate(PROMPTS, generator, tmp_path / "best", BEST, scorer=Same())
    keys = plain[1].to_pylist()
    wanted = [
        image
        for prompt in PROMPTS
        for image in sorted(row["image"] for row in keys if row["prompt"] == prompt)[:2]
    ]
    assert table["image"].to_pylist() == wanted


def test_blackened_images_stand_last():
    rows = [
        Score(image, prompt, "s", "overall", value, "rating", "0")
        for image, prompt, value in (
            ("a", "second", 9.0),
            ("b", "second", 1.0),
            ("c", "first", 2.0),
            ("d", "second", 5.0),
        )
    ]
    ranked = best_first(to_table(rows, "scores"), {"a", "c"})
    assert ranked["image"].to_pylist() == ["d", "b", "a", "c"]
    assert {image: told["rank"] for image, told in standings(ranked).items()} == {
        "d": 1,
        "b": 2,
        "a": 3,
        "c": 1,
    }


def test_a_blackened_image_is_kept_only_if_there_is_no_other(generator, tmp_path, monkeypatch):
    write = generate_module._write_image
    monkeypatch.setattr(
        generate_module,
        "_write_image",
        lambda out, request, image, *, flagged: write(
            out, request, image, flagged=request.index != 3
        ),
    )
    settings = replace(BEST, best_of=BestOf(images=5, keep=2))
    table = generate(PROMPTS[:1], generator, tmp_path / "best", settings, scorer=Redness())
    assert json.loads(table["settings"][0].as_py())["index"] == 3
    result = json.loads((tmp_path / "best" / "run.json").read_text())["result"]
    assert result["flagged_images"] == 1


class StopError(Exception):
    """What stands for a kill."""


def after(number, call):
    """Do as a function, and stop at its call of a number: before it, as a kill would."""
    count = iter(range(1, 10_000))

    def wrapped(*given, **named):
        if next(count) == number:
            raise StopError
        return call(*given, **named)

    return wrapped


FAULTS = {
    "while images are made": (generate_module, "_write_image", 9),
    "between two prompts that are scored": (Redness, "judge", 2),
    "between scoring and choosing": (best_module, "best_first", 1),
    "before the choice is written": (best_module, "write_table", 2),
    "before anything is deleted": (Path, "unlink", 1),
    "while the rest is deleted": (Path, "unlink", 4),
    "while tables are written": (generate_module, "write_table", 2),
    "before the record says so": (generate_module, "is_flagged", 1),
    "after the record says so": (generate_module, "forget_choosing", 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_stopped_anywhere_it_ends_the_same_and_scores_nothing_twice(
    generator, tmp_path, monkeypatch, fault
):
    monkeypatch.setattr(best_module, "_AT_ONCE", 10)  # two prompts, then one
    whole = generate(PROMPTS, generator, tmp_path / "whole", BEST, scorer=Redness())
    place, name, number = FAULTS[fault]
    judge, out = Redness(), tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(place, name, after(number, getattr(place, name)))
        with pytest.raises(StopError):
            generate(PROMPTS, generator, out, BEST, scorer=judge)
    table = generate(PROMPTS, generator, out, BEST, scorer=judge)
    assert table.equals(whole)
    assert scored(out).equals(scored(tmp_path / "whole"))
    assert files(out) == files(tmp_path / "whole")
    assert set(judge.judged.values()) == {1}
    assert len(judge.judged) == 15
    assert not (out / ".best").exists()


def test_an_image_lost_later_is_made_again_alone_and_without_scoring(
    generator, tmp_path, monkeypatch
):
    judge, out = Redness(), tmp_path / "best"
    before = generate(PROMPTS, generator, out, BEST, scorer=judge)
    (out / before["path"][3].as_py()).unlink()
    made, make = [], generate_module._make_images
    monkeypatch.setattr(
        generate_module, "_make_images", lambda few, *more: (made.extend(few), make(few, *more))
    )
    assert generate(PROMPTS, generator, out, BEST, scorer=judge).equals(before)
    assert [request.image for request in made] == [before["image"][3].as_py()]
    assert files(out) == set(before["image"].to_pylist())
    assert sum(judge.judged.values()) == 15


def test_damaged_scores_are_made_again(generator, tmp_path):
    judge, out = Redness(), tmp_path / "best"
    before = generate(PROMPTS, generator, out, BEST, scorer=judge)
    (out / "scores.parquet").write_bytes(b"PAR1")
    (out / before["path"][0].as_py()).unlink()
    assert generate(PROMPTS, generator, out, BEST, scorer=judge).equals(before)
    assert scored(out)["image"].to_pylist()[0] == before["image"][0].as_py()
    assert sum(judge.judged.values()) == 30


def test_an_image_that_cannot_be_scored_is_named_and_nothing_is_deleted(generator, plain, tmp_path):
    out, row = tmp_path / "best", plain[1].to_pylist()[7]
    moody = Moody(np.asarray(PIL.Image.open(plain[0] / row["path"])))
    with pytest.raises(DataError, match=rf"{row['image']}\.png: could not be scored by redness"):
        generate(PROMPTS, generator, out, BEST, scorer=moody)
    assert len(files(out)) == 15
    assert not (out / "images.parquet").exists()
    judge = Redness()
    generate(PROMPTS, generator, out, BEST, scorer=judge)
    assert sum(judge.judged.values()) == 5  # the prompt with that image


def test_another_scorer_is_another_run_and_the_same_one_from_elsewhere_is_not(generator, tmp_path):
    out = tmp_path / "best"
    named = BestOf(images=5, scorer="here", weights="there")
    table = generate(PROMPTS, generator, out, replace(BEST, best_of=named), scorer=Redness())
    assert generate(PROMPTS, generator, out, BEST, scorer=Redness()).equals(table)
    other = Redness()
    other.fingerprint = "redness-2"
    with pytest.raises(RunError, match=r"other inputs \(changed: 'scorer'"):
        generate(PROMPTS, generator, out, BEST, scorer=other)


def test_the_scorer_that_the_settings_name_is_loaded(generator, tmp_path):
    named = replace(BEST, best_of=BestOf(images=2, scorer="miniature"))
    table = generate(PROMPTS[:1], generator, tmp_path / "best", named)
    assert details(table)[0]["scorer"] == "miniature"


def test_a_recipe_says_it_too(tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        'generate.steps = 3\n[generate.best_of]\nimages = 16\nkeep = 4\nscorer = "hps-v2.1"\nclip = "c"\n'
    )
    settings = read_settings(GenerateSettings, recipe, section="generate")
    assert settings.best_of == BestOf(images=16, keep=4, scorer="hps-v2.1", clip="c")
    fewer = read_settings(GenerateSettings, recipe, {"best_of.keep": 1}, section="generate")
    assert fewer.best_of == replace(settings.best_of, keep=1)
    recipe.write_text("[generate.best_of]\nimages = 16\nkepe = 4\n")
    with pytest.raises(SettingsError, match="did you mean 'keep'"):
        read_settings(GenerateSettings, recipe, section="generate")


def test_what_chooses_nothing_is_refused_in_a_sentence(generator, tmp_path):
    with pytest.raises(SettingsError, match=r"best_of\.images is 0, expected at least 1"):
        BestOf(images=0)
    with pytest.raises(SettingsError, match=r"best_of\.keep is 0, expected at least 1"):
        BestOf(images=2, keep=0)
    with pytest.raises(SettingsError, match=r"fewer than the 4 to keep .* at most 2"):
        GenerateSettings(best_of=BestOf(images=2))
    with pytest.raises(SettingsError, match="no scorer that chooses"):
        generate(["a"], generator, tmp_path / "a", BEST)
    with pytest.raises(SettingsError, match="the settings have no best_of"):
        generate(["a"], generator, tmp_path / "a", PLAIN, scorer=Redness())
    assert not (tmp_path / "a").exists()


KILLED = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from palate.generation.best import BestOf
from palate.generation.generate import GenerateSettings, generate
from palate.generation.generator import load_generator
from palate.scoring.catalog import load
from palate.scoring.shards import Shards
put = Shards.put
def slow(*given):
    put(*given)
    time.sleep(0.5)
Shards.put = slow
settings = GenerateSettings(images_per_prompt=2, steps=2, batch=5, best_of=BestOf(images=5))
generate({prompts!r}, load_generator(Path(sys.argv[1])), Path(sys.argv[2]), settings, scorer=load("miniature"))
"""


@pytest.mark.slow
def test_killed_while_it_scores_it_ends_the_same(base, generator, tmp_path):
    from palate.scoring.catalog import load

    whole = generate(PROMPTS, generator, tmp_path / "whole", BEST, scorer=load("miniature"))
    out = tmp_path / "killed"
    code = KILLED.format(prompts=PROMPTS)
    child = subprocess.Popen([sys.executable, "-c", code, str(base), str(out)])
    for _ in range(1200):
        if list(out.glob(".best/000000/[!.]*.parquet")):
            break
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert len(files(out)) == 15
    assert not (out / "scores.parquet").exists()
    assert generate(PROMPTS, generator, out, BEST, scorer=load("miniature")).equals(whole)
    assert scored(out).equals(scored(tmp_path / "whole"))
    assert files(out) == files(tmp_path / "whole")
