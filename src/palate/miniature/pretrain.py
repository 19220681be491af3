"""Pre-train the miniature's models from nothing, on pictures of the simulated world.

This is how the weights that Palate ships were made; the log and figures are beside them in `weights/`. Each
stage can be stopped at any time and goes on where it last saved.

    python -m palate.miniature.pretrain vae  --out pretraining
    python -m palate.miniature.pretrain clip --out pretraining
    python -m palate.miniature.pretrain unet --out pretraining

Scenes of the pool `evaluation` are never drawn here.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch.nn import functional
from transformers import CLIPModel, CLIPTokenizer

from palate.miniature.architecture import (
    TextAndUNet,
    new_clip,
    new_scheduler,
    new_vae,
    tokenizer_folder,
)
from palate.miniature.distinct import keep_words_apart
from palate.miniature.judge import judge
from palate.miniature.stage import Stage, write_figures
from palate.miniature.words import captions
from palate.miniature.world import COLOURS, SHAPES, Pool, Scene, pictures, scenes_of

POOLS: tuple[Pool, ...] = ("choices", "labels", "spare")


def pixels(images: NDArray[np.uint8]) -> torch.Tensor:
    """Pictures (N × 32 × 32 × 3, 8 bits) as the models see them: N × 3 × 32 × 32 in [−1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


@cache
def _known_scenes() -> tuple[Scene, ...]:
    """Scenes to learn from in both spellings; those with one object, which are few, count eight times."""
    both = [scenes_of(POOLS, np.random.default_rng(seed)) for seed in range(2)]
    singles = [scene for scene in both[0] if len(scene.objects) == 1]
    return (*both[0], *both[1], *singles * 6)


def _scenes(count: int, rng: np.random.Generator) -> list[Scene]:
    known = _known_scenes()
    return [known[i] for i in rng.integers(0, len(known), count)]


def train_vae(out: Path, steps: int, batch: int = 32) -> None:
    """Learn to compress pictures: absolute and squared error and a light pull of the latents to a normal."""
    torch.manual_seed(0)
    vae = new_vae()
    stage = Stage("vae", out, vae, steps=steps, rate=2e-3, ema=0.995)

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((1, step))
        scenes = _scenes(batch, rng)
        real = pixels(pictures(scenes, rng)[0])
        torch.manual_seed(step)
        latent = vae.encode(real).latent_dist
        made = vae.decode(latent.sample()).sample
        error = functional.mse_loss(made, real)
        pull = latent.kl().mean() / latent.mean[0].numel()
        loss = functional.l1_loss(made, real) + 4 * error + 1e-3 * pull
        return {"loss": loss, "psnr": -10 * torch.log10(error.detach() / 4), "kl": pull}

    stage.run(loss_of)
    stage.use_average()
    rng = np.random.default_rng(2)
    scenes = _scenes(2048, rng)
    images = pictures(scenes, rng)[0]
    with torch.inference_mode():
        latents = torch.cat(
            [vae.encode(part).latent_dist.mean for part in pixels(images).split(256)]
        )
        made = torch.cat([vae.decode(part).sample for part in latents.split(256)])
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
    vae.save_pretrained(out / "vae")
    again = ((made.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    prompts = [scene.text for scene in scenes]
    before, after = judge(images, prompts).utility, judge(again, prompts).utility
    psnr = -10 * math.log10(((made - pixels(images)) ** 2).mean().item() / 4)
    write_figures(
        out, "vae", stage, psnr=psnr, utility_before=before.mean(), utility_after=after.mean()
    )


def _neighbour(scene: Scene, rng: np.random.Generator) -> Scene:
    """A scene that differs in one respect: the order, one colour, one shape or the relation."""
    kind = rng.integers(0, 4)
    objects = [list(thing) for thing in scene.objects]
    which = rng.integers(0, len(objects))
    if kind == 0 and len(objects) == 2:
        return replace(scene, objects=scene.objects[::-1])
    if kind == 1 and len(objects) == 2:
        return replace(scene, relation=int((scene.relation + rng.integers(1, 4)) % 4))
    axis = int(kind % 2)
    sizes = (len(COLOURS), len(SHAPES))
    objects[which][axis] = int((objects[which][axis] + rng.integers(1, sizes[axis])) % sizes[axis])
    return replace(scene, objects=tuple((colour, shape) for colour, shape in objects))


@cache
def _pool(scene: Scene) -> Pool:
    return scene.pool


def _hard_batch(batch: int, rng: np.random.Generator) -> list[Scene]:
    """Scenes of which every second one is a near miss of the one before; none of the evaluation pool."""
    first = _scenes(batch // 2, rng)
    second = []
    for scene in first:
        other = _neighbour(scene, rng)
        good = _pool(other) in POOLS and len(set(other.objects)) == len(other.objects)
        second.append(other if good else _scenes(1, rng)[0])
    return first + second


def train_clip(out: Path, steps: int, batch: int = 128) -> None:
    """Learn which caption belongs to which picture (symmetric cross-entropy), near misses in every batch.

    The temperature goes from 1/14 to 1/100, where CLIP's is clamped, over the first 60 % of the steps.
    """
    torch.manual_seed(0)
    clip = new_clip()
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder())
    stage = Stage("clip", out, clip, steps=steps, rate=1e-3, ema=0.998)
    clip.logit_scale.requires_grad_(False)  # noqa: FBT003

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((2, step))
        scenes = _hard_batch(batch, rng)
        images, defects = pictures(scenes, rng)
        tokens = tokenizer(captions(scenes, defects, rng), padding=True, return_tensors="pt")
        warm = min(1.0, step / (0.6 * steps))
        scale = math.exp((1 - warm) * math.log(1 / 0.07) + warm * math.log(100))
        image = functional.normalize(clip.get_image_features(pixels(images)).pooler_output, dim=-1)
        text = functional.normalize(clip.get_text_features(tokens.input_ids).pooler_output, dim=-1)
        logits = scale * text @ image.T
        target = torch.arange(batch)
        loss = (
            functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
        ) / 2
        return {"loss": loss, "recall": (logits.argmax(1) == target).float().mean()}

    stage.run(loss_of)
    stage.use_average()
    with torch.no_grad():
        clip.logit_scale.fill_(math.log(100))
    clip.save_pretrained(out / "clip")
    tokenizer.save_pretrained(out / "clip")
    write_figures(out, "clip", stage, recall=stage.log[-1]["recall"])


def _latent_pool(out: Path, count: int) -> dict[str, torch.Tensor]:
    """Latents (mean and deviation) and captions of `count` pictures of the mixture, made once and kept."""
    kept = out / f"latents-{count}.pt"
    if kept.exists():
        return torch.load(kept, weights_only=True, mmap=True)  # type: ignore[no-any-return]
    vae = AutoencoderKL.from_pretrained(out / "vae").eval()
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder())
    rng = np.random.default_rng(3)
    means, deviations, ids = (list[torch.Tensor]() for _ in range(3))
    while len(means) * 500 < count:
        scenes = _scenes(500, rng)
        images, defects = pictures(scenes, rng)
        with torch.inference_mode():
            latent = vae.encode(pixels(images)).latent_dist
        means.append(latent.mean.half())
        deviations.append(latent.std.half())
        texts = captions(scenes, defects, rng, alone=0.05, empty=0.1)
        ids.append(
            tokenizer(
                texts, padding="max_length", truncation=True, return_tensors="pt"
            ).input_ids.short()
        )
    pool = {"mean": torch.cat(means), "deviation": torch.cat(deviations), "ids": torch.cat(ids)}
    pool = {key: value.clone() for key, value in pool.items()}
    torch.save(pool, kept)
    return pool


def _inner(weights: dict[str, torch.Tensor], model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Rename a text tower's weights for the class that is a text tower alone: the ends of the names agree."""
    return {
        name: next(value for known, value in weights.items() if name.endswith(known))
        for name in model.state_dict()
    }


def train_unet(out: Path, steps: int, batch: int = 64, count: int = 100_000) -> None:
    """Learn to make pictures from words: noise prediction, the text encoder learning along.

    The text encoder begins as the CLIP's text tower. After nine tenths of the steps the moving average takes over, the
    words of remarks are given states of their own, and the text encoder stays as it is. The error of a noise level
    counts min(SNR, 5) / SNR (Hang et al., 2023, arXiv 2303.09556): small models learn the picture's layout sooner.
    """
    torch.manual_seed(0)
    model = TextAndUNet()
    clip = CLIPModel.from_pretrained(out / "clip")
    model.text.load_state_dict(_inner(clip.text_model.state_dict(), model.text))
    pool = _latent_pool(out, count)
    scale = float(AutoencoderKL.load_config(out / "vae")["scaling_factor"])
    noising = new_scheduler().alphas_cumprod
    model.unet.to(memory_format=torch.channels_last)
    stage = Stage(
        "unet", out, model, steps=steps, rate=8e-4, ema=0.9995, flat_first=True, fused=True
    )

    settled = int(0.9 * steps)

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        if step == settled:
            stage.use_average()
            keep_words_apart(model.text, CLIPTokenizer.from_pretrained(tokenizer_folder()))
            stage.average = [value.detach().clone() for value in model.parameters()]
        if step >= settled:
            stage.decay = 0.998
            model.text.requires_grad_(requires_grad=False)
        source = torch.Generator().manual_seed(step)
        rows = torch.randint(0, len(pool["mean"]), (batch,), generator=source)
        clean = pool["mean"][rows].float()
        clean += pool["deviation"][rows].float() * torch.randn(clean.shape, generator=source)
        clean *= scale
        noise = torch.randn(clean.shape, generator=source)
        time_step = torch.randint(0, 1000, (batch,), generator=source)
        kept = noising[time_step][:, None, None, None]
        noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
        words = model.text(pool["ids"][rows].long()).last_hidden_state
        made = model.unet(noisy, time_step, encoder_hidden_states=words).sample
        error = (made - noise).square().mean(dim=(1, 2, 3))
        signal = kept.flatten() / (1 - kept.flatten())
        weight = (5 / signal).clamp(max=1)
        return {"loss": (weight * error).mean(), "error": error.mean()}

    stage.run(loss_of)
    save_unet(out, stage)


def save_unet(out: Path, stage: Stage) -> None:
    """Write the moving average as the parts of a `StableDiffusionPipeline`, and measure what it makes."""
    from diffusers import StableDiffusionPipeline

    stage.use_average()
    model = stage.model.eval()
    assert isinstance(model, TextAndUNet)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(out / "vae"),
        text_encoder=model.text,
        tokenizer=CLIPTokenizer.from_pretrained(tokenizer_folder()),
        unet=model.unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(out / "generator")
    figures: dict[str, Any] = {}
    scenes = [
        scene for scene in scenes_of(["spare"], np.random.default_rng(4)) if len(scene.objects) == 2
    ][:256]
    prompts = [scene.text for scene in scenes]
    pipeline.set_progress_bar_config(disable=True)
    for guidance in (1.0, 2.0, 3.0, 5.0):
        source = torch.Generator().manual_seed(0)
        made = pipeline(
            prompts,
            num_inference_steps=16,
            guidance_scale=guidance,
            generator=source,
            output_type="np",
        )
        images = np.round(made.images * 255).astype(np.uint8)
        seen = judge(images, prompts)
        figures[f"guidance {guidance:g}"] = {
            "utility": round(float(seen.utility.mean()), 3),
            "aspects": [round(float(x), 3) for x in seen.aspects.mean(axis=0)],
        }
    write_figures(out, "unet", stage, samples=figures)


def main(arguments: Iterable[str] | None = None) -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=("vae", "clip", "unet"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args(None if arguments is None else [*arguments])
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    stages = {"vae": (train_vae, 4000), "clip": (train_clip, 6000), "unet": (train_unet, 24_000)}
    train, steps = stages[given.stage]
    train(given.out, given.steps or steps)


if __name__ == "__main__":
    main()
