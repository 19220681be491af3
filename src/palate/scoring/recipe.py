"""Which scorers a run has, as plain values: what a command says, and what a worker on another machine loads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from palate.errors import CheckpointError
from palate.models.once import reading_once
from palate.scoring.catalog import SCORERS, load
from palate.scoring.engine import Engine
from palate.scoring.networks import MpsScorer
from palate.scoring.scorer import NetworkScorer, Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The scorers of a run, by what ``palate score`` is told.

    ``scorers`` are names, folders, ``NAME@PROFILE`` or ``NAME=WEIGHTS``. ``weights`` goes with a single one. ``tokenizer``
    and ``architecture`` are for all that are read from files, ``clip`` for aesthetic heads, ``conditions`` and
    ``mask_threshold`` for MPS.
    """

    scorers: tuple[str, ...]
    weights: str | None = None
    tokenizer: Path | None = None
    architecture: Path | None = None
    clip: str | None = None
    conditions: tuple[str, ...] = ()
    mask_threshold: float | None = None
    device: str = "cpu"

    def load(self, engine: Engine | None = None) -> list[Scorer]:
        """Load every scorer; a file that several are made of is read once, an MPS serves all its conditions.

        Raises CheckpointError, which names the scorer if there are several.
        """
        if self.weights is not None and len(self.scorers) > 1:
            raise CheckpointError(
                "--weights goes with one scorer; name those of several as --scorer NAME=WEIGHTS"
            )
        with reading_once():
            judges = [judge for spec in self.scorers for judge in self._load_one(spec)]
        if self.clip is not None and not any(_is_head(split(spec)[0]) for spec in self.scorers):
            raise CheckpointError("--clip goes with aesthetic, which was not asked for")
        asked = self.conditions or self.mask_threshold is not None
        if asked and not any(isinstance(judge, MpsScorer) for judge in judges):
            raise CheckpointError(
                "--condition and --mask-threshold go with mps, which was not asked for"
            )
        if engine is not None:
            use_engine(judges, engine)
        return judges

    def from_anywhere(self) -> Recipe:
        """Give the same recipe for a process that works in another folder, and sees one GPU if any."""
        return replace(
            self,
            scorers=tuple(_absolute_spec(spec) for spec in self.scorers),
            weights=_absolute(self.weights),
            clip=_absolute(self.clip),
            tokenizer=None if self.tokenizer is None else self.tokenizer.absolute(),
            architecture=None if self.architecture is None else self.architecture.absolute(),
            device=self.device.partition(":")[0],
        )

    def _load_one(self, spec: str) -> Iterator[Scorer]:
        name, own = split(spec)
        place = own or self.weights
        # a folder brings its own vocabulary and architecture; of several scorers, only files need them
        alone = len(self.scorers) == 1
        own_files = not alone and (place is None or Path(place).is_dir())
        try:
            first = load(
                name,
                place,
                tokenizer=None if own_files else self.tokenizer,
                architecture=None if own_files else self.architecture,
                clip=self.clip if _is_head(name) else None,
                device=self.device,
            )
        except CheckpointError as error:
            if alone:
                raise
            raise CheckpointError(f"--scorer {spec}: {error}") from error
        if isinstance(first, MpsScorer):
            for words in self.conditions or (first.dimension,):
                yield first.on(words, self.mask_threshold)
        else:
            yield first


def use_engine(judges: Sequence[Scorer], engine: Engine) -> None:
    """Compute the image towers of all scorers on one engine."""
    for judge in judges:
        if isinstance(judge, NetworkScorer):
            judge.use(engine)


def split(spec: str) -> tuple[str, str | None]:
    """Split NAME=WEIGHTS; what exists as a path, or begins with no scorer's name, is one name."""
    name, equals, weights = spec.partition("=")
    if not equals or Path(spec).exists() or name.partition("@")[0] not in SCORERS:
        return spec, None
    if not weights:
        raise CheckpointError(f"--scorer {spec}: no weights after the =, expected a path or Hub id")
    return name, weights


def _absolute(place: str | None) -> str | None:
    """Write what is a path here as one that holds in any folder; a Hub id stays."""
    return str(Path(place).absolute()) if place is not None and Path(place).exists() else place


def _absolute_spec(spec: str) -> str:
    name, weights = split(spec)
    if weights is not None:
        return f"{name}={_absolute(weights)}"
    folder, at, profile = spec.rpartition("@")
    if at and not Path(spec).exists():
        return f"{_absolute(folder)}@{profile}"
    return _absolute(spec) or spec


def _is_head(name: str) -> bool:
    return name.partition("@")[0] == "aesthetic"
