"""Measure how fast Palate scores, beside its peers and beside what the machine can do.

python benchmarks/scoring.py            # everything: three rounds, an hour or two on two cores; writes scoring-DATE.json
python benchmarks/scoring.py --quick    # a few images, one round
python benchmarks/scoring.py --quick --models ViT-L-14 --sizes 512 --only "Palate --fast,align_sd"

Every contender scores the same JPEGs with the same random weights, each in a process of its own, one after the other
and all again in each round; the best of the rounds counts, because other work on a machine can only slow one down.
The first run installs the peers and makes the weights (14 GB in --folder).
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from machine import machine
from scoring_setup import HERE, IMAGES_PER_PROMPT, make_environment, make_images, make_weights

MODELS = ("ViT-L-14", "ViT-H-14")
REFERENCE = {"ViT-L-14": "align_sd", "ViT-H-14": "hpsv2, checkpoint kept"}
ROWS = ("prepare", "forward", "end_to_end")


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A way to score: a script in ``peers`` and the environment it runs in.

    ``options`` go to the script. ``command`` is set for Palate's modes: the options of ``palate score``. ``times`` says
    how many times the fastest peer a mode promises to be.
    """

    name: str
    script: str
    environment: str = "packages"
    models: tuple[str, ...] = MODELS
    options: dict[str, Any] = field(default_factory=dict)
    command: tuple[str, ...] | None = None
    times: float | None = None


def mode(name: str, *command: str, times: float | None = None, **engine: Any) -> Contender:
    """Describe one of Palate's modes: options of ``palate score``, and arguments of ``choose_engine``."""
    return Contender(
        name=name,
        script="ours",
        environment="palate",
        options=engine,
        command=command,
        times=times,
    )


PALATE = (
    mode("Palate --exact", "--exact", times=2.2),
    mode("Palate --exact, torch", "--exact", "--backend", "torch", backend="torch"),
    mode("Palate --fast", "--fast", times=4.5, fast=True),
    mode("Palate --precision int8", "--precision", "int8", precision="int8"),
)
PEERS = (
    Contender(name="align_sd", script="align_sd", models=("ViT-L-14",)),
    Contender(name="transformers", script="transformers_docs", environment="transformers"),
    Contender(name="imscore", script="imscore_package"),
    Contender(name="hpsv2", script="hpsv2_package", models=("ViT-H-14",), options={"reload": True}),
    Contender(
        name="hpsv2, checkpoint kept",
        script="hpsv2_package",
        models=("ViT-H-14",),
        options={"reload": False},
    ),
)
LIMIT_OF_ITS_OWN = 0.85  # the share of the matrix limit that a mode with a promise reaches


# ------------------------------------------------------------------------------- one process


def run(command: Sequence[Any], places: dict[str, str]) -> dict[str, Any]:
    """Run a process; give its last line as JSON, its seconds, and the most memory it and its children had.

    What fails gives the end of its stderr under ``error``.
    """
    with tempfile.TemporaryDirectory() as cold_cache, tempfile.TemporaryFile("w+") as errors:
        environment = os.environ | places | {"PALATE_CACHE": cold_cache}
        start, peak = time.perf_counter(), 0
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        )
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            try:
                process.wait(0.5)
            except subprocess.TimeoutExpired:
                continue
        seconds = time.perf_counter() - start
        out = process.communicate()[0]
        errors.seek(0)
        if process.returncode:
            return {"error": errors.read()[-2000:]}
    lines = out.strip().splitlines()
    told = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return told | {"process": seconds, "peak_bytes": peak}


def memory(pid: int) -> int:
    """Give the bytes of a process and its children, what they share counted once; 0 where Linux does not tell."""
    total, folder = 0, Path("/proc") / str(pid)
    try:
        lines = (folder / "smaps_rollup").read_text().splitlines()
        total = sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        for task in (folder / "task").iterdir():
            total += sum(memory(int(child)) for child in (task / "children").read_text().split())
    except OSError:  # it ended meanwhile, or this is no Linux
        pass
    return total


