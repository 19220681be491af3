"""The commands of the recipes of tables, run as they stand on tiny files of the same form."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from palate.cli.main import main

RECIPES = Path(__file__).parents[1] / "recipes"
FIXTURES = Path(__file__).parent / "parity" / "fixtures"
TABLES = sorted(RECIPES.glob("*-table-*.toml"))
QUESTIONS = 12
PROMPT = "a painting of an ocean number {}"


def commands(recipe: Path) -> list[list[str]]:
    """The commands in the head of a recipe, each as words."""
    lines = re.findall(r"^#   ( *\S.*)$", recipe.read_text(), re.MULTILINE)
    text = "\n".join(lines).replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("palate ")]


def put_pictures(folder: Path, names: list[str]) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(rng.integers(0, 256, (32, 24, 3), np.uint8)).save(folder / name)


def put_weights(folder: Path) -> None:
    """Put tiny weights in the place of the official ones, each beside its vocabulary."""
    places = {
        "hps-v1/hpc.pt": "hps_v1/hpc_tiny.pt",
        "clip/ViT-L-14.pt": "hps_v1/hpc_tiny.pt",
        "hps-v2/HPS_v2_compressed.pt": "hps_v2/hps_v2_tiny.pt",
        "mps/MPS_overall_checkpoint.pth": "mps/MPS_tiny_checkpoint.pth",
    }
    for name, fixture in places.items():
        place, found = folder / name, FIXTURES / fixture
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(found, place)
        shutil.copy(found.parent / "architecture.json", place.parent)
        for file in (FIXTURES / "tokenizer").iterdir():
            shutil.copy(file, place.parent)
    shutil.copytree(FIXTURES / "image_reward", folder / "image-reward")
    reward = folder / "image-reward"
    (reward / "ImageReward_tiny.pt").rename(reward / "ImageReward.pt")
    shutil.copytree(FIXTURES / "pickscore", folder / "PickScore_v1")
    shutil.copytree(FIXTURES / "pickscore", folder / "CLIP-ViT-H-14")
    head = FIXTURES / "aesthetic" / "aesthetic_mlp_tiny.pth"
    shutil.copy(head, folder / "sac+logos+ava1-l14-linearMSE.pth")


def put_inception(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write random weights of a narrow Inception, and let the reader expect such."""
    import torch

    from palate.models import inception

    path = folder / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(inception.random_inception(seed=1).state_dict(), path)
    wide = inception.Inception

    class Narrow(wide):
        def __init__(self, variant) -> None:
            super().__init__(variant, width=1 / 16, classes=10)

    monkeypatch.setattr(inception, "Inception", Narrow)


def put_hpd_v1(folder: Path) -> None:
    records = []
    for number in range(QUESTIONS):
        names = [f"preference_images/{number}_{place}.jpg" for place in range(2 + number % 3)]
        records.append(
            {
                "human_preference": number % len(names),
                "prompt": PROMPT.format(number),
                "id": number,
                "file_path": names,
                "user_hash": f"{number:064x}",
                "contain_name": False,
            }
        )
        put_pictures(folder, names)
    (folder / "preference_test.json").write_text(json.dumps(records))
    put_pictures(folder / "coco" / "val2014", [f"{number}.png" for number in range(24)])


def put_pairs(folder: Path) -> None:
    prompts, choices = ["image,prompt,generator"], []
    for number in range(QUESTIONS):
        names = [f"{kind}{number}.png" for kind in ("sd", "dalle")]
        put_pictures(folder / "pairs", names)
        prompts += [f"{name},{PROMPT.format(number)},{name[:2]}" for name in names]
        for person in ("ann", "ben", "cem"):
            best = (number + (person == "cem" and number % 4 == 0)) % 2
            choices.append({"images": names, "best": names[best], "annotator": person})
    (folder / "pairs" / "prompts.csv").write_text("\n".join(prompts) + "\n")
    lines = [json.dumps(choice) for choice in choices]
    (folder / "pairs" / "choices.jsonl").write_text("\n".join(lines) + "\n")


