"""How each kind of scorer is put together from its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from palate.errors import CheckpointError, SettingsError
from palate.models.aesthetic import HEAD, load_head
from palate.models.clip import Clip
from palate.models.clip_files import Reading, load_clip
from palate.models.clip_names import published_name
from palate.models.hub import Located
from palate.models.image_reward import ImageReward, load_image_reward
from palate.models.mps import Mps, load_mps
from palate.models.mps_condition import CONDITIONS, THRESHOLD, Masking
from palate.models.pixels import PROFILES
from palate.scoring.networks import AestheticScorer, ClipScorer, ImageRewardScorer, MpsScorer
from palate.scoring.scorer import Scorer
from palate.scoring.terms import HEADS

AS_THE_FILES_SAY = Reading()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a scorer's parts come from, and on which device it runs.

    ``tokenizer`` is a vocabulary file or a folder, ``architecture`` a JSON file with what the weights do not tell;
    both are looked for beside the weights if they are not given. ``clip`` are the weights of the CLIP that an
    aesthetic head was trained on. ``condition`` and ``mask_threshold`` are those of MPS.
    """

    weights: Located | None = None
    tokenizer: Path | None = None
    architecture: Path | None = None
    clip: Located | None = None
    condition: str | None = None
    mask_threshold: float | None = None
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Profile:
    """One way to compute a scorer: which code path it equals, and how a CLIP is read for it.

    ``size`` is the published CLIP that the scorer was made of; weights of another published size are refused.
    """

    matches: str
    reading: Reading = AS_THE_FILES_SAY
    unit: str = "hps"
    prefix: str = ""
    mask_threshold: float = THRESHOLD
    size: str | None = None


def build_clip(name: str, how: Profile, source: Source, about: Mapping[str, Any]) -> Scorer:
    """A scorer that is the cosine of a CLIP."""
    clip = read_clip(source, how.reading)
    found, wanted = published_name(clip.model.config), how.size
    if wanted and found and found != wanted:
        raise CheckpointError(
            f"{name}: these weights have the sizes of CLIP {found}, expected those of {wanted}"
        )
    return ClipScorer(clip, name, unit=how.unit, prefix=how.prefix, about=about)


def read_clip(source: Source, reading: Reading) -> Clip:
    """Load the CLIP of a source, read in a given way."""
    assert source.weights is not None
    return load_clip(
        source.weights.path,
        tokenizer=source.tokenizer,
        architecture=source.architecture,
        reading=reading,
        device=source.device,
    )


def build_mps(name: str, how: Profile, source: Source, about: Mapping[str, Any]) -> Scorer:
    """One dimension of MPS."""
    del name
    mps, masking = _read_mps(source), Masking(threshold=how.mask_threshold)
    if mps.masking is not None:
        assert source.weights is not None
        raise CheckpointError(
            f"{source.weights.path}: holds an MPS that was trained and says its own mask, expected to be loaded by "
            "its path"
        )
    plain = MpsScorer(mps, "overall", CONDITIONS["overall"], masking, about)
    return plain.on(source.condition, source.mask_threshold)


def folder_facts(source: Source, card: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a scorer's card tells of the folder that it comes from: its name, and its temperature if it has one."""
    assert source.weights is not None
    return {"weights": source.weights.source, "calibration": card.get("calibration")}


def build_trained_mps(source: Source) -> Scorer:
    """One dimension of an MPS that ``palate train`` wrote: its card says the conditions and the mask."""
    assert source.weights is not None
    mps = _read_mps(source)
    said, dimension = mps.about, str(mps.about.get("dimension", "overall"))
    if dimension not in mps.conditions:
        dimension = next(iter(mps.conditions))
    name, about = str(said.get("name") or source.weights.source), folder_facts(source, said)
    words, masking = mps.conditions[dimension], mps.masking or Masking()
    plain = MpsScorer(mps, dimension, words, masking, about, name)
    return plain.on(source.condition, source.mask_threshold)


def _read_mps(source: Source) -> Mps:
    """Load the MPS of a source."""
    assert source.weights is not None
    return load_mps(
        source.weights.path,
        tokenizer=source.tokenizer,
        architecture=source.architecture,
        device=source.device,
    )


def build_image_reward(name: str, how: Profile, source: Source, about: Mapping[str, Any]) -> Scorer:
    """ImageReward."""
    del name, how
    return ImageRewardScorer(_read_image_reward(source), about)


def build_trained_image_reward(source: Source) -> Scorer:
    """An ImageReward that ``palate train`` wrote: its card says its name, dimension and standardisation."""
    assert source.weights is not None
    model = _read_image_reward(source)
    return ImageRewardScorer(
        model,
        folder_facts(source, model.about),
        name=str(model.about.get("name") or source.weights.source),
        dimension=str(model.about.get("dimension", "overall")),
    )


def _read_image_reward(source: Source) -> ImageReward:
    """Load the ImageReward of a source."""
    assert source.weights is not None
    return load_image_reward(
        source.weights.path,
        tokenizer=source.tokenizer,
        architecture=source.architecture,
        device=source.device,
    )


def build_aesthetic(name: str, how: Profile, source: Source, about: Mapping[str, Any]) -> Scorer:
    """An aesthetic head on the CLIP that it was trained on."""
    del name
    assert source.weights is not None
    folder = source.weights.path
    path = folder / HEAD if folder.is_dir() else folder
    place = source.clip or (source.weights if folder.is_dir() else None)
    if place is None:
        raise CheckpointError(
            "aesthetic needs the CLIP that its head was trained on, expected clip= (--clip) with "
            "OpenAI's ViT-L/14 or a folder"
        )
    head = load_head(path, device=source.device)
    way = "simulacra" if head.kind == "simulacra" else "openai-clip"
    reading = replace(how.reading, preparation=PROFILES[way])
    clip = read_clip(replace(source, weights=place), reading)
    terms = HEADS[head.kind]
    known = {"matches": terms.matches, "licence": terms.licence, "clip": place.source}
    return AestheticScorer(clip, head, {**about, **known})


def build_trained_head(folder: Path, source: Source) -> Scorer:
    """An aesthetic head that learnt from choices, and the CLIP beside it; the folder's card says its name and unit."""
    clip = load_clip(folder, tokenizer=source.tokenizer, device=source.device)
    said = {"name": folder.resolve().name, "unit": "logit", "dimension": "overall", **clip.about}
    return AestheticScorer(
        clip,
        load_head(folder / HEAD, device=source.device),
        folder_facts(source, clip.about),
        name=str(said["name"]),
        unit=str(said["unit"]),
        dimension=str(said["dimension"]),
    )


def check_device(device: str) -> None:
    """Refuse a device that torch does not know or this machine does not have."""
    try:
        found = torch.device(device)
    except RuntimeError:
        raise SettingsError(f"device is '{device}', expected cpu, cuda or cuda:NUMBER") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError(f"device is '{device}', but torch finds no GPU here; expected cpu")
