"""What the verb ``score`` is pointed at: files, a folder, a table of images or a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from palate.data.images import hash_image
from palate.data.records import Image
from palate.data.sources.common import (
    csv_rows,
    find_images,
    json_lines,
    read_text,
    require_columns,
)
from palate.data.tables import load_dataset, read_table, to_table
from palate.errors import DataError

_PROMPT_FILES = ("prompts.csv", "prompts.jsonl", "prompts.txt")
_MANIFESTS = frozenset({".csv", ".jsonl", ".parquet"})


@dataclass(frozen=True, slots=True)
class Gathered:
    """A table of images, and the folder that its paths start from."""

    images: Any
    folder: Path


@dataclass(frozen=True, slots=True)
class GivenPrompts:
    """Prompts by the name of their image, from the file ``origin``; ``served`` says whom each has served."""

    origin: Path
    prompts: Mapping[str, str]
    served: dict[str, str] = field(default_factory=dict)

    def of(self, image: str, names: Sequence[str]) -> str:
        """Give the prompt of an image that goes by some names.

        Raises DataError where it has none, and where its line was that of another image before.
        """
        name = next((name for name in names if name in self.prompts), None)
        if name is None:
            raise DataError(f"{self.origin}: has no prompt for image '{image}'")
        if (other := self.served.setdefault(name, image)) != image:
            raise DataError(
                f"{self.origin}: '{name}' may be '{other}' or '{image}'; expected each with its folder"
            )
        return self.prompts[name]


def gather_images(
    paths: Sequence[Path],
    *,
    prompt: str | None = None,
    prompts: Path | None = None,
    need_prompts: bool = True,
) -> Gathered:
    """Find the images at some paths and their prompts.

    A path is an image file, a folder of images, a manifest (CSV, JSON Lines or Parquet with the
    columns ``image`` and ``prompt``; images lie relative to it), a table ``images.parquet``, or a data
    set folder with such a table; a manifest, table or data set stands alone. Its prompts hold unless
    ``prompt`` or ``prompts`` is given. Other images take ``prompt``, or their line in the file
    ``prompts`` (CSV or JSON Lines with ``image`` and ``prompt``, or text with ``image<TAB>prompt``), or
    that of such a file called prompts.* in the folder, or a text file of the same name beside them;
    without any of these the prompt is empty if ``need_prompts`` is false.

    Raises DataError where a path or a prompt is missing.
    """
    if prompt is not None and prompts is not None:
        raise DataError("prompts come from one text or from a file; give --prompt or --prompts")
    given = GivenPrompts(prompts, read_prompts(prompts)) if prompts is not None else None
    if prompt is None and given is None and not need_prompts and not any(map(_is_table, paths)):
        prompt = ""
    alone = [path for path in paths if _is_table(path) or path.suffix.lower() in _MANIFESTS]
    if alone and len(paths) > 1:
        raise DataError(f"{alone[0]}: a table of images is scored alone, found {len(paths)} paths")
    if alone and not _is_table(alone[0]):
        return read_manifest(alone[0], prompt, given, need_prompts=need_prompts)
    if alone:
        return _from_table(alone[0], prompt, given)
    rows = [row for path in paths for row in _from_path(path, prompt, given)]
    if not rows:
        raise DataError("no image was given")
    return Gathered(to_table(_once(rows), "images"), Path())


def _is_table(path: Path) -> bool:
    """Tell a table of images, or the folder of one, from images and from a manifest."""
    if path.suffix == ".parquet" and path.is_file():
        try:
            return "sha256" in pq.read_schema(path).names
        except (pa.ArrowInvalid, OSError):
            return True  # the table's reader says what is wrong with it
    return path.suffix == ".parquet" or (path / "images.parquet").is_file()


def read_manifest(
    path: Path,
    prompt: str | None = None,
    given: GivenPrompts | None = None,
    *,
    need_prompts: bool = True,
) -> Gathered:
    """Read a list of images with their prompts; each line is one pair to be scored.

    The columns are ``image`` (or ``path``, ``file_name``) and ``prompt`` (or ``caption``). An image that is
    named again, with another prompt, gets the key ``name#2``. Raises DataError for a pair that is there twice.
    """
    pairs: dict[tuple[str, str], None] = {}
    keys: dict[str, int] = {}
    rows = []
    for line, facts in _manifest_rows(path):
        where = f"{path}, line {line}"
        name = _cell(facts, ("image", "path", "file_name"), where)
        if prompt is None and given is None:
            wanted = ("prompt", "caption")
            known = need_prompts or any(column in facts for column in wanted)
            text = _cell(facts, wanted, where) if known else ""
        else:
            text = _prompt_of([name, Path(name).name], prompt, given)
        if (name, text) in pairs:
            raise DataError(f"{where}: image '{name}' stands there twice with the same prompt")
        pairs[name, text] = None
        keys[name] = keys.get(name, 0) + 1
        again = f"#{keys[name]}" if keys[name] > 1 else ""
        file = path.parent / name
        sha = hash_image(file) if file.is_file() else None
        place = file.resolve().as_posix()
        rows.append(Image(image=name + again, prompt=text, path=place, sha256=sha))
    if not rows:
        raise DataError(f"{path}: holds no image")
    return Gathered(to_table(rows, "images"), path.parent)


def _manifest_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Give line number and cells by name."""
    if path.suffix.lower() == ".csv":
        return csv_rows(path)
    if path.suffix.lower() == ".jsonl":
        return json_lines(path)
    try:
        return iter(enumerate(pq.read_table(path).to_pylist(), start=1))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error


