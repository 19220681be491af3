"""The page of scored images: what is on it, in which order, and that nothing is left out silently."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from palate.data.records import Image, Score
from palate.data.tables import to_table
from palate.errors import RunError, SettingsError
from palate.evaluation.gallery import disagreement, write_gallery
from palate.models.tiny import tiny_clip
from palate.scoring.networks import ClipScorer
from palate.scoring.score import score_table
from palate.stats.correlation import kendall

VOID = {"meta", "img", "input", "br", "hr", "link"}


@dataclass
class Card:
    """What a reader sees of one image."""

    attributes: dict[str, str]
    picture: str | None = None
    framed: bool = False
    name: str = ""
    text: str = ""
    shares: list[str] = field(default_factory=list)

    @property
    def divided(self) -> bool:
        return "divided" in self.attributes["class"]


class Page(HTMLParser):
    """Reads a gallery back: prompts with their cards, and what stands beside them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.open, self.prompts, self.about, self.head = text, [], [], [], ""
        self.cards: list[list[Card]] = []
        self.addresses: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.naming = False
        self.feed(text)
        self.close()
        assert not self.open, "every element is closed"

    def handle_starttag(self, tag, attrs):
        attributes = {name: value or "" for name, value in attrs}
        self.naming = attributes.get("class") == "name"
        self.tags.append((tag, attributes))
        self.addresses += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.cards.append([])
            self.about.append("")
        elif tag == "h2":
            self.prompts.append("")
        elif tag == "li":
            self.cards[-1].append(Card(attributes))
        elif tag == "img":
            self.cards[-1][-1].picture = attributes["src"]
        elif attributes.get("class") == "frame":
            self.cards[-1][-1].framed = True
        elif tag == "i":
            self.cards[-1][-1].shares.append(attributes["style"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.naming = False

    def handle_data(self, data):
        if {"style", "script"} & set(self.open):
            return
        if "h2" in self.open:
            self.prompts[-1] += data
        elif self.naming:
            self.cards[-1][-1].name += data
        elif "li" in self.open:
            self.cards[-1][-1].text += data
        elif "section" in self.open:
            self.about[-1] += data
        else:
            self.head += data

    def names(self):
        return [[card.name for card in cards] for cards in self.cards]


def scores_of(prompts, *, unit="hps", **fields):
    """Scores from {prompt: {scorer: [values]}}; the images are called prompt-0, prompt-1, …"""
    scorers = dict.fromkeys(name for own in prompts.values() for name in own)
    rows = [
        Score(
            image=f"{prompt or 'none'}-{place}",
            prompt=prompt,
            scorer=scorer,
            dimension="overall",
            value=value,
            unit=unit,
            fingerprint=f"print-of-{scorer}",
            error="the file is no image" if value is None else None,
            **fields,
        )
        for scorer in scorers
        for prompt, own in prompts.items()
        for place, value in enumerate(own.get(scorer, []))
    ]
    return to_table(rows, "scores")


def images_of(scores, folder, size=(40, 30)):
    """A table of images for scores, with a file for each."""
    pairs = dict(zip(scores["image"].to_pylist(), scores["prompt"].to_pylist(), strict=True))
    rows = []
    for number, (image, prompt) in enumerate(pairs.items()):
        Pillow.new("RGB", size, (number * 20 % 256, 90, 120)).save(folder / f"{number}.png")
        rows.append(Image(image=image, prompt=prompt, path=f"{number}.png"))
    return to_table(rows, "images")


def page_of(scores, folder, images=None, **options) -> Page:
    images = images_of(scores, folder) if images is None else images
    write_gallery(scores, images, folder, folder / "gallery.html", **options)
    return Page((folder / "gallery.html").read_text(encoding="utf-8"))


TWO = {
    "same": {"a": [1.0, 3.0, 2.0], "b": [0.1, 0.3, 0.2]},
    "alone": {"a": [5.0], "b": [1.0]},
    "reverse": {"a": [1.0, 3.0, 2.0], "b": [0.3, 0.1, 0.2]},
    "between": {"a": [3.0, 2.0, 1.0], "b": [3.0, 1.0, 2.0]},
}


def test_prompts_that_divide_the_scorers_come_first_and_the_best_image_first_in_each(tmp_path):
    page = page_of(scores_of(TWO), tmp_path)
    assert page.prompts == ["reverse", "between", "same", "alone"]
    assert page.names()[0] == ["reverse-1", "reverse-2", "reverse-0"]
    assert page.names()[1] == ["between-0", "between-1", "between-2"]
    assert [re.search(r"disagreement ([\d.]+)", text)[1] for text in page.about[:3]] == [
        "2.00",
        "0.67",
        "0.00",
    ]
    assert "no orders to compare" in page.about[3]


def test_only_ranks_that_differ_are_marked_with_the_places_between_them(tmp_path):
    page = page_of(scores_of(TWO), tmp_path)
    assert [card.divided for card in page.cards[1]] == [False, True, True]
    assert "▼ 1" in page.cards[1][1].text
    assert "▲ 1" in page.cards[1][2].text
    assert not any(card.divided for card in page.cards[2])
    assert "▲" not in "".join(card.text for card in page.cards[2])


def test_a_card_tells_value_rank_percentile_and_share_and_carries_the_values_for_sorting(tmp_path):
    card = page_of(scores_of(TWO), tmp_path).cards[2][1]
    told = " ".join(card.text.split())
    assert told.startswith("a 2.0000 rank 2 of 3 50 %ile 24.5 % b 0.2000 rank 2 of 3")
    assert (card.attributes["data-v0"], card.attributes["data-v1"]) == ("2.0", "0.2")
    assert card.attributes["data-place"] == "2"
    assert card.shares[0] == "width: 24.5%"


def test_the_head_names_every_scorer_and_what_its_unit_means(tmp_path):
    page = page_of(scores_of(TWO), tmp_path)
    for part in ("print-of-a", "print-of-b", "100 × cosine", "overall", "10 scored"):
        assert part in page.head
    assert "Scores of different prompts do not compare" in page.head


def test_with_one_scorer_prompts_stay_as_they_came_and_nothing_is_said_of_disagreement(tmp_path):
    one = {"z": {"a": [1.0, 2.0]}, "b": {"a": [1.0]}, "m": {"a": [3.0, 2.0]}}
    page = page_of(scores_of(one), tmp_path)
    assert page.prompts == ["z", "b", "m"]
    assert page.names() == [["z-1", "z-0"], ["b-0"], ["m-0", "m-1"]]
    assert "isagree" not in page.head + "".join(page.about)


def test_equal_scores_share_a_rank_and_keep_their_order(tmp_path):
    page = page_of(scores_of({"p": {"a": [2.0, 2.0, 2.0], "b": [1.0, 1.0, 1.0]}}), tmp_path)
    assert page.names() == [["p-0", "p-1", "p-2"]]
    assert all(card.text.count("rank 1 of 3") == 2 for card in page.cards[0])
    assert "no orders to compare" in page.about[0]


def test_a_unit_without_a_softmax_reading_has_no_share(tmp_path):
    page = page_of(scores_of({"p": {"a": [5.0, 6.0]}}, unit="rating"), tmp_path)
    assert "has no softmax share" in page.head
    assert page.cards[0][0].shares == []
    assert "100 %ile" in page.cards[0][0].text


def test_scorers_of_the_same_name_are_told_apart(tmp_path):
    first, second = scores_of({"p": {"a": [1.0, 2.0]}}).to_pylist(), []
    for row in first:
        second.append({**row, "fingerprint": "another", "value": -row["value"]})
        second.append({**row, "dimension": "detail"})
    table = to_table([Score(**row) for row in first + second], "scores")
    page = page_of(table, tmp_path)
    assert all(label in page.cards[0][0].text for label in ("a (1)", "a (2)", "a detail"))


@pytest.mark.parametrize(
    "prompt",
    [
        "<script>alert(1)</script>",
        "\"quoted\" 'twice' & <b>bold</b>",
        "a fox 🦊 in {{ braces }} and {% blocks %}",
        "ثعلب أحمر",
        "two\nlines",
        "</section></main>",
    ],
)
def test_texts_are_shown_as_they_are_whatever_they_hold(prompt, tmp_path):
    names = {"scorer": prompt, "dimension": prompt, "unit": prompt, "fingerprint": prompt}
    rows = [
        Score(image=f"{prompt}{k}", prompt=prompt, value=value, error=error, **names)
        for k, (value, error) in enumerate([(1.0, None), (None, prompt)])
    ]
    scores = to_table(rows, "scores")
    page = page_of(scores, tmp_path)
    plain = page_of(scores_of({"p": {"a": [1.0, 2.0]}}), tmp_path)
    assert page.prompts == [prompt]
    assert page.cards[0][0].name == f"{prompt}0"
    assert prompt in page.cards[0][0].text
    assert page.cards[0][1].text.count(prompt) > 1
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags} | {"p"}
    assert next(at for tag, at in page.tags if tag == "h2")["dir"] == "auto"


def test_an_image_without_a_score_comes_last_with_the_reason(tmp_path):
    scores = scores_of({"p": {"a": [None, 1.0, 2.0], "b": [None, 1.0, 2.0]}})
    images = images_of(scores, tmp_path)
    (tmp_path / "0.png").write_bytes(b"nothing")
    page = page_of(scores, tmp_path, images)
    assert page.names() == [["p-2", "p-1", "p-0"]]
    last = page.cards[0][2]
    assert last.picture is None
    assert last.text.count("the file is no image") == 1
    assert last.text.count("no score") == 2
    assert "data-v0" not in last.attributes
    assert "2 scored, 1 error" in page.head
    assert "rank 1 of 2" in page.cards[0][0].text


def test_an_error_of_one_scorer_names_it_beside_the_score_of_the_other(tmp_path):
    page = page_of(scores_of({"p": {"a": [None, 1.0, 2.0], "b": [3.0, 1.0, 2.0]}}), tmp_path)
    last = page.cards[0][2]
    assert last.picture is not None
    assert "a: the file is no image" in last.text
    assert "rank 1 of 3" in last.text
    assert not last.divided


def test_an_image_that_is_gone_since_it_was_scored_says_so(tmp_path):
    scores = scores_of({"p": {"a": [1.0, 2.0, 3.0]}})
    images = images_of(scores, tmp_path)
    (tmp_path / "1.png").unlink()
    page = page_of(scores, tmp_path, images.slice(0, 2))
    third, second, first = page.cards[0]
    assert "is not in the table of images" in third.text
    assert "1.png: does not exist" in second.text
    assert "rank 2 of 3" in second.text
    assert first.picture is not None


def test_a_scorer_without_a_row_for_an_image_is_said_to_have_none(tmp_path):
    page = page_of(scores_of({"p": {"a": [1.0, 2.0], "b": [1.0]}, "q": {"b": [1.0]}}), tmp_path)
    assert page.prompts == ["p", "q"]
    assert "not scored" in page.cards[0][0].text
    assert "not scored" in page.cards[1][0].text


def test_crops_are_framed_where_they_are_a_centre_crop_and_always_told(tmp_path):
    scores = scores_of({"p": {"a": [1.0]}}, area_kept=0.5, tokens_given=120, tokens_kept=77)
    images = images_of(scores, tmp_path, size=(200, 100))
    page = page_of(scores, tmp_path, images)
    assert page.cards[0][0].framed
    assert "sees 50 % of it" in page.cards[0][0].text
    assert "read 77 of 120 tokens" in page.about[0]
    assert "dashed frame" in page.head
    frame = next(at for _, at in page.tags if at.get("class") == "frame")
    assert frame["style"] == "width: 50.00%; height: 100.00%"
    other = page_of(scores, tmp_path, images_of(scores, tmp_path, size=(100, 100)))
    assert not other.cards[0][0].framed
    assert "sees 50 % of it" in other.cards[0][0].text
    assert "dashed frame" not in other.head


def test_thumbnails_are_small_and_carry_nothing_but_pixels(tmp_path):
    scores = scores_of({"p": {"a": [1.0]}})
    images = images_of(scores, tmp_path)
    exif = Pillow.Exif()
    exif[274] = 6  # turned by a quarter
    Pillow.new("RGB", (300, 100)).save(tmp_path / "0.png", exif=exif, icc_profile=b"profile")
    for turned, size in ((False, (64, 21)), (True, (21, 64))):
        page = page_of(scores, tmp_path, images, side=64, exif=turned)
        data = base64.b64decode(page.cards[0][0].picture.removeprefix("data:image/jpeg;base64,"))
        thumbnail = Pillow.open(io.BytesIO(data))
        assert (thumbnail.format, thumbnail.size) == ("JPEG", size)
        assert not {"exif", "icc_profile", "comment"} & set(thumbnail.info)


def test_what_is_left_out_is_said(tmp_path):
    scores = scores_of({name: {"a": [1.0, 2.0, 3.0]} for name in "pqr"})
    images = images_of(scores, tmp_path)
    assert "left out" not in page_of(scores, tmp_path, images, most=9).head
    whole = page_of(scores, tmp_path, images, most=7)
    assert whole.prompts == ["p", "q"]
    assert "3 of 9 images are left out: all images of the last 1 prompt." in whole.head
    cut = page_of(scores, tmp_path, images, most=2)
    assert cut.names() == [["p-2", "p-1"]]
    assert "3 images, 2 shown" in cut.about[0]
    assert "rank 1 of 3" in cut.cards[0][0].text
    assert (
        "7 of 9 images are left out: the last 1 image of the first prompt and all images of the "
        "last 2 prompts." in cut.head
    )


def test_a_prompt_that_is_empty_and_a_table_without_rows_make_a_page(tmp_path):
    page = page_of(scores_of({"": {"a": [1.0, 2.0]}}), tmp_path)
    assert page.prompts == ["no prompt"]
    empty = page_of(scores_of({}), tmp_path)
    assert empty.cards == []
    assert "Gallery of 0 images" in empty.head


def test_the_page_asks_for_nothing_from_elsewhere_and_needs_no_script_to_be_read(tmp_path):
    page = page_of(scores_of(TWO), tmp_path)
    assert page.addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"data:[^\"]*", "", page.text))
    form = next(at for tag, at in page.tags if tag == "form")
    assert "hidden" in form
    assert all(at["loading"] == "lazy" for tag, at in page.tags if tag == "img")


