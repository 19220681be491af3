"""The audit of a scorer's biases: what was found, and a small text table of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from palate.evaluation.bias_slopes import BiasSettings, ImageBias, PromptBias
from palate.stats.slopes import Slope

FEW: Final = 10
"""With fewer prompts, or fewer people, the errors are rough, and the audit says so."""


@dataclass(frozen=True)
class BiasAudit:
    """What a scorer goes by beside what people prefer.

    `duels` counts those that people answered, `uncompared` those between images that nobody picked,
    `not_tested` says of each covariate without a slope why, and `faults` why files could not be measured.
    Errors go by `n_prompts` prompts, and by `n_people` people where two or more are known.
    """

    scorer: str
    fingerprint: str
    unit: str
    images: tuple[ImageBias, ...]
    prompts: tuple[PromptBias, ...]
    duels: int
    n_prompts: int
    n_people: int
    uncompared: int
    left_out: int
    not_tested: Mapping[str, str]
    unreadable: int
    faults: tuple[str, ...]
    settings: BiasSettings

    def cautions(self) -> list[str]:
        """Why the slopes may be less certain than they look, a sentence each."""
        few = [f"{self.n_prompts} prompts"] if self.n_prompts < FEW else []
        if 1 < self.n_people < FEW:
            few.append(f"{self.n_people} people")
        if not few:
            return []
        told = " and ".join(few)
        return [
            f"errors over {told} are rough (fewer than {FEW} clusters), and so are the verdicts"
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "cautions": self.cautions()}


def bias_table(found: BiasAudit) -> str:
    """Write an audit as a small text table: one line per covariate, the slopes and the verdict."""
    head = ("covariate", "people", "scorer", "beyond")
    level = f"residual ({100 * found.settings.level:g} % interval)"
    clusters = f"{found.n_prompts:,} prompts"
    if found.n_people > 1:
        clusters += f" and {found.n_people:,} people"
    lines = [
        f"{found.scorer}: {found.duels:,} duels; log-odds for one typical difference, errors over {clusters}",
        "".join(f"{word:<15}" if place == 0 else f"{word:>9}" for place, word in enumerate(head))
        + f"{level:>30}{'verdict':>14}",
    ]
    for bias in found.images:
        told = "".join(f"{_told(slope):>9}" for slope in _shown(bias))
        lines.append(f"{bias.name:<15}{told}{_with_interval(bias.residual):>30}{bias.verdict:>14}")
    if any(_told(slope).endswith("*") for one in found.images for slope in _shown(one)):
        lines.append("* its own interval leaves out 0; verdicts allow for the number of covariates")
    lines += [
        f"{prompt.name:<15}{_with_interval(prompt.slope)} on agreement, p {prompt.holm:.3f}"
        for prompt in found.prompts
    ]
    lines += _bends(found)
    lines += [f"{name}: not tested, {reason}" for name, reason in found.not_tested.items()]
    if found.uncompared:
        lines.append(f"{found.uncompared:,} pairs between images that nobody picked are left out")
    if found.left_out:
        lines.append(f"{found.left_out:,} choices without scores are left out")
    return "\n".join([*lines, *(f"caution: {one}" for one in found.cautions())])


def _shown(bias: ImageBias) -> tuple[Slope | None, ...]:
    """The slopes that are printed without their intervals."""
    return (bias.people, bias.scorer, bias.beyond)


def _bends(found: BiasAudit) -> list[str]:
    """Where the straight line does not hold, a line each."""
    told = [
        f"{bias.name}: {_of(bias, kind)}; a straight slope is only the average of such a line"
        for bias in found.images
        for kind in bias.bent
    ]
    told += [
        f"{one.name}: no straight line, agreement bends with it (curve {_with_interval(one.bend)})"
        for one in found.prompts
        if one.bent
    ]
    if not found.images and not found.prompts:
        return ["nothing could be tested"]
    return told or ["every slope is that of a straight line; no bend was found"]


def _of(bias: ImageBias, kind: str) -> str:
    bend = bias.bends[kind]
    assert bend is not None
    where = "the middle" if bend.value < 0 else "both ends"
    who = "the scorer goes" if kind == "scorer" else "people go, beyond the score,"
    return f"no straight line, {who} for {where} (curve {_with_interval(bend)})"


def _with_interval(slope: Slope | None) -> str:
    """A slope with its interval, where it has one."""
    if slope is None or slope.low is None or slope.high is None:
        return _told(slope)
    return f"{slope.value:+.2f} ({slope.low:+.2f} to {slope.high:+.2f})"


def _told(slope: Slope | None) -> str:
    if slope is None:
        return "–"
    if slope.separated:
        return "∞" if slope.value > 0 else "-∞"
    return f"{slope.value:+.2f}{'*' if slope.certain else ''}"
