"""How fast a CLIP learns: Palate beside a plain transformers loop and PickScore's way of training.

python benchmarks/training.py              # keeps training.json (most of an hour on two cores)
python benchmarks/training.py --quick      # a small network, to see that all of it runs; keeps nothing

Each contender learns from the same choices, made of JPEGs on disk, with the same base, the same trained layers,
the same optimiser and the same loss, in a process of its own. What a step costs depends on neither the words nor the
weights, so the weights are random and every word is a letter.

- hps-v1: the recipe of the HPS paper (the last 10 image and 6 text blocks, counted as the paper's code counts) on
  choices of four images. The plain loop is what a user of transformers writes: the images of each batch opened and
  prepared, its prompts tokenised to the full length, one forward of the model, one backward, one step.
- pickscore: pairs, all layers trained, as PickScore's trainer does: both images of the pairs stacked, one text each.

The plain loop is not made slower than it must be: what is frozen is left out of the gradient, and a prompt goes through
the text tower once for all its images.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from PIL import Image as Picture
from scoring_limits import rate, shapes, torch_product
from scoring_setup import make_images

from palate.data.records import Choice, Image, pick_ranks
from palate.data.tables import load_dataset, save_dataset, to_table
from palate.models.clip import Clip
from palate.models.clip_files import load_clip, save_clip
from palate.models.clip_network import ClipConfig, ClipNetwork
from palate.models.tiny import tiny_clip
from palate.models.tokens import END, START, Tokenizer, byte_pieces

HERE = Path(__file__).parent
MODEL = "ViT-L-14"
LETTERS = 18  # a prompt's tokens beside start and end
RATE, DECAY, BETAS, EPSILON = 1.7e-5, 3.1e-3, (0.9, 0.98), 1e-6
WORKLOADS = {
    "hps-v1": {
        "images": 4,
        "batch": 5,
        "objective": "choice",
        "image_layers": 10,
        "text_layers": 6,
    },
    "pickscore": {
        "images": 2,
        "batch": 4,
        "objective": "pairs",
        "image_layers": 26,
        "text_layers": 12,
    },
}
CONTENDERS = ("palate", "plain")


def main() -> None:
    """Run each contender on each workload, and keep what they cost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, default=HERE / "training.json")
    parser.add_argument("--quick", action="store_true", help="a small network; keeps nothing")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batches", type=int, default=2, help="steps of an epoch")
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--run", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        print(json.dumps(run(json.loads(given.run))))
        return
    kept: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "command": f"python benchmarks/training.py --epochs {given.epochs} --batches {given.batches}",
        "model": "small" if given.quick else MODEL,
        "float32_rate": None if given.quick else best_rate(),
        "workloads": {},
    }
    with tempfile.TemporaryDirectory() as room:
        make_base(Path(room) / "base", small=given.quick)
        for name in given.only:
            kept["workloads"][name] = measure(name, given, Path(room))
    if not given.quick:
        given.json.write_text(json.dumps(kept, indent=1) + "\n")


def measure(name: str, given: argparse.Namespace, room: Path) -> dict[str, Any]:
    """Run both contenders on a workload, one after the other."""
    how = WORKLOADS[name] | {"epochs": given.epochs, "small": given.quick}
    if given.quick:
        how |= {"image_layers": 2, "text_layers": 1, "counting": "openclip"}
    folder = make_choices(room / name, how["batch"] * given.batches, how["images"])
    found: dict[str, Any] = {"settings": how, "batches": given.batches}
    for contender in CONTENDERS:
        job = how | {"contender": contender, "data": str(folder), "base": str(room / "base")}
        job["out"] = str(room / f"{name}-{contender}")
        done = subprocess.run(
            [sys.executable, __file__, "--run", json.dumps(job)], check=True, stdout=subprocess.PIPE
        )
        found[contender] = costs(json.loads(done.stdout.splitlines()[-1]), how, given.batches)
        print(name, contender, json.dumps(found[contender]))
    found["times"] = {
        part: found["plain"][part] / found["palate"][part]
        for part in ("first_epoch_seconds", "later_step_seconds", "run_seconds")
    }
    print(name, json.dumps(found["times"]))
    return found


