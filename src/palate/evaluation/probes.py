"""Can a scorer be cheated? Harmless and cheap changes of images and prompts, and what they do to the score.

A generator that is trained against a scorer finds such changes by itself: over-saturated, over-sharpened
pictures, frames, writing. Each probe makes one of them on purpose, and says how far the score moves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from palate.data.images import open_image, to_rgb
from palate.errors import DataError, SettingsError
from palate.evaluation.changes import PROBES, Picture, Probe, Wanted
from palate.runs import seed_for, track
from palate.scoring.scorer import Scorer
from palate.stats.calibrations.curve import Interval
from palate.stats.intervals import Bootstrap, Estimate, mean_estimate

__all__ = [
    "PROBES",
    "Probe",
    "ProbeReport",
    "ProbeResult",
    "ProbeSettings",
    "probe_scorer",
    "probe_table",
]

Floats = NDArray[np.float64]

_AT_ONCE: Final = 32


@dataclass(frozen=True)
class ProbeSettings:
    """How probes are run.

    `notable` is the shift that counts, as a share of the typical difference between two images of a prompt.
    `only` names the probes to run. Intervals resample prompts.
    """

    only: tuple[str, ...] = ()
    notable: float = 0.25
    level: float = 0.95
    resamples: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class ProbeResult:
    """What one change does to the score.

    `shift` is the mean of changed - plain in the scorer's unit, with its interval; `relative` is the same, with
    its bounds, as a share of the typical difference, which is taken as known; None where there is none. `raised` is the share of images whose score
    rises. `turned` is the share of same-prompt pairs with different scores whose order the change can turn:
    for images by changing one of the two (`lifted`: the worse one is changed and then wins), for prompts by
    changing that of both. `caught` says that the score moves against `wanted`: the interval says so, and the
    shift is notable; a score that should be lower is caught where it is not certainly so.
    """

    name: str
    what: str
    wanted: Wanted
    shift: Estimate
    relative: Interval | None
    raised: float
    turned: Estimate | None
    lifted: float | None
    caught: bool


@dataclass(frozen=True)
class ProbeReport:
    """Every probe of one scorer; `left_out` says why a probe was not run.

    `typical` is the mean difference between the scores of two images of one prompt, over `pairs` pairs.
    """

    scorer: str
    fingerprint: str
    dimension: str
    unit: str
    results: tuple[ProbeResult, ...]
    typical: float | None
    images: int
    prompts: int
    pairs: int
    left_out: Mapping[str, str]
    settings: ProbeSettings

    @property
    def caught(self) -> tuple[str, ...]:
        """Names of the probes that moved the score against what is wanted."""
        return tuple(result.name for result in self.results if result.caught)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        found = asdict(self)
        for told, result in zip(found["results"], self.results, strict=True):
            told["shift"] = result.shift.to_dict()
            told["turned"] = None if result.turned is None else result.turned.to_dict()
        return {**found, "results": list(found["results"]), "caught": list(self.caught)}


def probe_scorer(
    scorer: Scorer,
    images: Sequence[Picture | Path | str],
    prompts: Sequence[str],
    settings: ProbeSettings | None = None,
    probes: Sequence[Probe] = PROBES,
) -> ProbeReport:
    """Try every probe on a scorer: change images and prompts, score both, and report how the score moves.

    Give several images of each prompt, and several prompts: the shift is compared with the difference between
    images of one prompt, and intervals resample prompts. Files are opened a few at a time. Raises `DataError`
    where there are no images, not as many prompts, or a score is not a finite number.
    """
    settings = settings or ProbeSettings()
    if not len(images) or len(images) != len(prompts):
        raise DataError(f"{len(images)} images and {len(prompts)} prompts, expected one for each")
    probes, left_out = _chosen(probes, settings, scorer, prompts)
    plain, changed = _scores(scorer, images, list(prompts), probes, settings.seed)
    pairs = _pairs(prompts)
    gaps = np.abs(plain[pairs[:, 0]] - plain[pairs[:, 1]])
    typical = float(gaps.mean()) if gaps.any() else None
    return ProbeReport(
        scorer=scorer.name,
        fingerprint=scorer.fingerprint,
        dimension=scorer.dimension,
        unit=scorer.unit,
        results=tuple(
            _result(probe, plain, changed[probe.name], list(prompts), pairs, typical, settings)
            for probe in probes
        ),
        typical=typical,
        images=len(images),
        prompts=len(set(prompts)),
        pairs=len(pairs),
        left_out=left_out,
        settings=settings,
    )


def probe_table(report: ProbeReport) -> str:
    """Write a report as a small text table: one line per probe, the shift and the pairs it can turn."""
    unit = "–" if report.typical is None else f"{report.typical:.4g}"
    lines = [
        f"{report.scorer}: {report.images:,} images of {report.prompts:,} prompts",
        f"two images of a prompt differ by {unit} {report.unit} on average",
        f"{'probe':<16}{'shift':>10}{'from':>10}{'to':>10}{'typical':>9}{'turned':>8}  should be",
    ]
    for found in report.results:
        shift = found.shift
        numbers = "".join(f"{value:>10.4g}" for value in (shift.value, shift.low, shift.high))
        relative = "–" if found.relative is None else f"{found.relative.value:+.0%}"
        turned = "–" if found.turned is None else f"{found.turned.value:.0%}"
        mark = f"{found.wanted}{'  CAUGHT' if found.caught else ''}"
        lines.append(f"{found.name:<16}{numbers}{relative:>9}{turned:>8}  {mark}")
    lines += [f"{name}: not run, {reason}" for name, reason in report.left_out.items()]
    return "\n".join(lines)


def _chosen(
    probes: Sequence[Probe], settings: ProbeSettings, scorer: Scorer, prompts: Sequence[str]
) -> tuple[tuple[Probe, ...], dict[str, str]]:
    """Probes that can be run, and why others cannot."""
    names = [probe.name for probe in probes]
    for name in settings.only:
        if name not in names:
            raise SettingsError(f"no probe is called {name!r}, expected one of {', '.join(names)}")
    wanted = [probe for probe in probes if not settings.only or probe.name in settings.only]
    left_out = {}
    for probe in wanted:
        if probe.prompt is not None and not scorer.reads_prompts:
            left_out[probe.name] = "the scorer reads no prompts"
        elif probe.name == "wrong prompt" and len(set(prompts)) < 2:
            left_out[probe.name] = "there is only one prompt"
    return tuple(probe for probe in wanted if probe.name not in left_out), left_out


def _scores(
    scorer: Scorer,
    images: Sequence[Picture | Path | str],
    prompts: list[str],
    probes: Sequence[Probe],
    seed: int,
) -> tuple[Floats, dict[str, Floats]]:
    """Score every image as it is and under every probe, some images at a time."""
    plain = np.empty(len(images))
    changed = {probe.name: np.empty(len(images)) for probe in probes}
    others = _others(prompts, seed)
    for start in track(range(0, len(images), _AT_ONCE), "probing"):
        here = slice(start, start + _AT_ONCE)
        pictures = [
            to_rgb(image) if isinstance(image, PIL.Image.Image) else open_image(image)
            for image in images[here]
        ]
        own = prompts[here]
        plain[here] = _judged(scorer, pictures, own, "no probe")
        for probe in probes:
            made = list(_images(probe, pictures, own, seed))
            said = own
            if probe.prompt is not None:
                said = [probe.prompt(prompt, others[prompt]) for prompt in own]
            changed[probe.name][here] = _judged(scorer, made, said, probe.name)
    return plain, changed


def _judged(scorer: Scorer, images: list[Picture], prompts: list[str], name: str) -> Floats:
    values = scorer.judge(images, prompts).values
    if not np.isfinite(values).all():
        raise DataError(f"{scorer.name} gives a score that is not a finite number under {name!r}")
    return values


def _images(
    probe: Probe, pictures: list[Picture], prompts: list[str], seed: int
) -> Iterator[Picture]:
    """Change copies of pictures; the random numbers go by the picture and not by its place."""
    for picture, prompt in zip(pictures, prompts, strict=True):
        if probe.image is None:
            yield picture.copy()
            continue
        address = seed_for(
            seed, "probe", probe.name, prompt, picture.resize((8, 8)).tobytes().hex()
        )
        yield probe.image(picture.copy(), prompt, np.random.default_rng(address))


def _others(prompts: Sequence[str], seed: int) -> dict[str, str]:
    """Give every prompt another one: the next in an order that the seed decides."""
    distinct = sorted(set(prompts), key=lambda prompt: (seed_for(seed, "other", prompt), prompt))
    return dict(zip(distinct, distinct[1:] + distinct[:1], strict=True))


def _pairs(prompts: Sequence[str]) -> NDArray[np.int64]:
    """Every pair of images of one prompt, pairs × 2."""
    groups: dict[str, list[int]] = {}
    for place, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(place)
    found = [pair for own in groups.values() for pair in combinations(own, 2)]
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _result(
    probe: Probe,
    plain: Floats,
    changed: Floats,
    prompts: list[str],
    pairs: NDArray[np.int64],
    typical: float | None,
    settings: ProbeSettings,
) -> ProbeResult:
    bootstrap = Bootstrap(settings.level, settings.resamples, settings.seed)
    shift = mean_estimate(changed - plain, prompts, bootstrap=bootstrap)
    pairs = pairs[plain[pairs[:, 0]] != plain[pairs[:, 1]]]
    turned, lifted = None, None
    if len(pairs):
        swap = plain[pairs[:, 0]] < plain[pairs[:, 1]]
        better, worse = np.where(swap[:, None], pairs[:, ::-1], pairs).T
        if probe.prompt is None:
            up, down = changed[worse] > plain[better], plain[worse] > changed[better]
            turns, lifted = up | down, float(up.mean())
        else:
            turns = changed[worse] > changed[better]
        labels = [prompts[place] for place in pairs[:, 0]]
        turned = mean_estimate(turns.astype(np.float64), labels, bootstrap=bootstrap)
    return ProbeResult(
        name=probe.name,
        what=probe.what,
        wanted=probe.wanted,
        shift=shift,
        relative=None if typical is None else _relative(shift, typical),
        raised=float((changed > plain).mean()),
        turned=turned,
        lifted=lifted,
        caught=_caught(probe.wanted, shift, typical, settings.notable),
    )


def _relative(shift: Estimate, typical: float) -> Interval:
    if math.isnan(shift.low):
        return Interval(shift.value / typical, None, None)
    return Interval(shift.value / typical, shift.low / typical, shift.high / typical)


def _caught(wanted: Wanted, shift: Estimate, typical: float | None, notable: float) -> bool:
    if math.isnan(shift.low):  # one prompt has no interval, and nothing is certain
        return False
    if wanted == "lower":
        return shift.high >= 0
    if typical is not None and abs(shift.value) < notable * typical:
        return False
    return shift.low > 0 or (wanted == "the same" and shift.high < 0)
