"""How many rows a second every reader reads, and whether its memory grows with the file.

python benchmarks/readers.py                    # keeps readers.json
python benchmarks/readers.py --quick            # the small files alone; keeps nothing
python benchmarks/readers.py --only mhp agiqa-3k    # measures two again, and keeps the others' figures

Each file is made by reader_files.py. The import runs in a process of its own, from the file to the tables
of a data set; neither making the file nor starting Python counts. Rates are by processor time, of which a
reader uses one core, so that other work on the machine counts little. A size that would take longer than
`--limit` seconds of it, by the size before, is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from machine import machine

HERE = Path(__file__).parent
KEPT = HERE / "readers.json"
SIZES = (5_000, 100_000, 1_000_000)
# by name: the function in palate.data.sources, and what the file is
READERS = {
    "hpd-v1": ("hpd_v1:hpd_v1", "JSON, four images a record"),
    "hpd-v2 pairs": ("hpd_v2:hpd_v2", "JSON, pairs"),
    "hpd-v2 rankings": ("hpd_v2:hpd_v2", "JSON, nine images, ten people a record"),
    "image-reward": ("image_reward:image_reward", "JSON, four to nine images a record"),
    "image-reward rows": (
        "image_reward:image_reward",
        "JSON, an image a row; 6.5 rows are four choices",
    ),
    "pick-a-pic": ("pick_a_pic:pick_a_pic", "Parquet without images, pairs"),
    "agiqa-3k": ("agiqa:agiqa_3k", "CSV; ten rows are two choices"),
    "agiqa-1k": ("agiqa:agiqa_1k", "CSV; two rows are a choice"),
    "mhp": ("mhp:mhp", "JSON Lines, four choices a line"),
    "rich-hf": (
        "rich_hf:rich_hf",
        "TFRecord, two heat maps of 512 px a record; two records are four choices",
    ),
    "simulacra": ("simulacra:simulacra", "SQLite, three rated images a choice"),
    "ratings": ("ratings", "CSV, four rows a choice"),
    "folder": ("folder", "JPEG files of 64 px, CSV, JSON Lines"),
    "diffusion-db": ("diffusion_db:diffusion_db", "Parquet without images"),
    "hps-benchmark": ("hps_benchmark:hps_benchmark", "JPEG files of 64 px, JSON"),
    "webdataset": ("webdataset:webdataset", "tar with JPEG files of 64 px, texts and JSON"),
    "webdataset own": ("webdataset:webdataset", "Palate's own tar without image files"),
}
# an import opens every image: they count files, not rows, and larger ones say nothing new
WITH_FILES = {"folder", "hps-benchmark", "webdataset"}
READ = """
import json, resource, sys, time
from importlib import import_module
from pathlib import Path
class NoPandas:
    # Palate needs none; where it is installed, Arrow loads all 60 MB of it
    def find_spec(name, *rest):
        if name == "pandas":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoPandas)
from palate.data.importing import imported_source, write_import
reader, told, out = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])
path, images, own = Path(told["path"]), told["images"] and Path(told["images"]), told["settings"]
name, _, function = reader.partition(":")
module = import_module(f"palate.data.sources.{name}")
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, start, work = peak(), time.perf_counter(), time.process_time()
if reader == "ratings":
    settings = module.RatingsSettings(**own)
    imported = module.read_ratings(path, images, None, settings)
    source = imported_source(reader, settings, {"ratings": path}, imported, images)
elif reader == "folder":
    choices, settings = Path(own["choices"]), module.FolderSettings()
    imported = module.read_folder(path, None, choices, settings)
    source = imported_source(reader, settings, {"choices": choices}, imported, path)
else:
    source = getattr(module, function)(path, images)
