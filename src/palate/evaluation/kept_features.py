"""Features of images kept on disk by extractor and content, so that no image is looked at twice."""

from __future__ import annotations

import hashlib
import time
import zipfile
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from palate.errors import DataError
from palate.runs import atomic_path, hash_text

_EVERY: Final = 20.0  # seconds between two files
_AT_ONCE: Final = 4096  # images in a file


class Seen(NamedTuple):
    """What was seen of one image: features (dims), and chances (classes) where the extractor knows classes."""

    features: NDArray[Any]
    probabilities: NDArray[Any] | None


class KeptFeatures:
    """What one extractor saw, by the content of the images; kept in a folder if there is one.

    A file holds `extractor` (the fingerprint), `sha256` of the images' files, `features` and, where the extractor knows
    classes, `probabilities`. Files of other extractors may lie in the same folder and are not used, nor is what was seen
    of another content. As a context it writes what is new when it is left, also by an exception.
    """

    def __init__(self, folder: Path | None, extractor: str) -> None:
        """Read what is there. Raises `DataError` for a damaged file."""
        self._folder, self._extractor = folder, extractor
        self._name = hash_text(extractor)[:12]
        self._rows: dict[str, Seen] = {}
        self._new: list[str] = []
        self._written = time.monotonic()
        if folder is not None:
            for path in sorted(folder.glob(f"{self._name}-*.npz")):
                self._read(path)

    def __enter__(self) -> KeptFeatures:  # noqa: PYI034 - beartype cannot read Self
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def __contains__(self, content: str) -> bool:
        return content in self._rows

    def __getitem__(self, content: str) -> Seen:
        return self._rows[content]

    def put(self, content: str, seen: Seen) -> None:
        """Take what was seen of a content; now and then it is written."""
        self._rows[content] = seen
        self._new.append(content)
        if len(self._new) >= _AT_ONCE or time.monotonic() - self._written > _EVERY:
            self.flush()

    def flush(self) -> None:
        """Write what is new."""
        if self._folder is not None and self._new:
            rows = [self._rows[content] for content in self._new]
            columns: dict[str, Any] = {
                "extractor": self._extractor,
                "sha256": self._new,
                "features": [row.features for row in rows],
            }
            if rows[0].probabilities is not None:
                columns["probabilities"] = [row.probabilities for row in rows]
            # named by its content, so that two processes that share the folder do not meet
            name = f"{self._name}-{hash_text(*self._new)[:12]}.npz"
            with atomic_path(self._folder / name) as temporary:
                np.savez(temporary, **columns)
        self._new = []
        self._written = time.monotonic()

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
                if str(file["extractor"]) != self._extractor:
                    return
                contents, features = file["sha256"].tolist(), file["features"]
                chances = file.get("probabilities")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path}: is damaged ({error}); remove it, and its images are looked at again"
            ) from None
        for place, content in enumerate(contents):
            own = None if chances is None else chances[place]
            self._rows[content] = Seen(features[place], own)


def content_of(data: bytes) -> str:
    """Give the SHA-256 of an image file's bytes, as tables of images have it."""
    return hashlib.sha256(data).hexdigest()
