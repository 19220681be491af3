"""The settings of the verb ``adapt``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from palate.data.records import ROLES
from palate.errors import SettingsError
from palate.training.loop import LoopSettings

MethodName = Literal["identifier", "sft", "dpo", "kto", "reward"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleWeights:
    """The expected share of each role in a batch; they need not add up to 1.

    The defaults are the shares in HPS's released data, where the three sets were concatenated. A method leaves
    out the roles that it does not learn from, and the others keep their proportions.
    """

    preferred: float = 0.145
    rejected: float = 0.082
    regularisation: float = 0.773

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        values = [getattr(self, role) for role in ROLES]
        if min(values) < 0 or sum(values) == 0:
            raise SettingsError(f"role_weights are {values}, expected 0 or more and one above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardSettings:
    """How the method ``reward`` makes images and learns from their scores.

    ``draft`` differentiates through the last step of a whole sampling (DRaFT-1, arXiv 2309.17400, section 3),
    ``refl`` through one step drawn from the last ``late`` of it, whose estimate of the clean image is scored
    (ReFL, arXiv 2304.05977, algorithm 1).
    """

    variant: Literal["draft", "refl"] = "draft"
    scorer: str = ""
    """A CLIP scorer whose score is raised: a folder, or a name of the catalogue with ``weights``."""
    weights: str | None = None
    watch: str = ""
    """Another scorer that is not learnt from, and tells whether the images are better or only the score; "" is none."""
    watch_weights: str | None = None
    weight: float = 1.0
    """What a reward of 1 standard unit counts beside the supervised loss; see ``unit``."""
    unit: float = 1.0
    """The score is divided by this before it counts, such as its deviation between images of a prompt."""
    supervised: float = 1.0
    """What the loss on preferred and regularisation images counts; 0 leaves it out, at one's own risk."""
    images: int = 4
    """Images that are made in each step."""
    sampling_steps: int = 20
    late: int = 5
    guidance: float = 7.5

    def __post_init__(self) -> None:
        """Refuse numbers that make no training."""
        for name in ("images", "sampling_steps", "late"):
            if getattr(self, name) < 1:
                raise SettingsError(f"reward.{name} is {getattr(self, name)}, expected at least 1")
        if self.late > self.sampling_steps:
            raise SettingsError(
                f"reward.late is {self.late}, expected at most reward.sampling_steps, {self.sampling_steps}"
            )
        if self.watch_weights and not self.watch:
            raise SettingsError("reward.watch_weights is given without reward.watch, expected both")
        for name in ("weight", "supervised", "guidance"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"reward.{name} is {getattr(self, name)}, expected 0 or more")
        if not 0 < self.unit < math.inf:
            raise SettingsError(f"reward.unit is {self.unit}, expected above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptSettings:
    """How a generator is adapted; the defaults are HPS's released script (rank 32 in the paper)."""

    method: MethodName = "identifier"
    identifier: str = "Weird image. "
    """What ``identifier`` puts before rejected captions; the other methods do not read it."""
    beta: float = 2000.0
    """For ``dpo`` and ``kto``: how much a change of the error counts; higher stays nearer to the base. In the unit of the
    authors' code, the mean over the latent: for ``dpo`` times ½, 2000 for SD 1.5 and 5000 for SDXL."""
    reward: RewardSettings = field(default_factory=RewardSettings)
    """For ``reward``."""
    rank: int = 4
    alpha: float | None = None
    """The adapter counts alpha / rank; None is alpha = rank."""
    role_weights: RoleWeights = field(default_factory=RoleWeights)
    steps: int = 10_000
    batch: int = 40
    """Images per step over all processes; for ``dpo`` pairs."""
    accumulate: int = 1
    """A step's batch is computed in so many parts, which saves memory."""
    learning_rate: float = 1e-5
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.01
    clip: float = 1.0
    """The norm of all gradients is cut to this; 0 never cuts."""
    ema: float = 0.0
    """Decay of a moving average of the adapter that is saved in its place; 0 is none, as HPS."""
    noise_levels: Literal["uniform", "logit-normal"] | None = None
    """How often each noise level comes; None is uniform for diffusion, as HPS, and logit-normal for flows."""
    min_snr: float = 0.0
    """Weigh noise levels by min(SNR, this) / SNR; 0 weighs all alike, as HPS. A base that was trained
    so should be adapted so. Not for flows."""
    caption_dropout: float = 0.0
    """Share of captions, of any role, that are replaced by the empty text."""
    identifier_alone: float = 0.0
    """Share of rejected captions that are the identifier alone, as the negative prompt will be."""
    size: int | None = None
    """Side of the square that pictures are cut to, in pixels; None is the model's own size."""
    buckets: bool = False
    """Cut each picture to the nearest of several shapes with about the area of the square."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 keeps the frozen denoiser and runs it in 16 bits; the adapter and its optimiser stay float32."""
    checkpointing: bool = False
    """Saves memory by computing the denoiser's blocks twice."""
    hold_out: int = 0
    """Preferred and rejected images each (for ``dpo`` groups) that are kept aside to measure what was learnt."""
    validate_every: int = 0
    """Steps between measures on what is held out, and between grids of images; 0 is only before and after."""
    grid_prompts: tuple[str, ...] = ()
    """Prompts of which a grid of images is made at fixed seeds, with and without the adapter."""
    grid_steps: int = 20
    guidance_hint: float = 7.5
    """Written into the adapter's file for those who generate with it, and used for the grids."""
    trackers: tuple[str, ...] = ("tensorboard",)
    seed: int = 42
    save_every: int = 500
    log_every: int = 50

    def __post_init__(self) -> None:
        """Refuse numbers that make no adaptation."""
        self._check_numbers()
        if self.batch % self.accumulate:
            raise SettingsError(
                f"batch is {self.batch}, expected a multiple of accumulate, {self.accumulate}"
            )
        if self.identifier_alone and self.method != "identifier":
            raise SettingsError(
                f"identifier_alone is {self.identifier_alone}, but the method '{self.method}' reads no identifier"
            )
        if self.method == "identifier" and not self.guidance_hint > 1:
            raise SettingsError(
                f"guidance_hint is {self.guidance_hint}, at which no negative prompt is read; expected above 1 for the "
                "method 'identifier'"
            )
        if self.validate_every and not (self.hold_out or self.grid_prompts):
            raise SettingsError(
                f"validate_every is {self.validate_every}, but nothing is looked at; set hold_out or grid_prompts"
            )
        self._check_reward()
        self.loop()

    def _check_reward(self) -> None:
        """Refuse a reward without a scorer, and scorers that would not be read."""
        if self.method == "reward" and not self.reward.scorer:
            raise SettingsError(
                "reward.scorer is empty, expected the scorer that the method 'reward' learns from"
            )
        if self.method != "reward" and self.reward != RewardSettings():
            raise SettingsError(
                f"there are settings of reward, but the method '{self.method}' does not read them; leave them out"
            )

    def _check_numbers(self) -> None:
        """Refuse numbers out of their range."""
        for name in ("rank", "batch", "accumulate", "grid_steps"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in ("hold_out", "validate_every", "min_snr"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected 0 or more")
        for name in ("caption_dropout", "identifier_alone"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected from 0 to 1")
        for name in ("alpha", "beta"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise SettingsError(f"{name} is {value}, expected above 0")

    @property
    def weights(self) -> dict[str, float]:
        """Give the share of each role by name."""
        return {role: getattr(self.role_weights, role) for role in ROLES}

    @property
    def own_alpha(self) -> float:
        """Give the adapter's alpha."""
        return float(self.rank) if self.alpha is None else self.alpha

    def loop(self) -> LoopSettings:
        """Give the part that the training loop reads; AdamW's betas and epsilon are HPS's."""
        return LoopSettings(
            steps=self.steps,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            warmup_steps=self.warmup_steps,
            weight_decay=self.weight_decay,
            clip=self.clip,
            ema=self.ema,
            save_every=self.save_every,
            evaluate_every=self.validate_every or self.steps,
            log_every=self.log_every,
            beta2=0.999,
            epsilon=1e-8,
        )
