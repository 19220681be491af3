"""Sets of any size that hold images or heat maps or databases, in their official layouts."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
import tarfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
from reader_tables import Written, json_lines, prompt, token, uuid

from palate.data.records import Image
from palate.data.sources.tfrecord import masked_crc32c
from palate.data.sources.webdataset import CHOICES_MEMBER
from palate.data.tables import IMAGES, to_table

PIXELS = 64
"""Side of the JPEG files, for the sets that need some."""

MAP_PIXELS = 512
"""Side of the heat maps of RichHF-18K, as in the release."""

LINKS = 1000
"""How many names one file has: an import opens every name, and the disk holds few files."""


def rich_hf(folder: Path, count: int) -> Written:
    """Records with two heat maps, and a data set of Pick-a-Pic with two images of a prompt: four choices."""
    images = count // 2
    known = folder / "pick-a-pic"
    known.mkdir()
    with pq.ParquetWriter(known / "images.parquet", IMAGES) as writer:
        for start in range(0, images, 20_000):
            places = range(start, min(images, start + 20_000))
            rows = [Image(uuid(k), prompt(k // 2), generator="sd") for k in places]
            writer.write_table(to_table(rows, "images"))
    maps = [_heat(seed) for seed in range(32)]
    with (folder / "train.tfrecord").open("wb") as file:
        for k in range(images):
            scores = [(k * step) % 21 / 20 for step in (1, 2, 3, 5)]
            words = b" ".join([b"1"] * 12)
            data = _example(f"train/{uuid(k)}.png", scores, (maps[k % 32], maps[-k % 32]), words)
            head = len(data).to_bytes(8, "little")
            file.write(head + _crc(head) + data + _crc(data))
    return Written(folder / "train.tfrecord", known)


def _heat(seed: int) -> bytes:
    """A map that is 0 but for a few smooth spots."""
    spots = np.zeros((16, 16), np.uint8)
    spots.flat[np.random.default_rng(seed).integers(0, spots.size, 6)] = 200
    side = (MAP_PIXELS, MAP_PIXELS)
    picture = PIL.Image.fromarray(spots).resize(side, PIL.Image.Resampling.BILINEAR)
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def _crc(data: bytes) -> bytes:
    return masked_crc32c(data).to_bytes(4, "little")


def _field(number: int, data: bytes) -> bytes:
    """A field of a protocol buffer with so many bytes."""
    size, length = bytearray(), len(data)
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    return bytes((number << 3 | 2, *size, length)) + data


def _example(name: str, scores: list[float], maps: tuple[bytes, bytes], words: bytes) -> bytes:
    texts = {"filename": name.encode(), "prompt_misalignment_label": words}
    texts |= dict(zip(("artifact_map", "misalignment_map"), maps, strict=True))
    features = {key: _field(1, _field(1, value)) for key, value in texts.items()}
    for key, score in zip(
        ("aesthetics", "artifact", "misalignment", "overall"), scores, strict=True
    ):
        features[f"{key}_score"] = _field(2, _field(1, np.float32(score).tobytes()))
    entries = (_field(1, key.encode()) + _field(2, value) for key, value in features.items())
    return _field(1, b"".join(_field(1, entry) for entry in entries))


def simulacra(folder: Path, count: int) -> Written:
    """Three images of a generation, each rated once; no rating says who gave it."""
    path = folder / "sac_public_2022_06_29.sqlite"
    with closing(sqlite3.connect(path)) as made:
        made.executescript("""
            PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
            CREATE TABLE survey (id INTEGER, qid INTEGER, rating INTEGER, PRIMARY KEY(id, qid));
            CREATE TABLE generations (id INTEGER PRIMARY KEY, sid INTEGER, method INTEGER,
                prompt TEXT, verified INTEGER);
            CREATE TABLE images (id INTEGER PRIMARY KEY AUTOINCREMENT, gid INTEGER, idx INTEGER,
                UNIQUE(gid,idx));
            CREATE TABLE paths (iid INTEGER, path TEXT);
            CREATE TABLE ratings (sid INTEGER, iid INTEGER, rating INTEGER, verified INTEGER);
            CREATE TABLE upscales (iid INTEGER PRIMARY KEY, method INTEGER);""")
        for who in range(300):
            rows = [(who, question, (who + question) % 10 + 1) for question in range(20)]
            made.executemany("INSERT INTO survey VALUES (?, ?, ?)", rows)
        numbers, images = range(count), range(3 * count)
        tables: dict[str, Iterable[tuple[Any, ...]]] = {
            "generations": ((n, n % 400, n % 11, prompt(n), 1) for n in numbers),
            "images": ((i + 1, i // 3, i % 3 + 1) for i in images),
            "paths": ((i + 1, f"{i // 3}_{prompt(i // 3)[:50]}_{i % 3}.png") for i in images),
            "ratings": ((i // 3 % 400, i + 1, i * 7 % 10 + 1, 1) for i in images),
        }
        for table, rows_of in tables.items():
            places = ", ".join("?" * (5 if table == "generations" else len(next(iter(rows_of)))))
            made.executemany(f"INSERT INTO {table} VALUES ({places})", rows_of)
        made.commit()
    return Written(path)


def folder(folder: Path, count: int) -> Written:
    """Images, a table of their prompts, and a pick of two for each."""
    images = folder / "photos"
    _links(folder, [images / f"{k // 1000:03}" / f"{k:06}.jpg" for k in range(count)])
    names = [f"{k // 1000:03}/{k:06}.jpg" for k in range(count)]
    with (images / "prompts.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "prompt", "generator", "seed"])
        rows.writerows([name, prompt(k // 4), "sd", k] for k, name in enumerate(names))
    picks = (
        {"images": [name, names[k ^ 1]], "best": k % 2, "annotator": f"person-{k % 20}"}
        for k, name in enumerate(names)
    )
    json_lines(folder / "picks.jsonl", picks)
    return Written(images, None, {"choices": str(folder / "picks.jsonl")})


def hps_benchmark(folder: Path, count: int) -> Written:
    """Images of two models in four styles."""
    styles, models = ("anime", "concept-art", "paintings", "photo"), ("sd14", "sd20")
    prompts = count // 8
    for place, style in enumerate(styles):
        texts = [prompt(place * prompts + k) for k in range(prompts)]
        (folder / f"{style}.json").write_text(json.dumps(texts))
    images = folder / "benchmark_imgs"
    places = [images / model / style for model in models for style in styles]
    _links(folder, [place / f"{k:05}.jpg" for place in places for k in range(prompts)])
    return Written(folder)


def _links(folder: Path, names: list[Path]) -> None:
    """Make image files of which many are one file with many names."""
    for place, name in enumerate(names):
        name.parent.mkdir(parents=True, exist_ok=True)
        if place % LINKS == 0:
            source = folder / f"{place}.source"
            source.write_bytes(_picture(place // LINKS))
        os.link(source, name)


def _picture(seed: int) -> bytes:
    data = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    picture = PIL.Image.fromarray(pixels).resize((PIXELS, PIXELS), PIL.Image.Resampling.BICUBIC)
    picture.save(data, "JPEG", quality=90)
    return data.getvalue()


def webdataset(folder: Path, count: int) -> Written:
    """Somebody else's tar: an image, a text and facts for each sample."""
    path = folder / "00000.tar"
    pictures = [_picture(seed) for seed in range(64)]
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            facts = json.dumps({"seed": number, "url": f"https://pictures.example/{number}.jpg"})
            _member(tar, f"{number:08}.jpg", pictures[number % 64])
            _member(tar, f"{number:08}.txt", prompt(number).encode())
            _member(tar, f"{number:08}.json", facts.encode())
    return Written(path)


def webdataset_own(folder: Path, count: int) -> Written:
    """Palate's own tar without image files: rows of images, and a pick of two for each."""
    path = folder / "00000.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            row: dict[str, Any] = dict.fromkeys(("generator", "settings", "details", "seed"))
            row |= {"image": f"{token(number)}.png", "prompt": prompt(number // 2)}
            _member(tar, f"{number:08}.json", json.dumps(row).encode())
        with io.BytesIO() as file:
            for number in range(count):
                choice = {
                    "choice": f"mine/{number}",
                    "prompt": prompt(number // 2),
                    "images": [f"{token(k)}.png" for k in (number, number ^ 1)],
                    "ranks": [1, 2],
                    "dimension": "overall",
                    "annotator": f"person-{number % 20}",
                    "source": "mine",
                    "details": None,
                }
                file.write(json.dumps(choice).encode() + b"\n")
            _member(tar, CHOICES_MEMBER, file.getvalue())
    return Written(path)


def _member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    facts = tarfile.TarInfo(name)
    facts.size = len(data)
    tar.addfile(facts, io.BytesIO(data))
