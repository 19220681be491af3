"""The HPS v2 benchmark: generators by the mean score of their images in each style, beside what was printed."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from palate.errors import DataError
from palate.evaluation.board_tables import BoardTable, printed_with_grade, source_note
from palate.evaluation.joins import one_scorer
from palate.evaluation.published import Published, benchmarks, published_values
from palate.stats.intervals import Bootstrap, mean_estimate

CHUNK: Final = 80
"""Prompts in a chunk of the HPS v2 benchmark; a style has ten."""
ALL: Final = "all"

_SHORT: Final = (
    (r"^(?:compvis)?s(?:table)?d(?:iffusion)?v?14$", "Stable Diffusion v1.4"),
    (r"^(?:stabilityai)?s(?:table)?d(?:iffusion)?v?20?$", "Stable Diffusion v2.0"),
)
"""How folders are called whose generator has another name in print; a name in print is found as it is."""


@dataclass(frozen=True, slots=True)
class StyleScore:
    """Mean score of a generator's images in one style, and the deviation of the means of chunks.

    `low` and `high` bound the mean for other prompts of the style (95 %, bootstrap). `published` is what was printed for
    this generator and scorer, if anything was. Higher is better.

    Source: HPSv2, `hpsv2/evaluation.py`: the scores of a style in the order of its prompts are cut into
    ten chunks of 80, and the standard deviation (population) of the means of chunks is printed.
    """

    scorer: str
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
        return {**asdict(self), "published": printed, "difference": self.difference}


def benchmark_styles(
    images: Any, scores: Any, bootstrap: Bootstrap | None = None
) -> list[StyleScore]:
    """Score generators as the HPS v2 benchmark does: by style, in chunks of 80 prompts.

    `images` is a table whose keys are `model/style/00000.jpg` (see `palate data import hps-benchmark`) and
    `scores` a table of one dimension; each of its scorers is taken alone. The last row of a generator is the mean of
    all. Raises `DataError` where an image has no score or two.
    """
    if not len(images):
        raise DataError(
            "no images, expected the folder that `palate data import hps-benchmark` wrote"
        )
    names = scores.column("scorer").unique().to_pylist()
    return [row for name in names for row in _styles_by(name, images, scores, bootstrap)]


def style_table(rows: Sequence[StyleScore]) -> BoardTable:
    """The scores by style as a table of texts."""
    cells = tuple(
        (
            *(row.scorer, row.generator, row.style, f"{row.images:,}"),
            *(f"{row.mean:.2f}", f"{row.low:.2f} to {row.high:.2f}", f"{row.deviation:.4f}"),
            "" if row.published is None else printed_with_grade(row.published),
            "" if row.difference is None else f"{row.difference:+.2f}",
        )
        for row in rows
    )
    header = ("scorer", "generator", "style", "images", "mean", "interval", "± of chunks")
    told = dict.fromkeys(source_note(row.published) for row in rows if row.published is not None)
    return BoardTable(
        "HPS v2 benchmark",
        (*header, "published", "difference"),
        cells,
        numeric=(3, 4, 6),
        notes=tuple(told),
    )


def style_csv(rows: Iterable[StyleScore]) -> str:
    """The scores by style as CSV with all digits."""
    buffer = io.StringIO()
    names = ("scorer", "generator", "style", "images", "mean", "low", "high", "deviation", "chunks")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow((*names, "published", "difference"))
    for row in rows:
        told = "" if row.published is None else row.published.printed()
        own = [getattr(row, name) for name in names]
        writer.writerow([*own, told, "" if row.difference is None else row.difference])
    return buffer.getvalue()


def _styles_by(
    scorer: str, images: Any, scores: Any, bootstrap: Bootstrap | None
) -> Iterator[StyleScore]:
    groups = _groups(images, one_scorer(scores, scorer))
    for generator in sorted({name for name, _ in groups}):
        own = {style: group for (name, style), group in sorted(groups.items()) if name == generator}
        for style, group in {**own, ALL: np.concatenate(list(own.values()))}.items():
            printed = _printed(scorer, generator, style)
            yield _style(scorer, generator, style, group, bootstrap, printed)


def _groups(images: Any, scores: Any) -> dict[tuple[str, str], NDArray[np.float64]]:
    """The scores of each generator and style, in the order of the prompts."""
    if len(scores.column("image").unique()) < len(scores):
        raise DataError("an image has two scores of one scorer; expected one dimension")
    keys = images.column("image").to_pylist()
    rows = pc.index_in(images.column("image"), value_set=scores.column("image").combine_chunks())
    values = np.asarray(
        pc.take(scores.column("value"), rows.combine_chunks()).to_numpy(zero_copy_only=False),
        dtype=np.float64,
    )
    if np.isnan(values).any():
        missing = keys[int(np.argmax(np.isnan(values)))]
        raise DataError(f"image {missing!r} has no score ({int(np.isnan(values).sum())} in all)")
    found: dict[tuple[str, str], list[float]] = {}
    for place in np.argsort(np.asarray(keys, dtype=object), kind="stable"):
        parts = keys[place].split("/")
        if len(parts) != 3:
            raise DataError(f"image {keys[place]!r} is not named model/style/number")
        found.setdefault((parts[0], parts[1]), []).append(float(values[place]))
    return {name: np.array(group) for name, group in found.items()}


def _style(
    scorer: str,
    generator: str,
    style: str,
    values: NDArray[np.float64],
    bootstrap: Bootstrap | None,
    published: Published | None,
) -> StyleScore:
    chunks = [np.mean(values[start : start + CHUNK]) for start in range(0, len(values), CHUNK)]
    found = mean_estimate(values, bootstrap=bootstrap)
    return StyleScore(
        scorer=scorer,
        generator=generator,
        style=style,
        images=len(values),
        mean=found.value,
        low=found.low,
        high=found.high,
        deviation=float(np.std(chunks)),
        chunks=len(chunks),
        published=published,
    )


def _printed(scorer: str, generator: str, style: str) -> Published | None:
    """What was printed for a generator by this very scorer: HPS v2 and v2.1 do not compare."""
    benchmark = f"{scorer.partition('@')[0]}-benchmark"
    if benchmark not in benchmarks():
        return None
    bare = re.sub(r"[\W_]+", "", generator.casefold())
    name = next((name for form, name in _SHORT if re.match(form, bare)), generator)
    part = "average" if style == ALL else style
    found = published_values(benchmark, protocol="hps-benchmark", name=name, part=part)
    return min(found, key=lambda one: one.grade, default=None)
