"""A page of scored images: best first in each prompt, the prompts that divide the scorers first."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image

from palate.data.images import open_image
from palate.data.tables import image_fault, image_path
from palate.errors import ImageError, SettingsError
from palate.evaluation.report import PAGES, SERIES, write_report
from palate.runs import track
from palate.scoring.output import rows_with_standing
from palate.scoring.units import describe_unit, softmax_factor

Array: TypeAlias = NDArray[Any]
Row: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[str, str, str, str]

_WHOLE = 0.995  # a crop that rounds to the whole image is not worth a word
_SAME_AREA = 0.01
_QUALITY = 85


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judge:
    """One scorer on one dimension, as the head of the page tells it."""

    label: str
    name: str
    dimension: str
    unit: str
    meaning: str
    shares: bool
    fingerprint: str
    colour: str
    scored: int
    errors: int


@dataclass(frozen=True, slots=True)
class _Picture:
    """A thumbnail; ``frame`` is the share of width and height that a centre crop keeps, in percent."""

    uri: str
    width: int
    height: int
    frame: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """What one scorer says of one image; ``moved`` is by how many places above the first scorer's."""

    value: float | None
    rank: int | None
    percentile: float | None
    share: float | None
    moved: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Card:
    """One image under its prompt; a cell is None where that scorer has no row for it."""

    image: str
    place: int
    cells: Sequence[_Cell | None]
    areas: Sequence[float]
    crops: Sequence[str]
    errors: Sequence[str]
    picture: _Picture | None = None

    @property
    def divided(self) -> bool:
        """Whether scorers rank the image differently."""
        return any(cell is not None and cell.moved for cell in self.cells)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    """The images of one prompt; ``scored`` counts those with a value, for each scorer."""

    prompt: str
    place: int
    cards: Sequence[_Card]
    images: int
    scored: Sequence[int]
    cuts: Sequence[str]
    disagreement: float | None


def write_gallery(
    scores: Any,
    images: Any,
    folder: Path,
    out: Path,
    *,
    side: int = 256,
    most: int = 400,
    exif: bool = False,
) -> None:
    """Write a self-contained HTML page of scored images, the best first in each prompt.

    The order inside a prompt is that of the first scorer in the table. The prompts with the highest
    :func:`disagreement` come first and those without one last, otherwise as they are in the table.
    An image that could not be scored or opened is there with the reason. The page needs no network,
    and scripts only for searching and sorting.

    Args:
        scores: the table of scores, by one or more scorers.
        images: the table of images, which says where the files are.
        folder: where the paths of that table start.
        out: the HTML file; it is written whole or not at all.
        side: the longest side of a thumbnail, in pixels.
        most: at most so many images are drawn, prompts whole where possible; the page says what is
            left out.
        exif: turn the thumbnails as EXIF says, for images that were scored so.
    """
    for name, value in (("side", side), ("most", most)):
        if value < 1:
            raise SettingsError(f"{name} is {value}, expected at least 1")
    groups: dict[Key, list[Row]] = {}
    rows = rows_with_standing(scores)
    for row in rows:
        groups.setdefault(_key(row), []).append(row)
    labels = _labels(list(groups))
    sections = _sections(rows, list(groups), labels)
    kept = _drawn(_within(sections, most), images, folder, side, exif=exif)
    facts = {
        "title": f"Gallery of {counted(sum(s.images for s in sections), 'image')}",
        "judges": [
            _judge(own, label, SERIES[place % len(SERIES)])
            for place, (own, label) in enumerate(zip(groups.values(), labels, strict=True))
        ],
        "sections": kept,
        "framed": any(c.picture and c.picture.frame for own in kept for c in own.cards),
        "prompts": len(sections),
        "left_out": _left_out(sections, kept),
        "counted": counted,
    }
    write_report(PAGES / "gallery.html", out, facts)


