"""Contact sheets: the images of each prompt side by side, to be looked at in any viewer."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import PIL.Image
from PIL import ImageDraw, ImageFont

from palate.data.images import open_image
from palate.data.tables import image_path
from palate.errors import SettingsError
from palate.runs import atomic_path, track

_LARGE, _SMALL = 256, 128  # cells have a longest side between these, where whole factors allow
_COLUMNS = 8
_HIGH = 4096  # a sheet is not higher than this, unless a single prompt is
_LABEL = 280
_GAP, _MARGIN, _LINE, _TEXT = 8, 20, 20, 15
_INK, _SOFT, _PAPER, _RULE = "#1d2129", "#5b6472", "#ffffff", "#dfe3e8"
# Pillow's own font has the letters of English only; these are looked for where others are needed
_OTHER_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "arial.ttf",
)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Frame:
    """The size of a sheet's cells in pixels, how many stand side by side, and whether there is a line below."""

    width: int
    height: int
    columns: int
    caption: bool

    @property
    def cell(self) -> tuple[int, int]:
        """Width and height of a cell with its line and its gap."""
        return self.width + _GAP, self.height + _GAP + _LINE * self.caption

    def height_of(self, images: int) -> int:
        """Height of a prompt's row: so many lines of images, with the space below."""
        return -(-images // self.columns) * self.cell[1] + _MARGIN


def write_sheets(images: Any, folder: Path, out: Path) -> list[Path]:
    """Write PNG files with one row for each prompt: its words, and its images side by side.

    Large images are scaled down to 256 pixels, tiny ones up by a whole factor. More than eight images of
    a prompt go on in the next line. Below an image that a scorer chose stands its score. A folder of sheets
    that is there already is left as it is.

    Args:
        images: the images table.
        folder: where its paths start.
        out: the folder for the sheets; it appears whole or not at all.

    Returns:
        The files, in the order of the prompts.

    Raises:
        ImageError: a file that cannot be opened.
        SettingsError: a table without images.
    """
    if out.is_dir():
        return sorted(out.glob("*.png"))
    groups: dict[str, list[Row]] = {}
    for row in images.select(["image", "prompt", "path", "width", "height", "details"]).to_pylist():
        groups.setdefault(row["prompt"], []).append(row)
    if not groups:
        raise SettingsError("there are no images to draw on a sheet, expected at least one")
    frame = _frame_for(groups)
    pages = _pages(groups, frame)
    with atomic_path(out) as temporary:
        temporary.mkdir()
        for number, page in enumerate(track(pages, "drawing sheets"), start=1):
            _draw_page({prompt: groups[prompt] for prompt in page}, folder, frame).save(
                temporary / f"{number:04d}.png"
            )
    return sorted(out.glob("*.png"))


def _frame_for(groups: dict[str, list[Row]]) -> _Frame:
    """Choose one size of cells for all prompts, from the largest image."""
    rows = [row for group in groups.values() for row in group]
    sizes = [_scaled(row["width"], row["height"]) for row in rows]
    return _Frame(
        width=max(width for width, _ in sizes),
        height=max(height for _, height in sizes),
        columns=min(_COLUMNS, max(map(len, groups.values()))),
        caption=any(_caption(row) for row in rows),
    )


def _scaled(width: int, height: int) -> tuple[int, int]:
    """Say how large an image is drawn."""
    side = max(width, height)
    if side < _SMALL:
        factor = _SMALL // side
        return width * factor, height * factor
    share = min(1.0, _LARGE / side)
    return max(1, round(width * share)), max(1, round(height * share))


def _pages(groups: dict[str, list[Row]], frame: _Frame) -> list[list[str]]:
    """Share the prompts out among sheets."""
    pages: list[list[str]] = [[]]
    used = 0
    for prompt, group in groups.items():
        height = frame.height_of(len(group))
        if pages[-1] and used + height + _MARGIN > _HIGH:
            pages.append([])
            used = 0
        pages[-1].append(prompt)
        used += height
    return pages


def _draw_page(groups: dict[str, list[Row]], folder: Path, frame: _Frame) -> PIL.Image.Image:
    width = 2 * _MARGIN + _LABEL + frame.columns * frame.cell[0] - _GAP
    height = _MARGIN + sum(frame.height_of(len(group)) for group in groups.values())
    sheet = PIL.Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    top = _MARGIN
    for number, (prompt, group) in enumerate(groups.items()):
        if number:
            line = top - _MARGIN // 2 - _GAP // 2
            draw.line([(_MARGIN, line), (width - _MARGIN, line)], _RULE)
        high = frame.height_of(len(group)) - _MARGIN - _GAP
        _draw_label(draw, prompt, (_MARGIN, top), high)
        for place, row in enumerate(group):
            down, right = divmod(place, frame.columns)
            left = _MARGIN + _LABEL + right * frame.cell[0]
            _draw_image(sheet, draw, row, folder, frame, (left, top + down * frame.cell[1]))
        top += frame.height_of(len(group))
    return sheet


def _draw_image(
    sheet: PIL.Image.Image,
    draw: ImageDraw.ImageDraw,
    row: Row,
    folder: Path,
    frame: _Frame,
    corner: tuple[int, int],
) -> None:
    image = open_image(image_path(row, folder))
    size = _scaled(*image.size)
    how = PIL.Image.Resampling
    if size != image.size:
        larger = size[0] > image.size[0]
        image = image.resize(size, how.NEAREST if larger else how.LANCZOS)
    left = corner[0] + (frame.width - size[0]) // 2
    sheet.paste(image, (left, corner[1] + frame.height - size[1]))
    caption = _caption(row)
    if caption:
        place = (corner[0] + frame.width // 2, corner[1] + frame.height + 3)
        draw.text(place, caption, _SOFT, _font(_TEXT - 1), anchor="ma")


def _caption(row: Row) -> str:
    """Say how the scorer that chose an image scored it."""
    told = json.loads(row["details"] or "{}").get("best_of")
    return f"{told['score']:#.5g}" if told else ""


def _draw_label(draw: ImageDraw.ImageDraw, text: str, corner: tuple[int, int], high: int) -> None:
    font = _font_for(text)
    lines = wrap(text, font, _LABEL - 2 * _GAP, max(1, high // _LINE))
    for number, line in enumerate(lines):
        draw.text((corner[0], corner[1] + number * _LINE), line, _INK, font, anchor="la")


def wrap(text: str, font: Any, width: int, most: int) -> list[str]:
    """Break a text into at most so many lines of at most so many pixels; … ends what is cut."""
    lines: list[str] = [""]
    for word in text.split():
        rest = word
        if lines[-1] and font.getlength(f"{lines[-1]} {rest}") > width:
            lines.append("")
        while not lines[-1] and font.getlength(rest) > width:
            fits = max(1, sum(font.getlength(rest[:end]) <= width for end in range(1, len(rest))))
            lines[-1:] = [rest[:fits], ""]
            rest = rest[fits:]
        lines[-1] = f"{lines[-1]} {rest}".strip()
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    while last and font.getlength(f"{last}…") > width:
        last = last[:-1]
    return [*lines[: most - 1], f"{last.rstrip()}…"]


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _font_for(text: str) -> Any:
    """Choose the font of a label: Pillow's own, or that of the system which lacks the fewest of its letters."""
    own = _font(_TEXT)
    letters = {letter for letter in text if not letter.isspace()}
    if not _lacking(own, letters):
        return own
    return min((own, *_other_fonts()), key=lambda font: _lacking(font, letters))


def _lacking(font: Any, letters: set[str]) -> int:
    """Count the letters that a font draws as it draws one that no font has."""
    none = bytes(font.getmask("\uffff"))
    return sum(bytes(font.getmask(letter)) == none for letter in letters)


@cache
def _other_fonts() -> tuple[Any, ...]:
    found = []
    for name in _OTHER_FONTS:
        with contextlib.suppress(OSError):
            found.append(ImageFont.truetype(name, _TEXT))
    return tuple(found)
