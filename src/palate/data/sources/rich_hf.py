"""Import RichHF-18K: four scores, two heat maps and word labels of images of Pick-a-Pic v1 (2312.10240).

The files are TFRecords (`train`, `dev`, `test`). A record has `filename`, four scores from 0 to 1 (higher is
better for all, also for artifacts and misalignment), two heat maps as encoded images with one channel
(0 to 255, how intense the fault is) and `prompt_misalignment_label`, one 0 (misaligned) or 1 (aligned)
per word. Neither images nor prompts are in it: they are found in a Pick-a-Pic data set, by the image's uid.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from palate.data.checks import fit_schema
from palate.data.images import decode_image
from palate.data.records import Image, json_text
from palate.data.sources.agiqa import (
    Opinion,
    OpinionSettings,
    opinion_choices,
    opinion_settings,
)
from palate.data.sources.common import Faults, Found, Report, Row, Source, SourceSettings
from palate.data.sources.tfrecord import Feature, parse_example, tfrecords
from palate.data.tables import image_path, to_rows
from palate.errors import DataError

DIMENSIONS: Final = {
    "aesthetics_score": "aesthetics",
    "artifact_score": "plausibility",
    "misalignment_score": "alignment",
    "overall_score": "overall",
}
"""The dimension that each score of the release stands for."""

_MAPS: Final = ("artifact_map", "misalignment_map")
_FEATURES: Final = frozenset({"filename", *DIMENSIONS, *_MAPS, "prompt_misalignment_label"})
_BETWEEN_WORDS: Final = re.compile(r'[,.?!":; ]+')


@dataclass(frozen=True, slots=True)
class RichRecord:
    """Everything that one record says.

    Scores are 0 to 1, higher is better. The maps are encoded images (512 × 512 pixels in the release,
    one channel, 0 to 255), bytes as they stand in the file; `decode_image` of `palate.data.images` opens
    them. `labels` has 0 (misaligned) or 1 (aligned) per word of the prompt. None is what a record lacks.
    """

    number: int
    filename: str
    scores: Mapping[str, float]
    artifact_map: bytes | None
    misalignment_map: bytes | None
    labels: tuple[int, ...] | None

    @property
    def uid(self) -> str:
        """The image's uid in Pick-a-Pic v1: the file's name without folder and suffix."""
        return PurePosixPath(self.filename).stem


def read_rich_hf(path: Path) -> Iterator[RichRecord]:
    """Yield every record of a RichHF-18K file with its heat maps, one at a time.

    Raises `DataError` that names the record where the file or a record is broken.
    """
    for number, data in tfrecords(path):
        try:
            yield _record(number, data)
        except DataError as fault:
            raise DataError(f"{path}: record {number}: {fault}") from None


def words(prompt: str) -> list[str]:
    """Split a prompt into the words that the labels count: at spaces and any of ``, . ? ! " : ;``.

    >>> words('a cat, "big" and red')
    ['a', 'cat', 'big', 'and', 'red']
    """
    return [word for word in _BETWEEN_WORDS.split(prompt) if word]


def rich_hf(
    path: Path, images: Path | None = None, settings: SourceSettings | None = None
) -> Source:
    """Open a file of RichHF-18K, or the folder of its files; `images` is a data set of Pick-a-Pic v1.

    Without `images` the result is a table of images with scores in the details, an empty prompt and no
    choice. With it (a folder with `images.parquet`) images have their prompt and file, and images of the
    same prompt become choices on aesthetics, plausibility, alignment and overall, derived from scores.
    """
    if images is not None and not (images / "images.parquet").is_file():
        raise DataError(f"{images}: holds no images.parquet, expected a data set of Pick-a-Pic v1")
    files = sorted(path.glob("*.tfrecord")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: holds no .tfrecord file")
    inputs: dict[str, Path | str] = {file.name: file for file in files}
    if images is not None:
        inputs["images of Pick-a-Pic"] = images / "images.parquet"
    rules = opinion_settings(settings)
    return Source("rich-hf", rules, inputs, partial(_rows, files, images, rules))


def _rows(
    files: list[Path], folder: Path | None, settings: OpinionSettings, report: Report
) -> Iterator[Row]:
    known = {} if folder is None else _known(folder, _uids(files))
    prompts: dict[str, dict[str, list[Opinion]]] = {}
    seen: set[str] = set()
    for file in files:
        for record in _records(file, report.faults):
            try:
                _refuse_known(record.uid, seen)
                found = _found(record, file.stem, known, folder, settings, report)
            except DataError as fault:
                report.faults.add(f"{file.name}, record {record.number}", str(fault))
                continue
            yield found
            if not found.image.prompt:
                report.count("images_without_prompt")
                continue
            own = prompts.setdefault(found.image.prompt, {})
            for name, value in record.scores.items():
                own.setdefault(DIMENSIONS[name], []).append(Opinion(found.image.image, value))
    for number, (prompt, by_dimension) in enumerate(prompts.items()):
        for dimension, told in by_dimension.items():
            yield from opinion_choices(
                f"rich-hf/{number}", prompt, dimension, told, settings, report, "score"
            )


def _refuse_known(uid: str, seen: set[str]) -> None:
    if uid in seen:
        raise DataError(f"image {uid!r} was there before")
    seen.add(uid)


def _uids(files: list[Path]) -> set[str]:
    """Return the uids in the files, so that only their rows of Pick-a-Pic are kept in memory."""
    quiet = Faults("", allowed=True)
    return {record.uid for file in files for record in _records(file, quiet)}


def _records(file: Path, faults: Faults) -> Iterator[RichRecord]:
    for number, data in tfrecords(file, faults):
        faults.rows += 1
        try:
            record = _record(number, data)
        except DataError as fault:
            faults.add(f"{file.name}, record {number}", str(fault))
            continue
        yield record


def _record(number: int, data: bytes) -> RichRecord:
    features = parse_example(data)
    strangers = sorted(features.keys() - _FEATURES)
    if strangers:
        raise DataError(f"has the unknown feature {strangers[0]!r}")
    name = _bytes(features, "filename")
    if not name:
        raise DataError("has no 'filename'")
    label = _bytes(features, "prompt_misalignment_label")
    return RichRecord(
        number=number,
        filename=_decoded("filename", name),
        scores={key: _score(features, key) for key in DIMENSIONS},
        artifact_map=_bytes(features, "artifact_map"),
        misalignment_map=_bytes(features, "misalignment_map"),
        labels=None if label is None else _labels(label),
    )


def _bytes(features: Mapping[str, Feature], name: str) -> bytes | None:
    values = features.get(name, [])
    if len(values) > 1:
        raise DataError(f"{name} has {len(values)} values, expected one")
    if not len(values):
        return None
    value = values[0]
    if not isinstance(value, bytes):
        raise DataError(f"{name} is a number, expected bytes")
    return value


def _score(features: Mapping[str, Feature], name: str) -> float:
    values = features.get(name, [])
    if len(values) != 1:
        raise DataError(f"{name} has {len(values)} values, expected one")
    if not isinstance(values, np.ndarray) or not np.isfinite(values[0]):
        raise DataError(f"{name} is {str(values[0])[:40]!r}, expected a number")
    # the shortest number that is this 32-bit float: 0.6 and not 0.6000000238
    return float(str(np.float32(values[0])))


def _labels(text: bytes) -> tuple[int, ...]:
    parts = _decoded("prompt_misalignment_label", text).split()
    if any(part not in {"0", "1"} for part in parts):
        raise DataError(f"prompt_misalignment_label is {text[:40]!r}, expected 0 and 1 with spaces")
    return tuple(map(int, parts))


def _decoded(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise DataError(f"{name} is {value[:40]!r}, which is no UTF-8 text") from None


def _known(folder: Path, wanted: set[str]) -> dict[str, Image]:
    """Return the wanted images of a data set by uid: the last part of their key, without a suffix."""
    path = folder / "images.parquet"
    found: dict[str, Image] = {}
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                table = fit_schema(pa.Table.from_batches([batch]), "images", str(path))
                uids = [PurePosixPath(key).stem for key in table.column("image").to_pylist()]
                places = [place for place, uid in enumerate(uids) if uid in wanted]
                for row in to_rows(table.take(places), Image):
                    _keep(found, PurePosixPath(row.image).stem, row, path)
    except (pa.ArrowException, OSError):
        raise DataError(f"{path}: is no Parquet file, or a damaged one") from None
    return found


def _keep(found: dict[str, Image], uid: str, row: Image, path: Path) -> None:
    if uid in found:
        raise DataError(
            f"{path}: the images {found[uid].image!r} and {row.image!r} have the same uid {uid!r}"
        )
    found[uid] = row


def _found(
    record: RichRecord,
    part: str,
    known: Mapping[str, Image],
    folder: Path | None,
    settings: OpinionSettings,
    report: Report,
) -> Found:
    """Return the row of an image, with prompt and file where Pick-a-Pic has it."""
    facts: dict[str, object] = {"part": part, "filename": record.filename, **record.scores}
    for name in _MAPS:
        facts |= _map_facts(name, getattr(record, name), settings, report)
    before = known.get(record.uid)
    if record.labels is None:
        report.count("without_prompt_misalignment_label")
    else:
        facts["prompt_misalignment_label"] = " ".join(map(str, record.labels))
        if before is not None:
            told = words(before.prompt)
            if len(told) == len(record.labels):
                pairs = zip(told, record.labels, strict=True)
                facts["misaligned_words"] = [word for word, label in pairs if not label]
            else:
                report.count("labels_that_do_not_fit_the_prompt")
    if before is None or folder is None:
        if folder is not None:
            report.count("images_not_in_pick_a_pic")
        return Found(Image(record.uid, "", details=json_text(facts)))
    row = Image(
        before.image,
        before.prompt,
        generator=before.generator,
        seed=before.seed,
        settings=before.settings,
        details=json_text(facts),
    )
    return Found(row, None if before.path is None else image_path(before, folder))


def _map_facts(
    name: str, data: bytes | None, settings: OpinionSettings, report: Report
) -> dict[str, Any]:
    """What the table keeps of a heat map: the hash of its bytes, and its mean (0 to 255)."""
    if data is None:
        report.count(f"without_{name}")
        return {}
    facts: dict[str, Any] = {f"{name}_sha256": hashlib.sha256(data).hexdigest()}
    if settings.decode:
        picture = decode_image(data, name, max_pixels=settings.max_pixels, keep=frozenset({"L"}))
        values = np.asarray(picture if picture.mode == "L" else picture.convert("L"))
        facts[f"{name}_mean"] = round(float(values.mean()), 4)
    return facts
