"""Weights are data: files are read without running code, and every name must fit."""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from palate.errors import CheckpointError
from palate.models.module_records import module_tensors, scripted_tensors
from palate.models.once import once
from palate.models.pickles import Record, Storage, TensorPlan, damaged, read_pickle, shown

Weights = dict[str, Tensor]

# OpenAI's exported archives carry these numbers among the weights.
_NOT_WEIGHTS = frozenset({"input_resolution", "context_length", "vocab_size"})

# The number with which torch.save began before it wrote archives.
_LEGACY_MARK = 0x1950A86A20F9469CFC6C
_LARGEST_PICKLE = 8 * 2**20
# What torch.jit.save writes and torch.save does not, and what it writes for the weights beside data/.
_PROGRAM = "constants.pkl"
_WEIGHTS = frozenset({"data.pkl", "byteorder"})
# What zipfile raises for files that are damaged, or made to look so; PyTorch raises more.
_DAMAGE = (
    *(zipfile.BadZipFile, struct.error, OSError, EOFError),
    *(RuntimeError, ValueError, OverflowError),
)
_TORCH_DAMAGE = (*_DAMAGE, KeyError, IndexError, TypeError, AttributeError, AssertionError)


def read_weights(path: Path) -> Weights:
    """Read the tensors of safetensors or a PyTorch file, without running anything from it.

    A dictionary with the entry ``state_dict`` or, as BLIP's, ``model`` is unwrapped, a pickled ``torch.nn.Module`` and a
    TorchScript module, such as OpenAI's CLIPs, give what their ``state_dict()`` would, and a common
    prefix ``module.`` is dropped. Raises CheckpointError for a missing, damaged or foreign file and
    for a pickle that names what Palate does not know.
    """
    if path.is_dir():
        raise CheckpointError(f"{path}: found a folder, expected a weights file")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    return dict(once("weights", path, lambda: _read_file(path)))