def disagreement(values: Float[Array, "scorers images"]) -> float | None:
    """Say how differently scorers order the images of one prompt: 0 is the same order, 2 the reverse.

    It is 1 minus the mean, over the pairs of scorers, of Kendall's tau-b between their scores
    (Kendall 1945, ties in the denominator). NaN is no score: two scorers are compared on the images
    that both of them scored. A pair with fewer than two such images, or where one scorer gives all
    of them the same score, has no tau and is left out. None where no pair has one.
    """
    from scipy.stats import kendalltau

    taus = []
    for first, second in combinations(values, 2):
        both = np.isfinite(first) & np.isfinite(second)
        a, b = first[both], second[both]
        if len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0:
            taus.append(float(kendalltau(a, b).statistic))
    # rounding may lift a perfect tau above 1
    return max(0.0, 1 - sum(taus) / len(taus)) if taus else None


def counted(number: int, word: str) -> str:
    """Write a number with its noun.

    >>> counted(1, "image"), counted(2000, "image")
    ('1 image', '2,000 images')
    """
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _key(row: Row) -> Key:
    """Say which scorer a row is of."""
    return row["scorer"], row["dimension"], row["unit"], row["fingerprint"]


def _labels(keys: Sequence[Key]) -> list[str]:
    """Give each scorer a short name of its own."""
    plain = [name if about == "overall" else f"{name} {about}" for name, about, _, _ in keys]
    return [
        f"{label} ({plain[: place + 1].count(label)})" if plain.count(label) > 1 else label
        for place, label in enumerate(plain)
    ]


def _judge(rows: Sequence[Row], label: str, colour: str) -> _Judge:
    name, dimension, unit, fingerprint = _key(rows[0])
    errors = sum(row["value"] is None for row in rows)
    return _Judge(
        label=label,
        name=name,
        dimension=dimension,
        unit=unit,
        meaning=describe_unit(unit),
        shares=softmax_factor(unit) is not None,
        fingerprint=fingerprint,
        colour=colour,
        scored=len(rows) - errors,
        errors=errors,
    )


def _sections(rows: Sequence[Row], keys: Sequence[Key], labels: Sequence[str]) -> list[_Section]:
    """Group the rows by prompt and image, and put the prompts in the order of the page."""
    column = {key: place for place, key in enumerate(keys)}
    prompts: dict[str, dict[str, list[Row | None]]] = {}
    for row in rows:
        own = prompts.setdefault(row["prompt"], {}).setdefault(row["image"], [None] * len(keys))
        own[column[_key(row)]] = row
    sections = [
        _section(prompt, place, images, labels)
        for place, (prompt, images) in enumerate(track(prompts.items(), "ordering", len(prompts)))
    ]
    # no disagreement is below any; a stable sort leaves equals as they came
    return sorted(sections, key=lambda own: 1.0 if own.disagreement is None else -own.disagreement)


def _section(
    prompt: str, place: int, images: Mapping[str, Sequence[Row | None]], labels: Sequence[str]
) -> _Section:
    table = [[row["value"] if row else None for row in rows] for rows in images.values()]
    values = np.array(table, dtype=np.float64).T
    cards = [_card(image, at, rows, labels) for at, (image, rows) in enumerate(images.items())]
    cuts = [_cut(column) for column in zip(*images.values(), strict=True)]
    return _Section(
        prompt=prompt,
        place=place,
        cards=[cards[at] for at in np.argsort(-values[0], kind="stable")],
        images=len(cards),
        scored=[int(count) for count in np.isfinite(values).sum(axis=1)],
        cuts=_told(cuts, labels),
        disagreement=disagreement(values),
    )


def _card(image: str, place: int, rows: Sequence[Row | None], labels: Sequence[str]) -> _Card:
    areas = [1.0 if row is None or row["area_kept"] is None else row["area_kept"] for row in rows]
    crops = [f"sees {100 * area:.0f} % of it" if area < _WHOLE else None for area in areas]
    first = rows[0]["rank"] if rows[0] else None
    return _Card(
        image=image,
        place=place,
        cells=[_cell(row, first) if row else None for row in rows],
        areas=areas,
        crops=_told(crops, labels),
        errors=_told([row["error"] if row else None for row in rows], labels),
    )


