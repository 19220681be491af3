from __future__ import annotations

import json
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageFont

from palate.data.records import Image, json_text
from palate.data.tables import to_table
from palate.errors import ImageError, SettingsError
from palate.generation.gallery import write_page
from palate.generation.sheets import wrap, write_sheets

RESULT = {"generator": "tiny@0123456789ab", "adapters": [], "steps": 50, "guidance": 7.5}
CARD = {"name": "redness", "dimension": "overall", "unit": "rating"}
CHOSEN = {"images": 16, "keep": 3, "mean_of_all": 1.0, "mean_of_kept": 2.0, "scorer": CARD}


def made(folder, prompts, images=3, size=(16, 16), score=None):
    """A data set of images, each of one colour that is its own."""
    rows = []
    (folder / "images").mkdir(parents=True)
    for prompt in prompts:
        for index in range(images):
            key, path = f"{len(rows):04d}", f"images/{len(rows):04d}.png"
            PIL.Image.new("RGB", size, colour(len(rows))).save(folder / path)
            told = (
                {}
                if score is None
                else {"best_of": {"score": score, "rank": index + 1, "images": 16}}
            )
            rows.append(
                Image(key, prompt, path, width=size[0], height=size[1], seed=len(rows) + 2**60,
                      settings=json_text({"index": index}), details=json_text(told))
            )  # fmt: skip
    return to_table(rows, "images")


def colour(number):
    return (number * 7 % 251, number // 4 % 256, 40 + number % 200)


def boxes(sheet, number):
    """Where pixels have the colour of an image: left, top, width, height, count."""
    found = np.argwhere((np.asarray(sheet) == colour(number)).all(-1))
    if not len(found):
        return None
    (top, left), (bottom, right) = found.min(0), found.max(0)
    return left, top, right - left + 1, bottom - top + 1, len(found)


def test_each_prompt_is_a_row_and_its_images_stand_side_by_side(tmp_path):
    table = made(tmp_path, ["a", "b"])
    (path,) = write_sheets(table, tmp_path, tmp_path / "sheets")
    sheet = PIL.Image.open(path)
    places = [boxes(sheet, number) for number in range(6)]
    assert [place[2:] for place in places] == [(128, 128, 128 * 128)] * 6  # 16 pixels, times eight
    lefts, tops = [place[0] for place in places], [place[1] for place in places]
    assert lefts[:3] == lefts[3:] == sorted(set(lefts))
    assert tops[0] == tops[1] == tops[2] < tops[3] == tops[4] == tops[5]
    ink = np.asarray(sheet)[:, : lefts[0] - 4].min(-1) < 128
    rows = np.flatnonzero(ink.any(1))
    assert tops[0] <= rows.min() < tops[0] + 128  # the words stand beside their images
    assert rows.max() > tops[3]


@pytest.mark.parametrize(
    ("size", "drawn"),
    [((32, 32), (128, 128)), ((128, 100), (128, 100)), ((512, 512), (256, 256)),
     ((1024, 512), (256, 128)), ((200, 200), (200, 200)), ((4000, 2), (256, 1))],
)  # fmt: skip
def test_images_are_scaled_to_a_size_one_can_look_at(tmp_path, size, drawn):
    table = made(tmp_path, ["a"], images=1, size=size)
    (path,) = write_sheets(table, tmp_path, tmp_path / "sheets")
    assert boxes(PIL.Image.open(path), 0)[2:4] == drawn


def test_many_images_of_a_prompt_go_on_in_the_next_line(tmp_path):
    table = made(tmp_path, ["a"], images=11)
    (path,) = write_sheets(table, tmp_path, tmp_path / "sheets")
    places = [boxes(PIL.Image.open(path), number) for number in range(11)]
    assert len({place[1] for place in places[:8]}) == 1
    assert {place[1] for place in places[8:]} == {places[0][1] + 136}


def test_many_prompts_are_split_into_sheets_that_viewers_open(tmp_path):
    table = made(tmp_path, [f"prompt {number}" for number in range(30)], images=2)
    paths = write_sheets(table, tmp_path, tmp_path / "sheets")
    sheets = [PIL.Image.open(path) for path in paths]
    assert len(paths) == 2
    assert paths == sorted(paths)
    assert all(sheet.height <= 4096 for sheet in sheets)
    where = [n for sheet in sheets for n in range(0, 60, 7) if boxes(sheet, n)]
    assert where == list(range(0, 60, 7))


def test_scores_stand_below_the_images(tmp_path):
    def ink_below(folder, **given):
        table = made(folder, ["a"], images=1, **given)
        (path,) = write_sheets(table, folder, folder / "sheets")
        sheet = PIL.Image.open(path)
        left, top, width, height, _ = boxes(sheet, 0)
        return (np.asarray(sheet)[top + height :, left : left + width] < 128).any()

    assert ink_below(tmp_path / "scored", score=24.5)
    assert not ink_below(tmp_path / "plain")


def test_the_same_images_give_the_same_bytes_and_sheets_are_not_drawn_twice(tmp_path):
    table = made(tmp_path, ["a", "b"])
    (first,) = write_sheets(table, tmp_path, tmp_path / "one")
    (second,) = write_sheets(table, tmp_path, tmp_path / "two")
    assert first.read_bytes() == second.read_bytes()
    first.write_bytes(b"mine")
    assert write_sheets(table, tmp_path, tmp_path / "one") == [first]
    assert first.read_bytes() == b"mine"


def test_without_every_image_there_is_no_sheet(tmp_path):
    table = made(tmp_path, ["a"])
    (tmp_path / "images" / "0001.png").unlink()
    with pytest.raises(ImageError, match=r"0001\.png: does not exist"):
        write_sheets(table, tmp_path, tmp_path / "sheets")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    with pytest.raises(SettingsError, match="no images to draw"):
        write_sheets(table.slice(0, 0), tmp_path, tmp_path / "sheets")


@given(
    text=st.text("ab cdé\n", max_size=80) | st.text(max_size=20),
    width=st.integers(20, 200),
    most=st.integers(1, 6),
)
def test_a_label_fits_and_loses_nothing_but_what_it_says(text, width, most):
    font = ImageFont.load_default(15)
    lines = wrap(text, font, width, most)
    assert 1 <= len(lines) <= most
    assert all(font.getlength(line) <= width or len(line) == 1 for line in lines)
    whole, shown = "".join(text.split()), "".join(line.replace(" ", "") for line in lines)
    if shown != whole:
        assert shown.endswith("…")
        assert whole.startswith(shown[:-1])


class Page(HTMLParser):
    """What a page holds."""

    def __init__(self, text):
        super().__init__()
        self.images, self.links, self.words, self.tags = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attributes))
        if tag in {"a", "link", "script"}:
            self.links += [value for name, value in attributes if name in {"href", "src"}]

    def handle_data(self, data):
        self.words.append(data.strip())


