"""`palate stats rank`: strengths from choices, and which order of them is certain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from palate.cli._options import DataArgument, DimensionOption, JsonOption
from palate.cli._results import (
    OutOption,
    OverwriteOption,
    about,
    open_choices,
    refuse_options,
    refuse_other_file,
    tell,
)
from palate.cli._text import percent, plural, text_table

if TYPE_CHECKING:
    from palate.data.tables import Dataset
    from palate.stats.rankings.from_choices import Ranked

_COMMAND = "stats rank"


def rank(  # noqa: PLR0917 - typer makes options of them
    dataset: DataArgument,
    by: Annotated[
        Literal["generator", "image"],
        typer.Option(help="What is ranked: generators, or the images of one --prompt."),
    ] = "generator",
    prompt: Annotated[
        str | None, typer.Option(help="The prompt whose images are ranked, with --by image.")
    ] = None,
    dimension: DimensionOption = None,
    model: Annotated[
        Literal["duels", "picks", "rankings"] | None,
        typer.Option(
            help="Count pairs that people compared, the best of all shown, or whole rankings [picks "
            "where all choices between more than two images are picks, else duels]."
        ),
    ] = None,
    ties: Annotated[
        Literal["half", "drop", "davidson", "rao-kupper"] | None,
        typer.Option(
            help="What a tie of a duel means: half a win, nothing, or a parameter of its own [davidson]."
        ),
    ] = None,
    prior: Annotated[
        float, typer.Option(help="Pseudo-ties per item, for sets without a finite ranking.")
    ] = 0.0,
    level: Annotated[float, typer.Option(help="Level of the intervals.")] = 0.95,
    out: OutOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Rank generators by choices between their images (Bradley–Terry), and say what is certain.

    Who picks the best of several has not compared the others: their pairs are left out and are no ties. An
    order is printed only where intervals that hold for all pairs at once say so. Errors are clustered by
    prompt and person.

    Example: palate stats rank data/study --dimension overall

    Example: palate stats rank data/study --by image --prompt "a red fox"
    """
    from palate.errors import DataError
    from palate.stats.rankings.bradley_terry import DuelSettings
    from palate.stats.rankings.expected_wins import expected_wins
    from palate.stats.rankings.from_choices import rank_choices
    from palate.stats.rankings.separation import SeparationSettings, separate

    if by == "generator":
        refuse_options("--by generator", {"--prompt": prompt})
    if model in {"picks", "rankings"}:
        why = {"--ties": "their ties follow Davidson and Luce"}
        refuse_options(f"--model {model}", {"--ties": ties}, why)
    refuse_other_file(out, _COMMAND, overwrite=overwrite)
    settings = DuelSettings(ties=ties or "davidson", prior=prior, level=level)
    found = open_choices(dataset, dimension)
    with about(dataset):
        choices, names = _ranked(found, by, prompt)
        # a rule for ties asks for duels
        asked = "duels" if model is None and ties is not None else model
        ranked = rank_choices(choices, names, model=asked, settings=settings)
        apart = separate(ranked.strengths, SeparationSettings(level=level))
        try:
            wins: Any = expected_wins(ranked.strengths)
        except DataError:  # a prior gave strengths to groups that never met
            wins = None
    dimensions = sorted(choices.column("dimension").unique().to_pylist())
    facts = {
        **ranked.to_dict(),
        "by": by,
        "dimensions": dimensions,
        "separation": apart.to_dict(),
        "expected_wins": None if wins is None else wins.to_dict(),
    }
    tell(
        _COMMAND,
        facts,
        lambda: _text(by, ranked, (apart, wins), dimensions),
        out,
        as_json=as_json,
    )


def _ranked(found: Dataset, by: str, prompt: str | None) -> tuple[Any, Any]:
    """The choices that count, and the table that names generators, or None where images are ranked."""
    import pyarrow.compute as pc

    from palate.errors import DataError

    if by == "image":
        if prompt is None:
            return found.choices, None
        kept = found.choices.filter(pc.equal(found.choices.column("prompt"), prompt))
        if not len(kept):
            raise DataError(f"has no choices on the prompt {prompt[:60]!r}")
        return kept, None
    if not len(found.images):
        raise DataError(
            "has choices and no table of images, which names their generators: give the folder of a data "
            "set with images"
        )
    return found.choices, found.images


def _text(by: str, ranked: Ranked, said: tuple[Any, Any], dimensions: list[str]) -> str:
    """A line per item, the order that is certain, how it was counted, and what to beware of."""
    found, rates, (apart, wins) = ranked.strengths, ranked.rates, said
    counted = dict(zip(rates.items, rates.overall.tolist(), strict=True))
    rows = []
    # items with the same interval of ranks stand by name: no order is claimed
    places = sorted(
        range(len(found.items)),
        key=lambda k: (apart.rank_low[k], apart.rank_high[k], str(found.items[k])),
    )
    for at in places:
        ranks = sorted({int(apart.rank_low[at]), int(apart.rank_high[at])})
        item = found.items[at]
        expected = "–"
        if wins is not None:
            expected = percent(*(float(side[at]) for side in (wins.average, wins.low, wins.high)))
        rows.append(
            [
                str(item),
                f"{found.strengths[at]:+.3f}",
                f"{found.low[at]:+.3f} to {found.high[at]:+.3f}",
                " to ".join(map(str, ranks)),
                expected,
                percent(counted[item]) if item in counted else "–",
            ]
        )
    level = f"{100 * found.settings.level:g}% interval"
    header = [by, "strength", level, "rank", "expected win rate", "counted"]
    lines = [text_table(header, rows), "", apart.sentence(), _method(ranked)]
    if len(dimensions) > 1:
        lines.append(f"all dimensions together: {', '.join(dimensions)} (--dimension takes one)")
    return "\n".join([*lines, *ranked.notes(), *(f"caution: {one}" for one in ranked.cautions())])


def _method(ranked: Ranked) -> str:
    found = ranked.strengths
    counts = plural(found.n_duels, "duel")
    if ranked.model != "duels":
        counts = f"{plural(found.n_choices, ranked.model[:-1])} ({counts})"
    where = [plural(found.n_prompts, "prompt")]
    if found.n_people:
        where.append("1 person" if found.n_people == 1 else f"{found.n_people:,} people")
    rules = found.method.removeprefix(f"{found.model}, ")
    return f"{found.model}, {counts}, {', '.join(where)}; {rules}"
