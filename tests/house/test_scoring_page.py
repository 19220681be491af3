"""docs/scoring.md says what is so: its figures are those that were kept, its examples run, nothing is left out."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "parity" / "fixtures"
PAGE = ROOT / "docs" / "scoring.md"
# where the page has the weights -> the official fixtures that stand for them
WEIGHTS = {
    "hps-v1/hpc.pt": "hps_v1/hpc_tiny.pt",
    "hps-v1/architecture.json": "hps_v1/architecture.json",
    "hps-v1/bpe_simple_vocab_16e6.txt.gz": "tokenizer/bpe_small.txt.gz",
    "hps-v2/HPS_v2.1_compressed.pt": "hps_v2/hps_v2_tiny.pt",
    "hps-v2/architecture.json": "hps_v2/architecture.json",
    "hps-v2/bpe_simple_vocab_16e6.txt.gz": "tokenizer/bpe_small.txt.gz",
    "image-reward/ImageReward.pt": "image_reward/ImageReward_tiny.pt",
    "image-reward/architecture.json": "image_reward/architecture.json",
    "image-reward/med_config.json": "image_reward/med_config.json",
    "image-reward/vocab.txt": "image_reward/vocab.txt",
    "mps/MPS_overall_checkpoint.pth": "mps/MPS_tiny_checkpoint.pth",
    "mps/architecture.json": "mps/architecture.json",
    "mps/vocab.json": "tokenizer/vocab.json",
    "mps/merges.txt": "tokenizer/merges.txt",
    "sac+logos+ava1-l14-linearMSE.pth": "aesthetic/aesthetic_mlp_tiny.pth",
}


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text("utf-8")


@pytest.fixture
def paths(monkeypatch):
    """The script that measures."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    return __import__("scorer_paths")


def prepare(folder: Path) -> None:
    """Put the files that the page names into a folder."""
    for name, fixture in WEIGHTS.items():
        (folder / "weights" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(FIXTURES / fixture, folder / "weights" / name)
    for name in ("PickScore_v1", "clip-vit-large-patch14"):
        shutil.copytree(FIXTURES / "pickscore", folder / "weights" / name)
    shutil.copytree(FIXTURES / "images", folder / "pictures")
    for name, fixture in (("fox.png", "square_256.png"), ("cat.png", "landscape_512x340.jpg")):
        Image.open(FIXTURES / "images" / fixture).save(folder / name)
    names = sorted(path.name for path in (folder / "pictures").iterdir())
    prompts = ["a red fox" if place % 2 else "a castle" for place in range(len(names))]
    rows = {
        "pictures/prompts.csv": list(zip(names, prompts, strict=True)),
        "pairs.csv": [(f"pictures/{name}", p) for name in names[:2] for p in prompts[:2]],
    }
    for name, pairs in rows.items():
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("image", "prompt"), *pairs])
    images, texts = zip(*rows["pairs.csv"], strict=True)
    pq.write_table(
        pa.table({"image": list(images), "prompt": list(texts)}), folder / "pairs.parquet"
    )
    lines = [json.dumps({"image": name, "prompt": "a fox"}) for name in names]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    cases = json.loads((FIXTURES / "hps_v1" / "cases.json").read_text("utf-8"))
    (folder / "official.json").write_text(json.dumps(cases[::7]), "utf-8")


def test_the_figures_are_those_that_were_kept(page, paths):
    assert paths.filled(page, paths.newest()) == page


def test_the_kept_figures_hold_the_promises(paths):
    for facts in paths.newest()["scorers"].values():
        assert max(facts["alone"], facts["batch"]) <= facts["promise"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pickscore", "aesthetic"])
def test_the_kept_figures_are_measured_again(paths, name):
    kept, found = paths.newest()["scorers"][name], paths.measure(name)
    assert found["cases"] == kept["cases"]
    assert max(found["alone"], found["batch"]) <= found["promise"]
    for then, now in zip(kept["variants"], found["variants"], strict=True):
        assert now["name"] == then["name"]
        assert now["largest"] == pytest.approx(then["largest"], rel=0.1, abs=1e-4)


def test_every_scorer_profile_and_unit_is_told(page):
    from palate.scoring.catalog import SCORERS
    from palate.scoring.units import UNITS

    told = page.partition("## Profiles")[0]
    assert [name for name in SCORERS if f"| `{name}` |" not in told] == []
    profiles = {name for entry in SCORERS.values() for name in entry.profiles}
    assert [name for name in profiles if f"| `{name}` |" not in page] == []
    assert [name for name in UNITS if f"| `{name}` |" not in page] == []


@pytest.mark.slow
def test_every_command_of_the_page_runs(page, tmp_path, monkeypatch, capsys):
    from palate.cli.main import main

    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    lines = "".join(re.findall(r"```console\n(.*?)```", page, re.DOTALL)).splitlines()
    assert len(lines) > 10
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "palate"
        assert main(words[1:]) == 0, f"{line}\n{capsys.readouterr().err}"
        for name in ("--out", "--gallery"):
            assert name not in words or Path(words[words.index(name) + 1]).exists()


@pytest.mark.slow
def test_the_python_of_the_page_runs(page, tmp_path, monkeypatch):
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, object] = {"__name__": "page"}
    for place, block in enumerate(blocks):
        exec(compile(block, f"{PAGE.name}, block {place}", "exec"), names)
    assert 0 < names["scored"].area_kept[0] <= 1
    assert names["pixels"].grad.abs().sum() > 0
