"""The HPS v2 benchmark: generators by the mean score of their images in each style, beside what was printed."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.data.codes import rows_of, text_hashes
from palate.errors import DataError
from palate.evaluation.board_tables import NONE, BoardTable, printed_with_grade, source_note
from palate.evaluation.joins import one_scorer
from palate.evaluation.published import Published, benchmarks, published_values, surest
from palate.stats.intervals import Bootstrap, mean_estimate
from palate.stats.numbers import finite

CHUNK: Final = 80
"""Prompts in a chunk of the HPS v2 benchmark; a style has ten."""
ALL: Final = "all"
_PLACE: Final = ("scorer", "dimension", "generator", "style")

_SHORT: Final = (
    (r"^(?:compvis)?s(?:table)?d(?:iffusion)?v?14$", "Stable Diffusion v1.4"),
    (r"^(?:stabilityai)?s(?:table)?d(?:iffusion)?v?20?$", "Stable Diffusion v2.0"),
)
"""How folders are called whose generator has another name in print; a name in print is found as it is."""


@dataclass(frozen=True, slots=True)
class StyleScore:
    """Mean score of a generator's images in one style, and the deviation of the means of chunks.

    `low` and `high` bound the mean for other prompts of the style (95 %, bootstrap). `published` is what was printed for
    this generator and a scorer of this name, if anything was. Higher is better.

    Source: HPSv2, `hpsv2/evaluation.py`: the scores of a style in the order of its prompts are cut into
    ten chunks of 80, and the standard deviation (population) of the means of chunks is printed.
    """

    scorer: str
    dimension: str
    generator: str
    style: str
    images: int
    mean: float
    low: float
    high: float
    deviation: float
    chunks: int
    published: Published | None

    @property
    def difference(self) -> float | None:
        """The measured mean less the printed one."""
        return None if self.published is None else self.mean - self.published.value

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        printed = None if self.published is None else self.published.to_dict()
        bounds = {"low": finite(self.low), "high": finite(self.high)}
        return {**asdict(self), **bounds, "published": printed, "difference": self.difference}


def benchmark_styles(
    images: Any, scores: Any, bootstrap: Bootstrap | None = None
) -> list[StyleScore]:
    """Score generators as the HPS v2 benchmark does: by style, in chunks of 80 prompts.

    `images` is a table whose keys are `model/style/00000.jpg` (see `palate data import hps-benchmark`) and
    `scores` a table of scores under the prompts of these images; each of its scorers and dimensions is taken alone. The
    last row of a generator is the mean of all. Raises `DataError` where an image has no score or two.
    """
    if not len(images):
        raise DataError(
            "no images, expected the folder that `palate data import hps-benchmark` wrote"
        )
    if not len(scores):
        raise DataError("the table of scores is empty")
    kinds = scores.select(["scorer", "dimension"]).group_by(
        ["scorer", "dimension"], use_threads=False
    )
    return [
        row
        for kind in kinds.aggregate([]).to_pylist()
        for row in _styles_by(kind["scorer"], kind["dimension"], images, scores, bootstrap)
    ]


def style_table(rows: Sequence[StyleScore]) -> BoardTable:
    """The scores by style as a table of texts."""
    cells = tuple(
        (
            *(getattr(row, name) for name in _PLACE),
            *(f"{row.images:,}", f"{row.mean:.2f}", _between(row), f"{row.deviation:.4f}"),
            "" if row.published is None else printed_with_grade(row.published),
            "" if row.difference is None else f"{row.difference:+.2f}",
        )
        for row in rows
    )
    told = dict.fromkeys(source_note(row.published) for row in rows if row.published is not None)
    return BoardTable(
        "HPS v2 benchmark",
        (*_PLACE, "images", "mean", "interval", "± of chunks", "published", "difference"),
        cells,
        numeric=(4, 5, 7),
        notes=tuple(told),
    )


def style_csv(rows: Iterable[StyleScore]) -> str:
    """The scores by style as CSV with all digits."""
    buffer = io.StringIO()
    names = [field.name for field in fields(StyleScore)]
    writer = csv.DictWriter(buffer, [*names, "difference"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        told = "" if row.published is None else row.published.printed()
        writer.writerow(row.to_dict() | {"published": told})
    return buffer.getvalue()


def _between(row: StyleScore) -> str:
    return NONE if math.isnan(row.low) else f"{row.low:.2f} to {row.high:.2f}"


def _styles_by(
    scorer: str, dimension: str, images: Any, scores: Any, bootstrap: Bootstrap | None
) -> Iterator[StyleScore]:
    own = one_scorer(scores.filter(pc.equal(scores.column("dimension"), dimension)), scorer)
    groups, unit = _groups(images, own), own.column("unit")[0].as_py()
    for generator in sorted({name for name, _ in groups}):
        styles = {
            style: group for (name, style), group in sorted(groups.items()) if name == generator
        }
        if ALL in styles:
            raise DataError(
                f"generator {generator!r} has a style called {ALL!r}, expected another name"
            )
        for style, group in {**styles, ALL: np.concatenate(list(styles.values()))}.items():
            place = dict(zip(_PLACE, (scorer, dimension, generator, style), strict=True))
            yield _style(place, group, bootstrap, _printed(scorer, unit, generator, style))


def _groups(images: Any, scores: Any) -> dict[tuple[str, str], NDArray[np.float64]]:
    """The scores of each generator and style, in the order of the prompts."""
    keys = images.column("image").to_pylist()
    given = _asked(scores)
    if len(np.unique(given)) < len(given):
        raise DataError("an image has two scores of one scorer on one dimension, expected one")
    values = np.append(scores.column("value").to_numpy(), np.nan)[rows_of(_asked(images), given)]
    if np.isnan(values).any():
        missing = keys[int(np.argmax(np.isnan(values)))]
        raise DataError(
            f"image {missing!r} has no score for its prompt ({int(np.isnan(values).sum())} in all)"
        )
    found: dict[tuple[str, str], list[float]] = {}
    for place in np.argsort(np.asarray(keys, dtype=object), kind="stable"):
        parts = keys[place].split("/")
        if len(parts) != 3:
            raise DataError(f"image {keys[place]!r} is not named model/style/number")
        found.setdefault((parts[0], parts[1]), []).append(float(values[place]))
    return {name: np.array(group) for name, group in found.items()}


def _asked(table: Any) -> Any:
    return text_hashes(table.column("image"), text_hashes(table.column("prompt")))


def _style(
    place: dict[str, str],
    values: NDArray[np.float64],
    bootstrap: Bootstrap | None,
    published: Published | None,
) -> StyleScore:
    chunks = [np.mean(values[start : start + CHUNK]) for start in range(0, len(values), CHUNK)]
    found = mean_estimate(values, bootstrap=bootstrap)
    return StyleScore(
        **place,
        images=len(values),
        mean=found.value,
        low=found.low,
        high=found.high,
        deviation=float(np.std(chunks)),
        chunks=len(chunks),
        published=published,
    )


def _printed(scorer: str, unit: str, generator: str, style: str) -> Published | None:
    """What was printed for a generator by a scorer of this name and unit: HPS v2 and v2.1 do not compare."""
    benchmark = f"{scorer.partition('@')[0]}-benchmark"
    if benchmark not in benchmarks() or unit != "hps":  # 100 × cosine
        return None
    bare = re.sub(r"[\W_]+", "", generator.casefold())
    name = next((name for form, name in _SHORT if re.match(form, bare)), generator)
    part = "average" if style == ALL else style
    return surest(published_values(benchmark, protocol="hps-benchmark", name=name, part=part))
