"""Files that are whole or not there, and the hashes that tell them apart."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from palate.errors import DataError, RunError

RECORD = "run.json"
# which rights new files lack; it can only be read by setting it
_UMASK = os.umask(0o077)
os.umask(_UMASK)
_DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO}


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file in whole or not at all.

    Raises:
        RunError: the file could not be written, for example because the disk is full.
    """
    data = content.encode() if isinstance(content, str) else content
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a name to write to, which takes the final name if the body succeeds.

    The temporary name is hidden, in the same folder, and ends like the final one. The body may write
    a file or make a folder; a folder that had the final name is replaced. After an exception nothing
    is left.

    Raises:
        RunError: it could not be written: ``scores.parquet: could not be written: No space left …``.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.tmp{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _take_place(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            remove(temporary)
        reason = _disk_fault(error, temporary, path)
        if reason is None:
            raise
        raise RunError(f"{path}: could not be written: {reason}") from error


def sweep(path: Path) -> None:
    """Remove what killed processes left of `atomic_path` for this name; call it when nobody else writes."""
    for left in path.parent.glob(f".{glob.escape(path.stem)}.tmp*{glob.escape(path.suffix)}"):
        with contextlib.suppress(OSError):
            remove(left)


def _take_place(temporary: Path, path: Path) -> None:
    if temporary.is_file():
        # some libraries write files that only their owner may read
        temporary.chmod(0o666 & ~_UMASK)
    if not temporary.is_dir() or not path.is_dir():
        temporary.replace(path)
        return
    aside = path.with_name(f".{path.name}.tmp{secrets.token_hex(4)}")
    path.replace(aside)
    temporary.replace(path)
    shutil.rmtree(aside)


def _disk_fault(error: BaseException, temporary: Path, path: Path) -> str | None:
    """Tell a fault of writing this file from any other error of the body."""
    full = os.strerror(errno.ENOSPC)
    if isinstance(error, OSError):
        named = [str(name) for name in (error.filename, error.filename2) if name is not None]
        folders = {str(folder) for folder in path.parents}
        ours = str(temporary) in str(error) or any(n == str(path) or n in folders for n in named)
        if ours or error.errno in _DISK_FAULTS:
            return os.strerror(error.errno) if error.errno else str(error)
        return None
    # safetensors and torch raise errors of their own for a full disk
    return full if isinstance(error, Exception) and full in str(error) else None


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def hash_file(path: Path) -> str:
    """Hash the content of a file: SHA-256, 64 hexadecimal digits.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: could not be read: {error.strerror}") from None


def hash_path(path: Path) -> str:
    """Hash a file, or a folder by the names and contents of all its files.

    A folder's own run record and hidden files do not count: they differ between equal results.

    Raises:
        DataError: nothing has this name, or it cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        return hash_file(path)
    parts: list[str] = []
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path)
        hidden = any(part.startswith(".") for part in name.parts)
        if file.is_file() and not hidden and name.name != RECORD:
            parts += [name.as_posix(), hash_file(file)]
    return hash_text(*parts)


def hash_text(*parts: str) -> str:
    """Hash texts: SHA-256, 64 hexadecimal digits; ``("ab", "c")`` and ``("a", "bc")`` differ.

    >>> hash_text("ab", "c") == hash_text("a", "bc")
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        _feed(digest, part)
    return digest.hexdigest()


def seed_for(*address: str | int) -> int:
    """Give a random seed its address: the same for the same parts, on every machine.

    Returns:
        An integer from 0 to 2**63 - 1, from BLAKE2b of the parts. ``1`` and ``"1"`` differ.

    >>> seed_for("run", "a red ball", 0) == seed_for("run", "a red ball", 0)
    True
    >>> seed_for("run", 1) == seed_for("run", "1")
    False
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in address:
        _feed(digest, part)
    return int.from_bytes(digest.digest(), "big") >> 1


def _feed(digest: Any, part: str | int) -> None:
    """Add one part with its type and length, so that parts cannot run together."""
    data = str(part).encode("utf-8", "surrogatepass")
    digest.update(f"{'i' if isinstance(part, int) else 's'}{len(data)}:".encode())
    digest.update(data)