def test_the_same_scores_give_the_same_file(tmp_path):
    assert page_of(scores_of(TWO), tmp_path).text == page_of(scores_of(TWO), tmp_path).text


def test_after_a_failure_the_old_page_is_whole_and_nothing_else_is_there(tmp_path, monkeypatch):
    scores = scores_of(TWO)
    before = page_of(scores, tmp_path).text
    files = set(tmp_path.iterdir())

    def full(path, data):
        with path.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(RunError, match=r"gallery.html: could not be written: No space left"):
        write_gallery(scores, images_of(scores, tmp_path), tmp_path, tmp_path / "gallery.html")
    assert (tmp_path / "gallery.html").read_text(encoding="utf-8") == before
    assert set(tmp_path.iterdir()) == files


@pytest.mark.parametrize("options", [{"side": 0}, {"most": 0}])
def test_sizes_below_one_are_refused(options, tmp_path):
    with pytest.raises(SettingsError, match="is 0, expected at least 1"):
        page_of(scores_of(TWO), tmp_path, **options)
    assert not (tmp_path / "gallery.html").exists()


def slow_disagreement(values):
    """The same by counting pairs of images."""
    taus = []
    for a, b in combinations(values, 2):
        agree = first = second = 0
        for i, j in combinations(range(len(a)), 2):
            x, y = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
            if np.isnan(x) or np.isnan(y):
                continue
            agree, first, second = agree + x * y, first + abs(x), second + abs(y)
        if first and second:
            taus.append(agree / np.sqrt(first * second))
    return 1 - np.mean(taus) if taus else None


