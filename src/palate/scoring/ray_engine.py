"""The pieces of a run scored by several processes, on this machine or on many, through Ray Data."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import tempfile
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from palate.errors import MissingExtraError, PalateError, RunError, SettingsError
from palate.runs import track
from palate.scoring.engine import Engine
from palate.scoring.looking import Shelf
from palate.scoring.output import Counts
from palate.scoring.pieces import Piece
from palate.scoring.recipe import Recipe
from palate.scoring.score import Done, Job, ScoreSettings, Task, find_tasks, label, score_piece
from palate.scoring.scorer import Scorer
from palate.scoring.shards import Shards

_TRIES = 3
_STORE_BYTES = 128 * 2**20
# Read when Ray is imported or started: it reports nothing, draws nothing, spills nothing, and is quiet.
_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # of what it would print on stdout when a worker dies
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_automatic_object_spilling_enabled": "0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where workers run: a cluster that is started on this machine and stopped again, or the one at ``address``.

    Each of ``workers`` processes holds the scorers once. None takes one for each GPU or, on processors, for each
    machine; the cores of a machine are divided among its workers. A worker that dies is replaced and its piece scored
    again; a piece with which three have died ends the run. Only descriptions of pieces and counts travel through Ray's
    object store, a few at a time: it has 128 MB here, and nothing of it goes to disk.
    """

    address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        """Refuse numbers below one."""
        if self.workers is not None and self.workers < 1:
            raise SettingsError(f"ray workers is {self.workers}, expected at least 1")


@dataclass(frozen=True, slots=True)
class RayEngine:
    """Scores pieces on a cluster: the tables, their files and their order are those of the local engine."""

    recipe: Recipe
    engine: Engine
    cluster: Cluster

    def __call__(self, job: Job) -> Done:
        """Score the pieces that are not there yet.

        Raises RunError for a piece with which workers die, and what a worker raises for its user.
        """
        counts = [Counts() for _ in job.judges]
        done = track(job.survey.ticks(), label(job.judges), job.survey.rows)
        found: dict[int, _Told] = {}
        how: dict[str, Any] = {}
        with tempfile.TemporaryDirectory(prefix="palate-") as folder:
            spool = Path(folder) / "pieces"
            tasks = find_tasks(job.pieces, job.bench(), job.shards, counts)
            total, waiting = _write_spool(spool, tasks, done)
            if waiting:
                with _connected(self.cluster) as ray:
                    work = self._work(ray, job)
                    for number, told in _stream(ray, work, spool, how):
                        found[number] = told
                        _move(done, told.counts[0].rows)
                        _count_uses(job.shelf, told)
        next(done, None)
        for _, told in sorted(found.items()):
            counts = [before + more for before, more in zip(counts, told.counts, strict=True)]
        return Done(total, sum(counts, Counts()), {"engine": "ray", **how})

    def _work(self, ray: Any, job: Job) -> _Work:
        gpu = self.recipe.device.startswith("cuda")
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        workers, cores = _shares(nodes, self.cluster.workers, gpu=gpu)
        folder = job.shards.folder
        return _Work(
            self.recipe.from_anywhere(),
            self.engine,
            tuple(f"{judge.dimension} {judge.fingerprint}" for judge in job.judges),
            replace(job.settings, workers=cores),
            folder.absolute() if isinstance(folder, Path) else folder,
            None if self.cluster.address else job.shelf,  # machines elsewhere do not see our cache
            workers,
            cores,
            gpu,
        )


@dataclass(frozen=True, slots=True)
class _Work:
    """What every worker is told: the scorers and how they are known, where tables go, and how many cores it has."""

    recipe: Recipe
    engine: Engine
    scorers: tuple[str, ...]
    settings: ScoreSettings
    shards: Path | str | None
    shelf: Shelf | None
    workers: int
    cores: int
    gpu: bool


