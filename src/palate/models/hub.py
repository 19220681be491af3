"""Find weights at a path, or on the Hugging Face Hub, of which nothing is fetched silently."""

from __future__ import annotations

import contextlib
import difflib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from palate.errors import CheckpointError, RunError
from palate.models.tokens import find_tokenizer
from palate.runs import write_atomic

_PART = r"\w(?:[\w.-]*\w)?"
_ID = re.compile(
    rf"(?P<surely>hf:)?(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[^/@\s]+))?(?:/(?P<file>\S.*))?",
    re.ASCII,
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
# What a folder of weights consists of. A pickle is fetched only if its name is given.
_FOLDER = ("*.json", "*.txt", "*.safetensors", "*.model")
# In a pipeline's component: no weights of another precision (model.fp16.safetensors), no second copy.
_COMPONENT = re.compile(r"[^./]+\.(?:safetensors|txt|model|json)|[^./]+\.safetensors\.index\.json")
_INDEX = "model_index.json"
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_WEIGHTS = (*_PICKLES, ".safetensors")


@dataclass(frozen=True, slots=True)
class Located:
    """Where weights lie, and what to call them.

    ``source`` is for cards and records: the name of a local file or folder, or the Hub id with its
    full commit, which finds the same weights again. ``revision`` is that commit, if there is one.
    """

    path: Path
    source: str
    revision: str | None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A Hub id, as the user wrote it and in its parts."""

    written: str
    repo: str
    revision: str | None
    file: str | None
    pipeline: bool = False

    def at(self, commit: str) -> str:
        """The id with this commit, which finds the same weights again."""
        return f"{self.repo}@{commit}" + (f"/{self.file}" if self.file else "")


def _to_stderr(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201


def locate(weights: str | Path, *, say: Callable[[str], None] = _to_stderr) -> Located:
    """Find weights at a path, or by a Hub id in the local cache or on the Hub.

    A path that exists wins. An id is ``org/name`` for a folder or ``org/name/file.pt`` for a file,
    with ``@revision`` after the name to pin it and, where it might be a path, ``hf:`` in front. A
    folder brings its JSON, text and safetensors files; a pickle comes only if it is named. Without
    a full commit the Hub is asked once which commit is meant, and ``say`` gets a sentence with it;
    it also gets one before anything is downloaded. Nothing is asked for a full commit in the local
    cache, nor while ``HF_HUB_OFFLINE=1`` is set. Raises CheckpointError.
    """
    path = Path(weights)
    if path.exists():
        return Located(path, path.name or path.resolve().name, None)
    return _find(_parse(str(weights), "weights file or folder"), say)


def locate_pipeline(folder: str | Path, *, say: Callable[[str], None] = _to_stderr) -> Located:
    """Find the folder of a pipeline of diffusers at a path, or by a Hub id, as ``locate`` does.

    An id is ``org/name`` or ``org/name@revision``. Of its files come ``model_index.json`` and what the components
    named there consist of, with weights as safetensors in the precision they were published in: no pickles, no half
    precision beside the whole, no single-file copy. Raises CheckpointError.
    """
    path = Path(folder)
    if path.exists():
        return Located(path, path.name or path.resolve().name, None)
    wanted = _parse(str(folder), "generator folder")
    if wanted.file is not None:
        raise CheckpointError(f"{folder}: no such generator folder, and no Hub id such as org/name")
    return _find(replace(wanted, pipeline=True), say)


def _find(wanted: _Wanted, say: Callable[[str], None]) -> Located:
    """Find weights by their Hub id."""
    from huggingface_hub import is_offline_mode

    with _in_a_sentence(wanted):
        if is_offline_mode():
            return _offline(wanted)
        pinned = wanted.revision is not None and _COMMIT.fullmatch(wanted.revision) is not None
        if pinned and (found := _cached(wanted, str(wanted.revision))) is not None:
            return found
        return _online(wanted, say, pinned=pinned)


def _parse(weights: str, what: str) -> _Wanted:
    """Take a Hub id apart, or say that there is no such path."""
    match = _ID.fullmatch(weights)
    absent = f"{weights}: no such {what}"
    if match is None:
        raise CheckpointError(absent)
    repo, file = match["repo"], match["file"]
    organisation, name = repo.split("/")
    if match["surely"] is None:
        # Nobody wants the names of their own folders asked for on the Hub.
        if Path(organisation).is_dir():
            raise CheckpointError(f"{absent}; if a Hub id is meant, write hf:{weights}")
        if PurePosixPath(name).suffix in _WEIGHTS:
            raise CheckpointError(absent)
    # The Hub has no such names, so nothing needs to be asked.
    if "--" in repo or ".." in repo or repo.endswith(".git") or len(repo) > 96:
        raise CheckpointError(absent)
    steps = file.split("/") if file else []
    if steps and ({"", ".", ".."} & set(steps) or "." not in steps[-1]):
        raise CheckpointError(absent)
    return _Wanted(weights, repo, match["revision"], file)


def _offline(wanted: _Wanted) -> Located:
    """Find weights in the local cache, as the revision was when it was last fetched."""
    commit = wanted.revision or "main"
    if not _COMMIT.fullmatch(commit):
        reference = _reference(wanted)
        commit = reference.read_text("utf-8").strip() if reference.is_file() else commit
    found = _cached(wanted, commit, trusting=True) if _COMMIT.fullmatch(commit) else None
    if found is None:
        raise CheckpointError(
            f"{wanted.written}: no such file or folder, nor in the local cache of the Hub, and "
            "HF_HUB_OFFLINE is set; unset it to fetch the weights, or give their path"
        )
    return found


def _online(wanted: _Wanted, say: Callable[[str], None], *, pinned: bool) -> Located:
    """Ask the Hub which commit and which files are meant, and fetch those that are not there."""
    from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download

    info = HfApi().model_info(wanted.repo, revision=wanted.revision, files_metadata=True)
    commit = str(info.sha)
    sizes = {entry.rfilename: entry.size for entry in info.siblings or ()}
    if wanted.pipeline:
        names = _pipeline_files(wanted, commit, list(sizes), say)
    else:
        names = _files(wanted, commit, list(sizes))
    new = [name for name in names if _cached_file(wanted, commit, name) is None]
    if new:
        what = wanted.file or f"{len(new)} files"
        size = _size([sizes[name] for name in new])
        say(f"fetching {what} from {constants.ENDPOINT}{size}, pinned as {wanted.at(commit)}")
    elif not pinned:
        say(f"{wanted.written} is in the local cache, pinned as {wanted.at(commit)}")
    if wanted.file:
        path = Path(hf_hub_download(wanted.repo, wanted.file, revision=commit))
    else:
        if new:
            allowed = names if wanted.pipeline else list(_FOLDER)
            snapshot_download(wanted.repo, revision=commit, allow_patterns=allowed)
        path = _snapshot(wanted, commit)
    if not pinned:
        # Offline, the same words find the same commit; a cache that cannot be written still serves.
        with contextlib.suppress(OSError, RunError):
            write_atomic(_reference(wanted), commit)
    return Located(path, wanted.at(commit), commit)


def _files(wanted: _Wanted, commit: str, there: Sequence[str]) -> list[str]:
    """Give the wanted ones of a repository's files, or refuse in a sentence."""
    where = f"{wanted.written}: {wanted.repo} at commit {commit[:7]}"
    if wanted.file is not None:
        if wanted.file not in there:
            near = difflib.get_close_matches(wanted.file, there, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise CheckpointError(f"{where} has no file '{wanted.file}'{hint}")
        return [wanted.file]
    names = [name for name in there if any(fnmatch(name, pattern) for pattern in _FOLDER)]
    if not any(name.endswith(".safetensors") for name in names):
        pickles = [name for name in there if name.endswith(_PICKLES)]
        hint = f"; to fetch one file, name it: {wanted.repo}/{pickles[0]}" if pickles else ""
        raise CheckpointError(f"{where} has no safetensors files{hint}")
    return names


def _pipeline_files(
    wanted: _Wanted, commit: str, there: Sequence[str], say: Callable[[str], None]
) -> list[str]:
    """Give a pipeline's files, as its index names them, or refuse in a sentence."""
    from huggingface_hub import hf_hub_download

    where = f"{wanted.written}: {wanted.repo} at commit {commit[:7]}"
    if _INDEX not in there:
        raise CheckpointError(f"{where} has no {_INDEX}, expected a pipeline in diffusers format")
    if _cached_file(wanted, commit, _INDEX) is None:
        say(f"fetching {_INDEX} of {wanted.at(commit)}, which names its parts")
    index = Path(hf_hub_download(wanted.repo, _INDEX, revision=commit))
    names = [_INDEX]
    for component in _components(index):
        inside = (n.removeprefix(f"{component}/") for n in there if n.startswith(f"{component}/"))
        files = [name for name in inside if _COMPONENT.fullmatch(name)]
        if not _has_weights(files):
            raise CheckpointError(
                f"{where} has no {component} with safetensors files, expected what {_INDEX} names"
            )
        names += [f"{component}/{name}" for name in files]
    return names


def _components(index: Path) -> list[str]:
    """List the components that a pipeline's index names; one that is left out is null there."""
    try:
        content = json.loads(index.read_text("utf-8"))
        listed = [n for n, given in content.items() if isinstance(given, list) and any(given)]
        return [name for name in listed if not name.startswith("_")]
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise CheckpointError(f"{index}: expected a JSON object: {error}") from error


def _has_weights(names: Sequence[str]) -> bool:
    """Tell whether a component's files are enough: a model needs safetensors, a tokenizer or scheduler does not.

    A model has a ``config.json`` and no settings under another name but those for writing texts.
    """
    settings = {name for name in names if name.endswith("_config.json")}
    model = "config.json" in names and settings <= {"generation_config.json"}
    return bool(names) and (not model or any(name.endswith(".safetensors") for name in names))


def _is_whole_pipeline(folder: Path) -> bool:
    """Tell whether a folder of the local cache has all that its index names, every piece of its weights too."""
    if not (folder / _INDEX).is_file():
        return False
    for component in _components(folder / _INDEX):
        files = {path.name for path in (folder / component).glob("*") if path.is_file()}
        if not _has_weights([name for name in files if _COMPONENT.fullmatch(name)]):
            return False
        if not all(_pieces(path) <= files for path in (folder / component).glob("*.index.json")):
            return False
    return True


def _pieces(index: Path) -> set[str]:
    """Give the files that weights in several pieces consist of; what cannot be read is a piece that is not there."""
    try:
        return set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError):
        return {""}


def _cached(wanted: _Wanted, commit: str, *, trusting: bool = False) -> Located | None:
    """Find weights in the local cache without asking anyone.

    A folder counts if it is known to be whole, or ``trusting``, if the Hub cannot be asked anyway.
    """
    if wanted.file is not None:
        path = _cached_file(wanted, commit, wanted.file)
    elif wanted.pipeline:
        path = _snapshot(wanted, commit)
        path = path if _is_whole_pipeline(path) else None
    else:
        path = _cached_folder(wanted, commit, trusting=trusting)
    return None if path is None else Located(path, wanted.at(commit), commit)


def _cached_file(wanted: _Wanted, commit: str, name: str) -> Path | None:
    """Find one file in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(wanted.repo, name, revision=commit)
    return Path(found) if isinstance(found, str) else None


def _cached_folder(wanted: _Wanted, commit: str, *, trusting: bool) -> Path | None:
    """Find a folder in the local cache.

    Other programs may have fetched only some of its files. The cache knows the list of all files if
    a whole folder was asked for; without that list, the folder must have every part of a CLIP.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot_download(
            wanted.repo, revision=commit, allow_patterns=list(_FOLDER), local_files_only=True
        )
    except LocalEntryNotFoundError:
        return None
    folder = _snapshot(wanted, commit)
    listed = (folder.parents[1] / "trees" / f"{commit}.json").is_file()
    clip = (
        folder / "preprocessor_config.json",
        folder / "config.json",
        folder / "model.safetensors",
    )
    whole = all(part.is_file() for part in clip) and find_tokenizer(folder) is not None
    weights = any(folder.rglob("*.safetensors"))
    return folder if weights and (listed or whole or trusting) else None


def _storage(wanted: _Wanted) -> Path:
    """Give the repository's folder in the local cache, as the Hub's libraries lay it out."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{wanted.repo.replace('/', '--')}"


def _snapshot(wanted: _Wanted, commit: str) -> Path:
    return _storage(wanted) / "snapshots" / commit


def _reference(wanted: _Wanted) -> Path:
    """Give the file of the local cache that says which commit a branch or tag was."""
    return _storage(wanted) / "refs" / (wanted.revision or "main")


def _size(sizes: Sequence[int | None]) -> str:
    """Write a size for a sentence, or nothing if it is not known."""
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return ""
    total = sum(known)
    unit, name = (10**9, "GB") if total >= 10**9 else (10**6, "MB")
    return f" ({total / unit:.2f} {name})" if total >= 10**4 else f" ({total} bytes)"


@contextlib.contextmanager
def _in_a_sentence(wanted: _Wanted) -> Iterator[None]:
    """Turn what the Hub's library raises into one sentence with what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # The library's HTTP client is another one from version to version; this is its constant name.
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    hub, repo = constants.ENDPOINT, wanted.repo
    try:
        yield
    except GatedRepoError as error:
        raise CheckpointError(
            f"{wanted.written}: {repo} is gated; accept its terms at {hub}/{repo} and log in with "
            "'hf auth login'"
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{wanted.written}: no such file or folder here, and no model {repo} on {hub} that is "
            "open to you; check the name, or log in with 'hf auth login' if it is private"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(
            f"{wanted.written}: {repo} on {hub} has no revision '{wanted.revision}'"
        ) from error
    except (OSError, httpx.HTTPError) as error:
        reason = str(error.__cause__ or error).strip().split("\n")[0]
        raise CheckpointError(
            f"{wanted.written}: no such file or folder here, and it could not be fetched from {hub} "
            f"({reason}); give a path, or set HF_HUB_OFFLINE=1 to use what the local cache has"
        ) from error
