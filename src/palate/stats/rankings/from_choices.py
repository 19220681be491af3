"""Strengths of generators, or of the images of a prompt, from a table of choices.

The table says how it is to be counted: who picks the best of several has not compared the others, so a
pick is fitted as a pick, and its losers never tie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.data.checks import list_lengths
from palate.data.codes import annotator_codes, key_codes, rows_of, text_codes, text_hashes
from palate.errors import DataError
from palate.stats.answered import answered_duels
from palate.stats.rankings.bradley_terry import DuelSettings, bradley_terry
from palate.stats.rankings.connectivity import Labels, components, item_codes
from palate.stats.rankings.duel_table import WinRates, win_rates
from palate.stats.rankings.plackett_luce import OrderSettings, plackett_luce, top1_choices
from palate.stats.rankings.strengths import Strengths

Model = Literal["duels", "picks", "rankings"]
FEW: Final = 10
"""With fewer clusters than this no sandwich is reliable, and the result says so."""


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Strengths from choices, the counted win rates beside them, and what did not count.

    `model` is how the choices were counted. `silent` duels are between images of which the person said
    nothing, `own` between two images of one item, `nameless` with an image whose generator is not known.
    """

    strengths: Strengths
    rates: WinRates
    model: Model
    silent: int
    own: int
    nameless: int

    def cautions(self) -> list[str]:
        """What a reader must know before believing the order, a sentence each."""
        found = self.strengths
        used = {
            "prompts": found.n_prompts if found.clustered in {"prompts", "two-way"} else FEW,
            "people": found.n_people if found.clustered in {"people", "two-way"} else FEW,
        }
        few = [f"{count} {name}" for name, count in used.items() if count < FEW]
        if few:
            return [
                (
                    f"the errors rest on {' and '.join(few)}: with fewer than {FEW} clusters they are "
                    "rough, even corrected for it (CR1, Student's t): take the order for a hint"
                )
            ]
        if found.clustered == "model":
            return ["no prompts or people differ: the errors take all answers for independent"]
        return []

    def notes(self) -> list[str]:
        """Which duels did not count, a sentence each."""
        told = [
            (self.silent, "between images that nobody picked are no ties and do not count"),
            (self.own, "between two images of one item do not count"),
            (self.nameless, "with an image of unknown generator do not count"),
        ]
        return [f"{count:,} pairs {words}" for count, words in told if count]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            **self.strengths.to_dict(),
            "counted_as": self.model,
            "win_rates": self.rates.to_dict(),
            "not_counted": {
                "nobody_picked": self.silent,
                "one_item": self.own,
                "unknown_generator": self.nameless,
            },
            "cautions": self.cautions(),
        }


def rank_choices(
    choices: Any,
    names: Mapping[str, str | None] | pa.Table | None = None,
    *,
    model: Model | None = None,
    settings: DuelSettings | None = None,
) -> Ranked:
    """Rank what `names` calls the images of choices: a mapping, or the generators of a table of images.

    Without `names` the images themselves are ranked.

    `model` None takes `picks` where every choice between more than two images is a pick, and else
    `duels`. `duels`: the pairs that people compared, under the tie rule of the settings. `picks`: the
    first choice among all that were shown (`top1_choices`). `rankings`: whole rankings, best first
    (`plackett_luce`); the losers of a pick stay open. `picks` and `rankings` treat ties by Davidson
    and Luce. Errors are clustered by prompt and person. Images without a name are left out and counted.
    Raises `DataError` where nothing is left, and where images of different prompts never met.
    """
    rules = settings or DuelSettings(ties="davidson")
    answered = answered_duels(choices)
    table = _Named(choices, names)
    pairs = answered.duels
    first, second = table.labels[pairs.first_index], table.labels[pairs.second_index]
    named = (first.codes >= 0) & (second.codes >= 0)
    apart = first.codes != second.codes
    kept = answered.kept & named & apart
    if not kept.any():
        raise DataError(_nothing(names, named, apart))
    if names is None:
        _refuse_apart(first[kept], second[kept], choices)
    duels = (first[kept], second[kept], pairs.outcome[kept])
    chosen = model or _model(answered.picks, list_lengths(choices.column("images")))
    if chosen == "duels":
        rows = pairs.choice[kept]
        clusters = (table.prompts[rows], _people(table.people, rows))
        found = bradley_terry(*duels, None, *clusters, settings=rules)
    else:
        found = table.fitted(chosen, rules, picks=answered.picks)
    return Ranked(
        strengths=found,
        rates=win_rates(*duels, ties="drop" if rules.ties == "drop" else "half"),
        model=chosen,
        silent=answered.silent,
        own=int((answered.kept & named & ~apart).sum()),
        nameless=int((answered.kept & ~named).sum()),
    )