def put_generator(folder: Path) -> None:
    import torch

    from palate.adaptation.lora_files import add_lora, save_adapter
    from palate.generation.families import FAMILIES
    from palate.generation.generator import load_generator
    from palate.generation.tiny import write_tiny_pipeline

    base = write_tiny_pipeline(folder / "sd14")
    unet = load_generator(base).pipeline.unet
    draw = torch.Generator().manual_seed(1)
    for name, part in add_lora(unet, FAMILIES[0].targets, rank=2, alpha=3.0, seed=0).items():
        if "lora_B" in name:
            part.data = torch.randn(part.shape, generator=draw)
    (folder / "adapted").mkdir()
    details = {"method": "identifier", "identifier": "Weird image. ", "rank": 2, "alpha": 3.0}
    save_adapter(unet, "unet", folder / "adapted", details)
    (folder / "captions.txt").write_text("".join(f"{PROMPT.format(n)}\n" for n in range(4)))
    put_pictures(folder / "coco" / "val2014", [f"{number}.png" for number in range(6)])


def put_image_reward(folder: Path) -> None:
    records = []
    for number in range(QUESTIONS):
        names = [f"part/{number}/{place}.webp" for place in range(5)]
        put_pictures(folder, names)
        ranks = [1 + (place + number) % 4 for place in range(5)]
        prompt = PROMPT.format(number)
        records.append(
            {
                "id": f"{number:06}-0000",
                "prompt": prompt,
                "generations": names,
                "ranking": ranks,
            }
        )
    (folder / "test.json").write_text(json.dumps(records))


def put_hpd_v2(folder: Path) -> None:
    records = []
    for number in range(QUESTIONS):
        names = [f"{number:04}{place}.jpg" for place in range(4)]
        put_pictures(folder / "test", names)
        ranks = [1 + (place + number) % 4 for place in range(4)]
        people = [{"rank": ranks, "user_hash": f"{person}"} for person in range(3)]
        records.append(
            {
                "prompt": PROMPT.format(number),
                "image_path": names,
                "rank": ranks,
                "raw_annotations": people,
            }
        )
    (folder / "test.json").write_text(json.dumps(records))


def put_mhp(folder: Path) -> None:
    lines = []
    for number in range(QUESTIONS):
        names = [f"{number}_0.png", f"{number}_1.png"]
        put_pictures(folder / "images", names)
        answers = ("overall", "aesthetics", "detail", "alignment")
        picks = {name: (number + place) % 2 for place, name in enumerate(answers)}
        lines.append({"prompt": PROMPT.format(number), "images": names, "choices": picks})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


DATA = {
    "hps-table-accuracy": put_hpd_v1,
    "hps-table-adapted": put_generator,
    "hps-table-correlation": put_hpd_v1,
    "hps-table-generators": put_pairs,
    "mps-table-hpd-v2": put_hpd_v2,
    "mps-table-image-reward": put_image_reward,
    "mps-table-mhp": put_mhp,
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", TABLES, ids=lambda path: path.stem)
def test_the_commands_of_a_table_run_as_they_stand(recipe, tmp_path, monkeypatch, capsys):
    DATA[recipe.stem](tmp_path)
    put_weights(tmp_path / "weights")
    put_inception(tmp_path / "weights", monkeypatch)
    shutil.copytree(RECIPES, tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    lines = commands(recipe)
    assert len(lines) >= 3
    told = []
    for words in lines:
        assert main(words) == 0, f"palate {' '.join(words)}\n{capsys.readouterr().err}"
        told.append(capsys.readouterr().out)
    used = [words for words in lines if f"recipes/{recipe.name}" in words]
    assert used
    if "--board" in used[0]:
        rows = json.loads((tmp_path / "board" / "board.json").read_text())["rows"]
        beside = [row for row in rows if row["published"] is not None]
        assert bool(beside) == (recipe.stem != "hps-table-generators")
        told = [
            (row["dimension"], row["scorer"], row["result"]["protocol"]["name"]) for row in rows
        ]
        assert len(told) == len(set(told)), "a scorer stands twice in a table"
