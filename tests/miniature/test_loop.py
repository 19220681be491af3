"""The whole loop with very little of everything: every step is real, no figure means anything."""

from __future__ import annotations

import html
import json
import shutil

import pytest

from palate.data.tables import read_table
from palate.errors import RunError, SettingsError
from palate.miniature.demo import run_demo
from palate.miniature.loop import Loop, demo_settings
from palate.miniature.measure import ARMS

LITTLE = {
    "seeds": 2,
    "choice_prompts": 8,
    "drawn_choice_prompts": 30,
    "drawn_choice_images": 4,
    "label_prompts": 6,
    "drawn_label_prompts": 30,
    "regularisation_prompts": 8,
    "test_prompts": 4,
    "evaluation_prompts": 6,
    "hold_out": 2,
    "train_steps": 4,
    "adapt_steps": 3,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("loop") / "run"
    said = []
    page, found, sentence = run_demo(out, "quick", said.append, **LITTLE)
    return out, page, found, sentence, said


@pytest.mark.slow
def test_the_report_stands_alone_and_says_what_is_simulated(run):
    _, page, found, sentence, said = run
    text = page.read_text()
    assert sentence in html.unescape(text)
    assert "Simulated, all of it." in text
    assert "http://" not in text.replace("http://www.w3.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "")
    assert 'src="data:image/png;base64,' in text
    assert text.count("<svg") == 4
    assert "adapt the generator" in said
    assert found["simulated"] is True


@pytest.mark.slow
def test_every_arm_is_measured_against_the_original_at_equal_noise(run):
    out, _, found, _, _ = run
    assert [arm["name"] for arm in found["arms"]] == list(ARMS.values())
    assert found["arms"][0]["difference"] == {"estimate": 0.0, "low": 0.0, "high": 0.0}
    seeds = {
        arm.name: dict(
            zip(
                *[
                    read_table(arm / "images.parquet", "images").column(name).to_pylist()
                    for name in ("prompt", "seed")
                ],
                strict=True,
            )
        )
        for arm in (out / "arms").iterdir()
    }
    assert len(seeds) == 3 + 2 * 3
    assert len({tuple(sorted(of.items())) for of in seeds.values()}) == 1


@pytest.mark.slow
def test_prompts_of_choices_labels_and_evaluation_are_disjoint(run):
    out, *_ = run
    prompts = [
        set(read_table(out / name / "images.parquet", "images").column("prompt").to_pylist())
        for name in ("choices-images", "labels-images", "arms/original")
    ]
    assert not prompts[0] & prompts[1] | prompts[0] & prompts[2] | prompts[1] & prompts[2]


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_findings(run, tmp_path):
    out, _, found, _, _ = run
    again = tmp_path / "again"
    shutil.copytree(out, again)
    (again / "result.json").unlink()
    record = json.loads((again / "run.json").read_text())
    (again / "run.json").write_text(json.dumps({**record, "status": "interrupted"}))
    for lost in ("arms/adapted-1", "adapt-1", "labels-1"):
        shutil.rmtree(again / lost)
    _, resumed, _ = run_demo(again, "quick", lambda _: None, **LITTLE)
    for key in ("classifier", "arms", "by_seed", "labels", "choices"):
        assert resumed[key] == found[key]


@pytest.mark.slow
def test_a_folder_keeps_to_one_run(run):
    out, *_ = run
    with pytest.raises(RunError, match="evaluation_prompts"):
        run_demo(out, "quick", lambda _: None, **{**LITTLE, "evaluation_prompts": 7})


def test_presets_change_only_how_much():
    assert demo_settings("full").seeds == 3
    assert demo_settings("full").evaluation_prompts >= 1000
    assert demo_settings("quick").choice_prompts < demo_settings("demo").choice_prompts
    with pytest.raises(SettingsError, match="unknown setting 'seed'"):
        demo_settings("quick", seed=3)


def test_evaluation_prompts_are_of_the_pool_that_nothing_else_draws(tmp_path):
    loop = Loop(tmp_path, demo_settings("full"))
    evaluation = set(loop.evaluation_prompts)
    assert len(evaluation) >= 1000
    for pool in ("choices", "labels", "spare"):
        assert not evaluation & set(loop.prompts(pool, 10_000, use="anything"))
