"""The record of a run: opened, compared with what is there, written at every change of state."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from palate.errors import RunError
from palate.runs.files import (
    RECORD,
    atomic_path,
    hash_path,
    hash_text,
    remove,
    sweep,
    write_atomic,
)

_LIBRARIES = ("numpy", "pyarrow", "pillow", "scipy", "torch", "transformers", "diffusers", "peft")
_CHOOSE = "choose another --out, or --overwrite"


@dataclass
class Run:
    """One run of one verb, from its start to its result.

    Attributes:
        out: the folder of the run.
        finished: an identical run has finished here; return ``result`` and do nothing.
        resuming: an identical run was begun here and not finished.
        result: what the finished run found; empty before.
    """

    out: Path
    finished: bool
    resuming: bool
    record: dict[str, Any] = field(repr=False)
    _since: float = field(default_factory=time.monotonic, repr=False)
    _before: float = field(default=0.0, repr=False)

    @property
    def result(self) -> dict[str, Any]:
        """What the run found, as it stands in ``run.json``."""
        found: dict[str, Any] = self.record["result"]
        return found

    def finish(self, result: Mapping[str, object], files: Sequence[Path | str] = ()) -> None:
        """Record the result: from now on the same command returns it without work.

        Args:
            result: numbers and names that JSON can hold.
            files: what the run wrote, as names inside ``out`` or as paths. If one is missing later,
                the run no longer counts as finished.
        """
        self.record["result"] = _plain(result)
        self.record["files"] = sorted(self._name(Path(file)) for file in files)
        self.save("finished")
        self.finished = True

    def _name(self, file: Path) -> str:
        """Name a file from the run's folder, so that the folder can move."""
        inside = file if file.is_absolute() or file.is_relative_to(self.out) else self.out / file
        assert inside.exists(), f"the run says that it wrote {inside}, which is not there"
        return os.path.relpath(inside, self.out)

    def note(self, **facts: object) -> None:
        """Record facts on the way, such as the number of rows that were left out."""
        self.record["notes"].update(_plain(facts))
        self.save(self.record["status"])

    def save(self, status: str) -> None:
        """Write the record with its state: running, finished, failed or interrupted."""
        self.record["status"] = status
        self.record["seconds"] = round(self._before + time.monotonic() - self._since, 3)
        write_atomic(
            self.out / RECORD, json.dumps(self.record, indent=2, ensure_ascii=False) + "\n"
        )


@contextlib.contextmanager
def start_run(
    verb: str,
    out: Path,
    settings: object,
    inputs: Mapping[str, Path | str],
    *,
    overwrite: bool = False,
) -> Iterator[Run]:
    """Open the run folder of a verb; leave it finished, or ready to be resumed.

    A run is the same run if verb, settings and the content of its inputs are the same. An exception
    in the body leaves it "failed" (Ctrl-C: "interrupted"), and the same command then resumes it.
    So does leaving the body without ``run.finish(...)``. Two processes never share a folder.

    Args:
        verb: the command, such as ``"train"``.
        out: the folder; made if it is missing.
        settings: a dataclass or dictionary of settings.
        inputs: files or folders (``Path``; told apart by content) and other inputs as text (``str``).
        overwrite: empty the folder first if it holds a run.

    Raises:
        RunError: the folder holds another run or files that are no run, is in use, or cannot be
            written.
        DataError: an input does not exist.
    """
    out = Path(out)
    record = _new_record(verb, settings, inputs)
    _make_folder(out)
    with _alone(out):
        if overwrite:
            _empty(out, inputs)
        run = _open(out, record)
        if not run.finished:
            run.save("running")
        try:
            yield run
        except BaseException as error:
            _record_fault(run, error)
            raise
        if run.record["status"] == "running":
            run.save("interrupted")


@contextlib.contextmanager
def fresh_run(
    verb: str,
    out: Path,
    settings: object,
    inputs: Mapping[str, Path | str],
    *,
    overwrite: bool = False,
    keep: Sequence[Path] = (),
) -> Iterator[Run]:
    """Open a run as `start_run` does; what it overwrites stays until the new one is finished.

    With ``overwrite`` the run is made in a hidden folder beside ``out`` (``run.out``), which takes its
    place when the body has finished it; until then, and after a fault, the former run is untouched.
    What a refused new run left is removed. `keep` are files and folders that are read and must not lie
    inside ``out``. Raises `RunError` as `start_run` does, and where one of them or an input does.
    """
    out = Path(out).resolve()
    for path in [*keep, *(value for value in inputs.values() if isinstance(value, Path))]:
        if path.resolve().is_relative_to(out):
            raise RunError(f"{out}: holds {path.name!r}, which is read; choose another --out")
    if not overwrite or not (out / RECORD).exists():
        was_there = out.exists()
        try:
            with start_run(verb, out, settings, inputs) as run:
                yield run
        except Exception:
            if not was_there and out.is_dir():
                shutil.rmtree(out)
            raise
        return
    with _alone(out):
        sweep(out)
        with atomic_path(out) as fresh:
            with start_run(verb, fresh, settings, inputs) as run:
                yield run
            if run.record["status"] != "finished":
                raise RunError(f"{out}: the new run did not finish; the former one is untouched")


