"""The verb ``convert``: an official checkpoint in, a standard folder with the same scores out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from palate.errors import CheckpointError, RunError
from palate.models.aesthetic import HEAD, save_head
from palate.models.checkpoint import read_json, read_weights, some
from palate.models.clip import Clip
from palate.models.clip_files import pretty_json, save_clip, transformers_processor
from palate.models.hub import locate
from palate.models.image_reward import ImageReward, save_image_reward
from palate.models.mps import save_mps
from palate.runs import RECORD, Run, atomic_path, start_run, write_atomic
from palate.scoring.catalog import SCORERS, load, saved_as
from palate.scoring.model_card import Origin, terms_of, write_model_card
from palate.scoring.networks import AestheticScorer, ClipScorer, ImageRewardScorer, MpsScorer
from palate.scoring.scorer import Scorer

# The miniature is no target: its weights are in the package, and others are not it.
TARGETS = tuple(name for name in SCORERS if name != "miniature")
# What a file of CLIP's tensors may be; its names and sizes do not tell.
CLIPS = ("hps-v1", "hps-v2", "hps-v2.1", "pickscore", "clip-score")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_PROMPTS = ("a red fox under an old oak", "", "two robots, watercolor", "a castle at night")

Network = ClipScorer | MpsScorer | ImageRewardScorer | AestheticScorer


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertSettings:
    """How weights are stored: in 32 bits, or with ``half`` in 16. They are computed with in 32 bits all the same."""

    half: bool = False


def convert_checkpoint(
    checkpoint: str | Path,
    out: Path,
    scorer: str | None = None,
    *,
    tokenizer: str | Path | None = None,
    architecture: str | Path | None = None,
    clip: str | Path | None = None,
    settings: ConvertSettings = ConvertSettings(),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write an official checkpoint once as a standard folder, and give what was written.

    The folder holds ``config.json``, ``model.safetensors``, the tokenizer, ``preprocessor_config.json`` where
    transformers can express the preparation, Palate's card (``palate.json``), a model card for people and the Hub
    (``README.md``), and the run record. It is there in whole or not at all, and only after its scores were found to
    be those of the checkpoint: with 32 bits, and with ``half`` of a checkpoint of 16 bits, its fingerprint is the
    same, and so every score is bit for bit. What other weights lose by ``half`` is in the result.

    Args:
        checkpoint: a path or a Hub id, as :func:`palate.scoring.catalog.load` takes it.
        out: the folder to write.
        scorer: its name in the catalogue, with ``@profile`` for another official path; told from the tensors of MPS,
            ImageReward and aesthetic heads, and of a folder that was converted before, if not given.
        tokenizer: a vocabulary file or a folder; looked for beside the checkpoint if not given.
        architecture: a JSON file with what the weights do not tell; looked for beside the checkpoint if not given.
        clip: for an aesthetic head, the CLIP that it was trained on; the folder then holds both.
        settings: how the weights are stored.
        overwrite: replace an older conversion.

    Raises:
        CheckpointError: a checkpoint that is missing, damaged, of another model, or that may be several.
        RunError: ``out`` holds something else, or cannot be written.
    """
    if scorer is not None:
        _check_target(scorer)
    places = {"checkpoint": locate(checkpoint)} | ({"clip": locate(clip)} if clip else {})
    path = places["checkpoint"].path
    judge = load(
        scorer or _check_target(tell_scorer(path)),
        path,
        tokenizer=tokenizer,
        architecture=architecture,
        clip=places["clip"].path if clip else None,
    )
    files = {name: _weights_file(place.path) for name, place in places.items()}
    named = {"scorer": judge.name, "profile": judge.facts()["profile"], **asdict(settings)}
    inputs: dict[str, Path | str] = {**files, "fingerprint": judge.fingerprint}
    with start_run("convert", out.resolve(), named, inputs, overwrite=overwrite) as run:
        if not run.finished:
            origins = {
                name: Origin(
                    file.name,
                    places[name].source,
                    file.stat().st_size,
                    run.record["inputs"][name]["sha256"],
                    places[name].revision,
                )
                for name, file in files.items()
            }
            origin = replace(origins["checkpoint"], clip=origins.get("clip"))
            convert(judge, run, origin, settings)
        return run.result


def convert(judge: Scorer, run: Run, origin: Origin, settings: ConvertSettings) -> None:
    """Write a loaded scorer into the folder of a run, and finish the run.

    Raises CheckpointError for a scorer that is none of the catalogue's.
    """
    with atomic_path(run.out) as folder:
        folder.mkdir()
        about = _about(judge, origin)
        _write(judge, folder, about, half=settings.half)
        copy = load(str(folder))
        same = copy.fingerprint == judge.fingerprint
        loss = None if same else largest_change(judge, copy)
        if not (same or settings.half):
            raise RunError(f"{run.out}: what was written does not read back as the same scorer")
        text = write_model_card(copy, origin, half=settings.half, loss=loss)
        write_atomic(folder / "README.md", text)
        # The record moves with the folder: whoever is interrupted right after can run again.
        write_atomic(folder / RECORD, (run.out / RECORD).read_bytes())
    files = sorted(path.name for path in run.out.iterdir() if path.name != RECORD)
    result = {
        "scorer": judge.name,
        "profile": about["profile"],
        "unit": judge.unit,
        "fingerprint": copy.fingerprint,
        "source": asdict(origin),
        "half": settings.half,
        "identical": same,
        "loss": loss,
        "files": files,
        "bytes": sum((run.out / name).stat().st_size for name in files),
    }
    run.finish(result, files=files)


