"""Weights are data: files are read without running code, and every name must fit."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from palate.errors import CheckpointError

Weights = dict[str, Tensor]

# OpenAI's exported archives carry these numbers among the weights.
_NOT_WEIGHTS = frozenset({"input_resolution", "context_length", "vocab_size"})


def read_weights(path: Path) -> Weights:
    """Read a state dict from safetensors or a PyTorch file, without running anything from it.

    A dictionary with the entry ``state_dict`` is unwrapped and a common prefix ``module.`` is
    dropped. Raises CheckpointError for a missing, damaged or foreign file and for a pickled module.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
    content = _load_plain(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(
            f"{path}: found a {type(content).__name__}, expected a dictionary of tensors"
        )
    if odd := [name for name, value in content.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(
            f"{path}: entry '{odd[0]}' is no tensor, expected a dictionary of tensors"
        )
    if all(name.startswith("module.") for name in content):
        content = {name.removeprefix("module."): value for name, value in content.items()}
    return {name: value for name, value in content.items() if name not in _NOT_WEIGHTS}


def _load_plain(path: Path) -> Any:
    """Unpickle with PyTorch's reader that builds only tensors and plain containers."""
    try:
        with warnings.catch_warnings():
            # a pickle that torch did not write is about to be refused, in our own words
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_unsafe(path, str(error))) from error
    except (
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        AttributeError,
        zipfile.BadZipFile,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not a readable PyTorch checkpoint ({reason})") from error


def _unsafe(path: Path, message: str) -> str:
    """Say which class a pickle wanted to build, or that the file is no pickle at all."""
    for mark in ("GLOBAL ", "Unsupported global: "):
        if mark in message:
            name = message.split(mark)[1].split(maxsplit=1)[0].strip("`'\".,:")
            return f"{path}: refused, since reading it would run code ({name}); expected a file of plain tensors"
    return f"{path}: not a PyTorch checkpoint of plain tensors"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that describes weights."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: found a {type(content).__name__}, expected an object")
    return content


def check_names(weights: Weights, expected: Mapping[str, torch.Size], where: Path) -> None:
    """Refuse weights with a missing, extra, misshapen or non-finite tensor, and list them."""
    missing = [name for name in expected if name not in weights]
    extra = [name for name in weights if name not in expected]
    misshapen = [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(shape)}"
        for name, shape in expected.items()
        if name in weights and weights[name].shape != shape
    ]
    faults = [
        f"{len(names)} {kind}: {some(names)}"
        for kind, names in (("missing", missing), ("extra", extra), ("misshapen", misshapen))
        if names
    ]
    if faults:
        raise CheckpointError(f"{where}: the tensors do not fit the model: {'; '.join(faults)}")
    if odd := [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]:
        raise CheckpointError(
            f"{where}: {len(odd)} tensors hold values that are not finite: {some(odd)}"
        )


def some(names: list[str]) -> str:
    """Write the first names of a list and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