def costs(told: dict[str, Any], how: dict[str, Any], batches: int) -> dict[str, float]:
    """Give seconds of the first epoch with all that precedes it, of a later step, and of the run."""
    stamps = told["stamps"]
    later = np.diff(stamps[batches - 1 :])
    images = how["batch"] * how["images"]
    return {
        "first_epoch_seconds": stamps[batches - 1],
        "later_step_seconds": float(np.median(later)),
        "run_seconds": stamps[-1],
        "images_per_second": images * len(stamps) / stamps[-1],
        "images_per_second_later": images / float(np.median(later)),
        "peak_bytes": told["peak_bytes"],
    }


def best_rate() -> float:
    """Give the machine's best float32 products a second in PyTorch, in operations."""
    return max(
        rate(torch_product(*shape, "float32"), 2.0 * np.prod(shape), 2.0) for shape in shapes(MODEL)
    )


def make_base(folder: Path, *, small: bool) -> None:
    """Write a CLIP of random weights: of the sizes of ViT-L/14, or a small one."""
    clip = tiny_clip(0, size=224, patch=32, width=64, layers=4) if small else large_clip()
    save_clip(clip, folder)


def large_clip() -> Clip:
    """Build a CLIP of the sizes of OpenAI's ViT-L/14 whose words are letters."""
    little = tiny_clip(0, size=224)
    pieces = [*byte_pieces(), START, END]
    words = Tokenizer({piece: place for place, piece in enumerate(pieces)}, [], context=77)
    text = replace(
        little.model.config.text_config,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=77,
        projection_dim=768,
        hidden_act="quick_gelu",
    )
    vision = replace(
        little.model.config.vision_config,
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=224,
        patch_size=14,
        projection_dim=768,
        hidden_act="quick_gelu",
    )
    torch.manual_seed(0)
    model = ClipNetwork(ClipConfig(text_config=text, vision_config=vision, projection_dim=768))
    for module in model.modules():
        for value in module.parameters(recurse=False):
            torch.nn.init.normal_(value, std=value.shape[-1] ** -0.5 if value.ndim else 0.0)
        if isinstance(module, torch.nn.LayerNorm):
            module.reset_parameters()
    return Clip(model.requires_grad_(requires_grad=False).eval(), words, little.preparation)


