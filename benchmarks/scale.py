"""Plan the scoring of DiffusionDB's 14 million images on 1, 8 and 64 GPUs, from what was measured here.

Measured by this script: how many lossless WebP images of 512 pixels one core opens and prepares in a second (the large
set's format), and how many bytes they are. Not measured, because no GPU was at hand: the rate of a GPU. It is put at a
share of what its products allow, and that is said in the result. Prices are parameters.

python benchmarks/scale.py --json benchmarks/scale.json --write docs/scale.md
"""

from __future__ import annotations

import argparse
import datetime as dt
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from PIL import Image

from palate.models.pixels import PROFILES, decode_picture, ready

IMAGES, PROMPTS, BYTES = 14_000_000, 1_800_000, 6.5e12
"""DiffusionDB Large as its page gives it: images, distinct prompts, bytes."""

GFLOP = {"ViT-L/14": 162, "ViT-H/14": 335}
FEATURE_BYTES = {"ViT-L/14": 768 * 4, "ViT-H/14": 1024 * 4}
START, END = "<!-- figures -->\n", "<!-- end of figures -->\n"


def picture(size: int, seed: int) -> Image.Image:
    """A picture with the spectrum of a photograph: noise, weaker the finer it is."""
    rng = np.random.default_rng(seed)
    far = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    far[0, 0] = 1 / size
    waves = rng.normal(size=(3, size, size)) + 1j * rng.normal(size=(3, size, size))
    fields = np.fft.ifft2(waves / far**1.3).real
    fields = (fields - fields.mean()) / fields.std()
    return Image.fromarray(np.clip(128 + 50 * fields, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def measure_decode(kind: str, seconds: float = 3.0) -> dict[str, float]:
    """Open and prepare images on one core; give how many in a second, and their bytes."""
    files = []
    for seed in range(4):
        sink = io.BytesIO()
        picture(512, seed).save(sink, kind, **({"lossless": True} if kind == "WEBP" else {}))
        files.append(sink.getvalue())
    how, done, start = PROFILES["openai-clip"], 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        ready(decode_picture(files[done % len(files)], "picture"), how)
        done += 1
    return {"a_second": done / spent, "bytes": float(np.mean([len(data) for data in files]))}


def plan(model: str, gpus: int, given: argparse.Namespace, decode: float) -> dict[str, Any]:
    """Give rates, hours, bytes and cost for a number of GPUs, and what holds them up."""
    limit = given.tflops * 1e12 / (GFLOP[model] * 1e9)
    wanted = given.share * limit
    opened = given.cores * decode
    each = min(wanted, opened)
    network = each * BYTES / IMAGES
    hours = IMAGES / (each * gpus) / 3600
    return {
        "model": model,
        "gpus": gpus,
        "gpu_images_a_second": round(wanted),
        "opened_a_second": round(opened),
        "images_a_second": round(each * gpus),
        "held_up_by": "opening images" if opened < wanted else "the GPU",
        "cores_a_gpu_needs": int(np.ceil(wanted / decode)),
        "hours": hours,
        "read_gbit_a_second": network * gpus * 8 / 1e9,
        "cost": hours * gpus * given.price,
        "score_table_gb": IMAGES * given.row_bytes / 1e9,
        "features_gb": IMAGES * FEATURE_BYTES[model] / 1e9,
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Write the plans for people."""
    head = (
        "| tower | GPUs | GPU alone, images/s | 16 cores open, images/s | together | held up by | cores a GPU needs | hours "
        "| reads, Gbit/s | cost |"
    )
    lines = [head, "| --- " * 10 + "|"]
    lines += [
        f"| {row['model']} | {row['gpus']} | {row['gpu_images_a_second']:,} | {row['opened_a_second']:,} "
        f"| {row['images_a_second']:,} | {row['held_up_by']} | {row['cores_a_gpu_needs']} | {row['hours']:.2f} "
        f"| {row['read_gbit_a_second']:.1f} | {row['cost']:,.0f} |"
        for row in rows
    ]
    return lines


def shown(content: dict[str, Any]) -> list[str]:
    """Write what was measured and planned for people."""
    opened = [
        f"| {'lossless WebP' if kind == 'WEBP' else kind} | {found['a_second']:.0f} | {found['bytes'] / 1000:.0f} |"
        for kind, found in content["one_core"].items()
    ]
    return [
        f"One core of this machine opens and prepares, of pictures of 512 × 512 ({content['date']}):",
        "",
        "| format | images/s | kB an image |",
        "| --- | --- | --- |",
        *opened,
        "",
        *table(content["plans"]),
    ]


def filled(page: str, content: dict[str, Any]) -> str:
    """Give the page with the figures."""
    before, _, rest = page.partition(START)
    after = rest.partition(END)[2]
    return f"{before}{START}\n" + "\n".join(shown(content)) + f"\n\n{END}{after}"


def main() -> None:
    """Measure, plan, print, keep and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tflops", type=float, default=780.0, help="bfloat16 products of a GPU")
    parser.add_argument("--share", type=float, default=0.6, help="what of them a tower is put at")
    parser.add_argument("--cores", type=int, default=16, help="processor cores beside each GPU")
    parser.add_argument(
        "--price", type=float, default=3.0, help="of a GPU with its cores for an hour"
    )
    parser.add_argument("--row-bytes", type=float, default=60.0, help="of a score in Parquet")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write", type=Path, help="put the tables into this page")
    given = parser.parse_args()
    decode = {kind: measure_decode(kind) for kind in ("WEBP", "PNG", "JPEG")}
    rows = [
        plan(model, gpus, given, decode["WEBP"]["a_second"])
        for model in GFLOP
        for gpus in (1, 8, 64)
    ]
    content = {
        "command": "python benchmarks/scale.py --json benchmarks/scale.json --write docs/scale.md",
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "machine": machine(),
        "assumed": {
            "tflops": given.tflops,
            "share": given.share,
            "cores": given.cores,
            "price": given.price,
            "images": IMAGES,
            "prompts": PROMPTS,
            "bytes": BYTES,
        },
        "one_core": decode,
        "plans": rows,
    }
    lines = shown(content)
    print("\n".join(lines))
    if given.json:
        given.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    if given.write:
        page = given.write.read_text("utf-8")
        before, _, rest = page.partition(START)
        after = rest.partition(END)[2]
        given.write.write_text(
            f"{before}{START}\n" + "\n".join(lines) + f"\n\n{END}{after}", "utf-8"
        )


if __name__ == "__main__":
    main()
