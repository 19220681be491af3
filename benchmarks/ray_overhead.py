"""Measure what the Ray engine adds to a run: the time until the first piece is scored, and the time of an empty piece.

A piece here is one row without an image, so that next to nothing is scored. Local engine and a cluster started on this
machine do the same pieces. The large pieces are described by more bytes than the object store holds.

python benchmarks/ray_overhead.py --json benchmarks/ray-overhead.json --write docs/scale.md
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from machine import machine

from palate.scoring.engine import Engine
from palate.scoring.pieces import HeldPiece, Row, Survey
from palate.scoring.ray_engine import Cluster, RayEngine
from palate.scoring.recipe import Recipe
from palate.scoring.score import Job, ScoreSettings, score_pieces
from palate.scoring.shards import Shards

START, END = "<!-- overhead -->\n", "<!-- end of overhead -->\n"


def pieces(count: int, size: int) -> Iterator[HeldPiece]:
    """Give pieces of one row, each described by about so many bytes."""
    for number in range(count):
        yield HeldPiece(f"piece {number}", (Row(str(number), "x" * size),))


def measure(engine: Callable[..., Any], count: int, size: int) -> dict[str, float]:
    """Score pieces; give seconds to the first table, from one to the next, and from the last to the end."""
    judges = Recipe(scorers=("miniature",)).load()
    survey = Survey(count, count, count, 0, "", "")
    with tempfile.TemporaryDirectory() as folder:
        shards, start = Shards(Path(folder) / "shards"), time.time()
        done = engine(Job(pieces(count, size), judges, ScoreSettings(), survey, shards, None))
        end = time.time()
        times = sorted(path.stat().st_mtime for path in (Path(folder) / "shards").iterdir())
    assert (done.pieces, len(times)) == (count, count)
    return {
        "pieces": count,
        "bytes_of_each": size,
        "first": times[0] - start,
        "each": (times[-1] - times[0]) / (count - 1),
        "end": end - times[-1],
    }


def shown(content: dict[str, Any]) -> list[str]:
    """Write the figures for people."""
    lines = [
        f"On {content['machine']['cores']} cores ({content['date']}), with pieces that hold nothing to score:",
        "",
        "| | to the first piece, s | from one piece to the next, ms | from the last to the end, s |",
        "| --- | --- | --- | --- |",
    ]
    return lines + [
        f"| {name} | {row['first']:.1f} | {1000 * row['each']:.1f} | {row['end']:.1f} |"
        for name, row in content["results"].items()
    ]


def filled(page: str, content: dict[str, Any]) -> str:
    """Give the page with the figures."""
    before, _, rest = page.partition(START)
    return f"{before}{START}\n" + "\n".join(shown(content)) + f"\n\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Measure, print, keep and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write", type=Path, help="put the table into this page")
    given = parser.parse_args()
    os.environ["PALATE_QUIET"] = "1"
    recipe = Recipe(scorers=("miniature",))
    one = RayEngine(recipe, Engine(), Cluster(workers=1))
    two = RayEngine(recipe, Engine(), Cluster(workers=2))
    results = {
        "the local engine": measure(score_pieces, 1000, 50_000),
        "Ray, one worker": measure(one, 1000, 50_000),
        "Ray, two workers": measure(two, 1000, 50_000),
        "Ray, two workers, 300 MB of descriptions": measure(two, 3000, 100_000),
    }
    content = {
        "command": "python benchmarks/ray_overhead.py --json benchmarks/ray-overhead.json --write docs/scale.md",
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "machine": machine(),
        "results": results,
    }
    print("\n".join(shown(content)))
    if given.json:
        given.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    if given.write:
        given.write.write_text(filled(given.write.read_text("utf-8"), content), "utf-8")


if __name__ == "__main__":
    main()
