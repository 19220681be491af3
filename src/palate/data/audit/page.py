"""The page of an audit: one file, with its pictures inside, readable in light and dark."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Final

import PIL.Image

from palate.data.audit.audit import Audit
from palate.data.audit.charts import shortened
from palate.data.audit.findings import Finding, Picture, Strip
from palate.data.audit.sections import h2, sections, table
from palate.data.images import open_image
from palate.errors import ImageError

PICTURES: Final = 60
"""At most so many pictures are on a page."""

_SIDE: Final = 160
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2129; --soft: #5b6472; --line: #dfe3e8; --paper: #fff;
  --tint: #f5f7f9; --bar: #4c86d8; --mark: #d9822b; --error: #b3362b; --warning: #a15c00; --note: #44607e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e8ec; --soft: #9aa4b2; --line: #333a44;
  --paper: #15181d; --tint: #1e232a; --bar: #5b93e0; --mark: #e2974a; --error: #f0847a;
  --warning: #e9ad5c; --note: #9db7d3; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.2rem 1.4rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .5rem; padding-top: 1.1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .3rem; }
p { margin: .35rem 0 .7rem; max-width: 46rem; }
.soft, caption { color: var(--soft); font-size: .9rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.5rem, 1fr)); gap: .7rem; margin: 1.2rem 0; }
.card { background: var(--tint); border-radius: .5rem; padding: .6rem .9rem; }
.card b { display: block; font-size: 1.45rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .88rem; }
.card.error b { color: var(--error); } .card.warning b { color: var(--warning); } .card.note b { color: var(--note); }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .92rem; } a { color: var(--bar); }
.finding { border: 1px solid var(--line); border-left: 4px solid var(--note); border-radius: .4rem;
  padding: .6rem .9rem; margin: .6rem 0; }
.finding.error { border-left-color: var(--error); } .finding.warning { border-left-color: var(--warning); }
.finding h3 { margin: 0; display: flex; gap: .6rem; align-items: baseline; flex-wrap: wrap; }
.level { font-size: .72rem; font-weight: 650; letter-spacing: .05em; text-transform: uppercase; color: var(--note); }
.error .level { color: var(--error); } .warning .level { color: var(--warning); }
.finding p { margin: .15rem 0 .3rem; max-width: none; }
.finding ul { margin: .3rem 0 .2rem; padding-left: 1.1rem; color: var(--soft); font-size: .86rem; overflow-wrap: anywhere; }
.strips { display: flex; flex-wrap: wrap; gap: .8rem 1.4rem; margin: .6rem 0 .2rem; }
.strip { margin: 0; min-width: 0; } .strip figcaption { color: var(--soft); font-size: .8rem; overflow-wrap: anywhere; }
.row { display: flex; gap: .4rem; flex-wrap: wrap; }
.shot { width: 8rem; } .shot img, .shot .none { width: 8rem; height: 8rem; object-fit: contain; display: block;
  background: var(--tint); border: 1px solid var(--line); border-radius: .3rem; }
.shot .none { display: grid; place-items: center; color: var(--soft); font-size: .8rem; }
.shot span { display: block; font-size: .74rem; color: var(--soft); overflow-wrap: anywhere; line-height: 1.3; margin-top: .15rem; }
table { border-collapse: collapse; margin: .6rem 0 1.1rem; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { text-align: right; padding: .28rem 1.1rem .28rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.text { text-align: left; } thead th { color: var(--soft); font-weight: 600; font-size: .85rem; }
.scroll { overflow-x: auto; } svg { display: block; width: 100%; max-width: 46rem; height: auto; margin: .4rem 0 .8rem; }
svg text { fill: var(--ink); font-size: 12.5px; font-family: inherit; } svg .faint { fill: var(--soft); font-size: 11.5px; }
svg .told { fill: var(--soft); font-variant-numeric: tabular-nums; } svg .bar { fill: var(--bar); opacity: .8; } svg .marked { fill: var(--mark); }
svg .whisker { stroke: var(--ink); stroke-width: 1.4; fill: none; } svg .grid { stroke: var(--line); }
svg .line { stroke: var(--ink); stroke-dasharray: 4 3; opacity: .65; }
@media print { .finding, svg { break-inside: avoid; } }
"""


