"""What a training made is measured, described and pushed as a user would find it."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pytest
from tests.training.conftest import write_dataset

from palate.data.records import Choice
from palate.data.tables import load_dataset, save_dataset, to_rows, to_table
from palate.errors import RunError
from palate.evaluation.evaluate import evaluate_choices
from palate.evaluation.trained.describe import describe_trained
from palate.evaluation.trained.push import push_trained
from palate.models.tiny import tiny_clip
from palate.scoring.catalog import load
from palate.scoring.score import score_table
from palate.settings import read_settings
from palate.training.settings import TrainSettings
from palate.training.train import train


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished and described training, with its choices."""
    room = tmp_path_factory.mktemp("trained")
    write_dataset(room / "train", 40, seed=1)
    write_dataset(room / "held", 60, seed=2)
    dataset, held = load_dataset(room / "train"), load_dataset(room / "held")
    how = TrainSettings(
        steps=4, batch=4, image_layers=2, text_layers=1, learning_rate=1e-4, evaluate_every=2
    )
    train(dataset, tiny_clip(0), room / "fox", how, held)
    describe_trained(room / "fox", dataset, held, base="a tiny CLIP", licence="mit")
    return room / "fox", dataset, held


def test_the_card_tells_what_the_folder_does(made):
    folder, _, held = made
    text = (folder / "README.md").read_text("utf-8")
    scorer = load(folder)
    found = evaluate_choices(held.choices, score_table(held.images, held.folder, scorer)).overall
    assert f"`{scorer.fingerprint}`" in text
    assert f"{100 * found.top1.value:.1f} (" in text
    assert "license: mit" in text
    assert "a tiny CLIP" in text
    for name in re.findall(r"\]\((\w+\.svg)\)", text):
        assert (folder / name).read_text("utf-8").startswith("<svg")
    assert {"loss.svg", "accuracy.svg"} <= {path.name for path in folder.iterdir()}


def test_choices_on_what_was_not_learnt_are_not_measured(made, tmp_path):
    folder, dataset, held = made
    rows = list(to_rows(held.choices, Choice))
    other = [
        replace(row, choice=f"{row.choice}-turned", dimension="other", ranks=row.ranks[::-1])
        for row in rows
    ]
    both = save_dataset(tmp_path / "both", held.images, to_table([*rows, *other], "choices"))
    (tmp_path / "both" / "images").symlink_to(held.folder / "images")
    shutil.copytree(folder, tmp_path / "run")
    describe_trained(tmp_path / "run", dataset, both, base="a tiny CLIP")
    one, two = (
        json.loads((place / "measured.json").read_text()) for place in (folder, tmp_path / "run")
    )
    assert one[0]["accuracy"]["overall"] == two[0]["accuracy"]["overall"]
    assert one[0]["calibration"] == two[0]["calibration"]


def test_the_recipe_in_the_card_makes_it_again(made, tmp_path):
    folder, dataset, held = made
    text = (folder / "README.md").read_text("utf-8")
    recipe = tmp_path / "again.toml"
    recipe.write_text(re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1])
    how = read_settings(TrainSettings, recipe, section="train")
    train(dataset, tiny_clip(0), tmp_path / "again", how, held)
    assert load(tmp_path / "again").fingerprint == load(folder).fingerprint


def test_the_temperature_is_in_the_folder_and_changes_no_score(made):
    folder, *_ = made
    card = json.loads((folder / "palate.json").read_text("utf-8"))
    measured = json.loads((folder / "measured.json").read_text("utf-8"))
    found = measured[0]["calibration"]["fit"]["temperature"]
    assert card["calibration"]["overall"]["temperature"] == found
    assert load(folder).card()["calibration"]["overall"]["temperature"] == found


@pytest.mark.parametrize(("pad", "library"), [("training", "transformers"), ("always", "palate")])
def test_the_card_says_how_images_were_padded(made, tmp_path, pad, library):
    _, dataset, _ = made
    train(dataset, tiny_clip(0), tmp_path / "run", TrainSettings(steps=2, batch=4, pad=pad))
    describe_trained(tmp_path / "run", dataset, None, base="a tiny CLIP")
    text = (tmp_path / "run" / "README.md").read_text("utf-8")
    assert f"library_name: {library}\n" in text
    assert "padded with black to a square" in text
    processor = (tmp_path / "run" / "preprocessor_config.json").exists()
    assert processor == (library == "transformers")


def test_without_validation_the_card_says_that_nothing_was_measured(made, tmp_path):
    _, dataset, _ = made
    train(dataset, tiny_clip(0), tmp_path / "run", TrainSettings(steps=2, batch=4))
    describe_trained(tmp_path / "run", dataset, None, base="a tiny CLIP")
    text = (tmp_path / "run" / "README.md").read_text("utf-8")
    assert "Not measured: there were no choices" in text
    assert "license: unknown" in text
    assert not (tmp_path / "run" / "measured.json").exists()


def test_a_leak_into_the_validation_stands_in_the_card(made, tmp_path):
    _, dataset, _ = made
    train(dataset, tiny_clip(0), tmp_path / "run", TrainSettings(steps=2, batch=4), dataset)
    describe_trained(tmp_path / "run", dataset, dataset, base="a tiny CLIP")
    text = (tmp_path / "run" / "README.md").read_text("utf-8")
    assert re.search(r"- (warning|error): .*(same image|images)", text)


def test_what_is_pushed_is_the_scorer_and_no_choices(made, monkeypatch):
    folder, dataset, _ = made
    seen = {}

    class Api:
        def create_repo(self, repo, *, private, exist_ok):
            seen.update(repo=repo, private=private, exist_ok=exist_ok)

            class Url(str):  # noqa: SLOT000
                repo_id = repo

            return Url(f"https://hub.example/{repo}")

        def upload_folder(self, *, repo_id, folder_path, ignore_patterns, commit_message):
            from huggingface_hub.utils import filter_repo_objects

            paths = [str(p.relative_to(folder_path)) for p in folder_path.rglob("*") if p.is_file()]
            seen["files"] = set(filter_repo_objects(paths, ignore_patterns=ignore_patterns))
            assert repo_id == "me/fox"
            assert commit_message

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert push_trained(folder, "me/fox") == "https://hub.example/me/fox"
    assert seen["private"] is True
    assert {"model.safetensors", "config.json", "palate.json", "README.md", "loss.svg"} <= seen[
        "files"
    ]
    assert not seen["files"] & {"run.json", "data-audit.json", "measured.json"}
    prompts = set(dataset.choices["prompt"].to_pylist())
    for name in seen["files"] - {"model.safetensors", "README.md"}:
        text = (folder / name).read_bytes()
        assert not any(prompt.encode() in text for prompt in prompts), name


def test_a_hub_that_cannot_be_reached_is_one_sentence(made, monkeypatch):
    folder, *_ = made
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RunError, match="could not be pushed to the Hub as me/fox"):
        push_trained(folder, "me/fox")
    with pytest.raises(RunError, match="could not be pushed"):
        push_trained(folder, "not a name!")
    assert (folder / "README.md").is_file()
