"""The page of an audit is one file that shows what was found."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from palate.data.audit.audit import audit_dataset, audit_folder
from palate.data.audit.charts import Bar, bar_chart, histogram
from palate.data.audit.page import PICTURES, audit_page, thumbnail_uri
from palate.data.images import hash_image
from palate.data.records import Choice, Image
from palate.data.tables import Dataset, save_dataset, to_table

VOID = {"meta", "img"}


class Tags(HTMLParser):
    """Open tags must be closed in the reverse order."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag) -> None:
        assert self.stack.pop() == tag


def parsed(page: str) -> list[tuple[str, dict[str, str | None]]]:
    tags = Tags()
    tags.feed(page)
    tags.close()
    assert tags.stack == []
    return tags.seen


def make(folder: Path, groups: int, name: str = "{}.png") -> Dataset:
    """Choices with several people, whose first question is between copies."""
    folder.mkdir(parents=True, exist_ok=True)
    images, choices = [], []
    for k in range(groups):
        keys = tuple(name.format(f"{k}{n}") for n in "ab")
        for n, key in enumerate(keys):
            rng = np.random.default_rng(2 * k if k < 2 else 2 * k + n)
            pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            file = folder / f"{k}{n}.png"
            PIL.Image.fromarray(pixels).resize((64, 64)).save(file)
            images.append(
                Image(key, f"<b>p{k}</b>", file.name, hash_image(file), 64, 64, generator="g<1>")
            )
        for who in range(3):
            text = f'{{"seconds":{who + 2}}}'
            ranks = (1, 2) if (k + who) % 2 else (2, 1)
            made = Choice(
                f"c{k}-{who}", f"<b>p{k}</b>", keys, ranks, annotator=f"<u{who}>", details=text
            )
            choices.append(made)
    return Dataset(to_table(images, "images"), to_table(choices, "choices"), folder)


def test_the_page_shows_findings_with_pictures_and_charts(tmp_path: Path) -> None:
    data = make(tmp_path / "mine", 12)
    page = audit_page(audit_dataset(data, against=[data]))
    seen = parsed(page)
    assert "<h1>Audit of mine</h1>" in page
    for key in ("leaks", "position", "choices", "agreement", "speed", "prompts", "images"):
        assert f'id="{key}"' in page
        assert f'href="#{key}"' in page
    pictures = [attrs["src"] for tag, attrs in seen if tag == "img"]
    assert 4 <= len(pictures) <= PICTURES
    assert all((source or "").startswith("data:image/jpeg;base64,") for source in pictures)
    assert sum(tag == "svg" for tag, _ in seen) > 5
    assert "constant groups" in page


def test_the_page_is_one_file_and_names_no_path(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    data = make(folder, 4)
    (folder / "30.png").write_text("hello")
    save_dataset(folder, data.images, data.choices)
    page = audit_page(audit_folder(folder))
    assert "unreadable files" in page
    assert str(tmp_path) not in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "<script" not in page
    assert "http" not in page


def test_names_are_text_and_no_markup(tmp_path: Path) -> None:
    page = audit_page(audit_dataset(make(tmp_path / "x<y>", 3, "<i>{}&.png")))
    parsed(page)
    assert "<b>p" not in page
    assert "<i>" not in page
    assert "&lt;u0&gt;" in page


def test_pictures_are_few_and_small(tmp_path: Path) -> None:
    big = tmp_path / "big.png"
    PIL.Image.effect_noise((900, 500), 80).convert("RGB").save(big)
    uri = thumbnail_uri(big)
    assert uri is not None
    assert len(uri) < 20_000
    (tmp_path / "broken.png").write_text("hello")
    assert thumbnail_uri(tmp_path / "broken.png") is None


def test_a_set_without_choices_or_files_has_a_page(tmp_path: Path) -> None:
    images = to_table([Image("i", "p")], "images")
    page = audit_page(audit_dataset(Dataset(images, to_table([], "choices"), tmp_path)))
    parsed(page)
    assert 'id="position"' not in page
    none = audit_dataset(Dataset(to_table([], "images"), to_table([], "choices"), tmp_path))
    assert "Nothing odd was found." in audit_page(none)


def test_bars_and_whiskers_have_the_lengths_of_their_values() -> None:
    chart = bar_chart([Bar("a", 0.5, "", 0.25, 0.75), Bar("b", 0.25, "")], "x", 0.5, "half")
    wide = [float(w) for w in re.findall(r'<rect [^>]*width="([\d.]+)"', chart)]
    assert wide[0] == pytest.approx(2 * wide[1], rel=0.01)
    left = float(re.findall(r'<rect [^>]* x="([\d.]+)"', chart)[0])
    low, high = map(float, re.findall(r'd="M([\d.]+) .*H([\d.]+)', chart)[0])
    assert (low - left) == pytest.approx(wide[0] / 2, rel=0.01)
    assert (high - left) == pytest.approx(wide[0] * 1.5, rel=0.01)
    line = float(re.findall(r'class="line" x1="([\d.]+)"', chart)[0])
    assert line - left == pytest.approx(wide[0], rel=0.01)


def test_columns_have_the_heights_of_their_counts() -> None:
    chart = histogram([("0", 4), ("1", 2), ("2", 0)], "x", "axis", 1.0, "limit")
    high = [float(h) for h in re.findall(r'<rect [^>]*height="([\d.]+)"', chart)]
    assert high[0] == pytest.approx(2 * high[1], rel=0.01)
    assert high[2] == 0
    assert chart.count("marked") == 2
