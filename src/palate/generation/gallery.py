"""A page of generated images, prompt by prompt, that lies beside them and opens without a server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import palate
from palate.generation.adapters import FILE_NAME
from palate.runs import write_atomic

_CELL, _SMALL_CELL = 256, 192
_TINY = 128
_PAGE = Path(__file__).with_name("gallery.html")

Row = dict[str, Any]


def write_page(images: Any, result: Mapping[str, Any], out: Path) -> None:
    """Write an HTML page of generated images: prompts, pictures, seeds, and scores where a scorer chose.

    Pictures are not inside but named by their paths, so the page is small and moves with its folder; a
    browser loads them as one scrolls. The page needs no network, and a script only for the search.

    Args:
        images: the images table; its paths start from the folder of ``out``.
        result: the result of the run, which says how the images were made.
        out: the HTML file; it is written whole or not at all.
    """
    groups: dict[str, list[Row]] = {}
    for row in images.to_pylist():
        groups.setdefault(row["prompt"], []).append(row)
    title = f"{_count(len(images), 'image')} of {_count(len(groups), 'prompt')}"
    page = Template(_PAGE.read_text(encoding="utf-8")).substitute(
        version=palate.__version__,
        title=title,
        cell=_CELL if _widest(images) > _TINY else _SMALL_CELL,
        facts="\n".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>"
            for name, text in _facts(images, result)
        ),
        note=_note(result.get("best_of")),
        sections="\n".join(_section(prompt, group) for prompt, group in groups.items()),
    )
    write_atomic(out, page)


def _widest(images: Any) -> int:
    return max(images["width"].to_pylist(), default=0)


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _facts(images: Any, result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give what was done to all images, with the words of the options."""
    yield "generator", result["generator"]
    for one in result["adapters"]:
        file = Path(one["file"])
        name = file.parent.name if file.name == FILE_NAME else file.name
        yield "adapter", f"{name} × {one['strength']:g}"
    sizes = set(zip(images["width"].to_pylist(), images["height"].to_pylist(), strict=True))
    yield "size", ", ".join(f"{width} × {height}" for width, height in sorted(sizes))
    for name in ("steps", "scheduler", "guidance", "negative_prompt", "prefix"):
        if result.get(name):
            yield name.replace("_", " "), str(result[name])


def _note(best: Mapping[str, Any] | None) -> str:
    """Say how the images were chosen, and that their scores then say less."""
    if best is None:
        return ""
    card = best["scorer"]
    kept = "the best" if best["keep"] == 1 else f"the best {best['keep']}"
    return (
        f'<p class="note">Of {best["images"]} images of each prompt, {kept} by '
        f"{escape(card['name'])} ({escape(card['dimension'])}, {escape(card['unit'])}; higher is better): "
        f"{best['mean_of_kept']:#.5g} on average, {best['mean_of_all']:#.5g} before the choice. A score that "
        "chose an image is too high as an estimate of its quality; judge with another scorer, or with people.</p>"
    )


def _section(prompt: str, group: list[Row]) -> str:
    shots = "\n".join(map(_shot, group))
    return f'<section>\n<h2 dir="auto">{escape(prompt) or "no prompt"}</h2>\n<ul>\n{shots}\n</ul>\n</section>'


def _shot(row: Row) -> str:
    details = json.loads(row["details"] or "{}")
    index = json.loads(row["settings"] or "{}").get("index", 0)
    tiny = ' class="tiny"' if max(row["width"], row["height"]) < _TINY else ""
    source = escape(quote(row["path"]))
    size = f'width="{row["width"]}" height="{row["height"]}"'
    image = f'<img{tiny} loading="lazy" decoding="async" {size} src="{source}" alt="image {index}">'
    lines = [f'<a href="{source}">{image}</a>']
    if best := details.get("best_of"):
        lines.append(
            f'<div class="pair"><b>{best["score"]:#.5g}</b><span>rank {best["rank"]} of {best["images"]}</span></div>'
        )
    if details.get("flagged"):
        lines.append('<div class="flag">blackened by the safety checker</div>')
    lines.append(
        f'<div class="how"><span>index {index}</span> <span>seed {row["seed"]}</span></div>'
    )
    return f"<li>{''.join(lines)}</li>"
