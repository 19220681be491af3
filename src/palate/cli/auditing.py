"""`palate data audit`: the command, and what it says to people."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate.cli._text import plural, text_table

if TYPE_CHECKING:
    from palate.data.audit.answers import Ties
    from palate.data.audit.audit import Audit
    from palate.data.position import PositionBias


def audit(  # noqa: PLR0917 - typer makes options of them
    dataset: Annotated[Path, typer.Argument(help="Folder of a data set.")],
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Another data set that should share nothing with it; may be repeated."),
    ] = None,
    require_images: Annotated[
        bool, typer.Option("--require-images", help="A missing image file is an error.")
    ] = False,
    no_decode: Annotated[
        bool, typer.Option("--no-decode", help="Do not open images: quicker, sees less.")
    ] = False,
    near: Annotated[
        float, typer.Option(help="Thumbnails that differ by less (of 255) are nearly equal.")
    ] = 2.0,
    hash_distance: Annotated[
        int, typer.Option(help="Images whose hashes differ in at most so many bits are near.")
    ] = 3,
    tokenizer: Annotated[
        list[Path] | None,
        typer.Option(help="Vocabulary of CLIP or BLIP, to count tokens; may be repeated."),
    ] = None,
    max_pixels: Annotated[int, typer.Option(help="Larger images do not open.")] = 100_000_000,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if there are errors or warnings.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for audit.html, audit.json and the run record.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the audit as JSON.")] = False,
) -> None:
    """Name what is odd in a data set: files, duplicates, leaks, position bias, annotators.

    Exits with 0 whatever it finds, unless --strict (1 for errors or warnings) or --require-images
    (1 for missing files).

    Example: palate data audit data/hpd --against data/hpd-test --out audits/hpd
    """
    from palate.data.audit.audit import AuditSettings, audit_folder

    settings = AuditSettings(
        require_images=require_images,
        decode=not no_decode,
        near=near,
        max_pixels=max_pixels,
        hash_distance=hash_distance,
    )
    others, vocabularies = against or [], tokenizer or []
    found = audit_folder(dataset, settings, against=others, counters=_counters(vocabularies))
    if out is not None:
        _record(found, _inputs(dataset, others, vocabularies), out, overwrite)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False))
    else:
        typer.echo(audit_text(found))
    missing = any(finding.kind == "missing files" for finding in found.at("error"))
    if (strict and found.at("error", "warning")) or missing:
        raise typer.Exit(1)


def _counters(paths: Sequence[Path]) -> dict[str, Callable[[str], int]]:
    """What counts tokens: BERT's vocab.txt for BLIP, and anything else for CLIP."""
    counters: dict[str, Callable[[str], int]] = {}
    for path in paths:
        if path.name == "vocab.txt" or (path / "vocab.txt").is_file():
            from palate.models.word_pieces import read_word_pieces

            words = read_word_pieces(path)
            counters["BLIP"] = lambda prompt, words=words: len(words.ids(prompt))  # type: ignore[misc]
        else:
            from palate.models.tokens import read_tokenizer

            clip = read_tokenizer(path)
            counters["CLIP"] = lambda prompt, clip=clip: _clip_tokens(clip.ids(prompt))  # type: ignore[misc]
    return counters


def _clip_tokens(found: tuple[list[int], int]) -> int:
    numbers, lost = found
    return len(numbers) + lost


def _inputs(dataset: Path, others: Sequence[Path], vocabularies: Sequence[Path]) -> dict[str, Path]:
    """Files that an audit's result depends on, beside the images."""
    inputs: dict[str, Path] = {}
    for name, folder in [("", dataset), *((f"against {k + 1} ", p) for k, p in enumerate(others))]:
        inputs |= {f"{name}{kind}": folder / f"{kind}.parquet" for kind in ("images", "choices")}
    for path in vocabularies:
        files = [path] if path.is_file() else [path / "vocab.json", path / "vocab.txt"]
        inputs |= {f"tokenizer {file.name}": file for file in files}
    return {name: path for name, path in inputs.items() if path.exists()}


def _record(found: Audit, inputs: Mapping[str, Path], out: Path, overwrite: bool) -> None:
    from palate.data.audit.page import audit_page
    from palate.runs import start_run, write_atomic

    with start_run("data audit", out, found.settings, dict(inputs), overwrite=overwrite) as run:
        write_atomic(out / "audit.json", json.dumps(found.to_dict(), indent=2) + "\n")
        write_atomic(out / "audit.html", audit_page(found))
        counts = {level: len(found.at(level)) for level in ("error", "warning", "note")}
        run.finish(counts, files=[out / "audit.json", out / "audit.html"])


def audit_text(found: Audit) -> str:
    """Write an audit for people: counts, tables of what was measured, and findings."""
    blocks = [
        _counts_text(found),
        # first, because it decides what an accuracy is worth
        "" if found.position is None else _position_text(found.position),
        *_facts_text(found),
    ]
    parts = ["\n\n".join(block for block in blocks if block), ""]
    for finding in found.findings:
        parts.append(f"{finding.level:<8} {finding.kind}: {finding.message}")
        parts += [f"           {_short(example)}" for example in finding.examples]
    levels = [(level, len(found.at(level))) for level in ("error", "warning", "note")]
    parts.append(", ".join(plural(number, level) for level, number in levels))
    return "\n".join(parts)


