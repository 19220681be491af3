"""A folder of images: every image has a prompt, every choice has images, or it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from palate.data.records import Choice, Image
from palate.data.sources.folder import SIMULACRA, FolderSettings, read_folder
from palate.data.tables import to_rows
from palate.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "images"
    for number, name in enumerate(["fox.png", "deep/owl.jpg", "cat.webp"]):
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(path)
    (place / "notes.md").write_text("not an image")
    (place / ".hidden.png").write_text("left alone")
    return place


CSV = 'image,prompt,seed,mood\nfox.png,"a fox, red",7,calm\ndeep/owl.jpg,an owl,,\ncat.webp,a fox,8,\n'


def rows(found) -> dict[str, Image]:
    return {row.image: row for row in to_rows(found.images, Image)}


def test_prompts_come_from_a_csv_file(folder: Path) -> None:
    (folder / "prompts.csv").write_text(CSV)
    found = rows(read_folder(folder, settings=FolderSettings(generator="sd")))
    assert list(found) == ["cat.webp", "deep/owl.jpg", "fox.png"]
    fox = found["fox.png"]
    assert (fox.prompt, fox.seed, fox.generator) == ("a fox, red", 7, "sd")
    assert json.loads(fox.details or "") == {"mood": "calm"}
    assert fox.path == (folder / "fox.png").as_posix()
    assert (fox.width, fox.height) == (8, 8)
    assert found["deep/owl.jpg"].seed is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("prompts.csv", "image,prompt\nfox.png,p\ndeep/owl.jpg,q\ncat.webp,r\n"),
        ("prompts.csv", "\ufeffprompt,image\r\np,fox.png\r\n\r\nq,deep/owl.jpg\r\nr,cat.webp"),
        (
            "prompts.jsonl",
            """{"image": "fox.png", "prompt": "p"}

            {"image": "deep/owl.jpg", "prompt": "q"}
            {"image": "cat.webp", "prompt": "r"}""",
        ),
        ("prompts.txt", "fox.png\tp\ndeep/owl.jpg\tq\r\ncat.webp\tr\n"),
    ],
)
def test_every_kind_of_prompts_file_says_the_same(name, text, folder: Path) -> None:
    (folder / name).write_text(text, newline="")
    found = rows(read_folder(folder))
    assert {key: row.prompt for key, row in found.items()} == {
        "fox.png": "p",
        "deep/owl.jpg": "q",
        "cat.webp": "r",
    }


def test_prompts_come_from_text_beside_the_images(folder: Path) -> None:
    for name in ("fox", "deep/owl", "cat"):
        (folder / f"{name}.txt").write_text(f"{name}!\n")
    assert rows(read_folder(folder))["deep/owl.jpg"].prompt == "deep/owl!"
    (folder / "cat.txt").unlink()
    with pytest.raises(DataError, match=r"image 'cat\.webp': has no prompt in a text file beside"):
        read_folder(folder)


def test_one_prompt_may_serve_all(folder: Path) -> None:
    found = rows(read_folder(folder, settings=FolderSettings(prompt="")))
    assert {row.prompt for row in found.values()} == {""}


def test_prompts_come_from_paths(tmp_path: Path) -> None:
    path = tmp_path / "good" / "7939_a_sloth__drinking_tea_2.png"
    path.parent.mkdir()
    PIL.Image.new("RGB", (4, 4)).save(path)
    found = read_folder(tmp_path, settings=FolderSettings(pattern=SIMULACRA))
    row = next(to_rows(found.images, Image))
    assert row.prompt == "a sloth drinking tea"
    assert json.loads(row.details or "") == {"grade": "good", "id": "7939", "k": "2"}
    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "stray.png")
    with pytest.raises(DataError, match=r"image 'stray\.png': has no prompt in its path"):
        read_folder(tmp_path, settings=FolderSettings(pattern=SIMULACRA))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,prompt\nfox.png,p\n", "2 of 3 rows cannot be used, first image 'cat.webp': has no"),
        (
            CSV + "fix.png,p,,\n",
            r"line 5: image 'fix\.png' is not in the folder; did you mean 'fox",
        ),
        (CSV + "fox.png,p,,\n", r"line 5: image 'fox\.png' was there before"),
        (
            "image,prompt\nno.png,p\nnot.png,p\n",
            r"prompts\.csv: 2 of 2 rows cannot be used, first line 2",
        ),
        (CSV.replace("7", "seven"), r"line 2: the seed of image 'fox\.png' is 'seven'"),
        ("name,prompt\nfox.png,p\n", "has no column 'image'; there are name, prompt"),
        ("image,prompt\nfox.png\n", "line 2: 1 cells, but the header has 2"),
        ("image,image\nfox.png,p\n", "a column stands in the header twice"),
        ('image,prompt\n"fox.png,p\n', "line 2: is no valid CSV"),
        ("", "is an empty file, expected a CSV table"),
    ],
)
def test_a_bad_prompts_file_is_refused_in_one_sentence(text, message, folder: Path) -> None:
    (folder / "prompts.csv").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_folder(folder)
    assert "\n" not in str(caught.value)


def test_bad_lines_of_json_are_named(folder: Path) -> None:
    (folder / "prompts.jsonl").write_text('{"image": "fox.png", "prompt": "p"}\n{"image": \n')
    with pytest.raises(DataError, match=r"prompts\.jsonl, line 2: is no valid JSON"):
        read_folder(folder)
    (folder / "prompts.jsonl").write_text("[1]")
    with pytest.raises(DataError, match=r"line 1: expected a JSON object, found '\[1\]'"):
        read_folder(folder)


def test_a_generator_that_is_no_text_is_refused(folder: Path) -> None:
    line = '{"image": "fox.png", "prompt": "p", "generator": 5}'
    (folder / "prompts.jsonl").write_text(line)
    with pytest.raises(
        DataError, match=r"line 1: the generator of image 'fox\.png' is 5, expected"
    ):
        read_folder(folder)


def test_spelling_is_looked_up_only_for_the_faults_that_are_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("difflib.get_close_matches", lambda key, keys, n: asked.append(key) or [])
    names = [f"{k}.png" for k in range(40)]
    (folder / "prompts.csv").write_text(CSV + "".join(f"{name},p,,\n" for name in names))
    found = read_folder(folder, settings=FolderSettings(allow_errors=True))
    assert asked == names[:5]
    assert found.report["faults"]["count"] == 40
    lines = [f'{{"images": ["fox.png", "{name}"], "best": 0}}\n' for name in names]
    asked.clear()
    with pytest.raises(DataError, match="40 of 40 rows cannot be used"):
        choose(folder, "".join(lines))
    assert asked == names[:5]


def test_allowed_errors_are_left_out_and_counted(folder: Path) -> None:
    (folder / "prompts.csv").write_text(CSV)
    (folder / "fox.png").write_text("hello")
    with pytest.raises(DataError, match=r"image 'fox\.png': .*is no image of a known format"):
        read_folder(folder)
    found = read_folder(folder, settings=FolderSettings(allow_errors=True))
    assert list(rows(found)) == ["cat.webp", "deep/owl.jpg"]
    assert found.report["faults"]["count"] == 1


def test_wrong_places_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cases = [
        ((tmp_path / "nowhere", None), "nowhere: does not exist"),
        ((folder / "fox.png", None), "is a file, expected a folder"),
        ((tmp_path / "empty", None), "empty: holds no image file"),
        ((folder, tmp_path / "nowhere.csv"), r"nowhere\.csv: does not exist"),
        ((folder, folder / "notes.md"), r"prompts are read from \.csv, \.jsonl or \.txt"),
    ]
    for arguments, message in cases:
        with pytest.raises(DataError, match=message):
            read_folder(*arguments)
    (folder / "prompts.csv").write_text(CSV)
    (folder / "prompts.txt").write_text("")
    with pytest.raises(DataError, match=r"holds prompts\.csv and prompts\.txt; say which"):
        read_folder(folder)
    with pytest.raises(DataError, match="give one of them"):
        read_folder(folder, settings=FolderSettings(prompt="p", pattern="(?P<prompt>.*)"))
    with pytest.raises(DataError, match=r"has no group \(\?P<prompt>…\)"):
        read_folder(folder, settings=FolderSettings(pattern=".*"))
    with pytest.raises(DataError, match="is no regular expression"):
        read_folder(folder, settings=FolderSettings(pattern="("))


# ------------------------------------------------------------------------------------------ choices


def choose(folder: Path, text: str, name: str = "choices.jsonl", **settings: object):
    path = folder.parent / name
    path.write_text(text)
    (folder / "prompts.csv").write_text(CSV.replace("an owl", '"a fox, red"'))
    return read_folder(folder, None, path, FolderSettings(**settings))


def test_choices_come_from_json_lines(folder: Path) -> None:
    lines = [
        {"images": ["fox.png", "deep/owl.jpg"], "best": "deep/owl.jpg", "annotator": "u"},
        {"images": ["fox.png", "deep/owl.jpg"], "best": 0, "dimension": "detail", "choice": "x"},
        {"images": ["cat.webp", "fox.png"], "ranks": [1, 1], "prompt": "p", "details": {"t": 3}},
    ]
    text = "\n".join(map(json.dumps, lines))
    found = list(to_rows(choose(folder, text, source="mine").choices, Choice))
    assert [row.choice for row in found] == ["mine/1", "x", "mine/3"]
    assert [row.ranks for row in found] == [(2, 1), (1, 2), (1, 1)]
    assert [row.prompt for row in found] == ["a fox, red", "a fox, red", "p"]
    assert (found[0].annotator, found[1].dimension, found[2].details) == ("u", "detail", '{"t":3}')


def test_choices_come_from_csv(folder: Path) -> None:
    text = (
        "images,best,ranks,annotator\nfox.png|deep/owl.jpg,fox.png,,u\nfox.png|deep/owl.jpg,,2|1,\n"
    )
    found = list(to_rows(choose(folder, text, "choices.csv").choices, Choice))
    assert [row.ranks for row in found] == [(1, 2), (2, 1)]
    assert [row.annotator for row in found] == ["u", None]


PAIR = '"images": ["fox.png", "deep/owl.jpg"]'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f'{{{PAIR}, "best": 2}}', "position 2 was picked, but there are 2 images"),
        (f'{{{PAIR}, "best": "cat.webp"}}', r"best is 'cat\.webp', which is not among its images"),
        (f'{{{PAIR}, "best": 0.5}}', r"best is 0\.5, expected the name or the position"),
        (f'{{{PAIR}, "best": true}}', "best is True, expected the name or the position"),
        (f'{{{PAIR}, "best": null}}', "expected either ranks or best"),
        (f"{{{PAIR}}}", "expected either ranks or best"),
        (f'{{{PAIR}, "ranks": [1, 2, 2]}}', r"2 images but 3 ranks: \(1, 2, 2\)"),
        (f'{{{PAIR}, "ranks": [1, "2"]}}', "expected a list of whole numbers"),
        (
            f'{{{PAIR}, "best": 0, "dimenson": "x"}}',
            "unknown key 'dimenson'; did you mean 'dimensi",
        ),
        (f'{{{PAIR}, "best": 0, "annotator": 3}}', "annotator is 3, expected a text"),
        (f'{{{PAIR}, "best": 0, "details": 3}}', "details is 3, expected an object"),
        ('{"images": ["fox.png", "owl.jpg"], "best": 0}', r"image 'owl\.jpg' is not among the"),
        ('{"images": "fox.png", "best": 0}', "images is 'fox.png', expected a list of names"),
        ('{"images": ["fox.png", "cat.webp"], "best": 0}', "its images have several prompts"),
    ],
)
def test_a_bad_choice_is_named_by_its_line(line, message, folder: Path) -> None:
    good = f'{{{PAIR}, "best": 0}}'
    with pytest.raises(DataError, match=rf"choices\.jsonl: line 2: .*{message}"):
        choose(folder, f"{good}\n{line}\n")
    found = choose(folder, f"{good}\n{line}\n", allow_errors=True)
    assert len(found.choices) == 1
    assert found.report["faults"]["count"] == 1


def test_a_rank_in_another_script_is_named(folder: Path) -> None:
    text = "images,ranks\nfox.png|deep/owl.jpg,1|²\n"
    with pytest.raises(DataError, match=r"line 2: ranks is \[1, '²'\], expected a list of whole"):
        choose(folder, text, "choices.csv")


def test_choices_without_a_usable_line_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"choices\.jsonl: holds no choice that can be used"):
        choose(folder, "")
    with pytest.raises(DataError, match=r"choices are read from \.csv or \.jsonl"):
        choose(folder, "", "choices.txt")
    twice = f'{{{PAIR}, "best": 0, "choice": "x"}}\n' * 2
    with pytest.raises(DataError, match="line 2: choice 'x' was there before"):
        choose(folder, twice)


def test_the_real_graded_folder_is_read(shared: Path) -> None:
    found = read_folder(shared / "data" / "simulacra", settings=FolderSettings(pattern=SIMULACRA))
    grades = [json.loads(row.details or "")["grade"] for row in to_rows(found.images, Image)]
    assert sorted(set(grades)) == ["bad", "good", "great", "mediocre"]
    assert len(grades) == 20
    prompts = [row.prompt for row in to_rows(found.images, Image)]
    assert "a sloth sitting like a human drinking tea 1940s style" in prompts