def _read_file(path: Path) -> Weights:
    """Read a file and take the tensors out of what they are wrapped in."""
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pytorch(path)
    for wrapping in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapping), dict):
            content = content[wrapping]
            break
    if not isinstance(content, dict) or not content:
        kind = "dictionary with nothing in it" if content == {} else type(content).__name__
        raise CheckpointError(f"{path}: found a {kind}, expected a dictionary of tensors")
    if odd := [name for name, value in content.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(
            f"{path}: entry '{shown(str(odd[0]))}' is no tensor, expected a dictionary of tensors"
        )
    if odd := [name for name in content if not isinstance(name, str)]:
        raise CheckpointError(
            f"{path}: found a tensor called {odd[0]!r}, expected a text as its name"
        )
    if all(name.startswith("module.") for name in content):
        content = {name.removeprefix("module."): value for name, value in content.items()}
    return {name: value for name, value in content.items() if name not in _NOT_WEIGHTS}


def _read_safetensors(path: Path) -> Weights:
    """Read the tensors of a safetensors file."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = shown(str(error).splitlines()[0]) if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not a readable safetensors file ({reason})") from error


def _read_pytorch(path: Path) -> Any:
    """Look through a PyTorch file, and only then read its tensors."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            # of pickles that are about to be refused in our own words
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            warnings.filterwarnings("ignore", "invalid escape sequence", DeprecationWarning)
            start = file.read(4)
            if start == b"PK\x03\x04":
                return _read_archive(path)
            # a pickle begins with its protocol, or if it is older than that, with a name or a mark
            if start[:1] not in {b"\x80", b"c", b"("}:
                raise CheckpointError(f"{path}: not a PyTorch checkpoint of plain tensors")
            _look_through_legacy(file, path)
            return _load_plain(path)
    except _DAMAGE as error:
        raise damaged(path, str(error) or type(error).__name__) from error


def _read_archive(path: Path) -> Any:
    """Read what torch.save or torch.jit.save writes: an archive of one pickle and its storages."""
    with zipfile.ZipFile(path) as archive:
        scripted = _PROGRAM in map(_below_top, archive.namelist())
        members = _members(archive, path, scripted=scripted)
        found = read_pickle(io.BytesIO(archive.read(members["data.pkl"])), path)
        for key, storage in found.storages.items():
            _check_storage(storage, members.get(f"data/{key}"), path)
        if scripted:
            return _build(scripted_tensors(found.content, path), archive, members, path)
        if isinstance(found.content, Record):
            return _build(module_tensors(found.content, path), archive, members, path)
    return _load_plain(path)


def _look_through_legacy(file: io.BufferedReader, path: Path) -> None:
    """Check what a file of the time before PyTorch 1.6 would build: pickles, then raw storages."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    stream = io.BytesIO(file.read(_LARGEST_PICKLE))
    if read_pickle(stream, path).content != _LEGACY_MARK:
        raise CheckpointError(f"{path}: not a PyTorch checkpoint of plain tensors")
    for _ in ("protocol", "system", "content", "keys"):
        found = read_pickle(stream, path)
        if sum(storage.size for storage in found.storages.values()) > size:
            raise damaged(path, "its storages are larger than the file")
        if isinstance(found.content, Record):
            raise damaged(path, "a pickled module in the format of before PyTorch 1.6")


def _below_top(name: str) -> str:
    """Give an entry's name below the top folder; upper and lower case are the same to PyTorch's reader."""
    return name.partition("/")[2].casefold()


def _members(archive: zipfile.ZipFile, path: Path, *, scripted: bool) -> dict[str, zipfile.ZipInfo]:
    """List what is in an archive by its name below the top folder, and refuse a zip bomb.

    Of a scripted module only the weights are listed: its program may be compressed, and is never opened.
    """
    members: dict[str, zipfile.ZipInfo] = {}
    top = archive.namelist()[0].partition("/")[0] if archive.namelist() else ""
    for member in archive.infolist():
        name = _below_top(member.filename)
        if scripted and name not in _WEIGHTS and not name.startswith("data/"):
            continue
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise damaged(path, f"its entry '{member.filename}' is compressed")
        if member.filename.partition("/")[0] != top or name in members:
            raise damaged(path, f"an odd or repeated entry '{member.filename}'")
        members[name] = member
    if sum(member.file_size for member in members.values()) > path.stat().st_size:
        raise damaged(path, "its entries are larger than the file")
    if "data.pkl" not in members:
        raise CheckpointError(f"{path}: found an archive without data.pkl, which torch.save writes")
    if (size := members["data.pkl"].file_size) > _LARGEST_PICKLE:
        raise damaged(path, f"a data.pkl of {size} bytes, at most {_LARGEST_PICKLE} are read")
    return members


def _check_storage(storage: Storage, member: zipfile.ZipInfo | None, path: Path) -> None:
    """Refuse a storage whose bytes are not in the file."""
    found = -1 if member is None else member.file_size
    if found != storage.size:
        what = f"has {found} bytes" if member else "is missing"
        raise damaged(path, f"the storage '{storage.key}' {what}, expected {storage.size} bytes")


def _build(
    plans: Mapping[str, TensorPlan],
    archive: zipfile.ZipFile,
    members: dict[str, zipfile.ZipInfo],
    path: Path,
) -> Weights:
    """Read the tensors of a module; tensors that share a storage share its memory."""
    if "byteorder" in members:
        order = archive.read(members["byteorder"]).decode("ascii")
        if order != sys.byteorder:
            raise CheckpointError(f"{path}: the numbers are stored as {shown(order)} endian")
    stored: dict[str, Tensor] = {}
    weights: Weights = {}
    for name, plan in plans.items():
        key = plan.storage.key
        if key not in stored:
            stored[key] = _read_bytes(archive, members[f"data/{key}"])
        weights[name] = plan.view(stored[key])
    return weights


def _read_bytes(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> UInt8[Tensor, " bytes"]:
    """Read one storage into memory of its own."""
    stored = torch.empty(member.file_size, dtype=torch.uint8)
    with archive.open(member) as file:
        if file.readinto(stored.numpy()) != member.file_size:  # type: ignore[attr-defined]
            raise zipfile.BadZipFile(f"the entry '{member.filename}' is cut short")
    return stored


def _load_plain(path: Path) -> Any:
    """Unpickle with PyTorch's reader that builds only tensors and plain containers."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_unsafe(path, str(error))) from error
    except _TORCH_DAMAGE as error:
        raise damaged(path, str(error) or type(error).__name__) from error


def _unsafe(path: Path, message: str) -> str:
    """Say which class a pickle wanted to build, or that the file is no pickle at all."""
    for mark in ("GLOBAL ", "Unsupported global: "):
        if mark in message:
            name = message.split(mark)[1].split(maxsplit=1)[0].strip("`'\".,:")
            return f"{path}: refused, since reading it would run code ({shown(name)}); expected a file of plain tensors"
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


def check_names(
    weights: Weights, expected: Mapping[str, torch.Size], where: Path, *, values: bool = True
) -> None:
    """Refuse weights with a missing, extra, misshapen or, with ``values``, non-finite tensor, and list them."""
    missing = [name for name in expected if name not in weights]
    extra = [name for name in weights if name not in expected]
    misshapen = [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(shape)}"
        for name, shape in expected.items()
        if name in weights and weights[name].shape != shape
    ]
    if faults := list_faults(missing, extra, misshapen):
        raise CheckpointError(f"{where}: the tensors do not fit the model: {faults}")
    if values and (odd := [name for name, value in weights.items() if not _finite(value)]):
        raise CheckpointError(
            f"{where}: {len(odd)} tensors hold values that are not finite: {some(odd)}"
        )


def _finite(value: Tensor) -> bool:
    """Tell whether all values are finite; the sum tells it at once unless it overflows."""
    return bool(torch.isfinite(value.sum(dtype=torch.float32))) or bool(torch.isfinite(value).all())


def list_faults(missing: list[str], extra: list[str], misshapen: list[str]) -> str:
    """Write how many tensors are wrong in which way, and the first of each; nothing if none is."""
    kinds = (("missing", missing), ("extra", extra), ("misshapen", misshapen))
    return "; ".join(f"{len(names)} {kind}: {some(names)}" for kind, names in kinds if names)


def some(names: list[str]) -> str:
    """Write the first names of a list and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