@dataclass(frozen=True, slots=True)
class _Told:
    """What a worker says of a piece: what each scorer's table holds, and how the cache was used."""

    counts: list[Counts]
    uses: tuple[int, int]
    left_out: tuple[set[str], set[str]]


class _Ledger:
    """Counts how often each piece was begun, for all workers."""

    def __init__(self) -> None:
        self.begun: dict[int, int] = {}

    def begin(self, number: int) -> int:
        """Count a piece; say how often it has been begun."""
        self.begun[number] = self.begun.get(number, 0) + 1
        return self.begun[number]

    def again(self) -> int:
        """Say how often a piece had to be begun again."""
        return sum(self.begun.values()) - len(self.begun)


class _Worker:
    """One process with the scorers, which scores a piece at a time and writes its tables."""

    def __init__(self, work: bytes, ledger: Any) -> None:
        self.work: _Work = pickle.loads(work)  # noqa: S301 - written by this program
        self.ledger = ledger
        self.judges: list[Scorer] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Score one piece; an error is given back, since one that is raised here would lose its sentence."""
        number, task = int(batch["number"][0]), pickle.loads(batch["task"][0])  # noqa: S301
        try:
            found: _Told | PalateError = self._score(number, task)
        except PalateError as error:
            found = error
        except Exception as error:  # noqa: BLE001 - whatever it is, the driver tells it
            found = RunError(f"{task.piece.name}: {type(error).__name__}: {error}")
            found.add_note(traceback.format_exc())
        return {"number": [number], "found": [pickle.dumps(found)]}

    def _score(self, number: int, task: Task) -> _Told:
        self._begin(number, task.piece)
        judges, shelf = self._loaded(), self.work.shelf
        tables = score_piece(task.piece, judges, self.work.settings, shelf)
        shards = Shards(self.work.shards)
        counts = [Counts() for _ in tables]
        for place, (mark, table) in enumerate(zip(task.marks, tables, strict=True)):
            shards.put(number, place, mark, table)
            counts[place].add(table)
        if shelf is None:
            return _Told(counts, (0, 0), (set(), set()))
        uses = shelf.images.hits, shelf.images.misses
        shelf.images.hits = shelf.images.misses = 0
        return _Told(counts, uses, (shelf.images.left_out, shelf.texts.left_out))

    def _begin(self, number: int, piece: Piece) -> None:
        import ray

        if ray.get(self.ledger.begin.remote(number)) > _TRIES:
            raise RunError(
                f"{piece.name}: {_TRIES} workers died while they scored it; the other pieces are kept, and the same "
                "command goes on (is there enough memory?)"
            )

    def _loaded(self) -> list[Scorer]:
        """Load the scorers with the first piece, so that a worker that dies of it is counted."""
        if self.judges is None:
            torch.set_num_threads(self.work.cores)
            judges = self.work.recipe.load(self.work.engine)
            known = tuple(f"{judge.dimension} {judge.fingerprint}" for judge in judges)
            if known != self.work.scorers:
                raise RunError(
                    f"{socket.gethostname()}: has other weights than the machine of this command "
                    f"({', '.join(known)}, expected {', '.join(self.work.scorers)})"
                )
            self.judges = judges
        return self.judges


def _write_spool(spool: Path, tasks: Iterable[Task], done: Iterator[object]) -> tuple[int, int]:
    """Write the pieces that are to be scored into a file; say how many there are in all, and in the file."""
    total = waiting = 0
    with spool.open("wb") as file:
        for task in tasks:
            if task.found is None:
                pickle.dump((total, pickle.dumps(task)), file)
                waiting += 1
            else:
                _move(done, task.found)
            total += 1
    return total, waiting


def _read_spool(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the pieces of a file, one at a time."""
    with Path(str(batch["spool"][0])).open("rb") as file:
        while file.peek(1):
            number, task = pickle.load(file)  # noqa: S301 - written by this program
            yield {"number": [number], "task": [task]}


