"""Import Simulacra Aesthetic Captions: graded or rated images of one prompt, as choices (Pressman et al. 2022).

Two forms are read. A folder of samples has a folder per grade (bad, mediocre, good, great) and names
like `good/7939_a_sloth_2.png`. The database `sac_public_2022_06_29.sqlite` has ratings from 1 to 10 in the
tables `survey (id, qid, rating)`, `generations (id, sid, method, prompt, verified)`, `images (id, gid, idx)`,
`paths (iid, path)`, `ratings (sid, iid, rating, verified)` and `upscales (iid, method)`.

A person in the database is a `sid`: a set of answers to a survey. People who gave the same answers share
one, and all without a survey do, so a `sid` without a survey is nobody in particular. The script that made
the release writes the `sid` of the prompt's author into `ratings`, whoever rated. Where a database bears
that out, no rating says who gave it, and choices are made within one generation, by an unknown person.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from palate.data.records import Choice, Image, json_text
from palate.data.sources.common import (
    Found,
    Report,
    Row,
    Source,
    SourceSettings,
    find_images,
    image_folder,
    inside,
)
from palate.data.sources.folder import SIMULACRA, compile_pattern
from palate.data.sources.texts import require_file
from palate.errors import DataError

GRADES: Final = ("bad", "mediocre", "good", "great")
"""The grades of the samples, the worst first."""

METHODS: Final = {
    0: "CLOOB Conditioned Latent Diffusion",
    1: "CLIP Guided CLOOB Conditioned Latent Diffusion",
    2: "CompVis latent GLIDE",
    3: "latent Imagen 512x512",
    **{n: f"latent Imagen f16 768x768 cond scale {n}" for n in range(4, 11)},
}
"""What the page of the set calls the numbers of `generations.method`."""

_TABLES: Final[dict[str, set[str]]] = {
    "survey": {"id", "qid", "rating"},
    "generations": {"id", "sid", "method", "prompt", "verified"},
    "images": {"id", "gid", "idx"},
    "paths": {"iid", "path"},
    "ratings": {"sid", "iid", "rating", "verified"},
    "upscales": {"iid", "method"},
}
_IMAGES: Final = """
    SELECT i.id AS id, i.gid AS gid, i.idx AS idx, p.path AS path, g.sid AS sid, g.method AS method,
           g.prompt AS prompt, g.verified AS verified, p.number AS paths, u.told AS upscaled,
           r.told AS ratings
    FROM images i LEFT JOIN generations g ON g.id = i.gid
    LEFT JOIN (SELECT iid, path, count(*) AS number FROM paths GROUP BY iid) p ON p.iid = i.id
    LEFT JOIN (SELECT iid, json_group_array(method) AS told FROM upscales GROUP BY iid) u ON u.iid = i.id
    LEFT JOIN (SELECT iid, json_group_array(json_array(sid, rating, verified)) AS told
               FROM ratings GROUP BY iid) r ON r.iid = i.id
    ORDER BY i.gid, i.idx, i.id"""
_RATINGS: Final = """
    SELECT r.rowid AS row, r.sid AS sid, r.iid AS iid, r.rating AS rating, r.verified AS verified,
           g.id AS gid, g.prompt AS prompt, g.sid AS author, p.path AS path
    FROM ratings r LEFT JOIN images i ON i.id = r.iid LEFT JOIN generations g ON g.id = i.gid
    LEFT JOIN paths p ON p.iid = r.iid
    ORDER BY {order}, i.gid, i.idx, r.rowid"""
_OTHER_RATERS: Final = """
    SELECT count(*) FROM ratings r JOIN images i ON i.id = r.iid JOIN generations g ON g.id = i.gid
    WHERE r.sid IS NOT g.sid"""


def simulacra(
    path: Path, images: Path | None = None, settings: SourceSettings | None = None
) -> Source:
    """Open a folder of graded samples, or the SQLite database with the ratings of the whole set.

    Of the samples, images of one prompt with different grades are one choice by an unknown person. Of
    the database, ratings by the same person of images of the same prompt are one choice. All are on the
    dimension `aesthetics`; equal grades or ratings tie. `images` is where the paths of the database count
    from (the tar files, unpacked into one folder).
    """
    rules = settings or SourceSettings()
    if path.is_dir():
        inputs: dict[str, Path | str] = {}
        return Source("simulacra", rules, inputs, partial(_graded, path), path)
    require_file(path)
    folder = image_folder(images, path)
    return Source("simulacra", rules, {"database": path}, partial(_rated, path, folder), folder)


def _graded(folder: Path, report: Report) -> Iterator[Row]:
    pattern = compile_pattern(SIMULACRA, {"grade", "id", "prompt", "k"})
    prompts: dict[str, list[tuple[str, str]]] = {}
    for file in find_images(folder):
        report.faults.rows += 1
        key = file.relative_to(folder).as_posix()
        match = pattern.fullmatch(key.rpartition(".")[0])
        if match is None:
            report.faults.add(f"image {key!r}", "expected a name like good/7939_a_sloth_2.png")
            continue
        grade = match["grade"]
        if grade not in GRADES:
            told = f"the grade is {grade!r}, expected one of {', '.join(GRADES)}"
            report.faults.add(f"image {key!r}", told)
            continue
        prompt = " ".join(match["prompt"].replace("_", " ").split())
        prompts.setdefault(prompt, []).append((key, grade))
        facts: dict[str, object] = {"grade": grade, "id": match["id"], "k": match["k"]}
        yield Found(Image(key, prompt, details=json_text(facts)), file)
    for prompt, own in prompts.items():
        grades = [grade for _, grade in own]
        if len(own) < 2 or len(set(grades)) < 2:
            report.count("single" if len(own) < 2 else "prompts_graded_alike")
            continue
        facts = {"derived_from": "grades", "grades": grades}
        values = [GRADES.index(grade) for grade in grades]
        yield _choice(f"simulacra/{own[0][0]}", prompt, [key for key, _ in own], values, facts)


def _choice(
    key: str,
    prompt: str,
    images: list[str],
    values: list[int],
    facts: dict[str, object],
    annotator: str | None = None,
) -> Choice:
    levels = sorted(set(values), reverse=True)
    return Choice(
        choice=key,
        prompt=prompt,
        images=tuple(images),
        ranks=tuple(levels.index(value) + 1 for value in values),
        dimension="aesthetics",
        annotator=annotator,
        source="simulacra",
        details=json_text(facts),
    )


def _rated(path: Path, folder: Path, report: Report) -> Iterator[Row]:
    try:
        with closing(_open(path)) as database:
            _require_tables(path, database)
            surveys = _surveys(database, report)
            known = bool(database.execute(_OTHER_RATERS).fetchone()[0])
            report.counts["raters_known"] = known
            seen: set[str] = set()
            yield from _images(database, folder, seen, report)
            yield from _choices(database, surveys, seen, report, known=known)
    except sqlite3.Error as fault:
        raise DataError(f"{path}: is no SQLite database, or a damaged one ({fault})") from None


def _open(path: Path) -> sqlite3.Connection:
    """Open a database for reading alone; what its schema says is not trusted to run anything."""
    database = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)
    database.row_factory = sqlite3.Row
    database.execute("PRAGMA trusted_schema = OFF")
    return database


def _require_tables(path: Path, database: sqlite3.Connection) -> None:
    for table, columns in _TABLES.items():
        there = {row["name"] for row in database.execute(f"PRAGMA table_info({table})")}
        if not there:
            raise DataError(f"{path}: has no table {table!r}, expected {', '.join(_TABLES)}")
        if columns - there:
            raise DataError(f"{path}: the table {table} has no column {min(columns - there)!r}")


def _surveys(database: sqlite3.Connection, report: Report) -> dict[int, list[int]]:
    """Return the answers of every survey by its number; those with more than 20 are known to be broken."""
    found: dict[int, list[int]] = {}
    for row in database.execute("SELECT id, rating FROM survey ORDER BY id, qid"):
        if isinstance(row["rating"], bytes):
            told = f"the rating is {row['rating'][:20]!r}, expected a number"
            report.faults.add(f"survey {row['id']}", told)
            continue
        found.setdefault(row["id"], []).append(row["rating"])
    report.count("surveys", len(found))
    report.count("surveys_of_more_than_20_answers", sum(len(own) > 20 for own in found.values()))
    return found


def _images(
    database: sqlite3.Connection, folder: Path, seen: set[str], report: Report
) -> Iterator[Row]:
    for row in database.execute(_IMAGES):
        report.faults.rows += 1
        try:
            file = _file(row, folder, seen)
            facts = _facts(row)
        except DataError as fault:
            report.faults.add(f"image {row['id']}", str(fault))
            continue
        seen.add(row["path"])
        if "upscaled" in facts:
            report.count("upscaled")
        generator = METHODS.get(row["method"], f"method {row['method']}")
        image = Image(row["path"], row["prompt"], generator=generator, details=json_text(facts))
        yield Found(image, file)


def _facts(row: Any) -> dict[str, object]:
    """Return the details of an image. Raises `DataError` for bytes, which no JSON holds."""
    names = {"id": "id", "gid": "generation", "idx": "index", "method": "method"}
    names |= {"sid": "author", "verified": "verified"}
    for column in names:
        if isinstance(row[column], bytes):
            raise DataError(f"{column} is {row[column][:20]!r}, expected a number")
    facts: dict[str, object] = {name: row[column] for column, name in names.items()}
    if row["upscaled"] is not None:
        methods = json.loads(row["upscaled"])
        facts["upscaled"] = methods[0] if len(methods) == 1 else methods
    if row["ratings"] is not None:
        facts["ratings"] = json.loads(row["ratings"])
    return facts


def _file(row: Any, folder: Path, seen: set[str]) -> Path:
    """Return the path of an image's file. Raises `DataError` where its row cannot be used."""
    if not isinstance(row["prompt"], str):
        raise DataError(f"its generation {row['gid']} has no prompt")
    if not isinstance(row["path"], str) or not row["path"]:
        raise DataError("has no path")
    if row["paths"] > 1:
        raise DataError(f"has {row['paths']} paths, expected one")
    if row["path"] in seen:
        raise DataError(f"the path {row['path']!r} was there before")
    return inside(folder, row["path"])