def audit_page(audit: Audit) -> str:
    """Write an audit as one HTML page without links to anything outside.

    Paths of this machine are left out: the page may be given away.
    """
    name = Path(audit.folder).resolve().name
    body = [
        f"<h1>Audit of {escape(name)}</h1>",
        (
            '<p class="soft">What a careful reader would want to know before anything learns from '
            "these choices. Nothing was changed.</p>"
        ),
        _cards(audit),
    ]
    parts = list(sections(audit))
    links = [("findings", "Findings"), *((part.key, part.title) for part in parts)]
    body.append(
        "<nav>"
        + "".join(f'<a href="#{key}">{escape(title)}</a>' for key, title in links)
        + "</nav>"
    )
    body += [h2("findings", "Findings"), *_findings(audit)]
    for part in parts:
        body += [h2(part.key, part.title), part.html]
    body += [h2("settings", "How it was looked at"), _settings(audit)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Audit of {escape(name)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main>\n{chr(10).join(body)}\n</main></body></html>\n"
    )


def _cards(audit: Audit) -> str:
    counts = audit.counts
    cards = [
        ("", counts["choices"], "choices"),
        ("", counts["images"], "images"),
        ("", counts["prompts"], "prompts"),
        ("", counts["annotators"], "known annotators"),
    ]
    for level in ("error", "warning", "note"):
        number = len(audit.at(level))
        cards.append((level if number else "", number, level if number == 1 else f"{level}s"))
    told = (
        f'<div class="card {kind}"><b>{number:,}</b><span>{word}</span></div>'
        for kind, number, word in cards
    )
    return f'<div class="cards">{"".join(told)}</div>'


def _findings(audit: Audit) -> Iterator[str]:
    if not audit.findings:
        yield "<p>Nothing odd was found.</p>"
    room = [PICTURES]
    shown: set[str] = set()
    for finding in audit.findings:
        # a kind may come twice, as with several other sets: its pictures are shown once
        strips = (
            [] if finding.kind in shown else [s for s in audit.strips if s.kind == finding.kind]
        )
        shown.add(finding.kind)
        yield _finding(finding, strips, audit.folder, room)


def _finding(finding: Finding, strips: Sequence[Strip], folder: str, room: list[int]) -> str:
    here = folder.rstrip("/") + "/"
    examples = "".join(
        f"<li>{escape(shortened(text.replace(here, ''), 240))}</li>" for text in finding.examples
    )
    pictures = "".join(_strips(strips, room))
    return (
        f'<div class="finding {finding.level}"><h3><span class="level">{finding.level}</span>'
        f"{escape(finding.kind)}</h3><p>{escape(finding.message)}</p>"
        + (f'<div class="strips">{pictures}</div>' if pictures else "")
        + (f"<ul>{examples}</ul>" if examples else "")
        + "</div>"
    )


def _strips(strips: Iterable[Strip], room: list[int]) -> Iterator[str]:
    """Strips as figures, as long as there is room for their pictures."""
    for strip in strips:
        with_file = [picture for picture in strip.pictures if picture.path is not None]
        if not with_file or len(strip.pictures) > room[0]:
            continue
        room[0] -= len(strip.pictures)
        shots = "".join(_shot(picture) for picture in strip.pictures)
        title = f"<figcaption>{escape(strip.title)}</figcaption>" if strip.title else ""
        yield f'<figure class="strip">{title}<div class="row">{shots}</div></figure>'


def _shot(picture: Picture) -> str:
    uri = None if picture.path is None else thumbnail_uri(picture.path)
    label = escape(picture.label)
    image = (
        f'<img alt="{label}" src="{uri}">' if uri is not None else '<div class="none">no file</div>'
    )
    return f'<div class="shot">{image}<span>{escape(shortened(picture.label, 70))}</span></div>'


def thumbnail_uri(path: Path, side: int = _SIDE) -> str | None:
    """Shrink an image file to a small JPEG as a data URI; None where it does not open."""
    try:
        image = open_image(path)
    except ImageError:
        return None
    image.thumbnail((side, side), PIL.Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=72, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def _settings(audit: Audit) -> str:
    settings = audit.settings
    rows = [
        ["image files", "opened and compared" if settings.decode else "hashed, not opened"],
        [
            "images of a choice are nearly equal",
            f"thumbnails differ by less than {settings.near:g} of 255",
        ],
        [
            "images anywhere look nearly the same",
            f"hashes differ in at most {settings.hash_distance} of 64 bits",
        ],
        ["intervals of shares", f"{settings.level:.0%}, Wilson; choices taken for independent"],
    ]
    return table(["what", "how"], rows, 2)
