"""How fast a generator is adapted: Palate beside the loop of diffusers' LoRA training script.

python benchmarks/adaptation.py                  # keeps adaptation.json (a quarter of an hour on two cores)
python benchmarks/adaptation.py --size 512 --device cuda --batch 8
python benchmarks/adaptation.py --quick          # a small network, to see that all of it runs; keeps nothing

Each contender trains a LoRA of rank 4 on all attention layers of a UNet of the sizes of Stable Diffusion 1.5, from the
same JPEGs and captions, with the same optimiser, in a process of its own. What a step costs depends on neither the
words nor the weights, so the weights are random and every word is a letter.

- plain: what `train_text_to_image_lora.py` of diffusers does in a step: open, resize, cut, encode the pictures by the
  autoencoder, encode the captions, add noise, predict, differentiate, clip, AdamW. Pictures are opened by two
  workers beside the training.
- palate-cold: `palate.adapt` with the method sft, on an empty cache of latents.
- palate-warm: the same again, which finds the latents.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from PIL import Image as Picture
from scoring_setup import make_images

from palate.adaptation.adapt import adapt
from palate.adaptation.examples import image_files
from palate.adaptation.lora_files import add_lora
from palate.adaptation.settings import AdaptSettings, RoleWeights
from palate.data.records import Image, Label
from palate.data.tables import read_table, to_table, write_table
from palate.generation.families import FAMILIES
from palate.generation.quiet import quiet_bars
from palate.generation.tiny import tiny_tokenizer, write_tiny_pipeline

HERE = Path(__file__).parent
CONTENDERS = ("palate-cold", "palate-warm", "plain")
RANK, RATE, DECAY = 4, 1e-4, 0.01
TARGETS = FAMILIES[0].targets


def main() -> None:
    """Run each contender, and keep what it cost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, default=HERE / "adaptation.json")
    parser.add_argument("--quick", action="store_true", help="a small network; keeps nothing")
    parser.add_argument("--size", type=int, default=256, help="side of the pictures in pixels")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        print(json.dumps(run(json.loads(given.run))))
        return
    how = {name: getattr(given, name) for name in ("size", "batch", "steps", "device", "precision")}
    if given.quick:
        how["size"] = 16
    with tempfile.TemporaryDirectory() as room:
        found = measure(how, Path(room), small=given.quick)
    if not given.quick:
        command = " ".join(f"--{name} {value}" for name, value in how.items())
        kept = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
            "command": f"python benchmarks/adaptation.py {command}",
            "model": "the sizes of Stable Diffusion 1.5, random weights",
            "settings": how,
            "operations": {str(size): count(size) for size in sorted({how["size"], 512})},
            **found,
        }
        given.json.write_text(json.dumps(kept, indent=1) + "\n")


def measure(how: dict[str, Any], room: Path, *, small: bool) -> dict[str, Any]:
    """Run the contenders, one after the other; give their costs and the ratios to the plain loop."""
    base = room / "base"
    if small:
        write_tiny_pipeline(base)
    else:
        write_large_pipeline(base)
    make_labels(room / "images", how["batch"] * how["steps"], 512)
    found: dict[str, Any] = {}
    for contender in CONTENDERS:
        job = how | {"contender": contender, "room": str(room), "base": str(base)}
        done = subprocess.run(
            [sys.executable, __file__, "--run", json.dumps(job)], check=True, stdout=subprocess.PIPE
        )
        found[contender] = json.loads(done.stdout.splitlines()[-1])
        print(contender, json.dumps(found[contender]), flush=True)
    plain = found["plain"]
    ratios = {
        contender: {
            part: plain[part] / found[contender][part] for part in ("step_seconds", "run_seconds")
        }
        for contender in CONTENDERS[:2]
    }
    print(json.dumps(ratios))
    return {"contenders": found, "times": ratios}