class _Named:
    """The images of choices by the names that are ranked, flat, and the labels of every choice."""

    def __init__(self, choices: Any, names: Mapping[str, str | None] | pa.Table | None) -> None:
        self.labels = _labels(pc.list_flatten(choices.column("images")), names)
        self.ranks = pc.list_flatten(choices.column("ranks")).to_numpy().astype(np.int64)
        self.lengths = list_lengths(choices.column("images"))
        self.prompts, self.people = text_codes(choices.column("prompt")), annotator_codes(choices)

    def fitted(
        self, model: Literal["picks", "rankings"], rules: DuelSettings, picks: NDArray[np.bool_]
    ) -> Strengths:
        """Fit whole choices; an image without a name was never there."""
        known = self.labels.codes >= 0
        owner = np.repeat(np.arange(len(self.lengths)), self.lengths)[known]
        sizes = np.bincount(owner, minlength=len(self.lengths))
        there = sizes > 0
        offsets = np.concatenate([[0], np.cumsum(sizes[there])])
        columns = (self.labels[known], self.ranks[known], offsets, None)
        clusters = (self.prompts[there], _people(self.people, np.flatnonzero(there)))
        told = {name: getattr(rules, name) for name in ("side", "prior", "errors", "level")}
        settings = OrderSettings(**told)
        if model == "picks":
            return top1_choices(*columns, *clusters, settings=settings)
        if picks.any():
            settings = replace(settings, last="open")
        return plackett_luce(*columns, *clusters, settings=settings)


def _people(people: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Number the people of some choices, an unknown one as another in every choice; None where nobody is known."""
    codes = people[rows]
    strangers = codes < 0
    return None if strangers.all() else np.where(strangers, people.max() + 1 + rows, codes)


def _labels(flat: Any, names: Mapping[str, str | None] | pa.Table | None) -> Labels:
    """What every image is called; an empty name is none."""
    if names is None:
        codes = key_codes(flat)
        return Labels(codes, _Texts(flat, codes))
    if isinstance(names, pa.Table):
        keys, told = names.column("image"), names.column("generator")
    else:
        keys, told = (pa.array(list(side), pa.string()) for side in (names, names.values()))
    told = pc.if_else(pc.equal(told, ""), None, told)
    rows = rows_of(text_hashes(flat), text_hashes(keys))
    codes = np.append(text_codes(told), -1)[rows]
    return Labels(codes, sorted(told.unique().drop_null().to_pylist()))


class _Texts(Sequence[str]):
    """The different texts of a column in sorted order, each taken when it is asked for."""

    def __init__(self, flat: Any, codes: NDArray[np.int64]) -> None:
        self._flat = flat
        self._row = np.empty(int(codes.max(initial=-1)) + 1, np.int64)
        self._row[codes] = np.arange(len(codes))

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, place: Any) -> Any:
        return self._flat[int(self._row[place])].as_py()


def _model(picks: NDArray[np.bool_], lengths: NDArray[np.int64]) -> Model:
    return "picks" if picks.any() and picks[lengths > 2].all() else "duels"


def _nothing(
    names: Mapping[str, str | None] | pa.Table | None,
    named: NDArray[np.bool_],
    apart: NDArray[np.bool_],
) -> str:
    """Say in one sentence why no duel counts."""
    if not len(named):
        return "no choice has two images, expected pairs that people compared"
    if names is not None and not named.any():
        return (
            "no two images of a choice have a known generator: fill the column generator of the table "
            "of images, or rank the images of one prompt"
        )
    if not apart[named].any():
        what = "image" if names is None else "generator"
        return f"every choice shows one {what} only, expected two of what is ranked"
    return (
        "nobody compared two of what is ranked: all pairs are between images that were not picked"
    )


def _refuse_apart(first: Labels, second: Labels, choices: Any) -> None:
    """Images of different prompts are never shown together, so that no order over prompts exists."""
    items, (left, right) = item_codes(first, second)
    groups = len(np.unique(components(len(items), left, right)))
    if groups > 1:
        prompts = len(choices.column("prompt").unique())
        raise DataError(
            f"the {len(items):,} images of {prompts:,} prompts fall into {groups:,} groups that never "
            "met: name one prompt whose images are ranked, or rank generators"
        )
