"""Whether the memory of scoring grows with the number of rows: peaks of a small and a large manifest.

Its images are a hundred small files, each with many prompts, so that the features come from the cache and the rows
count, not the network. Every run is a process of its own, whose peak the system tells.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES = 100
GROWTH = 1.25
RUN = """
import resource, sys
from palate.cli.main import main
code = main(sys.argv[1:])
own, others = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(f"peak {own} {others}", file=sys.stderr)
sys.exit(code)
"""


def write_manifest(folder: Path, rows: int) -> Path:
    """Write a manifest of so many pairs; each prompt has a hundred images."""
    path = folder / f"{rows}.csv"
    with path.open("w") as file:
        file.write("image,prompt\n")
        for row in range(rows):
            file.write(f"{row % IMAGES}.png,a red ball left of a blue box number {row // IMAGES}\n")
    return path


def measure(manifest: Path, out: Path, cache: Path) -> dict[str, float]:
    """Score a manifest; give the peak in MB of the process and of its largest helper, and the seconds."""
    command = [
        "score",
        str(manifest),
        "--scorer",
        "miniature",
        "--out",
        str(out),
        "--cache",
        str(cache),
    ]
    start = time.monotonic()
    found = subprocess.run(
        [sys.executable, "-c", RUN, *command],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PALATE_QUIET": "1"},
    )
    seconds = time.monotonic() - start
    own, helper = (int(part) / 1000 for part in found.stderr.split("peak ")[1].split())
    return {"peak_mb": round(own), "helper_mb": round(helper), "seconds": round(seconds, 1)}


def main() -> int:
    """Measure, print, and fail where memory grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs=2, default=[10_000, 1_000_000])
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        random = np.random.default_rng(0)
        for number in range(IMAGES):
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
        for ending in ("parquet", "csv"):
            for count in asked.rows:
                manifest = write_manifest(folder, count)
                found = measure(manifest, folder / f"scores-{count}.{ending}", folder / "cache")
                rows[f"{count} rows, {ending}"] = found
                print(f"{count:>9} rows, {ending:8} {found}")
    few, many = asked.rows
    growth = {
        ending: round(
            rows[f"{many} rows, {ending}"]["peak_mb"] / rows[f"{few} rows, {ending}"]["peak_mb"], 3
        )
        for ending in ("parquet", "csv")
    }
    print(f"growth: {growth}, expected at most {GROWTH}")
    if asked.json:
        facts = {
            "command": f"python benchmarks/memory.py --rows {few} {many}",
            "date": datetime.now(UTC).date().isoformat(),
            "hardware": f"{os.cpu_count()} cores {platform.machine().replace('_', '-')}",
            "growth": growth,
            "runs": rows,
        }
        asked.json.write_text(json.dumps(facts, indent=2) + "\n")
    return int(max(growth.values()) > GROWTH)


if __name__ == "__main__":
    sys.exit(main())
