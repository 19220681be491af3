"""Adapt: labelled images to a LoRA that makes a generator better, by one of several methods."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from palate.adaptation.buckets import bucket_sizes
from palate.adaptation.curves import plain_points, worries
from palate.adaptation.denoiser import Denoiser
from palate.adaptation.examples import Examples, TextStore, labels_hash, make_examples
from palate.adaptation.latents import ImageFile, Ints, Latents, encode_latents, encode_missing
from palate.adaptation.lora_files import add_lora, save_adapter
from palate.adaptation.methods import METHODS, Method, check_identifier
from palate.adaptation.mixture import plan_batches
from palate.adaptation.noising import noising_of
from palate.adaptation.pairs import PAIR
from palate.adaptation.reward import Rewarding, check_rewardable, load_scorers
from palate.adaptation.settings import AdaptSettings
from palate.adaptation.watching import Watch
from palate.adaptation.work import Work
from palate.errors import CheckpointError, DataError, SettingsError
from palate.generation.adapters import FILE_NAME
from palate.generation.families import FAMILIES, Family, family_of, reads_negative
from palate.generation.generator import Generator, load_generator
from palate.runs import Run, hash_text, write_atomic
from palate.training.loop import STATE, Fitted, fit
from palate.training.processes import Processes, device_of, start_processes, start_shared_run


def adapt(
    labels: Any,
    files: Mapping[str, ImageFile],
    base: Path,
    out: Path,
    settings: AdaptSettings | None = None,
    *,
    cache: Path | None = None,
    device: str = "cpu",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Adapt a generator to labelled images; killed and called again, it ends bit for bit the same.

    Started by `accelerate launch` or `torchrun`, several processes share each batch.

    Args:
        labels: a labels table.
        files: the pictures by key, from ``image_files``.
        base: a folder in diffusers format of a family that can be adapted; it is not changed.
        out: gets ``pytorch_lora_weights.safetensors``, ``curves.json``, ``run.json``, and ``grids`` if asked for.
        settings: see ``AdaptSettings``.
        cache: where latents are kept and found again; None keeps them in ``out``.
        device: where it runs.
        overwrite: empty ``out`` first if it holds a run.

    Returns:
        The run's result: rows, losses per role, what was learnt of held-out pictures, warnings, the adapter's file name.

    Raises:
        DataError: labels of images that are not there, no rows of a role with a weight, or no pair for a method of pairs.
        SettingsError: an identifier that the model cannot read whole, or settings that do not fit the base.
        CheckpointError: a base that cannot be loaded or adapted, or that the method cannot use.
    """
    settings = settings or AdaptSettings()
    processes = start_processes(device, out, settings.trackers)
    generator = load_generator(base, device=str(device_of(processes, device)))
    job = _plan(generator, labels, files, settings, processes)
    inputs = {
        "base": generator.base,
        "labels": labels_hash(labels),
        "pictures": hash_text(*(files[image].sha256 for image in job.examples.images)),
    }
    with start_shared_run(processes, "adapt", out, settings, inputs, overwrite=overwrite) as run:
        done = processes.same(run.result if run and run.finished else None)
        if done is None:
            pictures = [files[image] for image in job.examples.images]
            work = _prepare(job, pictures, base, cache or out / "latents")
            done = _train(run, out, generator, work, inputs)
    processes.end()
    return done


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done, before anything is computed or written."""

    generator: Generator
    family: Family
    method: Method
    examples: Examples
    plan: Ints
    settings: AdaptSettings
    processes: Processes


def _plan(
    generator: Generator,
    labels: Any,
    files: Mapping[str, ImageFile],
    settings: AdaptSettings,
    processes: Processes,
) -> Job:
    """Match labels and pictures, decide what each step sees, and refuse what cannot work."""
    family, method = family_of(generator.pipeline), METHODS[settings.method]
    if family is None:
        known = ", ".join(one.pipeline for one in FAMILIES)
        kind = type(generator.pipeline).__name__
        raise CheckpointError(
            f"{generator.name}: a {kind} cannot be adapted, expected one of {known}"
        )
    examples = make_examples(
        labels, files, method, settings.identifier, settings.hold_out, settings.seed
    )
    shares = {role: settings.weights[role] for role in method.roles}
    plan = plan_batches(
        examples.training,
        {PAIR: 1.0} if method.paired else shares,
        settings.steps,
        settings.batch,
        settings.seed,
    )
    job = Job(generator, family, method, examples, plan, settings, processes)
    _check(job)
    return job


def _prepare(job: Job, files: list[ImageFile], base: Path, cache: Path) -> Work:
    """Encode pictures and texts once, and put the adapter on the denoiser."""
    pipeline, family = job.generator.pipeline, job.family
    settings, processes = job.settings, job.processes
    sizes = _sizes(job)
    if processes.count > 1:
        share = (processes.number, processes.count)
        encode_missing(pipeline, base, files, sizes, cache, share)
        processes.wait()
    latents = encode_latents(pipeline, base, files, sizes, cache)
    _check_shapes(job, latents)
    texts = TextStore(pipeline, family, job.examples.texts)
    network = getattr(pipeline, family.denoiser)
    precision = getattr(torch, settings.precision)
    if precision != network.dtype:
        network.to(precision)
    add_lora(network, family.targets, settings.rank, settings.own_alpha, settings.seed)
    if settings.checkpointing:
        network.enable_gradient_checkpointing()
    denoiser = Denoiser(
        family,
        network,
        noising_of(pipeline, network.device),
        precision,
        pipeline.vae_scale_factor,
        processes.wrap(network) if processes.count > 1 else None,
    )
    rewarding = _rewarding(job, denoiser, sizes[0]) if settings.method == "reward" else None
    work = Work(
        job.method,
        denoiser,
        job.examples,
        latents,
        texts,
        job.plan,
        settings,
        processes,
        rewarding,
    )
    _release(pipeline, family, work)
    return work


def _check_shapes(job: Job, latents: Latents) -> None:
    """Refuse pairs whose images are of two shapes: they cannot get the same noise."""
    shapes = latents.shape[job.examples.latent[job.examples.units]]
    wrong = np.flatnonzero(shapes[:, 0] != shapes[:, -1])
    if len(wrong):
        first = [
            job.examples.images[job.examples.latent[row]] for row in job.examples.units[wrong[0]]
        ]
        raise DataError(
            f"labels: {len(wrong)} of {len(shapes)} pairs have images of two shapes, expected one, such as "
            f"{first[0]!r} and {first[1]!r}; buckets = false cuts all pictures to a square"
        )


def _rewarding(job: Job, denoiser: Denoiser, size: tuple[int, int]) -> Rewarding:
    """Load the scorers of the method ``reward``; its prompts are the labels' captions."""
    how, examples = job.settings.reward, job.examples
    scorer, watch = load_scorers(how, denoiser.device)
    trained = sorted({int(row) for units in examples.training.values() for row in units})
    captions = sorted({examples.texts[number] for number in examples.unmarked[trained].tolist()})
    pipeline, seed = job.generator.pipeline, job.settings.seed
    return Rewarding(pipeline, denoiser, scorer, watch, captions, how, size, seed, job.processes)


