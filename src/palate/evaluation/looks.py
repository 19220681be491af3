"""What a network sees of every image of a table, by any extractor.

An extractor is a callable from pictures to features, such as `palate.models.inception.load_inception(path)`, the eye
of a scorer (`eye_look`), or `colour_histogram`, which needs no weights. One with a name (`NamedExtractor`) can be told
from every other, so that its features can be kept and are never compared with another's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from palate.data.images import decode_image, read_image
from palate.data.tables import image_fault, image_path
from palate.errors import DataError, ImageError
from palate.evaluation.kept_features import KeptFeatures, Seen, content_of
from palate.runs import hash_text, track

Floats = NDArray[np.float64]
Extractor = Callable[[Sequence[PIL.Image.Image]], Any]
"""From pictures to features (images × dims), or to a pair of features and class probabilities."""
Opened = tuple[str, str, PIL.Image.Image | None]
"""Key, hash of the content, and the picture unless what is seen of it is known."""


@dataclass(frozen=True, slots=True)
class NamedExtractor:
    """An extractor that says who it is: a name for people, and a fingerprint that no other extractor has.

    `published` says that published Inception Scores, FIDs and KIDs are computed with this network.
    """

    name: str
    fingerprint: str
    function: Extractor
    published: bool = False

    def __call__(self, images: Sequence[PIL.Image.Image]) -> Any:
        """Look at pictures."""
        return self.function(images)

    def cautions(self) -> tuple[str, ...]:
        """Say what its numbers cannot be compared with."""
        told = (
            f"features of {self.name}, not of the Inception of published values: FID, KID and Inception Score"
            " compare with others by the same extractor only"
        )
        return () if self.published else (told,)


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """What an extractor saw: row i of `features` (and of `probabilities`) belongs to image `keys[i]`.

    `faults` says of images without a row why there is none. `seen_by` is the extractor, if it has a name.
    """

    keys: tuple[str, ...]
    features: NDArray[Any]
    probabilities: NDArray[Any] | None
    faults: Mapping[str, str]
    seen_by: NamedExtractor | None = None

    def left_out(self, what: str = "images") -> tuple[str, ...]:
        """Say how many images have no row, and why the first has none; nothing if all have one."""
        first = list(self.faults.values())[:1]
        return tuple(f"{len(self.faults):,} {what} left out, the first: {why}" for why in first)


def look_at(
    images: Any,
    folder: Path,
    extractor: Extractor,
    *,
    only: Iterable[str] | None = None,
    batch: int = 32,
    strict: bool = False,
    keep: Path | None = None,
    label: str = "looking at images",
) -> Looks:
    """Let an extractor look at the images of a table, in the order of their keys, and show the progress.

    `only` names the keys to look at, all by default. A file that cannot be opened becomes a fault, or is refused if
    `strict`. In the folder `keep` lies what was seen before: the same content is not looked at again by the same
    extractor, which must have a name, and what is new is added, also if this is interrupted; the result is the same. Raises `DataError` for an extractor that does not give one
    row of finite numbers per image, and where no image can be looked at.
    """
    wanted = None if only is None else set(only)
    rows = sorted(
        (
            row
            for row in images.select(["image", "path"]).to_pylist()
            if wanted is None or row["image"] in wanted
        ),
        key=lambda row: str(row["image"]),
    )
    keys: list[str] = []
    found: list[Seen] = []
    faults: dict[str, str] = {}
    source = iter(track(rows, label))
    with _kept(keep, extractor) as kept:
        while part := list(islice(source, batch)):
            read = _read(part, folder, kept, faults, strict=strict)
            keys += [key for key, _, _ in read]
            found += _look(read, extractor, kept)
    if not found:
        first = next((f", the first: {fault}" for fault in faults.values()), "")
        raise DataError(f"none of {len(rows)} images could be looked at{first}")
    chances = [row.probabilities for row in found if row.probabilities is not None]
    return Looks(
        keys=tuple(keys),
        features=np.stack([row.features for row in found]),
        probabilities=np.stack(chances) if chances else None,
        faults=faults,
        seen_by=extractor if isinstance(extractor, NamedExtractor) else None,
    )


def _kept(folder: Path | None, extractor: Extractor) -> KeptFeatures:
    """Open what is kept of an extractor, or a memory that lasts as long as the call."""
    if folder is None:
        return KeptFeatures(None, "")
    if not isinstance(extractor, NamedExtractor):
        raise DataError("features are kept by the fingerprint of their extractor, and it has none")
    return KeptFeatures(folder, extractor.fingerprint)


def _read(
    rows: Sequence[Mapping[str, Any]],
    folder: Path,
    kept: KeptFeatures,
    faults: dict[str, str],
    *,
    strict: bool,
) -> list[Opened]:
    """Open the file of every row; those that do not open become faults."""
    found: list[Opened] = []
    for row in rows:
        try:
            path = image_path(row, folder)
            data = read_image(path)
            content = content_of(data)
            picture = None if content in kept else decode_image(data, str(path))
            found.append((str(row["image"]), content, picture))
        except ImageError as error:
            fault = image_fault(error, row, folder)
            if strict:
                named = f"image {row['image']!r} "
                told = fault if fault.startswith(named) else f"{named}was not looked at: {fault}"
                raise DataError(told) from None
            faults[str(row["image"])] = fault
    return found


def _look(read: Sequence[Opened], extractor: Extractor, kept: KeptFeatures) -> list[Seen]:
    """Give what is seen of each image; of several with one content, one is looked at."""
    new = {content: picture for _, content, picture in read if picture is not None}
    if new:
        features, chances = _rows(extractor(list(new.values())), len(new))
        for place, content in enumerate(new):
            own = None if chances is None else chances[place]
            kept.put(content, Seen(features[place], own))
    return [kept[content] for _, content, _ in read]


def _rows(given: Any, count: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
    features, chances = given if isinstance(given, tuple) else (given, None)
    for name, rows in (("features", features), ("probabilities", chances)):
        if rows is None:
            continue
        if np.ndim(rows) != 2 or len(rows) != count or not np.isfinite(rows).all():
            raise DataError(
                f"an extractor gave {name} of shape {np.shape(rows)} for {count} images,"
                " expected one row of finite numbers each"
            )
    return np.asarray(features), None if chances is None else np.asarray(chances)


def same_extractor(images: Looks, reference: Looks) -> None:
    """Raise `DataError` where two sets were not looked at by the same extractor."""
    one, other = images.seen_by, reference.seen_by
    if one is not None and other is not None and one.fingerprint != other.fingerprint:
        raise DataError(
            f"the images were looked at by {one.name} ({one.fingerprint[:12]}) and the reference by {other.name}"
            f" ({other.fingerprint[:12]}), expected the same extractor"
        )
    dims = images.features.shape[1], reference.features.shape[1]
    if dims[0] != dims[1]:
        raise DataError(
            f"the images have features of {dims[0]:,} numbers and the reference of {dims[1]:,},"
            " expected the same extractor"
        )


def colour_histogram(images: Sequence[PIL.Image.Image], bins: int = 4) -> tuple[Floats, Floats]:
    """Look at colours alone: the shares of bins³ colours, as features and as chances of classes.

    It is a cheap extractor that needs no weights. It knows nothing of what an image shows.
    """
    found = np.zeros((len(images), bins**3))
    for row, image in enumerate(images):
        levels = np.asarray(image.convert("RGB"), dtype=np.int64) * bins // 256
        cells = (levels[..., 0] * bins + levels[..., 1]) * bins + levels[..., 2]
        found[row] = np.bincount(cells.ravel(), minlength=bins**3) / cells.size
    return found, found


def eye_look(eye: Any) -> Extractor:
    """Make an extractor of a scorer's eye (`scorer.eye`): the features of its image tower, without classes."""
    return lambda images: eye.see(list(images)).float().cpu().numpy()


COLOURS = NamedExtractor("a histogram of 64 colours", hash_text("colours", "4"), colour_histogram)
"""`colour_histogram` with its name."""


def inception_extractor(look: Any) -> NamedExtractor:
    """Name what `palate.models.inception.load_inception` gave."""
    variant = look.network.variant
    name = f"Inception ({variant}, {look.profile})"
    return NamedExtractor(name, look.fingerprint, look, published=variant == "fid")


def eye_extractor(scorer: Any) -> NamedExtractor:
    """Name the eye of a scorer. Raises `DataError` for a scorer without one."""
    eye = getattr(scorer, "eye", None)
    if eye is None:
        raise DataError(f"the scorer {scorer.name!r} has no eye to look through")
    return NamedExtractor(f"the eye of {scorer.name}", eye.key, eye_look(eye))