@given(st.data())
def test_disagreement_is_what_counting_pairs_gives(data):
    scorers, images = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    value = st.sampled_from([0.0, 1.0, 2.0, 3.0, np.nan])
    row = st.lists(value, min_size=images, max_size=images)
    values = np.array(data.draw(st.lists(row, min_size=scorers, max_size=scorers)))
    found, expected = disagreement(values), slow_disagreement(values)
    assert (found is None) == (expected is None)
    if found is not None:
        assert found == pytest.approx(expected, abs=1e-12)
        assert 0 <= found <= 2


def test_disagreement_of_two_scorers_is_one_minus_the_kendall_of_the_statistics():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, size=(2, 12)).astype(float)
    tau = kendall(a, -b.astype(int), [0, 12]).estimate.value
    assert disagreement(np.array([a, b])) == pytest.approx(1 - tau, abs=1e-12)
    assert disagreement(np.array([a, a])) == pytest.approx(0, abs=1e-12)
    assert disagreement(np.array([a, -a])) == pytest.approx(2, abs=1e-12)


def test_an_unreadable_image_is_told_once_and_not_where_it_lies(tmp_path):
    """The same file fails when it is scored and when it is drawn, and the page may be given away."""
    (tmp_path / "a.png").write_text("no picture")
    images = to_table([Image(image="a.png", prompt="a fox", path="a.png")], "images")
    scores = score_table(images, tmp_path, ClipScorer(tiny_clip(0), "tiny"))
    write_gallery(scores, images, tmp_path, tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text("utf-8"))
    assert page.cards[0][0].text.count("is no image of a known format") == 1
    assert str(tmp_path) not in page.text