def run(job: dict[str, Any]) -> dict[str, float]:
    """Let one contender learn; give the median seconds of a step, those of the whole run, and its peak of memory."""
    stamps = (plain if job["contender"] == "plain" else ours)(job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if job["device"] != "cpu":
        peak = torch.cuda.max_memory_allocated()
    # the first steps warm caches up
    return {
        "step_seconds": float(np.median(np.diff(stamps)[2:])),
        "run_seconds": stamps[-1],
        "peak_bytes": peak,
    }


def write_large_pipeline(folder: Path) -> None:
    """Write a pipeline of the sizes of Stable Diffusion 1.5."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=514,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )
    unet, autoencoder = large_parts()
    pipeline = StableDiffusionPipeline(
        vae=autoencoder,
        unet=unet,
        text_encoder=CLIPTextModel(text),
        tokenizer=tiny_tokenizer(77),
        scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with quiet_bars():
        pipeline.save_pretrained(folder)


def count(size: int) -> dict[str, float]:
    """Count the operations that one picture costs: a step of the UNet with its LoRA, and being encoded."""
    from torch.utils.flop_counter import FlopCounterMode

    side, counted = size // 8, {}
    with torch.device("meta"):
        unet, autoencoder = large_parts()
        add_lora(unet, TARGETS, RANK, RANK, 0)
        noisy, times = torch.randn(1, 4, side, side), torch.zeros(1)
        told, pixels = torch.randn(1, 77, 768), torch.randn(1, 3, size, size)
    with FlopCounterMode(display=False) as counter:
        unet(noisy, times, told).sample.sum().backward()
    counted["step"] = float(counter.get_total_flops())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        autoencoder.encode(pixels)
    counted["encoding"] = float(counter.get_total_flops())
    return counted


def large_parts() -> tuple[Any, Any]:
    """Build the UNet and the autoencoder of Stable Diffusion 1.5, with random weights."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    autoencoder = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    for part in (unet, autoencoder):
        part.requires_grad_(requires_grad=False)
    return unet, autoencoder


def make_labels(folder: Path, count: int, side: int) -> None:
    """Write JPEGs with captions as a data set, all preferred."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    pictures = [path for path, _ in make_images(-(-count // 4), side, folder.parent / "jpeg")]
    rows, labels = [], []
    for number in range(count):
        prompt = " ".join(random.choice(list("abcdefghijklmnopqrstuvwxyz"), 18))
        path = folder / f"{number}.jpg"
        path.write_bytes(Path(pictures[number]).read_bytes())
        rows.append(Image(image=str(number), prompt=prompt, path=path.name))
        labels.append(Label(str(number), "preferred", prompt, prompt))
    write_table(to_table(rows, "images"), folder / "images.parquet")
    write_table(to_table(labels, "labels"), folder / "labels.parquet")


def ours(job: dict[str, Any]) -> list[float]:
    """Train with Palate."""
    from palate.adaptation.work import Work

    room, stamps = Path(job["room"]), []
    losses_at = Work.losses_at

    def timed(work: Work, step: int) -> Any:
        stamps.append(time.perf_counter() - begun)
        return losses_at(work, step)

    Work.losses_at = timed
    settings = AdaptSettings(
        method="sft",
        role_weights=RoleWeights(preferred=1.0, rejected=0.0, regularisation=0.0),
        steps=job["steps"],
        batch=job["batch"],
        rank=RANK,
        learning_rate=RATE,
        weight_decay=DECAY,
        size=job["size"],
        precision=job["precision"],
        save_every=job["steps"],
        trackers=(),
    )
    labels = read_table(room / "images" / "labels.parquet", "labels")
    files = image_files(room / "images")
    begun = time.perf_counter()
    adapt(
        labels,
        files,
        Path(job["base"]),
        room / job["contender"],
        settings,
        cache=room / "latents",
        device=job["device"],
    )
    return [*stamps, time.perf_counter() - begun]


class Pictures(torch.utils.data.Dataset):
    """JPEGs and captions, opened and cut when they are asked for."""

    def __init__(self, folder: Path, size: int) -> None:
        """Read the table."""
        self.folder, self.size = folder, size
        self.rows = read_table(folder / "images.parquet", "images").to_pylist()

    def __len__(self) -> int:
        """Give the number of pictures."""
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, str]:
        """Give a picture in [-1, 1] and its caption."""
        row = self.rows[number]
        with Picture.open(self.folder / row["path"]) as opened:
            image = opened.convert("RGB").resize((self.size, self.size), Picture.BILINEAR)
        pixels = torch.from_numpy(np.asarray(image, dtype=np.float32)).permute(2, 0, 1)
        return pixels / 127.5 - 1, row["prompt"]


def plain(job: dict[str, Any]) -> list[float]:
    """Train as the script of diffusers does."""
    from diffusers import DDPMScheduler, StableDiffusionPipeline
    from peft import LoraConfig

    begun, device = time.perf_counter(), torch.device(job["device"])
    low = getattr(torch, job["precision"])
    with quiet_bars():
        pipeline = StableDiffusionPipeline.from_pretrained(job["base"])
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(requires_grad=False).to(device, low)
    unet = pipeline.unet
    unet.add_adapter(
        LoraConfig(
            r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=list(TARGETS)
        )
    )
    trained = [part for part in unet.parameters() if part.requires_grad]
    for part in trained:
        part.data = part.data.float()
    noiser = DDPMScheduler.from_config(pipeline.scheduler.config)
    optimiser = torch.optim.AdamW(trained, lr=RATE, weight_decay=DECAY)
    data = Pictures(Path(job["room"]) / "images", job["size"])
    loader = torch.utils.data.DataLoader(data, job["batch"], shuffle=True, num_workers=2)
    unet.train()
    stamps = []
    for pixels, captions in loader:
        stamps.append(time.perf_counter() - begun)
        tokens = pipeline.tokenizer(
            list(captions), padding="max_length", truncation=True, return_tensors="pt"
        )
        with torch.no_grad():
            latents = pipeline.vae.encode(pixels.to(device, low)).latent_dist.sample()
            latents *= pipeline.vae.config.scaling_factor
            told = pipeline.text_encoder(tokens.input_ids.to(device))[0]
        noise = torch.randn_like(latents)
        times = torch.randint(0, 1000, (len(latents),), device=device)
        noisy = noiser.add_noise(latents, noise, times)
        with torch.autocast(device.type, low, enabled=low != torch.float32):
            answer = unet(noisy, times, told).sample
        loss = torch.nn.functional.mse_loss(answer.float(), noise.float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        loss.item()
    return [*stamps, time.perf_counter() - begun]


if __name__ == "__main__":
    main()