def _release(pipeline: Any, family: Family, work: Work) -> None:
    """Let go of the networks that are not asked any more, which makes room for the training."""
    if work.settings.grid_prompts or work.rewarding:
        return
    done = ("vae", *(family.encoders if work.texts.known is not None else ()))
    for name in done:
        setattr(pipeline, name, None)


def _sizes(job: Job) -> list[tuple[int, int]]:
    """Give the shapes that pictures are cut to, the square or the model's own first."""
    own, side = job.family.image_size(job.generator.pipeline), job.settings.size
    size = own if side is None else (side, side)
    if not job.settings.buckets:
        return [size]
    return bucket_sizes(round((size[0] * size[1]) ** 0.5), _step(job))


def _step(job: Job) -> int:
    """Give the number of pixels that a picture's sides must be multiples of, so that the denoiser can halve them."""
    config = getattr(job.generator.pipeline, job.family.denoiser).config
    halvings = config.get("patch_size") or 2 ** (len(config.block_out_channels) - 1)
    step: int = job.generator.pipeline.vae_scale_factor * halvings
    return step


def _train(
    run: Run | None, out: Path, generator: Generator, work: Work, inputs: Mapping[str, str]
) -> dict[str, Any]:
    """Train the LoRA in place, measure what it learnt, and save it."""
    settings, processes = work.settings, work.processes
    network = work.denoiser.network
    trained = {name: part for name, part in network.named_parameters() if part.requires_grad}
    watch = Watch(generator, work, out)
    before = watch.before()
    network.train()
    processes.follow(settings.trackers, {"method": settings.method, "base": generator.name})
    fitted = fit(
        trained,
        work.losses_at,
        settings.loop(),
        out,
        evaluate=watch.at if watch.looks else None,
        processes=processes,
        label="adapting",
    )
    network.eval()
    result = _describe(work, fitted, watch, before)
    if run is not None:
        save_adapter(
            network, work.denoiser.family.denoiser, out, _details(generator, settings, inputs)
        )
        curves = {
            "train": plain_points(fitted.train),
            "validation": plain_points(fitted.validation),
        }
        write_atomic(out / "curves.json", json.dumps(curves, indent=1) + "\n")
        grids = sorted(f"grids/{path.name}" for path in (out / "grids").glob("*.png"))
        run.finish(result, files=[FILE_NAME, "curves.json", *grids])
        (out / STATE).unlink(missing_ok=True)
    return processes.same(result)


