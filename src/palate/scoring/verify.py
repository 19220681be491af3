"""The verb ``verify``: a scorer held against scores that others published."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from palate.errors import DataError, SettingsError
from palate.models.pixels import open_picture
from palate.runs import hash_file
from palate.scoring.networks import ClipScorer, MpsScorer
from palate.scoring.scorer import Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One picture and prompt, and the number that somebody else's code gave for them.

    ``measure`` says what the number is: a ``cosine``, or a ``score`` in the scorer's own unit. ``condition`` and
    ``mask_threshold`` are those of MPS. ``sha256`` is that of the picture's file, where it is known.
    """

    image: str
    prompt: str = ""
    value: float
    measure: Literal["cosine", "score"] = "score"
    condition: str | None = None
    mask_threshold: float | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Scores that a scorer's authors printed for pictures that anyone can get.

    ``tolerance`` is the absolute difference, in the scorer's unit, that counts as none, and ``why`` its reason.
    ``pictures`` says where the pictures are, ``profiles`` which profiles the scores are those of.
    """

    source: str
    pictures: str
    tolerance: float
    why: str
    profiles: tuple[str, ...]
    cases: tuple[Case, ...]


# The pictures of ImageReward's README: their rewards there, and their hashes.
_OCEAN = "a painting of an ocean with clouds and birds, day time, low depth field effect"
_REWARDS = {
    "1.webp": 0.5811622738838196,
    "2.webp": 0.2745276093482971,
    "3.webp": -1.4131819009780884,
    "4.webp": -2.029569625854492,
}
_HASHES = {
    "1.webp": "a5fcd126763da8b3fe2a9e620fc1ba03d215d20de36c77bf6770a540a9bc972d",
    "2.webp": "dc13919a49a37987d19c8be3ba0c1ef2941570f820f90fb66ac91a9a9db24082",
    "3.webp": "ee859bac167e6a04cbcde63454757b6fc7d9b8704429c15725ca8c4accf176e3",
    "4.webp": "84faf59d59d9ca7ab298c9acb957d727365ae104768ac1a1ec55ab96be68aaf9",
}
# Only what has a public source and pictures that can be told by their hash. Of HPS v1, HPS v2.1, PickScore, MPS and the
# aesthetic heads no score of such a picture was found in their repositories.
PUBLISHED: dict[str, Published] = {
    "image-reward": Published(
        source="THUDM/ImageReward, README.md, Example Use (https://github.com/THUDM/ImageReward)",
        pictures="assets/images of THUDM/ImageReward",
        tolerance=0.005,
        why="the README prints each reward to two decimals as well, and says that more of them depend on the device",
        profiles=("official",),
        cases=tuple(
            Case(image=name, prompt=_OCEAN, value=value, sha256=_HASHES[name])
            for name, value in _REWARDS.items()
        ),
    ),
    "hps-v2": Published(
        source="tgxs002/HPSv2, comment of 21 February 2024 on the package's defaults, which are HPS v2 "
        "(https://github.com/tgxs002/HPSv2/issues/27)",
        pictures="hpsv2/assets of tgxs002/HPSv2, also in the Python package hpsv2 1.2.0",
        tolerance=0.05,
        why="the official code runs in half precision on a GPU, where an HPS near 29 moves in steps of 0.024, and two "
        "steps are allowed; which torchvision it was is not said, so that it may be either profile",
        profiles=("official", "no-antialias"),
        cases=(
            Case(
                image="demo_image.jpg",
                prompt="A cat with two horns on its head",
                value=0.2876,
                measure="cosine",
                sha256="798dfb5bc544fca70ea15d21571530c4389a25536d6a511e0b0c915b0aba144d",
            ),
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One case: what was expected and what was found, in the scorer's unit, and whether they match."""

    image: str
    prompt: str
    expected: float
    found: float
    difference: float
    matched: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How a scorer compares with numbers from elsewhere; ``tolerance`` and all numbers are in its unit.

    ``published`` tells its authors' numbers from those that the user gave.
    """

    scorer: str
    unit: str
    source: str
    tolerance: float
    why: str
    rows: tuple[Row, ...]
    published: bool

    @property
    def matched(self) -> bool:
        """Say whether every case matches."""
        return all(row.matched for row in self.rows)

    @property
    def worst(self) -> Row:
        """Give the case with the largest difference."""
        return max(self.rows, key=lambda row: (math.isnan(row.difference), abs(row.difference)))

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain values."""
        return asdict(self) | {
            "matched": self.matched,
            "largest_difference": abs(self.worst.difference),
        }


def published_for(scorer: Scorer) -> Published | None:
    """Give the published scores that a scorer should have, or None where there are none for it and its profile."""
    known = PUBLISHED.get(scorer.name)
    return known if known and scorer.facts().get("profile") in known.profiles else None


