"""Whatever places images and prompts on one sphere: a CLIP or a SigLIP."""

from __future__ import annotations

from pathlib import Path

from palate.errors import CheckpointError
from palate.models.checkpoint import read_json
from palate.models.clip import Clip
from palate.models.clip_files import load_clip
from palate.models.siglip import Siglip
from palate.models.siglip_files import load_siglip

Towers = Clip | Siglip

_SIGLIPS = frozenset({"siglip", "siglip2"})


def load_towers(
    path: Path,
    *,
    tokenizer: Path | None = None,
    architecture: Path | None = None,
    device: str = "cpu",
) -> Towers:
    """Load a CLIP or a SigLIP in float32: a folder's ``config.json`` says which it is, and a file is a CLIP's.

    Args:
        path: a saved folder, or an official checkpoint file of a CLIP.
        tokenizer: a vocabulary file or a folder, where it is not beside the weights.
        architecture: for a CLIP's file, a JSON file with what the weights do not tell.
        device: where it runs.

    Raises:
        CheckpointError: a file or folder that is missing, damaged, or of another model.
    """
    config = path / "config.json"
    if config.is_file() and read_json(config).get("model_type") in _SIGLIPS:
        if architecture is not None:
            raise CheckpointError(
                f"{path}: a folder says its own architecture, but {architecture} was given too"
            )
        return load_siglip(path, tokenizer=tokenizer, device=device)
    return load_clip(path, tokenizer=tokenizer, architecture=architecture, device=device)