def _stream(ray: Any, work: _Work, spool: Path, how: dict[str, Any]) -> Iterator[tuple[int, _Told]]:
    """Have the workers score the pieces of a file; tell of each when its tables are there."""
    from ray import data

    here = ray.get_runtime_context().get_node_id()
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # a piece is a block of its own
    ledger = ray.remote(num_cpus=0, label_selector={"ray.io/node-id": here})(_Ledger).remote()
    pieces = data.from_items([{"spool": str(spool)}]).map_batches(
        _read_spool, batch_size=1, num_cpus=0, label_selector={"ray.io/node-id": here}
    )
    found = pieces.map_batches(
        _Worker,
        fn_constructor_args=(pickle.dumps(work), ledger),
        batch_size=1,
        compute=data.ActorPoolStrategy(size=work.workers, max_tasks_in_flight_per_actor=2),
        num_cpus=work.cores,
        num_gpus=1 if work.gpu else 0,
    )
    try:
        for row in found.iter_rows():
            told = pickle.loads(row["found"])  # noqa: S301 - written by this program
            if isinstance(told, PalateError):
                raise told
            yield int(row["number"]), told
        again = ray.get(ledger.again.remote())
    except ray.exceptions.RayError as error:
        raise RunError(
            f"the workers could not go on ({_first_sentence(error)}); finished pieces are kept, and the same command goes on"
        ) from error
    how |= {"workers": work.workers, "cores_of_each": work.cores, "pieces_begun_again": again}


def _shares(
    nodes: Sequence[Mapping[str, Any]], wanted: int | None, *, gpu: bool
) -> tuple[int, int]:
    """Say how many workers there are, and how many cores each has; raises RunError if they have no room."""
    if gpu:
        nodes = [node for node in nodes if node.get("GPU", 0) >= 1]
        room = sum(int(node["GPU"]) for node in nodes)
        workers = wanted or room
        cores = min((int(node.get("CPU", 1) / node["GPU"]) for node in nodes), default=1)
    else:
        nodes = [node for node in nodes if node.get("CPU", 0) >= 1]
        room = sum(int(node["CPU"]) for node in nodes)
        workers = wanted or len(nodes)
        least = min((int(node["CPU"]) for node in nodes), default=1)
        cores = least // -(-workers // max(1, len(nodes)))
    if workers > room or not room:
        what = "GPUs" if gpu else "cores"
        raise RunError(
            f"the cluster has {room} {what}, expected one for each of {workers or 1} workers"
        )
    return workers, max(1, cores)


@contextmanager
def _connected(cluster: Cluster) -> Iterator[Any]:
    """Connect to a cluster that is there, or start one and stop it afterwards."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise MissingExtraError("--engine ray", "ray") from error
    how: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as logs:
        if cluster.address:
            how["address"] = cluster.address
        else:
            cores = max(_cores(), cluster.workers or 1)
            # "local" whatever RAY_ADDRESS says
            how |= {"address": "local", "num_cpus": cores, "include_dashboard": False}
            how |= {"_temp_dir": logs}
            how |= {"object_store_memory": _STORE_BYTES}
        try:
            with _silence():  # of the core, which says how much it will say
                ray.init(**how)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = cluster.address or "this machine"
            why = _first_sentence(error.__cause__ or error)
            raise RunError(f"no Ray cluster at {where}: {why}") from error
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def _silence() -> Iterator[None]:
    """Let nothing come through to stderr, not even from compiled code."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _count_uses(shelf: Shelf | None, told: _Told) -> None:
    if shelf is not None:
        shelf.images.hits += told.uses[0]
        shelf.images.misses += told.uses[1]
        shelf.images.left_out |= told.left_out[0]
        shelf.texts.left_out |= told.left_out[1]


def _first_sentence(error: BaseException) -> str:
    """Give what an error of many lines comes to: the first sentence of the innermost error that it tells."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line.partition(":")[0]]
    return [*named, *lines[:1], type(error).__name__][0].partition(". ")[0].rstrip(".")


def _move(done: Iterator[object], count: int) -> None:
    for _ in islice(done, count):
        pass