def _counts_text(found: Audit) -> str:
    counts = found.counts
    people = plural(counts["annotators"], "known annotator")
    choices, images = plural(counts["choices"], "choice"), plural(counts["images"], "image")
    prompts = plural(counts["prompts"], "prompt")
    parts = [f"{found.folder}: {choices} between {images} of {prompts} by {people}"]
    for name in ("images_per_choice", "dimensions", "sources", "generators"):
        if len(counts[name]) > 1:
            told = ", ".join(f"{key} ({number:,})" for key, number in counts[name].items())
            parts.append(f"{name.replace('_', ' ')}: {told}")
    return "\n".join(parts)


def _facts_text(found: Audit) -> Iterator[str]:
    facts = found.facts
    yield _leaks_text(found)
    yield _prompts_text(found)
    if any(row.tied_best for row in facts.ties):
        yield _ties_text("images", facts.group_sizes)
        yield _ties_text("dimension", facts.ties)
    yield _agreement_text(found)
    if facts.speed is not None:
        speed = facts.speed
        yield (
            f"seconds for an answer: median {speed.median:.3g}, middle half {speed.quarter:.3g} to "
            f"{speed.three_quarters:.3g} ({plural(speed.answers, 'answer')})"
        )
    yield _images_text(found)


def _leaks_text(found: Audit) -> str:
    if not found.facts.leaks:
        return ""
    rows = [
        [
            leak.against,
            leak.kind,
            f"{leak.there:,} of {leak.of_there:,}",
            _share(leak.there, leak.of_there),
            f"{leak.choices:,} of {leak.of_choices:,}",
            _share(leak.choices, leak.of_choices),
        ]
        for leak in found.facts.leaks
    ]
    return text_table(["against", "", "of it", "", "in its choices", ""], rows, right="2345")


def _prompts_text(found: Audit) -> str:
    prompts, parts = found.facts.prompts, []
    if prompts is not None and prompts.repeated:
        parts.append(
            f"{prompts.rows} per prompt: median {prompts.median:g}, mean {prompts.mean:.3g}, "
            f"most {prompts.largest:,}; {plural(prompts.repeated, 'prompt')} of "
            f"{prompts.distinct:,} with more than one"
        )
    for row in found.facts.lengths:
        if row.over:
            how = "counted" if row.exact else "estimated from below"
            parts.append(
                f"tokens for {row.encoder} ({how}): median {row.median:g}, most {row.longest:,}; "
                f"{row.over:,} of {row.prompts:,} prompts above {row.limit}"
            )
    return "\n".join(parts)


def _ties_text(what: str, rows: Sequence[Ties]) -> str:
    whole = sum(row.choices for row in rows)
    cells = [
        [
            row.of,
            f"{row.choices:,}",
            _share(row.choices, whole),
            f"{row.tied_best:,}",
            _share(row.tied_best, row.choices),
            f"{row.all_tied:,}",
            _share(row.all_tied, row.choices),
        ]
        for row in rows
    ]
    header = [what, "choices", "share", "several best", "share", "all tied", "share"]
    return text_table(header, cells, right="123456")


def _agreement_text(found: Audit) -> str:
    if not found.facts.agreement:
        return ""
    rows = [
        [
            row.dimension,
            f"{row.questions:,}",
            f"{row.annotators:,}",
            _maybe(row.best),
            _maybe(row.best_chance),
            _maybe(row.pairs),
            f"{100 * row.pairs_tied:.1f} %",
        ]
        for row in found.facts.agreement
    ]
    header = ["agreement", "questions", "people", "same best", "chance", "same order", "ties"]
    told = "kappa and alpha: palate stats agreement"
    return text_table(header, rows, right="123456") + "\n" + told


def _images_text(found: Audit) -> str:
    sizes, parts = found.facts.sizes, []
    if sizes is not None and sizes.distinct > 1:
        top = ", ".join(f"{s.width} × {s.height} ({s.images:,})" for s in sizes.top[:4])
        shapes = f"{plural(sizes.distinct, 'size')}, {plural(sizes.shapes, 'shape')}"
        parts.append(f"image sizes: {top}; {shapes}")
    parts += [
        f"{row.key} of {row.table}: {row.above:,} of {row.rows:,} above 0.5"
        for row in found.facts.marks
    ]
    return "\n".join(parts)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


def _maybe(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 110 else text[:109] + "…"


def _position_text(position: PositionBias) -> str:
    rows = [
        ["at random (chance)", f"{100 * position.chance:.1f} %", ""],
        *(
            [name, f"{100 * share.value:.1f} %", f"{100 * share.low:.1f} to {100 * share.high:.1f}"]
            for name, share in (
                ("always the first", position.always_first),
                ("always the last", position.always_last),
            )
        ),
    ]
    picked = f"picking ({position.choices:,} choices)"
    parts = [
        text_table([picked, "is right", f"{position.level:.0%} interval"], rows, right="1"),
        "",
    ]
    table = [
        [
            f"{slots.size} images",
            f"place {place + 1}",
            f"{count:,} of {slots.choices:,}",
            f"{100 * share.value:.1f} %",
            f"{100 * share.low:.1f} to {100 * share.high:.1f}",
            f"{slots.p_value:.2g}" if place == 0 else "",
        ]
        for slots in position.sizes
        for place, (count, share) in enumerate(zip(slots.counts, slots.shares, strict=True))
    ]
    header = ["chosen", "", "times", "share", f"{position.level:.0%} interval", "p of equal shares"]
    parts.append(text_table(header, table, right="23"))
    ties = sum(slots.ties for slots in position.sizes)
    if ties:
        parts.append(
            f"places are counted without the {plural(ties, 'choice')} that tie at the best"
        )
    return "\n".join(parts)
