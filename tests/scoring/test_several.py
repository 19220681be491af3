"""Several scorers in one run: each as if alone, and what they share is done once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from palate.cli.main import main
from palate.errors import CheckpointError, DataError, SettingsError
from palate.models.clip_files import save_clip
from palate.models.tiny import tiny_clip
from palate.scoring import workers
from palate.scoring.cache import FeatureCache
from palate.scoring.catalog import load
from palate.scoring.inputs import gather_images
from palate.scoring.networks import ClipScorer
from palate.scoring.score import ScoreSettings, score_images, score_table
from palate.scoring.scorer import Scored, Scorer


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    random = np.random.default_rng(0)
    for number in range(6):
        pixels = random.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
        Picture.fromarray(pixels, "RGB").save(place / f"{number}.png")
        (place / f"{number}.txt").write_text(["a fox", "two cats"][number % 2])
    return place


@pytest.fixture
def judges():
    clip = tiny_clip(0)
    return [
        ClipScorer(clip, "a"),
        ClipScorer(tiny_clip(1), "b"),
        ClipScorer(clip, "c", unit="cosine"),
    ]


def test_each_is_scored_as_if_alone(folder, judges):
    gathered = gather_images([folder])
    how = ScoreSettings(batch=4, shard=3)
    together = score_table(gathered.images, gathered.folder, judges, how)
    parts = [score_table(gathered.images, gathered.folder, judge, how) for judge in judges]
    assert together["scorer"].to_pylist() == [*"aaaaaabbbbbbcccccc"]
    for number, part in enumerate(parts):
        assert together.slice(6 * number, 6).to_pylist() == part.to_pylist()


def test_files_are_opened_once_and_a_shared_tower_looks_once(folder, judges, monkeypatch):
    opened, looked = [], []
    real = workers.read_image

    def counted(path):
        opened.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(workers, "read_image", counted)
    for judge in judges:
        see = judge.eye.see_ready
        monkeypatch.setattr(
            judge.eye, "see_ready", lambda some, see=see: (looked.append(len(some)), see(some))[1]
        )
    gathered = gather_images([folder])
    score_table(gathered.images, gathered.folder, judges)
    assert sorted(opened) == [f"{n}.png" for n in range(6)]
    assert sum(looked) == 12  # a and c share one tower


def test_an_unreadable_image_is_an_error_for_each(folder, judges):
    (folder / "3.png").write_text("no picture")
    gathered = gather_images([folder])
    scores = score_table(gathered.images, gathered.folder, judges)
    assert scores["error"].null_count == 15


def test_an_added_scorer_is_another_run_and_the_same_one_twice_is_refused(folder, judges, tmp_path):
    gathered = gather_images([folder])
    result = score_images(gathered, judges[:2], tmp_path / "out.parquet")
    assert (result["images"], len(result["scorers"])) == (6, 2)
    assert result["scorers"][0]["unit"] == "hps"
    with pytest.raises(DataError, match="the same scorer was given twice"):
        score_table(gathered.images, gathered.folder, [judges[0], judges[0]])
    with pytest.raises(DataError, match="no scorer was given"):
        score_table(gathered.images, gathered.folder, [])


@pytest.fixture
def saved(tmp_path):
    for seed, name in enumerate("ab"):
        save_clip(tiny_clip(seed), tmp_path / name, name=name, unit="hps")
    return [str(tmp_path / name) for name in "ab"]


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_the_command_takes_several(folder, saved, tmp_path, capsys, ending):
    out = tmp_path / f"s.{ending}"
    command = ["score", str(folder), "--scorer", saved[0], "--scorer", saved[1], "--out", str(out)]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "a [hps]" in told
    assert "b [hps]" in told
    assert "12 scores" in told
    before = out.read_bytes()
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 6
    assert out.read_bytes() == before
    assert main([*command, "--weights", "x"]) == 2
    assert "--weights goes with one scorer" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_manifest_is_a_list_of_pairs(folder, judges, tmp_path, ending):
    pairs = [("0.png", "a fox"), ("0.png", "two cats"), ("sub/../1.png", "")]
    (folder / "sub").mkdir()
    path = folder / f"list.{ending}"
    if ending == "csv":
        path.write_text("image,prompt\n" + "".join(f"{a},{b}\n" for a, b in pairs))
    elif ending == "jsonl":
        path.write_text("".join(json.dumps({"path": a, "caption": b}) + "\n" for a, b in pairs))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {"file_name": [a for a, _ in pairs], "prompt": [b for _, b in pairs]}
        pq.write_table(pa.table(columns), path)
    gathered = gather_images([path])
    assert gathered.images["image"].to_pylist() == ["0.png", "0.png#2", "sub/../1.png"]
    scores = score_table(gathered.images, gathered.folder, judges[0])
    wanted = judges[0].score([folder / a for a, _ in pairs], [b for _, b in pairs])
    assert scores["value"].to_numpy() == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image\n0.png\n", "line 2: has no column 'prompt'; there are image"),
        ("name,prompt\n0.png,x\n", "line 2: has no column 'image'; there are name, prompt"),
        ("image,prompt\n0.png,x\n0.png,x\n", "line 3: image '0.png' stands there twice"),
        ("image,prompt\n", "holds no image"),
    ],
)
def test_a_faulty_manifest_is_told(folder, text, said):
    (folder / "list.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        gather_images([folder / "list.csv"])


def test_a_scorer_without_prompts_needs_none(folder):
    for file in folder.glob("*.txt"):
        file.unlink()
    with pytest.raises(DataError, match="has no prompt"):
        gather_images([folder])
    assert set(gather_images([folder], need_prompts=False).images["prompt"].to_pylist()) == {""}


def test_names_profiles_and_weights_that_do_not_fit_are_told(saved):
    with pytest.raises(CheckpointError, match=r"did you mean 'hps-v2\.1'"):
        load("hps-v21")
    with pytest.raises(CheckpointError, match="no profile 'gelo', expected one of official, gelu"):
        load("hps-v1@gelo", saved[0])
    with pytest.raises(CheckpointError, match="only mps does"):
        load("hps-v1", saved[0], condition="overall")
    with pytest.raises(CheckpointError, match="only aesthetic does"):
        load("hps-v1", saved[0], clip=saved[1])
    with pytest.raises(CheckpointError, match="no such weights"):
        load("hps-v1", "nowhere.pt")


def test_a_folder_of_another_scorer_is_refused(tmp_path):
    save_clip(tiny_clip(0), tmp_path / "v1", scorer="hps-v1", profile="gelu", name="hps-v1")
    assert load(str(tmp_path / "v1")).card()["profile"] == "gelu"
    with pytest.raises(CheckpointError, match="holds the scorer 'hps-v1', expected 'hps-v2'"):
        load("hps-v2", tmp_path / "v1")


def test_weights_of_another_published_size_are_refused(monkeypatch, saved):
    from palate.scoring import builders

    monkeypatch.setattr(builders, "published_name", lambda _: "ViT-L/14")
    with pytest.raises(CheckpointError, match="sizes of CLIP ViT-L/14, expected those of ViT-H/14"):
        load("hps-v2", saved[0])
    assert load("hps-v1", saved[0]).name == "hps-v1"


def test_profiles_are_other_functions(tmp_path):
    save_clip(tiny_clip(0), tmp_path / "plain")
    picture = Picture.effect_noise((60, 40), 90).convert("RGB")
    found = {
        profile: load(f"clip-score@{profile}", tmp_path / "plain").score(picture, "a fox")[0]
        for profile in ("cosine", "hessel", "torchmetrics")
    }
    assert -1 <= found["cosine"] <= 1
    assert found["hessel"] >= 0
    official = load("hps-v1", tmp_path / "plain")
    gelu = load("hps-v1", tmp_path / "plain", profile="gelu")
    assert official.fingerprint != gelu.fingerprint
    assert abs(official.score(picture, "a fox")[0] - gelu.score(picture, "a fox")[0]) > 1e-4


def test_two_formats_are_two_runs(folder, judges, tmp_path):
    gathered = gather_images([folder])
    for name in ("s.csv", "s.jsonl", "s.parquet"):
        assert score_images(gathered, judges[0], tmp_path / name)["scores"] == str(tmp_path / name)
        assert (tmp_path / name).is_file()


def test_what_no_scorer_would_look_at_is_refused(folder, saved, tmp_path, capsys):
    with pytest.raises(CheckpointError, match="only mps does"):
        load(saved[0], condition="overall")
    with pytest.raises(CheckpointError, match="only aesthetic does"):
        load(saved[0], clip=saved[1])
    with pytest.raises(CheckpointError, match="says its own architecture"):
        load(saved[0], architecture=tmp_path / "x.json")
    with pytest.raises(CheckpointError, match="brings its own weights"):
        load("miniature", saved[0])
    with pytest.raises(SettingsError, match="device is 'gpu', expected cpu, cuda"):
        load(saved[0], device="gpu")
    two = ["score", str(folder), "--scorer", saved[0], "--scorer", saved[1]]
    for more, said in (
        (["--condition", "detail"], "--condition and --mask-threshold go with mps"),
        (["--mask-threshold", "0.1"], "--condition and --mask-threshold go with mps"),
        (["--clip", saved[0]], "--clip goes with aesthetic"),
        (["--out", str(tmp_path / "s.xlsx")], "scores are written as .parquet, .csv, .jsonl"),
        (["--gallery", str(tmp_path)], "the gallery is a page"),
        (["--scorer", "hps-v1="], "no weights after the ="),
        (["--scorer", f"hps-v1={tmp_path / 'no.pt'}"], "--scorer hps-v1="),
    ):
        assert main([*two, *more]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU says")
def test_a_gpu_that_is_not_there_is_told(saved):
    with pytest.raises(SettingsError, match="torch finds no GPU here"):
        load(saved[0], device="cuda")


def test_a_folder_may_have_any_name(tmp_path):
    place = tmp_path / "lr=1e-4@best"
    save_clip(tiny_clip(0), place, name="x", unit="hps")
    assert load(place).name == "x"
    picture = tmp_path / "a.png"
    Picture.new("RGB", (9, 9)).save(picture)
    assert main(["score", str(picture), "--prompt", "x", "--scorer", str(place)]) == 0


def test_every_profile_comes_back_from_a_folder_of_another(tmp_path):
    clip = tiny_clip(0)
    picture = Picture.effect_noise((60, 40), 90).convert("RGB")
    found = {}
    for saved_as, activation in (("official", "quick_gelu"), ("gelu", "gelu")):
        how = clip.model.config
        clip.model.config = replace(
            how,
            text_config=replace(how.text_config, hidden_act=activation),
            vision_config=replace(how.vision_config, hidden_act=activation),
        )
        save_clip(clip, tmp_path / saved_as, scorer="hps-v1", profile=saved_as)
        for asked in ("official", "gelu"):
            scorer = load("hps-v1", tmp_path / saved_as, profile=asked)
            assert scorer.card()["profile"] == asked
            found[saved_as, asked] = float(scorer.score(picture, "a fox")[0])
        assert load(tmp_path / saved_as).card()["profile"] == saved_as
    assert found["official", "gelu"] == found["gelu", "gelu"]
    assert found["gelu", "official"] == found["official", "official"]
    assert found["official", "official"] != found["gelu", "gelu"]


def test_errors_stand_last_and_name_the_image(folder, saved, capsys):
    (folder / "0.png").write_text("no picture")
    assert main(["score", str(folder), "--scorer", saved[0]]) == 2
    told = capsys.readouterr().out.split("'a fox'")[1].splitlines()[2:5]
    assert ["error" in line for line in told] == [False, False, True]
    assert str(folder) not in told[2]
    assert "0.png: is no image" in told[2]


class Redness(Scorer):
    """A scorer without a network, which gets the pictures themselves."""

    reads_prompts = False
    name, dimension, unit, fingerprint = "redness", "overall", "rating", "redness-1"

    def judge(self, images, prompts):
        values = np.array([np.asarray(image)[..., 0].mean() for image in images], dtype=np.float64)
        none = np.zeros(len(images), dtype=np.int32)
        return Scored(values, none, none, np.ones(len(images)))

    def forward(self, pixels, prompts):
        return pixels[:, 0].mean((1, 2))


def test_a_scorer_without_a_network_stands_beside_others(folder, judges, tmp_path):
    (folder / "3.png").write_text("no picture")
    gathered = gather_images([folder])
    how = ScoreSettings(batch=2, shard=4)
    with FeatureCache(tmp_path / "cache", 10**8) as cache:
        for _ in range(2):  # the second time the features come from the cache, the pictures do not
            scores = score_table(
                gathered.images, gathered.folder, [Redness(), judges[0]], how, cache=cache
            )
    reds = scores.slice(0, 6)
    for row in reds.to_pylist():
        if row["error"] is None:
            red = np.asarray(Picture.open(folder / row["image"]))[..., 0].mean()
            assert row["value"] == pytest.approx(red)
    assert reds["error"].null_count == 5
    alone = score_table(gathered.images, gathered.folder, judges[0], how)
    assert np.allclose(
        scores.slice(6)["value"].fill_null(0), alone["value"].fill_null(0), atol=1e-4
    )
