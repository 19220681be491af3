"""Generate: prompts to images, the same image whatever the batch's company, the order or a restart.

An image's noise has an address: the run's name, the prompt and the index. Batches are always filled
up to ``batch`` rows, because a matrix product of another shape may round differently: at one
``batch`` the files are equal byte for byte, and between two they differ by at most one level of 255
where a value lay on the edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
from PIL.PngImagePlugin import PngInfo

from palate.data.images import probe_image
from palate.data.records import Image, json_text
from palate.data.tables import read_table, to_table, write_table
from palate.errors import DataError, ImageError, SettingsError
from palate.generation.best import (
    BestOf,
    Choosing,
    forget_choosing,
    groups,
    is_flagged,
    load_judge,
)
from palate.generation.generator import Generator
from palate.runs import atomic_path, hash_text, seed_for, start_run, track
from palate.scoring.scorer import Scorer

_FLAG = "palate-flagged"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateSettings:
    """How images are generated; the defaults are those of the HPS paper's pictures."""

    images_per_prompt: int = 4
    steps: int = 50
    guidance: float = 7.5
    """Classifier-free guidance; at 1 or below there is none, and the negative prompt is not read."""
    negative_prompt: str | None = None
    """None takes the identifier that the adapter's file names, and nothing where none is named."""
    prefix: str = ""
    """Words put before every prompt. The noise and the table's prompt are those of the bare prompt, so
    that images with and without them can be compared."""
    batch: int = 4
    """Images per forward. Larger is faster while memory lasts; see the module on rounding."""
    run: str = "generate"
    """The first part of every image's random address: another name gives other images."""
    height: int | None = None
    width: int | None = None
    """Pixels; None is the size that the model was trained at."""
    eta: float = 0.0
    """Noise added on the way, for DDIM schedulers only."""
    best_of: BestOf | None = None
    """Make more images of each prompt, and keep those that a scorer likes best."""

    def __post_init__(self) -> None:
        """Refuse numbers that make no image."""
        for name in ("images_per_prompt", "steps", "batch"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.best_of:
            self.best_of.kept_of(self.images_per_prompt)

    @property
    def made_per_prompt(self) -> int:
        """How many images are made of each prompt, kept or not."""
        return self.best_of.images if self.best_of else self.images_per_prompt


@dataclass(frozen=True, slots=True)
class Request:
    """One image to make: its prompt, its index among the prompt's images, its seed and its key."""

    image: str
    prompt: str
    index: int
    seed: int


def generate(
    prompts: Sequence[str],
    generator: Generator,
    out: Path,
    settings: GenerateSettings | None = None,
    *,
    scorer: Scorer | None = None,
    overwrite: bool = False,
) -> Any:
    """Generate images of prompts into a data-set folder; killed and called again, it goes on.

    With ``settings.best_of`` the table and the folder have only the images that the scorer likes best;
    ``scores.parquet`` has the scores of all.

    Args:
        prompts: texts; one that is given twice is generated once.
        generator: from ``load_generator``.
        out: gets ``images/<key>.png``, ``images.parquet`` and ``run.json``.
        settings: see ``GenerateSettings``.
        scorer: chooses for ``settings.best_of``; None loads the one that is named there.
        overwrite: empty the folder first if it holds a run.

    Returns:
        The images table, in the order of the prompts, then of the index, or the best first.

    Raises:
        SettingsError: a negative prompt that this guidance cannot use, or a size that does not fit.
        DataError: no prompts, or an image that the scorer cannot score.
        RunError: the folder holds another run or cannot be written.
    """
    settings = settings or GenerateSettings()
    distinct = list(dict.fromkeys(prompts))
    if not distinct:
        raise DataError("no prompts to generate from, expected at least one")
    plan = _resolve(generator, settings)
    choosing = _choosing(settings, scorer, generator, out)
    inputs = {
        "generator": generator.fingerprint,
        "negative_prompt": plan["negative_prompt"],
        "prompts": hash_text(*distinct),
        **({"scorer": choosing.chooser} if choosing else {}),
    }
    with start_run("generate", out, _recorded(settings), inputs, overwrite=overwrite) as run:
        if run.finished:
            forget_choosing(out)
            return read_table(out / "images.parquet", "images")
        requests = list_requests(distinct, generator, settings)
        remaining = [request for request in requests if not _is_whole(out, request)]
        run.note(already_there=len(requests) - len(remaining))
        if choosing:
            tables = _make_best(requests, remaining, generator, plan, settings, choosing)
        else:
            _make_images(remaining, generator, plan, settings, out)
            rows = (_row(out, request, generator, plan) for request in requests)
            tables = {"images": to_table(rows, "images")}
        for name, table in tables.items():
            write_table(table, out / f"{name}.parquet")
        images = tables["images"]
        run.finish(
            {
                "images": len(images),
                "prompts": len(distinct),
                "repeated_prompts": len(prompts) - len(distinct),
                "truncated_prompts": len(
                    generator.truncated([settings.prefix + p for p in distinct])
                ),
                "flagged_images": sum(map(is_flagged, images["details"].to_pylist())),
                "generator": generator.label,
                "adapters": _describe_adapters(generator),
                **plan,
                **({"best_of": choosing.sum_up(tables["scores"])} if choosing else {}),
            },
            files=[*(f"{name}.parquet" for name in tables), *images["path"].to_pylist()],
        )
        forget_choosing(out)
    return images


def list_requests(
    prompts: Sequence[str], generator: Generator, settings: GenerateSettings
) -> list[Request]:
    """List the images to make, with the seed and the key that each one's address gives it.

    The seed comes from run, prompt and index alone, so that two generators, or one with and without
    an adapter, start from the same noise. The key also names the generator and the settings.
    """
    plan = json_text(_resolve(generator, settings)) or ""
    requests = []
    for prompt in prompts:
        for index in range(settings.made_per_prompt):
            address = (generator.fingerprint, plan, settings.run, prompt, str(index))
            seed = seed_for(settings.run, prompt, index)
            requests.append(Request(hash_text(*address)[:20], prompt, index, seed))
    return requests


def _choosing(
    settings: GenerateSettings, scorer: Scorer | None, generator: Generator, out: Path
) -> Choosing | None:
    """Get ready to choose, if the settings ask for it."""
    best = settings.best_of
    if best is None:
        if scorer is not None:
            raise SettingsError("a scorer was given, but the settings have no best_of")
        return None
    judge = scorer or load_judge(best, str(generator.pipeline.device))
    return Choosing(out, judge, best, best.kept_of(settings.images_per_prompt))


def _recorded(settings: GenerateSettings) -> GenerateSettings:
    """Give what decides whether a run is the same one: where a scorer's files lie does not."""
    best = settings.best_of
    return replace(settings, best_of=best.without_scorer()) if best else settings


def _resolve(generator: Generator, settings: GenerateSettings) -> dict[str, Any]:
    """Fill in what the settings left to the model and the adapter: all that decides an image."""
    from palate.generation.families import family_of, guidance_parameter

    pipeline = generator.pipeline
    negative = settings.negative_prompt
    if negative is None:
        negative = generator.identifier
    _check_negative(pipeline, negative, settings.guidance)
    family = family_of(pipeline)
    height, width = family.image_size(pipeline) if family else (None, None)
    scheduler = getattr(pipeline, "scheduler", None)
    plan: dict[str, Any] = {
        "prefix": settings.prefix,
        "steps": settings.steps,
        "guidance": settings.guidance if guidance_parameter(pipeline) else None,
        "negative_prompt": negative,
        "height": settings.height or height,
        "width": settings.width or width,
        "eta": settings.eta,
        "scheduler": None if scheduler is None else type(scheduler).__name__,
    }
    for name in ("height", "width"):
        if plan[name] and (plan[name] % 8 or plan[name] % getattr(pipeline, "vae_scale_factor", 8)):
            raise SettingsError(f"{name} is {plan[name]}, expected a multiple of 8")
    return plan


def _check_negative(pipeline: Any, negative: str, guidance: float) -> None:
    """Refuse a negative prompt that would not be read."""
    from palate.generation.families import reads_negative

    if not negative:
        return
    if reason := reads_negative(pipeline):
        raise SettingsError(
            f"the negative prompt {negative!r} would not be read, since {reason}; "
            "expected an empty negative prompt"
        )
    if guidance <= 1:
        raise SettingsError(
            f"guidance is {guidance}, which cannot use the negative prompt {negative!r}; "
            "expected a guidance above 1, or an empty negative prompt"
        )


def _make_images(
    remaining: Sequence[Request],
    generator: Generator,
    plan: dict[str, Any],
    settings: GenerateSettings,
    out: Path,
    label: str = "generating",
) -> None:
    """Make and write the images that are not there yet."""
    from palate.generation.sampling import in_batches, to_bytes

    prompts = [request.prompt for request in remaining]
    batches = in_batches(prompts, settings.batch, mixed=generator.mixes_prompts)
    for places in track(batches, label):
        wanted = [remaining[place] for place in places]
        filled = wanted + wanted[-1:] * (settings.batch - len(wanted))
        texts = [plan["prefix"] + request.prompt for request in filled]
        images, flags = generator.sample(texts, [request.seed for request in filled], plan)
        arrays = to_bytes(images[: len(wanted)]).numpy()
        for request, image, flag in zip(wanted, arrays, flags, strict=False):
            _write_image(out, request, image, flagged=flag)


def _make_best(
    requests: Sequence[Request],
    remaining: Sequence[Request],
    generator: Generator,
    plan: dict[str, Any],
    settings: GenerateSettings,
    choosing: Choosing,
) -> dict[str, Any]:
    """Make, choose and delete for some prompts at a time, so that few images lie there that are not kept.

    Gives the tables of the run.
    """
    out, missing = choosing.out, {request.image for request in remaining}
    parts = list(groups(requests, settings.made_per_prompt))
    ranked = []
    for number, group in enumerate(parts):
        scores = choosing.find(number, [request.image for request in group])
        spare = set() if scores is None else choosing.spare(scores)
        wanted = [one for one in group if one.image in missing - spare]
        if wanted:
            label = f"generating, part {number + 1} of {len(parts)}"
            _make_images(wanted, generator, plan, settings, out, label)
        if scores is None:
            scores = choosing.rank(number, [_row(out, one, generator, plan) for one in group])
        spare = choosing.spare(scores)
        for request in group:
            if request.image in spare:
                _file(out, request).unlink(missing_ok=True)
        ranked.append(scores)
    known = {request.image: request for request in requests}
    return choosing.tables(
        pa.concat_tables(ranked), lambda image: _row(out, known[image], generator, plan)
    )


def _file(out: Path, request: Request) -> Path:
    return out / "images" / f"{request.image}.png"


def _write_image(
    out: Path, request: Request, image: np.ndarray[Any, np.dtype[np.uint8]], *, flagged: bool
) -> None:
    notes = PngInfo()
    if flagged:
        notes.add_text(_FLAG, "1")
    with atomic_path(_file(out, request)) as temporary:
        PIL.Image.fromarray(image).save(temporary, format="PNG", pnginfo=notes)


def _is_flagged(path: Path) -> bool:
    """Tell whether the pipeline's safety checker blackened this image; the file itself says so."""
    with PIL.Image.open(path) as opened:
        return _FLAG in opened.info


def _is_whole(out: Path, request: Request) -> bool:
    """Tell whether an image is there and can be read: its name says that it is the right one."""
    path = _file(out, request)
    if not path.exists():
        return False
    try:
        probe_image(path)
    except ImageError:
        return False
    return True


def _row(out: Path, request: Request, generator: Generator, plan: dict[str, Any]) -> Image:
    facts = probe_image(_file(out, request), decode=False)
    how = {**plan, "fingerprint": generator.fingerprint, "index": request.index}
    if generator.adapters:
        how["adapters"] = [
            {"name": one.name, "sha256": one.fingerprint, "strength": strength}
            for one, strength in generator.adapters
        ]
    return Image(
        image=request.image,
        prompt=request.prompt,
        path=f"images/{request.image}.png",
        sha256=facts.sha256,
        width=facts.width,
        height=facts.height,
        generator=generator.label,
        seed=request.seed,
        settings=json_text(how),
        details=json_text({"flagged": True} if _is_flagged(_file(out, request)) else {}),
    )


def _describe_adapters(generator: Generator) -> list[dict[str, Any]]:
    """Say of each adapter what it is and how much of it is used, and whether it was trained on this very base.

    The last is None where the file does not say.
    """
    return [
        {
            "file": str(one.path),
            "form": one.form,
            "strength": strength,
            "made_for_this_base": None
            if one.details.get("base") is None
            else one.details["base"] == generator.base,
            "base_name": one.details.get("base_name"),
            "guidance": one.details.get("guidance"),
        }
        for one, strength in generator.adapters
    ]