def make_choices(folder: Path, count: int, images: int) -> Path:
    """Write a data set of choices between JPEGs of 512 pixels; no image is in two choices."""
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    pictures = [
        path for path, _ in make_images(-(-count * images // 4), 512, folder.parent / "jpeg")
    ]
    rows, choices = [], []
    for number in range(count):
        prompt = " ".join(random.choice(list("abcdefghijklmnopqrstuvwxyz"), LETTERS))
        keys = [f"{number}-{place}" for place in range(images)]
        for place, key in enumerate(keys):
            path = folder / "images" / f"{key}.jpg"
            path.write_bytes(Path(pictures[number * images + place]).read_bytes())
            rows.append(Image(image=key, prompt=prompt, path=f"images/{key}.jpg"))
        ranks = pick_ranks(images, int(random.integers(images)))
        choices.append(Choice(choice=str(number), prompt=prompt, images=tuple(keys), ranks=ranks))
    save_dataset(folder, to_table(rows, "images"), to_table(choices, "choices"))
    return folder


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Let one contender learn; give the seconds after each step since it began, and its peak of memory."""
    stamps = (ours if job["contender"] == "palate" else plain)(job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"stamps": stamps, "peak_bytes": peak}


def ours(job: dict[str, Any]) -> list[float]:
    """Train with Palate."""
    import palate.training.train as verb
    from palate.training.settings import TrainSettings

    stamps: list[float] = []
    make = verb.learner_of

    def timed(*given: Any) -> Any:
        learner = make(*given)
        after = learner.after_step
        learner.after_step = lambda: (after(), stamps.append(time.perf_counter() - begun))
        return learner

    verb.learner_of = timed
    settings = TrainSettings(
        objective=job["objective"],
        image_layers=job["image_layers"],
        text_layers=job["text_layers"],
        counting="openclip",
        batch=job["batch"],
        epochs=float(job["epochs"]),
        learning_rate=RATE,
        weight_decay=DECAY,
        warmup_steps=0,
        clip=0.0,
        cache_gb=16.0,
        trackers=(),
    )
    dataset, base = load_dataset(job["data"]), load_clip(Path(job["base"]))
    begun = time.perf_counter()
    verb.train(dataset, base, Path(job["out"]), settings)
    return stamps


def plain(job: dict[str, Any]) -> list[float]:
    """Train as a user of transformers does."""
    from transformers import (
        CLIPImageProcessor,
        CLIPModel,
        CLIPTokenizer,
    )

    folder = job["base"]
    model = CLIPModel.from_pretrained(folder).float().train()
    words = CLIPTokenizer.from_pretrained(folder)
    prepare = CLIPImageProcessor.from_pretrained(folder)
    trained = freeze(model, job)
    vectors = [value for value in trained if value.ndim < 2]
    matrices = [value for value in trained if value.ndim >= 2]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=RATE, weight_decay=DECAY, betas=BETAS, eps=EPSILON)
    dataset = load_dataset(job["data"])
    rows = dataset.choices.select(["prompt", "images", "ranks"]).to_pylist()
    paths = {row["image"]: dataset.folder / row["path"] for row in dataset.images.to_pylist()}
    length = model.config.text_config.max_position_embeddings
    stamps, begun = [], time.perf_counter()
    for epoch in range(job["epochs"]):
        order = np.random.default_rng(epoch).permutation(len(rows))
        for start in range(0, len(rows), job["batch"]):
            batch = [rows[place] for place in order[start : start + job["batch"]]]
            loss = plain_loss(model, words, prepare, batch, paths, length)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            stamps.append(time.perf_counter() - begun)
    return stamps


def plain_loss(
    model: Any, words: Any, prepare: Any, batch: Any, paths: Any, length: int
) -> torch.Tensor:
    """Give the loss of a batch: all its images in one forward, each prompt once."""
    many = len(batch[0]["images"])
    pictures = [Picture.open(paths[key]).convert("RGB") for row in batch for key in row["images"]]
    pixels = prepare(pictures, return_tensors="pt").pixel_values
    prompts = [row["prompt"] for row in batch]
    tokens = words(
        prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    image = model.get_image_features(pixel_values=pixels)
    text = model.get_text_features(**tokens)
    image, text = (getattr(value, "pooler_output", value) for value in (image, text))
    image, text = image / image.norm(dim=-1, keepdim=True), text / text.norm(dim=-1, keepdim=True)
    logits = model.logit_scale.exp() * (image.view(len(batch), many, -1) * text[:, None]).sum(-1)
    best = torch.tensor([row["ranks"].index(1) for row in batch])
    return torch.nn.functional.cross_entropy(logits, best)


def freeze(model: Any, job: dict[str, Any]) -> list[torch.nn.Parameter]:
    """Leave the layers that Palate trains, counted the same way."""
    model.requires_grad_(requires_grad=False)
    image, text = model.vision_model, model.text_model
    blocks, layers = list(image.encoder.layers), job["image_layers"] - 1
    parts = [model.visual_projection, model.text_projection, text.final_layer_norm]
    parts += [image.post_layernorm, *blocks[max(0, len(blocks) - layers) :]]
    parts += list(text.encoder.layers)[-job["text_layers"] :]
    if layers > len(blocks):
        parts += [image.embeddings, image.pre_layrnorm]
    for part in parts:
        part.requires_grad_(requires_grad=True)
    model.logit_scale.requires_grad_(requires_grad=True)
    return [value for value in model.parameters() if value.requires_grad]


if __name__ == "__main__":
    main()