def _cell(row: Row, first: int | None) -> _Cell:
    rank = row["rank"]
    return _Cell(
        value=row["value"],
        rank=rank,
        percentile=row["percentile"],
        share=row["share"],
        moved=first - rank if first and rank else 0,
    )


def _cut(rows: Sequence[Row | None]) -> str | None:
    """Say how much of a prompt a scorer read, if that was not all; an unreadable image tells nothing."""
    for row in rows:
        if row and row["tokens_given"] is not None and row["tokens_kept"] < row["tokens_given"]:
            return f"read {row['tokens_kept']} of {row['tokens_given']} tokens"
    return None


def _told(facts: Sequence[str | None], labels: Sequence[str]) -> list[str]:
    """Say each fact once, with the scorers it holds for unless it holds for all."""
    holders: dict[str, list[str]] = {}
    for fact, label in zip(facts, labels, strict=True):
        if fact is not None:
            holders.setdefault(fact, []).append(label)
    return [
        fact if len(names) == len(labels) else f"{', '.join(names)}: {fact}"
        for fact, names in holders.items()
    ]


def _within(sections: Sequence[_Section], most: int) -> list[_Section]:
    """Take whole prompts from the front while they fit; of a first one that is too long, its best."""
    kept: list[_Section] = []
    room = most
    for section in sections:
        if kept and section.images > room:
            break
        kept.append(replace(section, cards=section.cards[:room]))
        room -= len(kept[-1].cards)
    return kept


def _left_out(sections: Sequence[_Section], kept: Sequence[_Section]) -> str | None:
    """Say how many images are not on the page, and which."""
    total = sum(section.images for section in sections)
    missing = total - sum(len(section.cards) for section in kept)
    if not missing:
        return None
    cut = sum(section.images - len(section.cards) for section in kept)
    parts = [f"the last {counted(cut, 'image')} of the first prompt"] if cut else []
    if len(kept) < len(sections):
        parts.append(f"all images of the last {counted(len(sections) - len(kept), 'prompt')}")
    return f"{missing:,} of {counted(total, 'image')} are left out: {' and '.join(parts)}."


def _drawn(
    sections: Sequence[_Section], images: Any, folder: Path, side: int, *, exif: bool
) -> list[_Section]:
    """Give the cards of the sections their pictures."""
    files = {row["image"]: row for row in images.select(["image", "path"]).to_pylist()}
    cards = track([card for section in sections for card in section.cards], "drawing thumbnails")
    drawn = iter([_draw(card, files.get(card.image), folder, side, exif=exif) for card in cards])
    return [replace(own, cards=[next(drawn) for _ in own.cards]) for own in sections]


def _draw(card: _Card, row: Row | None, folder: Path, side: int, *, exif: bool) -> _Card:
    """Give a card its picture, or the reason why it has none."""
    if row is None:
        return replace(card, errors=[*card.errors, "is not in the table of images"])
    try:
        picture = open_image(image_path(row, folder), exif=exif)
    except ImageError as error:
        # mostly what the scorers said already; another reason if the file is gone since
        fault = image_fault(error, row, folder)
        known = any(fault in told for told in card.errors)
        return card if known else replace(card, errors=[*card.errors, fault])
    return replace(card, picture=_picture(picture, card.areas, side))


def _picture(image: Image.Image, areas: Sequence[float], side: int) -> _Picture:
    """Make the thumbnail: a JPEG without anything the file carried beside its pixels."""
    width, height = image.size
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(image)).save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return _Picture(uri, *image.size, _frame(width, height, areas))


def _frame(width: int, height: int, areas: Sequence[float]) -> tuple[float, float] | None:
    """Give the part that a centre crop keeps, if that is what some scorer saw; else there is no frame."""
    short = min(width, height)
    square = short / max(width, height)
    if square >= _WHOLE or all(abs(area - square) > _SAME_AREA for area in areas):
        return None
    return 100 * short / width, 100 * short / height
