"""What tests of inputs share: pictures, and ways to pack them."""

from __future__ import annotations

import io
import json
import tarfile
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Picture

PROMPTS = ("a fox", "two cats", "ein Häuschen")


@pytest.fixture(scope="session")
def pictures():
    """Eleven PNG files as bytes."""
    random = np.random.default_rng(0)
    files = []
    for number in range(11):
        sink = io.BytesIO()
        pixels = random.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
        Picture.fromarray(pixels).save(sink, "PNG")
        files.append(sink.getvalue())
    return files


@pytest.fixture(scope="session")
def packing():
    """Functions that pack pictures."""
    return SimpleNamespace(tar=write_tar, members=members, rows=write_rows)


def members(pictures, numbers, kind="txt"):
    """Names and contents of pictures and of their prompts."""
    for number in numbers:
        prompt = PROMPTS[number % 3]
        told = {"txt": prompt, "json": json.dumps({"caption": prompt, "seed": 3})}[kind]
        yield f"{number:02d}.png", pictures[number]
        yield f"{number:02d}.{kind}", told.encode()


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            facts = tarfile.TarInfo(name)
            facts.size = len(data)
            tar.addfile(facts, io.BytesIO(data))
    return path


def write_rows(path, pictures, numbers, group=3):
    """A Parquet file as Hugging Face writes it."""
    images = [{"bytes": pictures[n], "path": None} for n in numbers]
    table = pa.table({"image": images, "prompt": [PROMPTS[n % 3] for n in numbers]})
    pq.write_table(table, path, row_group_size=group)
    return path