def verify_published(scorer: Scorer, published: Published, images: Path) -> Verification:
    """Compare a scorer with the published scores of pictures in a folder.

    Raises DataError for a picture that is missing there, or is another one than the published.
    """
    for case in published.cases:
        if not (images / case.image).is_file():
            raise DataError(
                f"{images / case.image}: no such picture; expected that of {published.pictures}"
            )
    rows = _compare(scorer, published.cases, images, published.tolerance)
    card = scorer.card()
    return Verification(
        scorer=card.line,
        unit=scorer.unit,
        source=published.source,
        tolerance=published.tolerance,
        why=published.why,
        rows=rows,
        published=True,
    )


def verify_cases(
    scorer: Scorer, cases: Path, images: Path, tolerance: float | None = None
) -> Verification:
    """Compare a scorer with a file of cases, whose pictures lie in a folder.

    The file is a JSON list of objects with ``image``, ``prompt``, and ``cosine`` or ``score``; for MPS also
    ``condition`` (words, or the name of a dimension) and ``mask_threshold``; and ``sha256`` of the picture, if that is
    to be checked. ``tolerance`` is in the scorer's unit; by default 1e-4 of a cosine, and 1e-3 of other scores.

    Raises DataError for a file that is not this, and for a picture that is missing or another one, and SettingsError
    for a tolerance that is none.
    """
    if tolerance is not None and not 0 <= tolerance < math.inf:
        raise SettingsError(f"tolerance is {tolerance:g}, expected 0 or a larger number")
    given = read_cases(cases)
    if tolerance is None:
        cosine = all(case.measure == "cosine" for case in given)
        tolerance = 1e-4 * _scale(scorer, str(cases)) if cosine else 1e-3
        why = f"the default of {'1e-4 for a cosine' if cosine else '1e-3 for a score'}"
    else:
        why = "as given"
    rows = _compare(scorer, given, images, tolerance)
    return Verification(
        scorer=scorer.card().line,
        unit=scorer.unit,
        source=str(cases),
        tolerance=tolerance,
        why=why,
        rows=rows,
        published=False,
    )


def read_cases(path: Path) -> list[Case]:
    """Read a JSON list of cases; see :func:`verify_cases`."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(content, list) or not content:
        raise DataError(f"{path}: found no list of cases, expected objects with image and score")
    return [_case(facts, f"{path}, case {number}") for number, facts in enumerate(content, start=1)]


def _case(facts: object, where: str) -> Case:
    if not isinstance(facts, Mapping):
        raise DataError(f"{where}: found {facts!r}, expected an object with image and score")
    measures = [name for name in ("cosine", "score") if name in facts]
    if len(measures) != 1:
        raise DataError(f"{where}: expected either a cosine or a score, found {', '.join(facts)}")
    measure: Any = measures[0]
    texts = {"image": str, "prompt": str, "condition": str, "sha256": str}
    wanted = texts | {measure: (int, float), "mask_threshold": (int, float)}
    for name, kind in wanted.items():
        found = facts.get(name)
        wrong = not isinstance(found, kind) or isinstance(found, bool)
        if wrong and (found is not None or name in {"image", measure}):
            expected = "a text" if kind is str else "a number"
            raise DataError(f"{where}: {name} is {found!r}, expected {expected}")
    names = (*texts, "mask_threshold")
    chosen = {name: facts[name] for name in names if facts.get(name) is not None}
    return Case(**chosen, value=float(facts[measure]), measure=measure)


def _compare(
    scorer: Scorer, cases: Sequence[Case], images: Path, tolerance: float
) -> tuple[Row, ...]:
    """Score each case alone, as the official codes do."""
    rows = []
    judges: dict[tuple[str | None, float | None], Scorer] = {}
    for case in cases:
        path = images / case.image
        if case.sha256 is not None and (found := hash_file(path)) != case.sha256:
            raise DataError(
                f"{path}: is another picture than the one of that score (SHA-256 {found[:12]}…, "
                f"expected {case.sha256[:12]}…)"
            )
        key = (case.condition, case.mask_threshold)
        judge = judges[key] if key in judges else judges.setdefault(key, _under(scorer, case))
        score = float(judge.judge([open_picture(path)], [case.prompt]).values[0])
        value = case.value * (_scale(judge, case.image) if case.measure == "cosine" else 1.0)
        away = score - value
        rows.append(Row(case.image, case.prompt, value, score, away, abs(away) <= tolerance))
    return tuple(rows)


def _under(scorer: Scorer, case: Case) -> Scorer:
    """Give the scorer under a case's condition and threshold, which only MPS has."""
    if case.condition is None and case.mask_threshold is None:
        return scorer
    if not isinstance(scorer, MpsScorer):
        raise DataError(f"{case.image}: {scorer.name} takes no condition or mask threshold")
    return scorer.on(case.condition, case.mask_threshold)


def _scale(scorer: Scorer, where: str) -> float:
    """Give what a cosine is in the scorer's unit."""
    if not isinstance(scorer, ClipScorer) or scorer.cut_at_zero:
        raise DataError(
            f"{where}: gives a cosine, but {scorer.name} gives {scorer.unit}; expected a score"
        )
    return scorer.scale