def _new_record(verb: str, settings: object, inputs: Mapping[str, Path | str]) -> dict[str, Any]:
    from palate import __version__

    return {
        "verb": verb,
        "palate": __version__,
        "status": "running",
        "settings": _plain(settings),
        "inputs": {name: _describe(value) for name, value in inputs.items()},
        "versions": _versions(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "attempts": 1,
        "seconds": 0.0,
        "notes": {},
        "result": {},
        "files": [],
    }


def _describe(value: Path | str) -> dict[str, str]:
    if isinstance(value, str):
        return {"text": value, "sha256": hash_text(value)}
    return {"path": str(value), "sha256": hash_path(value)}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _open(out: Path, record: dict[str, Any]) -> Run:
    """Compare with the record that is there, if there is one."""
    path = out / RECORD
    if not path.exists():
        if any(not entry.name.startswith(".") for entry in out.iterdir()):
            raise RunError(f"{out}: is not empty and holds no run of Palate; choose another --out")
        return Run(out, finished=False, resuming=False, record=record)
    old = _read_record(path)
    _refuse_other(out, old, record)
    finished = old["status"] == "finished" and all((out / name).exists() for name in old["files"])
    if finished:
        return Run(out, finished=True, resuming=False, record=old)
    record |= {name: old[name] for name in ("started", "notes")}
    record["notes"].pop("fault", None)
    record["attempts"] = old["attempts"] + 1
    return Run(out, finished=False, resuming=True, record=record, _before=old["seconds"])


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: could not be read as a run record ({error}); {_CHOOSE}") from None
    wanted = {"verb", "status", "settings", "inputs", "started", "attempts", "seconds", "notes"}
    wanted |= {"result", "files"}
    missing = sorted(wanted - record.keys()) if isinstance(record, dict) else sorted(wanted)
    if missing:
        lacks = ", ".join(missing)
        raise RunError(f"{path}: is not a run record, it has no {lacks}; {_CHOOSE}")
    found: dict[str, Any] = record
    return found


def _refuse_other(out: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    if old["verb"] != new["verb"]:
        raise RunError(f"{out}: holds a run of '{old['verb']}', not '{new['verb']}'; {_CHOOSE}")
    differences = _differences(old["settings"], new["settings"])
    if differences:
        told = "; ".join(differences)
        raise RunError(
            f"{out}: holds a run of '{new['verb']}' with other settings ({told}); {_CHOOSE}"
        )
    names = sorted(old["inputs"].keys() | new["inputs"].keys())
    changed = [name for name in names if _hash_in(old, name) != _hash_in(new, name)]
    if changed:
        told = ", ".join(f"'{name}'" for name in changed)
        raise RunError(
            f"{out}: holds a run of '{new['verb']}' on other inputs (changed: {told}); {_CHOOSE}"
        )


def _hash_in(record: Mapping[str, Any], name: str) -> object:
    return record["inputs"].get(name, {}).get("sha256")


def _differences(old: object, new: object, name: str = "") -> list[str]:
    """Name each setting that differs, with its value there and its value now."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        # as text, because NaN is not equal to itself
        same = json.dumps(old) == json.dumps(new)
        return [] if same else [f"{name}: {_short(old)} there, {_short(new)} now"]
    found: list[str] = []
    for key in [*old, *(key for key in new if key not in old)]:
        inner = f"{name}.{key}" if name else str(key)
        found += _differences(old.get(key), new.get(key), inner)
    return found


def _short(value: object, limit: int = 60) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _record_fault(run: Run, error: BaseException) -> None:
    if run.finished:
        return
    stopped = isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit))
    run.record["notes"]["fault"] = f"{type(error).__name__}: {error}"
    # The first fault is the one to report: a full disk also refuses this record.
    with contextlib.suppress(RunError):
        run.save("interrupted" if stopped else "failed")


def _plain(value: object) -> Any:
    """Turn dataclasses, paths, tuples and NumPy numbers into what JSON can hold."""
    from pydantic_core import to_jsonable_python

    return json.loads(json.dumps(to_jsonable_python(value, fallback=_number)))


def _number(value: Any) -> object:
    """Read NumPy's and torch's numbers and arrays, which know how to become plain ones."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a run record cannot hold {type(value).__name__}")


def _make_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is a file; expected a folder for the run")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out}: could not be made: {error.strerror}") from None
    if not os.access(out, os.W_OK | os.X_OK):
        raise RunError(f"{out}: could not be written: {os.strerror(errno.EACCES)}")


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the folder against other processes; the system lets go even after kill -9."""
    try:
        import fcntl
    except ImportError:  # Windows: no lock
        yield
        return
    handle = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"{out}: another process is at work in this folder; wait for it"
            ) from None
        except OSError:  # a network folder without locks
            pass
        yield
    finally:
        os.close(handle)


def _empty(out: Path, inputs: Mapping[str, Path | str]) -> None:
    """Remove a former run with all its files; a folder that holds no run is not touched."""
    if not (out / RECORD).exists():
        return
    for name, value in inputs.items():
        if isinstance(value, Path) and value.resolve().is_relative_to(out.resolve()):
            raise RunError(
                f"{out}: holds the input '{name}', so it is not overwritten; choose another --out"
            )
    try:
        # The record goes last: a run that is killed here is still known as one.
        for entry in sorted(out.iterdir(), key=lambda entry: entry.name == RECORD):
            remove(entry)
    except OSError as error:
        raise RunError(f"{out}: could not be emptied: {error.strerror}") from None
