"""Which scorers there are: one visible dictionary from names to what they are and how they are loaded."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import palate
from palate.errors import CheckpointError
from palate.models.aesthetic import HEAD
from palate.models.checkpoint import read_json
from palate.models.clip_files import CARD, Reading
from palate.models.hub import Located, locate
from palate.models.image_reward import holds_image_reward
from palate.models.mps import holds_mps
from palate.models.pixels import PROFILES
from palate.models.siglip import Siglip
from palate.models.towers import load_towers
from palate.scoring.builders import (
    Profile,
    Source,
    build_aesthetic,
    build_clip,
    build_image_reward,
    build_mps,
    build_trained_head,
    build_trained_image_reward,
    build_trained_mps,
    check_device,
    folder_facts,
)
from palate.scoring.networks import ClipScorer, SiglipScorer
from palate.scoring.scorer import Scorer
from palate.scoring.units import UNITS


@dataclass(frozen=True, slots=True)
class Entry:
    """A scorer of the catalogue: what it is, whose weights it takes, and its profiles, the default first."""

    what: str
    weights: str
    licence: str
    build: Callable[[str, Profile, Source, Mapping[str, Any]], Scorer]
    profiles: dict[str, Profile] = field(default_factory=dict)


def load(  # noqa: PLR0913 - each is a file or a choice that only some scorers have
    scorer: str | Path,
    weights: str | Path | None = None,
    *,
    profile: str | None = None,
    tokenizer: str | Path | None = None,
    architecture: str | Path | None = None,
    clip: str | Path | None = None,
    condition: str | None = None,
    mask_threshold: float | None = None,
    device: str = "cpu",
) -> Scorer:
    """Load a scorer by its name in the catalogue, or from a folder that was saved.

    Args:
        scorer: a name such as ``hps-v2.1``, or ``hps-v2.1@no-antialias`` with a profile; or a folder that
            ``palate train`` or ``palate convert`` wrote, or any CLIP or SigLIP that transformers saved.
        weights: the official checkpoint: a path, or a Hub id that you name (``org/name@revision/file``).
        profile: which of the published code paths is matched; the official evaluation code by default.
        tokenizer: a vocabulary file or a folder; looked for beside the weights if not given.
        architecture: a JSON file with what the weights do not tell; looked for beside the weights if not given.
        clip: for ``aesthetic``, the CLIP whose features the head was trained on.
        condition: for ``mps``, a dimension (overall, aesthetics, detail, alignment) or words of your own.
        mask_threshold: for ``mps``, what a prompt token's relevance must exceed.
        device: where it runs.

    Raises:
        CheckpointError: an unknown name, or weights that are missing, damaged, or those of another model.
    """
    check_device(device)
    spec = str(scorer)
    path, name, after = Path(spec), spec, ""
    if not path.exists() and "@" in spec:
        name, _, after = spec.rpartition("@")
        path = Path(name)
    source = Source(
        weights=None if weights is None else locate(weights),
        tokenizer=_path(tokenizer),
        architecture=_path(architecture),
        clip=None if clip is None else locate(clip),
        condition=condition,
        mask_threshold=mask_threshold,
        device=device,
    )
    if name in SCORERS:
        return _by_name(name, profile or after or None, source)
    if path.is_dir():
        if weights is not None:
            raise CheckpointError(
                f"{scorer}: a folder brings its own weights, but {weights} was given too"
            )
        source = replace(source, weights=Located(path, path.resolve().name, None))
        return _from_folder(path, source, profile or after or None)
    if path.is_file():
        raise CheckpointError(
            f"{scorer}: a file does not say which scorer it is; expected a scorer's name with this file "
            "as its weights, for example hps-v1"
        )
    raise CheckpointError(
        f"no scorer or folder called '{scorer}', expected one of {', '.join(SCORERS)} or a folder"
        + _hint(name, SCORERS)
    )


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _hint(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def miniature_folder() -> Path:
    """Give the folder of the tiny CLIP that Palate ships."""
    return Path(palate.__file__).parent / "miniature" / "weights" / "clip"


def _by_name(name: str, profile: str | None, source: Source) -> Scorer:
    """Load a scorer of the catalogue; a folder that says it is another one is refused."""
    entry = SCORERS[name]
    chosen = profile or next(iter(entry.profiles))
    if chosen not in entry.profiles:
        raise CheckpointError(
            f"{name}: no profile '{chosen}', expected one of {', '.join(entry.profiles)}"
            + _hint(chosen, entry.profiles)
        )
    if source.weights is None:
        if name != "miniature":
            raise CheckpointError(f"{name} needs its weights, expected {entry.weights}")
        source = replace(source, weights=Located(miniature_folder(), "in the package", None))
    elif name == "miniature":
        raise CheckpointError("miniature brings its own weights; load other folders by their path")
    _refuse_strangers(name, source)
    _refuse_another(name, source.weights.path if source.weights else None)
    how = entry.profiles[chosen]
    about = {
        "profile": chosen,
        "matches": how.matches,
        "weights": source.weights.source if source.weights else None,
        "revision": source.weights.revision if source.weights else None,
        "licence": entry.licence,
    }
    return entry.build(name, how, source, about)


def _refuse_strangers(name: str, source: Source) -> None:
    """Refuse what a scorer would not look at."""
    if name != "mps" and (source.condition or source.mask_threshold is not None):
        raise CheckpointError(f"{name}: takes no condition or mask threshold, only mps does")
    if name != "aesthetic" and source.clip is not None:
        raise CheckpointError(f"{name}: takes no CLIP beside its weights, only aesthetic does")
    folder = source.weights.path if source.weights else None
    if folder is not None and folder.is_dir() and source.architecture is not None:
        raise CheckpointError(
            f"{folder}: a folder says its own architecture, but {source.architecture} was given too"
        )


def _refuse_another(name: str, path: Path | None) -> None:
    said = None if path is None else saved_as(path)
    if said is not None and said[0] != name:
        raise CheckpointError(f"{path}: holds the scorer '{said[0]}', expected '{name}'")


def saved_as(folder: Path) -> tuple[str, str | None] | None:
    """Give scorer and profile of a converted folder, or None; a scorer trained on from there is another one."""
    card = read_json(folder / CARD) if (folder / CARD).is_file() else {}
    name = str(card.get("scorer"))
    return (name, card.get("profile")) if name in SCORERS and "trained" not in card else None


def _from_folder(path: Path, source: Source, profile: str | None) -> Scorer:
    """Load a saved folder, which says its own name, unit and dimension, or is a plain CLIP or SigLIP."""
    if (said := saved_as(path)) is not None:
        return _by_name(said[0], profile or said[1], source)
    if profile is not None:
        raise CheckpointError(
            f"{path}: no profile '{profile}', a plain CLIP folder has none, nor has a SigLIP's"
        )
    is_mps = holds_mps(path)
    _refuse_strangers("mps" if is_mps else str(path), source)
    if is_mps:
        return build_trained_mps(source)
    if holds_image_reward(path):
        return build_trained_image_reward(source)
    if (path / HEAD).is_file():
        return build_trained_head(path, source)
    towers = load_towers(path, tokenizer=source.tokenizer, device=source.device)
    unit = towers.about.get("unit", "cosine")
    if unit not in UNITS:
        raise CheckpointError(f"{path}: unit is {unit!r}, expected one of {', '.join(UNITS)}")
    name = str(towers.about.get("name") or path.resolve().name)
    dimension = str(towers.about.get("dimension", "overall"))
    about = folder_facts(source, towers.about)
    if isinstance(towers, Siglip):
        return SiglipScorer(towers, name, unit=str(unit), dimension=dimension, about=about)
    return ClipScorer(towers, name, unit=str(unit), dimension=dimension, about=about)


_HPS_V2 = Reading(preparation=PROFILES["hps-v2"], activation="gelu", clean="openai", pad=0)
_HPS_V2_OLD = replace(_HPS_V2, preparation=PROFILES["hps-v2-no-antialias"])
_OPENAI = Reading(
    preparation=PROFILES["openai-clip"], activation="quick_gelu", clean="openai", pad=0
)
_TRANSFORMERS = Reading(preparation=PROFILES["transformers-clip"], clean="transformers", pad="end")
_HPS_V2_PROFILES = {
    "official": Profile(
        "tgxs002/HPSv2 hpsv2/img_score.py with torchvision 0.17 or newer", _HPS_V2, size="ViT-H/14"
    ),
    "no-antialias": Profile("the same with torchvision before 0.17", _HPS_V2_OLD, size="ViT-H/14"),
}

SCORERS: dict[str, Entry] = {
    "hps-v1": Entry(
        "the classifier of the HPS paper, a fine-tuned CLIP ViT-L/14",
        "the path of hpc.pt or of a saved folder",
        "no licence stated for the weights",
        build_clip,
        {
            "official": Profile(
                "tgxs002/align_sd evaluate_hps.py on openai/CLIP", _OPENAI, size="ViT-L/14"
            ),
            "gelu": Profile(
                "tgxs002/align_sd process_diffusion_db.py, which labels with plain GELU",
                replace(_OPENAI, activation="gelu"),
                size="ViT-L/14",
            ),
        },
    ),
    "hps-v2": Entry(
        "HPS v2, a fine-tuned CLIP ViT-H/14",
        "the path of HPS_v2_compressed.pt or of a saved folder",
        "Apache-2.0 (the code; nothing confirmed of the weights)",
        build_clip,
        _HPS_V2_PROFILES,
    ),
    "hps-v2.1": Entry(
        "HPS v2.1, HPS v2 trained on other data; its scores do not compare with those of HPS v2",
        "the path of HPS_v2.1_compressed.pt or of a saved folder",
        "Apache-2.0 (the code; nothing confirmed of the weights)",
        build_clip,
        _HPS_V2_PROFILES,
    ),
    "pickscore": Entry(
        "PickScore, a CLIP ViT-H/14 fine-tuned on Pick-a-Pic",
        "a folder with transformers' CLIP files (PickScore_v1)",
        "MIT by its authors' word, not confirmed",
        build_clip,
        {
            "official": Profile(
                "yuvalkirstain/PickScore README on transformers 4",
                _TRANSFORMERS,
                unit="logit",
                size="ViT-H/14",
            )
        },
    ),
    "image-reward": Entry(
        "ImageReward, a BLIP that reads the prompt while it looks at the image",
        "the path of ImageReward.pt (med_config.json beside it) or of a saved folder",
        "Apache-2.0 (the code; nothing confirmed of the weights)",
        build_image_reward,
        {"official": Profile("THUDM/ImageReward ImageReward.py", unit="reward")},
    ),
    "mps": Entry(
        "MPS, a CLIP ViT-H/14 with cross-attention under a condition; one score per dimension",
        "the path of MPS_overall_checkpoint.pth or of a saved folder",
        "MIT for the code by its authors' word, not confirmed",
        build_mps,
        {
            "official": Profile(
                "Kwai-Kolors/MPS eval_overall_mps_on_*.py, mask threshold 0.3", unit="logit"
            ),
            "forward": Profile(
                "Kwai-Kolors/MPS forward and README, mask threshold 0.01",
                unit="logit",
                mask_threshold=0.01,
            ),
        },
    ),
    "clip-score": Entry(
        "the cosine of any CLIP, raw or in the two published scalings",
        "the path of an OpenAI or open_clip file, or a folder with transformers' CLIP files",
        "that of the CLIP (OpenAI's: MIT)",
        build_clip,
        {
            "cosine": Profile("the cosine itself, prepared as the files say", unit="cosine"),
            "hessel": Profile(
                "jmhessel/clipscore clipscore.py: 2.5 × max(cosine, 0) of 'A photo depicts …'",
                _OPENAI,
                unit="clipscore",
                prefix="A photo depicts ",
            ),
            "torchmetrics": Profile(
                "torchmetrics CLIPScore: 100 × max(cosine, 0)", _TRANSFORMERS, unit="clipscore-100"
            ),
        },
    ),
    "aesthetic": Entry(
        "a rating of the image alone: LAION v1, LAION v2 (sac+logos+ava1) or Simulacra, told by the file",
        "the path of a head's file, with the CLIP that it was trained on",
        "LAION v1: MIT, LAION v2: Apache-2.0, Simulacra: MIT",
        build_aesthetic,
        {
            "official": Profile(
                "christophschuhmann/improved-aesthetic-predictor, LAION-AI/aesthetic-predictor, "
                "crowsonkb/simulacra-aesthetic-models",
                unit="rating",
            )
        },
    ),
    "miniature": Entry(
        "the tiny CLIP of the simulated world, before it learnt from choices",
        "nothing: they are in the package",
        "Apache-2.0",
        build_clip,
        {"official": Profile("the simulated world's own CLIP")},
    ),
}