def _cell(facts: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    found = next((name for name in names if name in facts), None)
    if found is None:
        raise DataError(f"{where}: has no column '{names[0]}'; there are {', '.join(facts)}")
    value = facts[found]
    if not isinstance(value, str):
        raise DataError(f"{where}: {found} is {value!r}, expected a text")
    return value


def hash_table(table: Any) -> str:
    """Hash the content of a table, however it came about."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


def read_prompts(path: Path) -> dict[str, str]:
    """Read a file that gives each image its prompt, by the name that the image has there.

    Raises DataError for a file of another kind, and for an image that is named twice.
    """
    found: dict[str, str] = {}
    for line, name, prompt in _lines(path):
        if not isinstance(name, str) or not isinstance(prompt, str):
            raise DataError(f"{path}, line {line}: image and prompt must be texts")
        if name in found:
            raise DataError(f"{path}, line {line}: image '{name}' was there before")
        found[name] = prompt
    if not found:
        raise DataError(f"{path}: holds no prompt")
    return found


def _lines(path: Path) -> Iterator[tuple[int, Any, Any]]:
    """Give line number, image and prompt."""
    suffix = path.suffix.lower()
    if suffix == ".txt":
        for number, line in enumerate(read_text(path).split("\n"), start=1):
            name, tab, prompt = line.rstrip("\r").partition("\t")
            if line.strip() and not tab:
                raise DataError(f"{path}, line {number}: expected image<TAB>prompt")
            if tab:
                yield number, name, prompt
        return
    if suffix not in {".csv", ".jsonl"}:
        raise DataError(f"{path}: prompts are read from .csv, .jsonl or .txt")
    rows: Iterator[tuple[int, Mapping[str, Any]]]
    rows = csv_rows(path) if suffix == ".csv" else json_lines(path)
    for number, facts in rows:
        require_columns(path, dict(facts), ["image", "prompt"])
        yield number, facts["image"], facts["prompt"]


def _from_table(path: Path, prompt: str | None, given: GivenPrompts | None) -> Gathered:
    """Read a table of images, with other prompts if some are given."""
    if path.is_dir():
        images, folder = load_dataset(path).images, path
    else:
        images, folder = read_table(path, "images"), path.parent
    if prompt is not None or given is not None:
        keys = images["image"].to_pylist()
        texts = [_prompt_of([key], prompt, given) for key in keys]
        place = images.schema.get_field_index("prompt")
        images = images.set_column(place, images.schema.field(place), [texts])
    if not len(images):
        raise DataError(f"{path}: holds no images")
    return Gathered(images, folder)


def _from_path(path: Path, prompt: str | None, given: GivenPrompts | None) -> Iterator[Image]:
    """Give the images of one file or folder."""
    if path.is_dir():
        files, base = find_images(path), path
        if not files:
            raise DataError(f"{path}: holds no image file (PNG, JPEG, WebP, GIF, BMP, TIFF, …)")
    elif path.exists():
        files, base = [path], path.parent
    else:
        raise DataError(f"{path}: no such file or folder")
    if prompt is None and given is None:
        beside = [base / name for name in _PROMPT_FILES if (base / name).is_file()]
        if len(beside) > 1:
            raise DataError(
                f"{base}: holds {beside[0].name} and {beside[1].name}; say which by --prompts"
            )
        if beside:
            given = GivenPrompts(beside[0], read_prompts(beside[0]))
    for image in files:
        inside = image.relative_to(base).as_posix()
        yield Image(
            image=inside if path.is_dir() else path.as_posix(),
            prompt=_prompt_of([str(image), inside, image.name], prompt, given, image),
            path=image.resolve().as_posix(),
            sha256=hash_image(image),
        )


def _prompt_of(
    names: Sequence[str],
    prompt: str | None,
    given: GivenPrompts | None,
    image: Path | None = None,
) -> str:
    """Find the prompt of an image that goes by some names."""
    if prompt is not None:
        return prompt
    if given is not None:
        return given.of(names[0], names)
    if image is not None and image.with_suffix(".txt").is_file():
        return read_text(image.with_suffix(".txt")).strip()
    raise DataError(f"{names[0]}: has no prompt; give --prompt TEXT or --prompts FILE")


def _once(rows: Sequence[Image]) -> list[Image]:
    """Refuse two images with one name, which the table could not tell apart."""
    seen: set[str] = set()
    for row in rows:
        if row.image in seen:
            raise DataError(f"image '{row.image}' was given twice")
        seen.add(row.image)
    return list(rows)
