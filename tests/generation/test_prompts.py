from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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
        ("a.csv", b"text\na ball", "row 1: expected a prompt"),
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
