"""One row of each of the four tables, for people to read and write.

The fields of a record are the columns of its table, in the same order; `palate.data.tables`
holds the columns. A record that breaks a promise cannot be made.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Final

from palate.errors import DataError

ROLES: Final = ("preferred", "rejected", "regularisation")
"""What adaptation does with an image."""

INT16_MAX: Final = 2**15 - 1
INT32_MAX: Final = 2**31 - 1
INT64_MAX: Final = 2**63 - 1
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
# json.dumps would make one of these for every row
_COMPACT: Final = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Image:
    """One image of one prompt."""

    image: str
    prompt: str
    path: str | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    generator: str | None = None
    seed: int | None = None
    settings: str | None = None
    details: str | None = None

    def __post_init__(self) -> None:
        """Check every field, so that an `Image` is a row that a table accepts."""
        where = f"image {self.image!r}"
        _check_key("image", self.image)
        _check_text(where, prompt=self.prompt, path=self.path, generator=self.generator)
        _check_range(where, "width", self.width, 1, INT32_MAX)
        _check_range(where, "height", self.height, 1, INT32_MAX)
        _check_range(where, "seed", self.seed, -INT64_MAX - 1, INT64_MAX)
        _check_json(where, "settings", self.settings)
        _check_json(where, "details", self.details)
        if self.sha256 is not None and not _SHA256.fullmatch(self.sha256):
            raise DataError(f"{where}: sha256 {self.sha256!r} is not 64 lower-case hex digits")


@dataclass(frozen=True, slots=True)
class Choice:
    """One person's answer to one question on one dimension.

    `ranks[i]` belongs to `images[i]`, and the images stand in the order shown. The lowest
    rank is the best and equal ranks are ties; the best is usually 1, but a source may leave a
    rank unused (ImageReward does). Pick-one-of-four is `(2, 1, 2, 2)`.
    """

    choice: str
    prompt: str
    images: tuple[str, ...]
    ranks: tuple[int, ...]
    dimension: str = "overall"
    annotator: str | None = None
    source: str = ""
    details: str | None = None

    def __post_init__(self) -> None:
        """Check every field, so that a `Choice` is a row that a table accepts."""
        where = f"choice {self.choice!r}"
        _check_key("choice", self.choice)
        _check_key("dimension", self.dimension)
        _check_text(where, prompt=self.prompt, annotator=self.annotator, source=self.source)
        _check_json(where, "details", self.details)
        for image in self.images:
            _check_key("image", image)
        fault = choice_fault(self.images, self.ranks)
        if fault is not None:
            raise DataError(f"{where}: {fault}")


@dataclass(frozen=True, slots=True)
class Score:
    """One scorer's value for one image and its prompt on one dimension; higher is better.

    Either `value` is a number or `error` says why there is none.
    """

    image: str
    prompt: str
    scorer: str
    dimension: str
    value: float | None
    unit: str
    fingerprint: str
    tokens_given: int | None = None
    tokens_kept: int | None = None
    area_kept: float | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        """Check every field, so that a `Score` is a row that a table accepts."""
        where = f"score of image {self.image!r}"
        _check_key("image", self.image)
        _check_key("scorer", self.scorer)
        _check_key("dimension", self.dimension)
        _check_text(
            where,
            prompt=self.prompt,
            unit=self.unit,
            fingerprint=self.fingerprint,
            error=self.error,
        )
        _check_range(where, "tokens_given", self.tokens_given, 0, INT32_MAX)
        _check_range(where, "tokens_kept", self.tokens_kept, 0, INT32_MAX)
        _check_finite(where, "value", self.value)
        if self.area_kept is not None and not 0 <= self.area_kept <= 1:
            raise DataError(f"{where}: area_kept {self.area_kept} is not between 0 and 1")
        if (self.value is None) == (self.error is None):
            raise DataError(f"{where}: needs either a value or an error, and not both")


@dataclass(frozen=True, slots=True)
class Label:
    """How adaptation treats one image: its role, its caption and its weight."""

    image: str
    role: str
    caption: str
    group: str
    score: float | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Check every field, so that a `Label` is a row that a table accepts."""
        where = f"label of image {self.image!r}"
        _check_key("image", self.image)
        _check_text(where, caption=self.caption, group=self.group)
        _check_finite(where, "score", self.score)
        _check_finite(where, "weight", self.weight)
        if self.role not in ROLES:
            raise DataError(f"{where}: role {self.role!r} is not one of {', '.join(ROLES)}")
        if self.weight < 0:
            raise DataError(f"{where}: weight {self.weight} is below 0")


Record = Image | Choice | Score | Label


def choice_fault(images: tuple[str, ...], ranks: tuple[int, ...]) -> str | None:
    """Say what is wrong with the images and ranks of a choice, or None.

    >>> choice_fault(("a", "b", "c", "d"), (1, 2, 2))
    '4 images but 3 ranks: (1, 2, 2)'
    >>> choice_fault(("a", "b"), (1, 2)) is None
    True
    """
    if len(images) != len(ranks):
        return f"{len(images)} images but {len(ranks)} ranks: {ranks}"
    if len(images) < 2:
        return f"{len(images)} image, but a choice needs at least 2"
    if any(not 1 <= rank <= INT16_MAX for rank in ranks):
        return f"ranks {ranks} are not all between 1 and {INT16_MAX}"
    if len(set(images)) != len(images):
        twice = next(image for image in images if images.count(image) > 1)
        return f"image {twice!r} is shown twice"
    return None


def pick_ranks(count: int, best: int) -> tuple[int, ...]:
    """Ranks of a pick-one answer: 1 for the picked position, 2 for the others.

    >>> pick_ranks(4, 1)
    (2, 1, 2, 2)
    """
    if not 0 <= best < count:
        raise DataError(
            f"position {best} was picked, but there are {count} images (0 to {count - 1})"
        )
    return tuple(1 if position == best else 2 for position in range(count))


class _Json(str):
    """What `json_text` wrote: an object for certain, so no row that holds it reads it again."""

    __slots__ = ()


def json_text(facts: dict[str, object]) -> str | None:
    """Write facts as compact JSON with sorted keys, for the columns `settings` and `details`.

    No facts are None, so that an empty object is never stored.

    >>> json_text({"steps": 20, "guidance": 7.5})
    '{"guidance":7.5,"steps":20}'
    """
    if not facts:
        return None
    return _Json(_COMPACT.encode(facts))


def _check_key(field: str, value: str) -> None:
    if not value:
        raise DataError(f"an empty {field} where a name was expected")
    if value.isascii():
        return
    _check_text(f"{field} {value!r}", **{field: value})


def _check_text(where: str, **fields: str | None) -> None:
    for field, value in fields.items():
        if value is None or value.isascii():
            continue
        try:
            value.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{where}: {field} holds half a character and is no UTF-8 text"
            ) from None


def _check_range(where: str, field: str, value: int | None, low: int, high: int) -> None:
    if value is not None and not low <= value <= high:
        raise DataError(f"{where}: {field} {value} is not between {low} and {high}")


def _check_finite(where: str, field: str, value: float | None) -> None:
    if value is not None and not math.isfinite(value):
        raise DataError(f"{where}: {field} is {value}, expected a finite number")


def _check_json(where: str, field: str, value: str | None) -> None:
    if value is None:
        return
    _check_text(where, **{field: value})
    if isinstance(value, _Json):
        return
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise DataError(f"{where}: {field} {value[:40]!r} is not a JSON object")