# ------------------------------------------------------------------------------- what is measured


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Everything that a measurement needs."""

    folder: Path
    prompts: int
    sizes: tuple[int, ...]
    contenders: tuple[Contender, ...]
    seconds: float

    def python(self, contender: Contender) -> Path:
        """Give the Python that a contender runs in."""
        if contender.environment == "palate":
            return Path(sys.executable)
        return make_environment(contender.environment, self.folder)

    def weights(self, model: str) -> Path:
        """Give the folder of the weights, which the peers' open_clip makes."""
        return make_weights(model, self.folder, make_environment("packages", self.folder))


def measure(
    bench: Bench, contender: Contender, model: str, size: int, rows: Sequence[str]
) -> dict[str, Any]:
    """Run a contender's script on the images of one size."""
    job = {
        "model": model,
        "weights": str(bench.weights(model)),
        "images": make_images(bench.prompts, size, bench.folder),
        "rows": list(rows),
        "options": contender.options,
    }
    if rows == ["cold"] and contender.command is not None:
        return _command(bench, contender, job)
    script = HERE / "peers" / f"{contender.script}.py"
    return run([bench.python(contender), "-W", "ignore", script, json.dumps(job)], _quiet())


def _command(bench: Bench, contender: Contender, job: dict[str, Any]) -> dict[str, Any]:
    """Score one image by ``palate score``, as a user does."""
    path, prompt = job["images"][0]
    place = Path(job["weights"]) / job["model"]
    palate = [bench.python(contender), "-m", "palate", "score", path, "--prompt", prompt]
    return run([*palate, "--scorer", place, "--json", *(contender.command or ())], _quiet())


def _quiet() -> dict[str, str]:
    return {"HF_HUB_OFFLINE": "1", "PALATE_QUIET": "1", "TOKENIZERS_PARALLELISM": "false"}


def limits(bench: Bench, model: str) -> dict[str, Any]:
    """Measure what the machine can do at best for a model."""
    pairs = {size: make_images(1, size, bench.folder) for size in bench.sizes}
    asked = {"model": model, "seconds": bench.seconds}
    asked["images"] = {size: [path for path, _ in found] for size, found in pairs.items()}
    found = run([sys.executable, HERE / "scoring_limits.py", json.dumps(asked)], _quiet())
    if "error" in found:
        sys.exit(f"the limits of the machine could not be measured: {found['error']}")
    return found


def one_round(bench: Bench, model: str, number: int) -> dict[str, Any]:
    """Measure every contender once, beginning with another one in every round."""
    several = [contender for contender in bench.contenders if model in contender.models]
    turn = number % len(several) if several else 0
    several = several[turn:] + several[:turn]
    found: dict[str, Any] = {"limits": limits(bench, model), "cold": {}, "sizes": {}}
    for contender in several:
        _progress(number, model, contender.name, "cold")
        found["cold"][contender.name] = measure(bench, contender, model, bench.sizes[0], ["cold"])
    for size in bench.sizes:
        here = found["sizes"].setdefault(str(size), {})
        for contender in several:
            _progress(number, model, contender.name, f"{size} px")
            # what the network does does not depend on the size of the files
            rows = ROWS if size == bench.sizes[0] else ("prepare", "end_to_end")
            here[contender.name] = measure(bench, contender, model, size, rows)
    return found


def _progress(number: int, *words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} round {number + 1}:", *words, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------- what it means


