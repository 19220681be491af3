"""How often picks inferred from synthetic Discord channels are right, and how fast an export is read.

python benchmarks/discord_picks.py                  # keeps discord-picks.json
python benchmarks/discord_picks.py --megabytes 0    # the picks alone
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from machine import machine

from palate.data.importing import collect
from palate.data.records import Choice
from palate.data.sources.discord import DiscordSettings, discord
from palate.data.sources.discord.people import Pseudonyms, read_key
from palate.data.tables import to_rows

HERE = Path(__file__).parent
CHANNELS = HERE.parent / "tests" / "data" / "discord" / "channels.py"
SETTINGS = DiscordSettings(legal_basis="synthetic people")
KINDS = {
    "dreambot": ("dreambot", {}, "dreambot"),
    "midjourney 2023": ("midjourney", {"era": "2023"}, "midjourney"),
    "midjourney 2022": ("midjourney", {"era": "2022"}, "midjourney"),
    "number reactions": ("ownbot", {}, "reactions"),
}
READ = """
import json, sys, time
from pathlib import Path
from palate.data.importing import write_import
from palate.data.sources.discord import DiscordSettings, discord
path, folder = Path(sys.argv[1]), Path(sys.argv[2])
settings = DiscordSettings(legal_basis="synthetic people", dialect="midjourney", media=False)
start = time.perf_counter()
result = write_import(discord(path, folder / "key", settings), folder / "out")
seconds = time.perf_counter() - start
# ru_maxrss of a child begins at what its parent had; the kernel's own count does not
status = Path("/proc/self/status").read_text()
peak = 1024 * int(status.partition("VmHWM:")[2].split()[0])
print(json.dumps({"seconds": seconds, "peak_bytes": peak, "messages": result["records"]}))
"""


def channels() -> Any:
    """Give the module that makes channels, which belongs to the tests."""
    name = "palate_channels"
    spec = spec_from_file_location(
        name, CHANNELS, submodule_search_locations=[str(CHANNELS.parent)]
    )
    if spec is None or spec.loader is None:
        sys.exit(f"{CHANNELS} could not be loaded")
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def judge(made: Any, kind: str, seed: int, grids: int, folder: Path) -> dict[str, Counter[str]]:
    """Count, by rule, picks that are right, wrong and not found; what no rule can see is counted apart."""
    make, options, dialect = KINDS[kind]
    channel = getattr(made, make)(seed, grids=grids, **options)
    [path] = made.write(channel, folder / "export")
    imported = collect(discord(path, folder / "key", replace(SETTINGS, dialect=dialect)))
    names = Pseudonyms(read_key(folder / "key"))
    found = {}
    for row in to_rows(imported.choices, Choice):
        details = json.loads(row.details or "")
        found[details["grid_message"]] = (details["picked"][0], details["rule"])
    truth: dict[str, list[Any]] = {}
    for one in channel.truths:
        if not one.extra.get("other"):
            truth.setdefault(names.message(int(one.grid_message)), []).append(one)
    counts: dict[str, Counter[str]] = {}
    for grid, ones in truth.items():
        places = {one.picked for one in ones if one.picked is not None}
        if grid in found:
            place, rule = found[grid]
            meant = places == {place} and not any(one.extra.get("excluded") for one in ones)
            counts.setdefault(rule, Counter())["right" if meant else "wrong"] += 1
        elif len(places) == 1:
            seen = not any(one.extra.get("beyond") or one.extra.get("excluded") for one in ones)
            rule = next(one.rule for one in ones if one.picked is not None)
            counts.setdefault(rule, Counter())["not found" if seen else "beyond the rules"] += 1
    return counts


def speed(made: Any, megabytes: int, folder: Path) -> dict[str, Any]:
    """Read a large export in a process of its own."""
    path = folder / "export.json"
    made.huge(path, megabytes, 1)
    call = [sys.executable, "-c", READ, str(path), str(folder)]
    quiet = os.environ | {"PALATE_QUIET": "1"}
    run = subprocess.run(call, capture_output=True, text=True, check=True, env=quiet)
    told: dict[str, Any] = json.loads(run.stdout)
    size = path.stat().st_size
    return {"bytes": size, "megabytes_per_second": size / 1e6 / told["seconds"], **told}


def main() -> None:
    """Measure, show and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="channels of each kind")
    parser.add_argument("--grids", type=int, default=400, help="grids of each channel")
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the large export")
    parser.add_argument("--json", type=Path, default=HERE / "discord-picks.json")
    given = parser.parse_args()
    made = channels()
    rows = []
    for kind in KINDS:
        total: dict[str, Counter[str]] = {}
        for seed in range(100, 100 + given.seeds):
            with tempfile.TemporaryDirectory() as folder:
                found = judge(made, kind, seed, given.grids, Path(folder))
            for rule, counts in found.items():
                total.setdefault(rule, Counter()).update(counts)
        for rule, counts in sorted(total.items()):
            rows.append({"channel": kind, "rule": rule, **counts})
            print(kind, rule, dict(counts))
    told = {"date": datetime.now(UTC).date().isoformat(), "machine": machine(), "picks": rows}
    told |= {"seeds": given.seeds, "grids": given.grids}
    if given.megabytes:
        with tempfile.TemporaryDirectory() as folder:
            told["large"] = speed(made, given.megabytes, Path(folder))
        print(told["large"])
    given.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