def tell_scorer(path: Path) -> str:
    """Tell which scorer a checkpoint is from its tensors, where they leave no doubt; never from the file's name.

    Raises CheckpointError for a CLIP, whose names are those of several scorers, and for unknown tensors.
    """
    if path.is_dir():
        return _tell_folder(path)
    names = list(read_weights(path))
    if any(name.startswith("cross_model.") for name in names):
        return "mps"
    if any(name.startswith("blip.") for name in names) and _all(names, ("blip.", "mlp.")):
        return "image-reward"
    if _all(names, ("linear.", "layers.")) or sorted(names) == ["bias", "weight"]:
        return "aesthetic"
    if any(name.startswith(("visual.", "vision_model.")) for name in names):
        raise CheckpointError(_several(path))
    raise CheckpointError(
        f"{path}: its tensors are those of no scorer that is known: {some(names)}; if it is one, name it "
        f"with --scorer, one of {', '.join(TARGETS)}"
    )


def _check_target(scorer: str) -> str:
    """Give a scorer's name back; that of the miniature is refused."""
    if scorer.partition("@")[0] == "miniature":
        raise CheckpointError(
            "miniature: its weights are in the package, so that there is nothing to convert; expected one of "
            f"{', '.join(TARGETS)}"
        )
    return scorer


def _tell_folder(folder: Path) -> str:
    """Tell which scorer a folder is, which only a saved one says."""
    if (said := saved_as(folder)) is not None:
        return "@".join(filter(None, said))
    config = read_json(folder / "config.json")
    if (kind := config.get("model_type")) in {"mps", "image-reward"}:
        return str(kind)
    raise CheckpointError(_several(folder))


def _several(path: Path) -> str:
    return (
        f"{path}: holds a CLIP, whose tensors do not say which scorer it is; name it with --scorer, one of "
        f"{', '.join(CLIPS)}"
    )


def _all(names: Iterable[str], prefixes: tuple[str, ...]) -> bool:
    return all(name.startswith(prefixes) for name in names)


def _weights_file(path: Path) -> Path:
    """Give the file whose content is the checkpoint; that of a folder is its weights."""
    if not path.is_dir():
        return path
    names = (HEAD, *_WEIGHTS) if (path / HEAD).is_file() else _WEIGHTS
    return next((path / name for name in names if (path / name).is_file()), path / names[0])


def _about(judge: Scorer, origin: Origin) -> dict[str, Any]:
    """Give what the card says beside the network: enough to load the same scorer again, and where it is from."""
    terms = terms_of(judge)
    return {
        "scorer": judge.name,
        "profile": judge.facts()["profile"],
        "unit": judge.unit,
        "licence": terms.licence,
        "matches": terms.matches,
        "source": asdict(origin),
    }


def _write(judge: Scorer, folder: Path, about: dict[str, Any], *, half: bool) -> None:
    """Write the network of a scorer; its card comes last.

    What the network's former folder said of itself is left behind: it is another folder now.
    """
    if isinstance(judge, AestheticScorer):
        save_head(judge.head, folder / HEAD)
        save_clip(replace(judge.clip, about={}), folder, half=half, **about)
    elif isinstance(judge, ClipScorer):
        save_clip(replace(judge.clip, about={}), folder, half=half, **about)
    elif isinstance(judge, MpsScorer):
        _write_processor(judge.mps.clip, folder)
        save_mps(replace(judge.mps, about={}), folder, half=half, **about)
    elif isinstance(judge, ImageRewardScorer):
        _write_processor(judge.model, folder)
        save_image_reward(replace(judge.model, about={}), folder, half=half, **about)
    else:
        raise CheckpointError(f"{judge.name}: only scorers of the catalogue are converted")


def _write_processor(network: Clip | ImageReward, folder: Path) -> None:
    """Write the preparation as transformers spells it, if it can."""
    if (processor := transformers_processor(network.preparation)) is not None:
        write_atomic(folder / "preprocessor_config.json", pretty_json(processor))


def largest_change(one: Scorer, other: Scorer) -> float:
    """Give the largest difference of two scorers' scores on a few made-up pictures, in their unit."""
    random = np.random.default_rng(0)
    pictures = [
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        for size in ((256, 256), (320, 200), (180, 300), (224, 224))
    ]
    images = [picture for picture in pictures for _ in _PROMPTS]
    prompts = list(_PROMPTS) * len(pictures)
    away = np.abs(one.judge(images, prompts).values - other.judge(images, prompts).values)
    return float(away.max())
