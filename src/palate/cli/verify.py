"""`palate verify`: compare a scorer with published scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli._options import (
    ArchitectureOption,
    ClipOption,
    DeviceOption,
    JsonOption,
    TokenizerOption,
    WeightsOption,
)

if TYPE_CHECKING:
    from palate.scoring.scorer import Scorer
    from palate.scoring.verify import Verification

_SHOWN = 20


def verify(  # noqa: PLR0917 - typer makes options of them
    scorer: Annotated[
        str,
        typer.Argument(
            help="A scorer's name, such as image-reward or hps-v2@no-antialias, or a saved folder."
        ),
    ],
    weights: WeightsOption = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder with the pictures of the published scores.")
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option(
            help="Scores from elsewhere in place of the published ones: a JSON list of objects with image, "
            "prompt and either score or cosine, for mps also condition and mask_threshold."
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Largest difference to --cases in the scorer's unit [1e-4 of a cosine, else 1e-3]."
        ),
    ] = None,
    promises: Annotated[
        bool, typer.Option("--promises", help="Check the promises of the scorer as well.")
    ] = False,
    tokenizer: TokenizerOption = None,
    architecture: ArchitectureOption = None,
    clip: ClipOption = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Compare a scorer with published scores: matched, by how much not, or that none is known.

    Published scores of pictures that can be had are known for image-reward and hps-v2; each picture is told by its
    SHA-256. With --cases any other list of scores takes their place. Of a scorer without published scores nothing is
    compared, and its promises are checked instead: finite, the same alone and in any batch, and so on. The exit
    status is 1 if a score does not match or a promise is broken, 2 for wrong input, and else 0.

    Example: palate verify image-reward --weights ImageReward.pt --images ImageReward/assets/images

    Example: palate verify models/mps --cases official.json --images pictures
    """
    from palate.scoring.catalog import load
    from palate.scoring.promises import check_scorer

    if cases is None and tolerance is not None:
        raise typer.BadParameter("goes with --cases", param_hint="--tolerance")
    judge = load(
        scorer,
        weights,
        tokenizer=tokenizer,
        architecture=architecture,
        clip=clip,
        device=device,
    )
    found = _compare(judge, images, cases, tolerance)
    broken = check_scorer(judge) if promises or found is None else None
    # None says that nothing was compared, or nothing checked.
    matched = None if found is None else found.matched
    kept = None if broken is None else not broken
    if as_json:
        result: dict[str, Any] = {"scorer": judge.card().line, "matched": matched}
        result["verification"] = found.to_dict() if found else None
        result["promises_kept"] = kept
        result["broken_promises"] = None if broken is None else [str(fault) for fault in broken]
        typer.echo(json.dumps(result, ensure_ascii=False))
    else:
        for line in _lines(judge, found):
            typer.echo(line)
        if broken is not None:
            verdict = "every promise of a scorer is kept" if kept else "broken promises:"
            typer.echo("\n".join([verdict, *(f"  {fault}" for fault in broken)]))
    raise typer.Exit(1 if matched is False or kept is False else 0)


def _compare(
    judge: Scorer, images: Path | None, cases: Path | None, tolerance: float | None
) -> Verification | None:
    """Compare with the cases that were given, or with published ones where there are any."""
    from palate.scoring.verify import published_for, verify_cases, verify_published

    published = published_for(judge)
    if cases is not None:
        if images is None:
            raise typer.BadParameter("goes with --images", param_hint="--cases")
        return verify_cases(judge, cases, images, tolerance)
    if published is None:
        if images is not None:
            raise typer.BadParameter(
                f"no published score of {judge.name} with a picture is known under this profile, so nothing uses "
                "the pictures; expected --cases beside them",
                param_hint="--images",
            )
        return None
    if images is None:
        raise typer.BadParameter(f"expected {published.pictures}", param_hint="--images")
    return verify_published(judge, published, images)


def _lines(judge: Scorer, found: Verification | None) -> list[str]:
    """Write a comparison for people: the cases, or the worst of many, and the verdict."""
    from palate.cli._text import text_table

    if found is None:
        return [
            judge.card().line,
            f"nothing was compared: no published score of {judge.name} with a picture is known",
            "its promises are checked instead:",
        ]
    rows = found.rows
    if len(rows) > _SHOWN:
        rows = tuple(sorted(rows, key=lambda row: abs(row.difference), reverse=True)[:_SHOWN])
    cells = [
        [
            row.image,
            f"{row.expected:.6g}",
            f"{row.found:.6g}",
            f"{row.difference:+.2g}",
            "matched" if row.matched else "NOT MATCHED",
        ]
        for row in rows
    ]
    word = "published" if found.published else "expected"
    header = ["image", f"{word} [{found.unit}]", "found", "difference", "verdict"]
    lines = [found.scorer, f"{word}: {found.source}", text_table(header, cells, "123")]
    if len(rows) < len(found.rows):
        lines.append(f"… the {len(rows)} largest differences of {len(found.rows)} cases")
    right = sum(row.matched for row in found.rows)
    lines.append(
        f"{'matched' if found.matched else 'not matched'}: {right} of {len(found.rows)} within "
        f"{found.tolerance:g} {found.unit} ({found.why}); largest difference "
        f"{abs(found.worst.difference):.2g}, {found.worst.image}"
    )
    return lines
