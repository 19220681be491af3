from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from palate.data.records import Choice, Image
from palate.data.tables import save_dataset, to_table
from palate.errors import DataError
from palate.generation.prompts import read_prompts

PROMPTS = ["a red ball", 'a "quoted", comma', "Überraschung"]


def write(path):
    match path.suffix:
        case ".txt":
            path.write_text("\n".join([*PROMPTS, "", PROMPTS[0]]))
        case ".jsonl":
            path.write_text(
                "\n".join(json.dumps({"prompt": prompt}) for prompt in PROMPTS) + "\n\n"
            )
        case ".json":
            path.write_text(json.dumps([PROMPTS[0], {"prompt": PROMPTS[1]}, PROMPTS[2]]))
        case ".csv":
            quoted = ['"' + prompt.replace('"', '""') + '"' for prompt in PROMPTS]
            path.write_text("id,prompt\n" + "\n".join(f"1,{prompt}" for prompt in quoted))
        case ".parquet":
            pq.write_table(pa.table({"prompt": PROMPTS, "other": [1, 2, 3]}), path)


@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".json", ".csv", ".parquet"])
def test_every_format_gives_the_prompts_in_order_and_once(tmp_path, ending):
    path = tmp_path / f"prompts{ending}"
    write(path)
    assert read_prompts(path) == PROMPTS


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.txt", b"\n\n", "no prompts in it"),
        ("a.txt", b"\xff\xfe\x00", "expected text in UTF-8"),
        ("a.jsonl", b'{"prompt": "a"}\n{"caption": "b"}', "line 2: expected a prompt"),
        ("a.jsonl", b"{", "line 1: not JSON"),
        ("a.json", b'{"prompt": "a"}', "expected a JSON list"),
        ("a.csv", b"text\na ball", "column 'prompt', found text; `palate data import prompts`"),
        ("a.csv", b"", "column 'prompt', found none"),
        ("a.csv", b"id,prompt\n1", "row 1: expected a prompt"),
        ("a.parquet", b"no", "expected a Parquet file with a column 'prompt'"),
        ("a.docx", b"", "expected prompts as one of"),
    ],
)
def test_what_is_no_list_of_prompts_is_refused_in_a_sentence(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read_prompts(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="no such file of prompts"):
        read_prompts(tmp_path / "missing.txt")


def test_a_data_set_gives_the_prompts_of_its_images_or_of_its_choices(tmp_path):
    images = [Image(image=str(k), prompt=text) for k, text in enumerate(["b", "a", "b"])]
    choice = Choice("1", "only asked", ("0", "1"), (1, 2))
    empty = to_table([], "images")
    save_dataset(tmp_path / "both", to_table(images, "images"), to_table([choice], "choices"))
    save_dataset(tmp_path / "choices", empty, to_table([choice], "choices"))
    assert read_prompts(tmp_path / "both") == ["b", "a"]
    assert read_prompts(tmp_path / "both" / "images.parquet") == ["b", "a"]
    assert read_prompts(tmp_path / "both" / "choices.parquet") == ["only asked"]
    assert read_prompts(tmp_path / "choices") == ["only asked"]


def test_a_folder_or_a_table_without_prompts_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(DataError, match=r"a folder without images\.parquet or choices\.parquet"):
        read_prompts(tmp_path)
    pq.write_table(pa.table({"image": ["a"], "text": ["b"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"with a column 'prompt', found image, text; [^\n]*$"):
        read_prompts(tmp_path / "a.parquet")
    pq.write_table(pa.table({"prompt": ["a", None]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet, row 1: expected a prompt"):
        read_prompts(tmp_path / "b.parquet")