found = write_import(source, out)
told = {"seconds": time.perf_counter() - start, "processor_seconds": time.process_time() - work}
told |= {"peak_bytes": peak(), "start_bytes": before}
told |= {name: found[name] for name in ("images", "choices")}
print(json.dumps(told))
"""


def measure(name: str, size: int, folder: Path) -> dict[str, Any]:
    """Make a file and import it, each in a process of its own: a process starts with the peak of its parent."""
    quiet = os.environ | {"PALATE_QUIET": "1"}
    make = [sys.executable, str(HERE / "reader_files.py"), name, str(size), str(folder)]
    made = subprocess.run(make, capture_output=True, text=True, check=False, env=quiet)
    if made.returncode:
        raise RuntimeError(made.stderr)
    told = json.loads(made.stdout)
    read = [sys.executable, "-c", READ, READERS[name][0], json.dumps(told), str(folder / "out")]
    run = subprocess.run(read, capture_output=True, text=True, check=False, env=quiet)
    if run.returncode:
        raise RuntimeError(run.stderr)
    found: dict[str, Any] = json.loads(run.stdout)
    rate = (found["choices"] or found["images"]) / found["processor_seconds"]
    return {"size": size, "bytes": told["bytes"], "rows_per_second": rate, **found}


def sizes_of(name: str, sizes: list[int]) -> list[int]:
    """The sizes that make sense for a reader: one for those that open every image."""
    return sorted(sizes)[:1] if name in WITH_FILES else sorted(sizes)


def reader(name: str, sizes: list[int], limit: float, folder: Path) -> dict[str, Any]:
    """Measure one reader at each size, until the next would take too long."""
    rows: list[dict[str, Any]] = []
    left_out: list[int] = []
    for size in sizes_of(name, sizes):
        if rows and rows[-1]["processor_seconds"] * size / rows[-1]["size"] > limit:
            left_out.append(size)
            continue
        with tempfile.TemporaryDirectory(dir=folder) as made:
            rows.append(measure(name, size, Path(made)))
        print(line(name, rows[-1]), flush=True)
    day = datetime.now(UTC).date().isoformat()
    return {"date": day, "file": READERS[name][1], "runs": rows, "left_out": left_out}


def line(name: str, row: dict[str, Any]) -> str:
    """One row of the printed table."""
    what = "choices" if row["choices"] else "images"
    return (
        f"{name:18} {row['size']:>9,} {what:8} {row['rows_per_second']:>9,.0f} a second "
        f"{row['processor_seconds']:>6.1f} s of {row['seconds']:>6.1f} s {row['peak_bytes'] / 1e6:>7,.0f} MB peak "
        f"({row['start_bytes'] / 1e6:,.0f} at the start)  file {row['bytes'] / 1e6:>7,.1f} MB"
    )


def keep(path: Path, facts: dict[str, Any], name: str, found: dict[str, Any]) -> None:
    """Keep what was measured of one reader, and what the file has of the others."""
    readers = json.loads(path.read_text("utf-8"))["readers"] if path.exists() else {}
    readers[name] = found
    facts["readers"] = {one: readers[one] for one in READERS if one in readers}
    path.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


def main() -> int:
    """Measure, show and keep; fail where a reader did."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(READERS), default=list(READERS))
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--limit", type=float, default=180, help="seconds an import may take")
    parser.add_argument("--quick", action="store_true", help="small files alone; keeps nothing")
    parser.add_argument("--folder", type=Path, help="where the files are made")
    parser.add_argument("--json", type=Path, default=KEPT, help="where the figures are kept")
    given = parser.parse_args()
    sizes = list(SIZES[:1]) if given.quick else given.sizes
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "command": f"python benchmarks/readers.py --sizes {' '.join(map(str, sizes))} --limit {given.limit:g}",
        "limit_seconds": given.limit,
    }
    failed = 0
    for name in given.only:
        try:
            found = reader(name, sizes, given.limit, given.folder)
        except RuntimeError as fault:
            failed += 1
            print(f"{name}: failed, {str(fault).strip().splitlines()[-1]}", flush=True)
            continue
        if not given.quick:
            keep(given.json, facts, name, found)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
