"""Which scorers there are: one visible dictionary from names to loaders."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import palate
from palate.errors import CheckpointError
from palate.models.clip import Clip, load_clip
from palate.scoring.scorer import ClipScorer, Scorer, Unit


@dataclass(frozen=True, slots=True)
class Source:
    """Where a scorer's parts come from, and on which device it runs.

    ``tokenizer`` is a vocabulary file or a folder, ``architecture`` a JSON file with what the
    weights do not tell; both are looked for beside the weights if they are not given.
    """

    weights: Path | None = None
    tokenizer: Path | None = None
    architecture: Path | None = None
    device: str = "cpu"


def load_scorer(
    spec: str,
    weights: Path | None = None,
    *,
    tokenizer: Path | None = None,
    architecture: Path | None = None,
    device: str = "cpu",
) -> Scorer:
    """Load a scorer by its name in the catalogue, or from a folder that was saved.

    A folder may be one that ``palate train`` wrote, or any CLIP that transformers saved. Nothing is
    fetched. Raises CheckpointError for an unknown name and for weights that do not fit.
    """
    source = Source(weights, tokenizer, architecture, device)
    if spec in SCORERS:
        return SCORERS[spec](source)
    path = Path(spec)
    if path.is_dir():
        if weights is not None:
            raise CheckpointError(
                f"{spec}: a folder brings its own weights, but {weights} was given too"
            )
        return _folder(path, source)
    if path.is_file():
        raise CheckpointError(
            f"{spec}: a file does not say which scorer it is; expected a scorer's name with this file "
            "as its weights, for example hps-v1"
        )
    near = difflib.get_close_matches(spec, SCORERS, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise CheckpointError(
        f"no scorer or folder called '{spec}', expected one of {', '.join(SCORERS)} or a folder{hint}"
    )


def miniature_folder() -> Path:
    """Give the folder of the tiny CLIP that Palate ships."""
    return Path(palate.__file__).parent / "miniature" / "weights" / "clip"


def _miniature(source: Source) -> Scorer:
    """The tiny CLIP of the simulated world, before it learnt from choices."""
    clip = _load(source.weights or miniature_folder(), source)
    return ClipScorer(clip, "miniature", unit="hps")


def _hps_v1(source: Source) -> Scorer:
    """HPS v1: 100 times the cosine of the fine-tuned CLIP ViT-L/14, as `evaluate_hps.py` prepares."""
    if source.weights is None:
        raise CheckpointError(
            "hps-v1 needs its weights, expected the path of hpc.pt or of a saved folder"
        )
    return ClipScorer(_load(source.weights, source), "hps-v1", unit="hps")


def _folder(path: Path, source: Source) -> Scorer:
    """A saved folder, which says its own name, unit and dimension, or is a plain CLIP."""
    clip = _load(path, source)
    unit = clip.about.get("unit", "cosine")
    if unit not in {"cosine", "hps", "logit"}:
        raise CheckpointError(f"{path}: unit is {unit!r}, expected 'cosine', 'hps' or 'logit'")
    known: dict[str, Unit] = {"cosine": "cosine", "hps": "hps", "logit": "logit"}
    name = str(clip.about.get("name") or path.resolve().name)
    dimension = str(clip.about.get("dimension", "overall"))
    return ClipScorer(clip, name, unit=known[unit], dimension=dimension)


def _load(path: Path, source: Source) -> Clip:
    """Load the CLIP of a scorer."""
    return load_clip(
        path, tokenizer=source.tokenizer, architecture=source.architecture, device=source.device
    )


SCORERS: dict[str, Callable[[Source], Scorer]] = {
    "hps-v1": _hps_v1,
    "miniature": _miniature,
}