def page(tmp_path, table, **more):
    write_page(table, {**RESULT, **more}, tmp_path / "gallery.html")
    return Page((tmp_path / "gallery.html").read_text(encoding="utf-8"))


def test_the_page_has_every_prompt_image_and_seed(tmp_path):
    prompts = ["a fox", "<b>bold & 'bad'</b>", "ein Häuschen\nin zwei Zeilen", "$prompt"]
    table = made(tmp_path, prompts)
    found = page(tmp_path, table)
    assert [unquote(image["src"]) for image in found.images] == table["path"].to_pylist()
    assert all((tmp_path / unquote(image["src"])).is_file() for image in found.images)
    assert all(image["loading"] == "lazy" for image in found.images)
    assert [word for word in found.words if word in prompts] == prompts
    assert "b" not in found.tags
    assert [w for w in found.words if w.startswith("seed ")] == [
        f"seed {seed}" for seed in table["seed"].to_pylist()
    ]
    assert "12 images of 4 prompts" in found.words
    assert "tiny@0123456789ab" in found.words
    assert found.links == table["path"].to_pylist()  # nothing from a network


def test_the_page_says_how_images_were_chosen_and_what_that_does_to_their_scores(tmp_path):
    table = made(tmp_path, ["a"], score=24.5)
    words = " ".join(page(tmp_path, table, best_of=CHOSEN).words)
    assert "Of 16 images of each prompt, the best 3 by redness" in words
    assert "too high as an estimate" in words
    assert "24.500 rank 1 of 16" in words
    assert "too high" not in " ".join(page(tmp_path, table).words)


def test_blackened_images_and_adapters_are_named(tmp_path):
    table = made(tmp_path, ["a"], images=1)
    rows = table.to_pylist()
    rows[0]["details"] = json.dumps({"flagged": True})
    table = to_table([Image(**row) for row in rows], "images")
    adapters = [
        {"file": "runs/adapted/pytorch_lora_weights.safetensors", "strength": 0.7},
        {"file": "paint.safetensors", "strength": 1.0},
    ]
    words = page(tmp_path, table, adapters=adapters).words
    assert "blackened by the safety checker" in words
    assert {"adapted × 0.7", "paint.safetensors × 1"} <= set(words)