def _choices(
    database: sqlite3.Connection,
    surveys: Mapping[int, list[int]],
    seen: set[str],
    report: Report,
    *,
    known: bool,
) -> Iterator[Choice]:
    """Yield the choices: by person and prompt where ratings say who gave them, else by generation."""
    order = "r.sid, g.prompt" if known else "g.id"
    rated = _usable(database.execute(_RATINGS.format(order=order)), seen, report)

    def whose(row: Any) -> tuple[Any, ...]:
        # without a survey a number is shared by everybody who has none
        if known and row["sid"] in surveys:
            return True, row["sid"], row["prompt"]
        return False, row["sid"], row["gid"]

    for (person, sid, _), rows in groupby(rated, key=whose):
        given = list(rows)
        report.count("ratings_without_rater", 0 if person else len(given))
        own = _once(given, report)
        if len(own) < 2:
            report.count("single")
            continue
        first, ratings = own[0], [row["rating"] for row in own]
        if len(set(ratings)) == 1:
            report.count("all_tied")
        facts: dict[str, object] = {"ratings": ratings, "verified": first["verified"]}
        # an author is told for whoever wants to believe that people rate their own images
        if not person:
            facts |= {"derived_from": "ratings by people not told", "author": first["author"]}
        if sid in surveys:
            facts["survey"] = surveys[sid]
        name = f"simulacra/{sid}/{first['gid']}"
        images = [row["path"] for row in own]
        yield _choice(name, first["prompt"], images, ratings, facts, str(sid) if person else None)


def _usable(rows: Iterable[Any], seen: set[str], report: Report) -> Iterator[Any]:
    for row in rows:
        report.count("ratings")
        where = f"rating {row['row']}"
        if row["path"] not in seen:
            report.faults.add(where, f"its image {row['iid']} is not among the images")
        elif row["rating"] is None:
            report.count("ratings_without_value")
        elif not isinstance(row["rating"], int) or not 1 <= row["rating"] <= 10:
            report.faults.add(where, f"the rating is {row['rating']!r}, expected 1 to 10")
        else:
            yield row


def _once(rows: list[Any], report: Report) -> list[Any]:
    """Leave out images that came with several ratings: they are by several people, or none counts."""
    times: dict[str, int] = {}
    for row in rows:
        times[row["path"]] = times.get(row["path"], 0) + 1
    report.count("images_rated_again", sum(number > 1 for number in times.values()))
    return [row for row in rows if times[row["path"]] == 1]
