"""Tables of any size in the official layout of each set: JSON, CSV and Parquet that only name images."""

from __future__ import annotations

import csv
import datetime as dt
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_THINGS = ("a red fox", "an old lighthouse", "two astronauts", "a glass teapot", "a market street")
_DOINGS = ("resting under a crooked tree", "seen through morning fog", "on a table of dark wood")
_STYLES = (
    *("oil on canvas", "35 mm photograph, shallow depth of field", "watercolour, soft light"),
    *("concept art, highly detailed, artstation", "anime key visual", "flat vector illustration"),
)
_WHEN = dt.datetime(2023, 3, 5, 7, 8, 9, tzinfo=dt.UTC)


def prompt(number: int) -> str:
    """Give prompt `number`: 65 to 110 characters, each another one."""
    thing, doing = _THINGS[number % 5], _DOINGS[number // 5 % 3]
    return f"{thing} {doing}, {_STYLES[number // 15 % 6]}, variation {number} of the series"


def token(*parts: object, length: int = 32) -> str:
    """Give the hexadecimal name of something, always the same."""
    return blake2b(repr(parts).encode(), digest_size=length // 2).hexdigest()


@dataclass(frozen=True)
class Written:
    """What a reader is given: its path, the folder of images, and settings."""

    path: Path
    images: Path | None = None
    settings: dict[str, Any] | None = None


def json_list(path: Path, records: Iterable[dict[str, Any]]) -> Written:
    """Write a JSON list, a record a line."""
    with path.open("w") as file:
        for number, record in enumerate(records):
            file.write((",\n" if number else "[") + json.dumps(record))
        file.write("]\n")
    return Written(path)


def json_lines(path: Path, records: Iterable[dict[str, Any]]) -> Written:
    """Write JSON Lines."""
    with path.open("w") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    return Written(path)


def parquet(path: Path, schema: Any, rows: Iterable[dict[str, Any]]) -> Written:
    """Write a Parquet file, a group of rows at a time."""
    rows = iter(rows)
    with pq.ParquetWriter(path, schema) as writer:
        while some := list(islice(rows, 20_000)):
            writer.write_table(pa.Table.from_pylist(some, schema=schema))
    return Written(path)


def hpd_v1(folder: Path, count: int) -> Written:
    """Picks of four images."""
    records = (
        {
            "human_preference": number % 4,
            "prompt": prompt(number),
            "id": number,
            "file_path": [f"preference_images/{token(number, k)}.jpg" for k in range(4)],
            "user_hash": token(number, "user"),
            "contain_name": number % 50 == 0,
        }
        for number in range(count)
    )
    return json_list(folder / "preference_train.json", records)


def hpd_v2_pairs(folder: Path, count: int) -> Written:
    """Pairs; a prompt has four images, and all six pairs of them were shown."""
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    records = (
        {
            "human_preference": [1, 0] if number % 3 else [0, 1],
            "prompt": prompt(number // 6),
            "file_path": [f"{number // 6 * 4 + k:08}.jpg" for k in pairs[number % 6]],
        }
        for number in range(count)
    )
    return json_list(folder / "train.json", records)


def hpd_v2_rankings(folder: Path, count: int) -> Written:
    """Rankings of nine images by ten people each."""
    ranks = [list(np.random.default_rng(seed).permutation(9).tolist()) for seed in range(97)]
    records = (
        {
            "prompt": prompt(number),
            "image_path": [f"{number * 9 + k:08}.jpg" for k in range(9)],
            "rank": [rank + 1 for rank in ranks[number % 97]],
            "raw_annotations": [
                {
                    "rank": [rank + 1 for rank in ranks[(number + who) % 97]],
                    "user_hash": token(number % 57, who),
                }
                for who in range(min(10, count - 10 * number))
            ],
        }
        for number in range((count + 9) // 10)
    )
    return json_list(folder / "test.json", records)


def image_reward(folder: Path, count: int) -> Written:
    """Rankings of four to nine images with ties."""
    records = (
        {
            "id": f"{number:06}-0000",
            "prompt": prompt(number),
            "generations": [f"images/{token(number, k)}.webp" for k in range(4 + number % 6)],
            "ranking": [1 + (k * 7 + number) % 5 for k in range(4 + number % 6)],
        }
        for number in range(count)
    )
    return json_list(folder / "test.json", records)


def image_reward_db(folder: Path, count: int) -> Written:
    """Four to nine rows for a prompt, each an image with a rank and three ratings: four choices."""

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(count // 4):
            amount = 4 + number % 6
            for k in range(amount):
                yield {
                    "image_path": f"images/train/train_{number % 32 + 1}/{token(number, k)}.webp",
                    "prompt_id": f"{number:06}-{number % 97:04}",
                    "prompt": prompt(number),
                    "classification": "Abstract & Conceptual",
                    "image_amount_in_total": amount,
                    "rank": 1 + (k * 7 + number) % amount,
                    "overall_rating": 1 + (k * 3 + number) % 7,
                    "image_text_alignment_rating": 1 + (k * 5 + number) % 7,
                    "fidelity_rating": 1 + (k + number) % 7,
                }

    return json_list(folder / "metadata-train.json", rows())


def pick_a_pic(folder: Path, count: int) -> Written:
    """Pairs without the images inside: five for a prompt, in which one image stays."""
    schema = pa.schema(
        [
            ("are_different", pa.bool_()),
            ("best_image_uid", pa.string()),
            ("caption", pa.string()),
            ("created_at", pa.timestamp("ns")),
            ("has_label", pa.bool_()),
            *((f"image_{k}_{what}", pa.string()) for k in (0, 1) for what in ("uid", "url")),
            *((f"label_{k}", pa.float64()) for k in (0, 1)),
            *((f"model_{k}", pa.string()) for k in (0, 1)),
            *((name, pa.int64()) for name in ("ranking_id", "user_id", "num_example_per_prompt")),
        ]
    )

    def row(number: int) -> dict[str, Any]:
        prompts, place = divmod(number, 5)
        uids = [uuid(prompts, k) for k in (place, place + 1)]
        labels = ((1.0, 0.0), (0.0, 1.0), (0.5, 0.5))[number % 3]
        return {
            "are_different": True,
            "best_image_uid": uids[labels.index(1.0)] if 1.0 in labels else "tie",
            "caption": prompt(prompts),
            "created_at": (_WHEN + dt.timedelta(seconds=number)).replace(tzinfo=None),
            "has_label": True,
            **{f"image_{k}_uid": uids[k] for k in (0, 1)},
            **{f"image_{k}_url": f"https://pictures.example/{uids[k]}.png" for k in (0, 1)},
            **{f"label_{k}": labels[k] for k in (0, 1)},
            "model_0": "stabilityai/stable-diffusion-2-1",
            "model_1": "dreamlike-art/dreamlike-photoreal-2.0",
            "ranking_id": number + 1000,
            "user_id": prompts % 4375,
            "num_example_per_prompt": 5,
        }

    return parquet(folder / "train.parquet", schema, map(row, range(count)))


def uuid(*parts: object) -> str:
    """Give the name of something in the form of a UUID, always the same."""
    name = token(*parts)
    return "-".join((name[:8], name[8:12], name[12:16], name[16:20], name[20:]))


def agiqa_3k(folder: Path, count: int) -> Written:
    """Ten images of a prompt with two mean opinions each: two choices."""
    path = folder / "data.csv"
    header = "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align"
    makers = ("AttnGAN", "DALLE2", "glide", "midjourney", "sd1.5", "xl2.2", "a", "b", "c", "d")
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(header.split(","))
        for number in range(count // 2):
            for k, maker in enumerate(makers):
                means = [f"{(number * 7 + k * 13) % 4500 / 1000:.5f}" for _ in (0, 1)]
                texts = [prompt(number), "soft lighting", "", "abstract style"]
                name = f"{maker}_normal_{number:03}.jpg"
                rows.writerow([name, *texts, means[0], 0.51234, means[1], 0.41234])
    return Written(path)


def agiqa_1k(folder: Path, count: int) -> Written:
    """Two images of a prompt with a mean opinion each; the prompt is in the name."""
    path = folder / "AIGC_all.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Image", "Score"])
        for number in range(count):
            named = f"{_THINGS[number % 5]}-{number}_playing yoga_city_anime style.jpg"
            for k, maker in enumerate(("deepai", "stable-inpainting")):
                rows.writerow([f"{maker}_{named}", (number * 7 + k) % 1000 / 10])
    return Written(path)


def mhp(folder: Path, count: int) -> Written:
    """Pairs judged on four dimensions: four choices a line."""
    records = (
        {
            "prompt": prompt(number),
            "images": [f"images/{token(number, k)}.png" for k in (0, 1)],
            "choices": {
                "overall": number % 2,
                "aesthetics": 0,
                "detail": "tie" if number % 7 == 0 else 1,
                "alignment": (number + 1) % 2,
            },
            "generators": ["sd-xl", "dall-e-2"],
            "annotator": f"person-{number % 198}",
            "category": "animals",
            "id": f"pair-{number}",
        }
        for number in range(count // 4)
    )
    return json_lines(folder / "pairs.jsonl", records)


def diffusion_db(folder: Path, count: int) -> Written:
    """The metadata alone."""
    kinds: dict[str, Any] = {
        "image_name": pa.string(),
        "prompt": pa.string(),
        "part_id": pa.uint16(),
        "seed": pa.uint32(),
        "step": pa.uint16(),
        "cfg": pa.float32(),
        "sampler": pa.uint8(),
        "width": pa.uint16(),
        "height": pa.uint16(),
        "user_name": pa.string(),
        "timestamp": pa.timestamp("ms", "UTC"),
        "image_nsfw": pa.float32(),
        "prompt_nsfw": pa.float32(),
    }

    def row(number: int) -> dict[str, Any]:
        values = [f"{uuid(number)}.png", prompt(number // 4), number // 1000 + 1]
        values += [token(number)[:1].encode()[0] * number % 2**32, 50, 7 + number % 10 / 10]
        values += [number % 9 + 1, 512, 512, token(number % 10_000, length=64)]
        values += [_WHEN + dt.timedelta(seconds=number), number % 997 / 1000, number % 991 / 1000]
        return dict(zip(kinds, values, strict=True))

    return parquet(folder / "metadata.parquet", pa.schema(kinds), map(row, range(count)))


def ratings(folder: Path, count: int) -> Written:
    """Four images of a prompt rated by a person; fifty people rate the same."""
    path = folder / "ratings.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["rater", "image", "value", "dimension", "prompt"])
        for number in range(count):
            prompts, who = divmod(number, 50)
            for k in range(4):
                image = f"images/{token(prompts, k)}.png"
                value = (who * 3 + k * 5 + prompts) % 11
                rows.writerow([f"person-{who}", image, value, "appeal", prompt(prompts)])
    return Written(path, folder, {"prompt": "prompt", "missing_images": "keep"})