def _describe(work: Work, fitted: Fitted, watch: Watch, before: dict[str, Any]) -> dict[str, Any]:
    """Give the run's result."""
    examples, method = work.examples, work.method
    points = plain_points(fitted.train)
    trained = [part for part in work.denoiser.network.parameters() if part.requires_grad]
    pairing = examples.pairing
    learnt = {"before": before, "after": watch.after()} if before else {}
    return {
        "adapter": FILE_NAME,
        "method": method.name,
        "parameters": sum(part.numel() for part in trained),
        "rows": {role: len(mine) for role, mine in examples.training.items()},
        "pairs": {"ties": pairing.ties, "alone": pairing.alone} if pairing else None,
        "held_out": {role: len(mine) for role, mine in examples.held_out.items()},
        "shapes": {
            f"{width}x{height}": int((work.latents.shape == number).sum())
            for number, (height, width) in enumerate(work.latents.sizes)
        },
        "times_seen": work.seen(),
        "truncated_captions": len({*work.texts.truncated} & {*examples.caption.tolist()}),
        "loss_first": points[0],
        "loss_last": points[-1],
        "identifier_gap": learnt if method.marks else {},
        "held_out_errors": {} if method.marks else learnt,
        "warnings": worries(method, points),
    }


def _check(job: Job) -> None:
    """Refuse a base, an identifier or a batch that the method cannot work with."""
    settings, family = job.settings, job.family
    if job.method.marks:
        _check_identifier(job)
    step = _step(job)
    if settings.size is not None and (settings.size < step or settings.size % step):
        raise SettingsError(f"size is {settings.size}, expected a multiple of {step}")
    if settings.min_snr and family.flow:
        raise SettingsError(
            f"min_snr is {settings.min_snr}, but a flow has no such weights; expected 0"
        )
    if settings.method == "reward":
        check_rewardable(family, settings.reward, job.processes.count)
    share = job.processes.count * settings.accumulate
    if settings.batch % share:
        raise SettingsError(
            f"batch is {settings.batch}, expected a multiple of {share}: {job.processes.count} processes "
            f"times {settings.accumulate} parts"
        )


def _check_identifier(job: Job) -> None:
    """Refuse a base that reads no negative prompt, and an identifier that it does not read whole."""
    generator, examples = job.generator, job.examples
    reason = reads_negative(generator.pipeline)
    if reason is not None:
        raise CheckpointError(
            f"{generator.name}: reads no negative prompt, which the method '{job.method.name}' needs: {reason}; "
            "the methods 'dpo', 'kto' and 'sft' need none"
        )
    captions = sorted({examples.texts[number] for number in examples.unmarked.tolist()})
    check_identifier(generator.pipeline, job.settings.identifier, captions)


def _details(
    generator: Generator, settings: AdaptSettings, inputs: Mapping[str, str]
) -> dict[str, Any]:
    """Give what the adapter's file says about itself."""
    from palate import __version__

    method = METHODS[settings.method]
    said = {"identifier": settings.identifier} if method.marks else {}
    return {
        "method": settings.method,
        **said,
        "base": generator.base,
        "base_name": generator.name,
        "rank": settings.rank,
        "alpha": settings.own_alpha,
        "guidance": settings.guidance_hint,
        "labels": inputs["labels"],
        "steps": settings.steps,
        "seed": settings.seed,
        "palate": __version__,
    }