def summarise(bench: Bench, model: str, rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Take the best of the rounds: images per second, seconds to the first score, and the most memory."""
    limit = _limit([found["limits"] for found in rounds])
    names = [contender.name for contender in bench.contenders if model in contender.models]
    sizes = {}
    for size in map(str, bench.sizes):
        runs = {name: [found["sizes"][size][name] for found in rounds] for name in names}
        sizes[size] = _table(model, runs, limit, bench.prompts * IMAGES_PER_PROMPT)
        for name, row in sizes[size].items():
            cold = [found["cold"][name] for found in rounds]
            row["cold_seconds"] = _least(cold, "process")
            row["forward"] = sizes[str(bench.sizes[0])][name]["forward"]
            row["error"] = row["error"] or _error(cold)
    return {"limit": limit, "sizes": sizes}


def _limit(told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put the best rates of all rounds together."""
    matrix: dict[str, dict[str, float]] = {}
    for one in told:
        for precision, engines in one["matrix"].items():
            best = matrix.setdefault(precision, {})
            for engine, rate in engines.items():
                best[engine] = max(best.get(engine, 0.0), rate)
    work = told[0]["operations_per_image"]
    return {
        "operations_per_image": work,
        "operations_per_second": matrix,
        "forward": {precision: max(rates.values()) / work for precision, rates in matrix.items()},
        "decode": {size: max(one["decode"][size] for one in told) for size in told[0]["decode"]},
    }


def _table(
    model: str,
    runs: dict[str, list[dict[str, Any]]],
    limit: dict[str, Any],
    images: int,
) -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = {}
    for name, found in runs.items():
        table[name] = {row: _rate(found, row, images) for row in ROWS}
        peaks = [one["peak_bytes"] for one in found if "peak_bytes" in one]
        table[name]["end_to_end_rounds"] = [_rate([one], "end_to_end", images) for one in found]
        table[name] |= {"peak_bytes": max(peaks, default=None), "error": _error(found)}
    reference = _cosines(runs.get(REFERENCE[model], []))
    peers = [peer.name for peer in PEERS]
    fastest = max((table[name]["end_to_end"] or 0 for name in table if name in peers), default=0)
    for contender in (*PALATE, *PEERS):
        if contender.name in table:
            row, own = table[contender.name], _cosines(runs[contender.name])
            speed = row["end_to_end"]
            row["precision"] = next(
                (one["precision"] for one in runs[contender.name] if "precision" in one), None
            )
            row["share_of_limit"] = speed / limit["forward"][row["precision"]] if speed else None
            row["times_fastest_peer"] = speed / fastest if speed and fastest else None
            row["cosine_difference"] = (
                max(abs(a - b) for a, b in zip(own, reference, strict=True))
                if own and reference
                else None
            )
    return table


def _error(found: Sequence[dict[str, Any]]) -> str | None:
    return next((one["error"] for one in found if "error" in one), None)


def _least(found: Sequence[dict[str, Any]], key: str) -> float | None:
    return min((one[key] for one in found if key in one), default=None)


def _rate(found: Sequence[dict[str, Any]], row: str, images: int) -> float | None:
    seconds = _least(found, row)
    return images / seconds if seconds else None


def _cosines(found: Sequence[dict[str, Any]]) -> list[float]:
    return next((one["cosines"] for one in found if "cosines" in one), [])


def broken_promises(summary: dict[str, Any]) -> list[str]:
    """Name the modes that are slower than they promise, and what failed."""
    sentences = []
    for model, told in summary.items():
        for size, table in told["sizes"].items():
            for contender in (*PALATE, *PEERS):
                row = table.get(contender.name)
                where = f"{contender.name}, {model}, {size} px"
                if row and row["error"]:
                    sentences.append(f"{where}: failed: {row['error'].strip().splitlines()[-1]}")
                elif row and contender.times and row["times_fastest_peer"]:
                    times, share = row["times_fastest_peer"], row["share_of_limit"]
                    if times < contender.times:
                        promised = f"promised {contender.times}"
                        sentences.append(f"{where}: {times:.2f} × the fastest peer, {promised}")
                    if share < LIMIT_OF_ITS_OWN:
                        promised = f"promised {LIMIT_OF_ITS_OWN:.0%}"
                        sentences.append(f"{where}: {share:.0%} of the limit, {promised}")
    return sentences


# ------------------------------------------------------------------------------- what is shown


HEADS = ("prepare", "forward", "end to end", "× peer", "limit", "cold s", "peak GB", "Δ cosine")


def show(summary: dict[str, Any]) -> None:
    """Print a table for each model and size."""
    for model, told in summary.items():
        limit = told["limit"]
        for size, table in told["sizes"].items():
            print(f"\n{model}, {size} px JPEGs, images per second")
            print(f"{'':26}" + "".join(f"{head:>11}" for head in HEADS))
            for name, row in table.items():
                cells = [row[key] for key in (*ROWS, "times_fastest_peer")]
                shown = [_number(value) for value in cells]
                share, peak, apart = (
                    row[key] for key in ("share_of_limit", "peak_bytes", "cosine_difference")
                )
                shown += ["" if share is None else f"{share:.0%}", _number(row["cold_seconds"])]
                shown += ["" if peak is None else f"{peak / 1e9:.2f}"]
                shown += ["" if apart is None else f"{apart:.1e}"]
                print(f"{name:26}" + "".join(f"{cell:>11}" for cell in shown))
            best = ", ".join(
                f"{precision} {limit['forward'][precision]:.2f} ({_best(engines)})"
                for precision, engines in limit["operations_per_second"].items()
            )
            print(f"{'the machine':26}{_number(limit['decode'][size]):>11} decoded; forward {best}")


def _best(engines: dict[str, float]) -> str:
    name = max(engines, key=engines.__getitem__)
    return f"{name}, {engines[name] / 1e9:.0f} GFLOP/s"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="8 images and one round")
    parser.add_argument("--prompts", type=int, help="prompts, of 4 images each; 8, or 2 if quick")
    parser.add_argument("--rounds", type=int, help="3, or 1 if quick")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--sizes", default="512,1024", help="sides of the JPEGs in pixels")
    parser.add_argument("--only", help="names of contenders, with commas; all if not given")
    parser.add_argument("--json", type=Path, help="kept there; scoring-DATE.json here if not quick")
    default = Path.home() / ".cache" / "palate-benchmarks"
    parser.add_argument("--folder", type=Path, default=default, help="peers, weights and images")
    return parser.parse_args()


def _chosen(only: str | None) -> tuple[Contender, ...]:
    everyone = (*PALATE, *PEERS)
    if only is None:
        return everyone
    # a name may have a comma of its own
    chosen = tuple(one for one in everyone if f",{one.name}," in f",{only},")
    return chosen or sys.exit(
        f"--only is {only}, expected some of {[one.name for one in everyone]}"
    )


def main() -> None:
    """Measure, show, keep, and fail where a promise is broken."""
    given = read_arguments()
    rounds = given.rounds or (1 if given.quick else 3)
    bench = Bench(
        folder=given.folder,
        prompts=given.prompts or (2 if given.quick else 8),
        sizes=tuple(map(int, given.sizes.split(","))),
        contenders=_chosen(given.only),
        seconds=0.2 if given.quick else 1.0,
    )
    models = given.models.split(",")
    measured: dict[str, list[dict[str, Any]]] = {model: [] for model in models}
    for number in range(rounds):
        for model in models:
            measured[model].append(one_round(bench, model, number))
            # hours of measuring are not lost to a fault at the end
            (bench.folder / "rounds.json").write_text(json.dumps(measured))
    summary = {model: summarise(bench, model, found) for model, found in measured.items()}
    show(summary)
    today = dt.datetime.now(dt.UTC).date().isoformat()
    kept = given.json or (None if given.quick else HERE / f"scoring-{today}.json")
    if kept:
        told = {
            "date": today,
            "machine": machine(),
            "rounds": rounds,
            "images": bench.prompts * IMAGES_PER_PROMPT,
            "contenders": [asdict(contender) for contender in bench.contenders],
            "results": summary,
        }
        kept.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    sentences = broken_promises(summary)
    print(*sentences, sep="\n")
    sys.exit(bool(sentences) and not given.quick)


if __name__ == "__main__":
    main()
