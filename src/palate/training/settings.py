"""The settings of the verb ``train``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Literal

from palate.errors import SettingsError
from palate.training.learners.learner import Trained
from palate.training.learners.mps import AS_THE_BASE, MpsSettings
from palate.training.loop import LoopSettings

_TOWERS = ("image_layers", "text_layers", "counting", "logit_scale", "train_logit_scale")
# What a model does not read, beside the standard value.
_UNREAD: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "aesthetic": (*_TOWERS, "unit", "checkpointing", "mps"),
        # `pad`: rewards are made standard over what was learnt from, which must look as it will when it is scored
        "image-reward": (*_TOWERS[2:], "unit", "mps", "pad"),
        "mps": ("unit",),
        "towers": ("mps",),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """What is trained, on what, and how.

    ``model`` is the kind of the scorer: ``towers`` is a CLIP or a SigLIP, which scores by the cosine of image
    and prompt; ``aesthetic`` is a head on the image features of a CLIP, which stays as it is: no prompt is
    read, the unit is ``logit``, and what is trained of towers must be left out. ``mps`` is a CLIP whose
    image reads the prompt under the condition of the choice's dimension, in the unit ``logit``; the table ``mps``
    is its alone (:class:`palate.training.learners.mps.MpsSettings`). ``image-reward`` is a BLIP that reads the
    prompt while it looks at the image, with a head that is always trained: its unit is ``reward``, and there is no
    scale; it needs ``epsilon`` 1e-8.

    ``dimensions`` picks the choices, which are learnt from alike. ``objective`` is the loss: ``choice``
    (softmax over the images of a prompt), ``pairs`` (softmax over two images; ``ties`` count half and half, or are dropped)
    or ``rankings`` (logistic over the decided pairs of a ranking). ``weights`` lets each of the ``choices``
    count the same, each of the ``prompts``, or each of the decided ``pairs``.

    ``image_layers`` and ``text_layers`` say how many of the last layers of each tower are trained. With
    ``counting = "blocks"`` a layer is a block, the head (last norm and projection) comes with the first, one
    layer more than there are blocks adds the embedding, and 0 freezes the tower. With ``counting =
    "openclip"``, as in the papers, the projection of the image tower is its first layer, the last block with
    the norm the second, and the embedding the last; in the text tower a layer is a block, the head is always
    trained and the embedding never.

    ``unit`` is that of the scores: ``hps`` (100 times the cosine), ``cosine`` or ``logit``.
    ``logit_scale`` is the factor before the softmax at the start (none: the base's own);
    ``train_logit_scale`` lets it move, a CLIP's up to 100. Give either ``steps`` or ``epochs``. ``batch`` counts the
    choices of a step over all processes; ``accumulate`` computes it in so many parts. ``precision =
    "bfloat16"`` computes the towers in 16 bits, weights and loss stay in 32. ``checkpointing`` saves memory
    by computing blocks twice. ``alike`` puts choices of one size together. ``shift`` and ``flip`` alter the
    images in each step (off by default; mirroring swaps left and right). ``pad`` brings the longer edge of an image to the
    square and pads with black: ``training`` for what is learnt from alone, as HPS was trained while its release scores
    as the base does, ``always`` for the scorer too, as HPS v2 (towers only), ``never`` leaves it to the base's preparation. ``cache_gb`` bounds what the states
    below the first trained block may take, which are computed once where they fit and the images are not
    altered; 0 recomputes them in every step. ``trackers`` are accelerate's; TensorBoard's files lie in ``logs``.

    The other settings are those of the loop (:class:`palate.training.loop.LoopSettings`).
    """

    model: Literal["towers", "mps", "aesthetic", "image-reward"] = "towers"
    mps: MpsSettings = AS_THE_BASE
    dimensions: tuple[str, ...] = ("overall",)
    objective: Literal["choice", "pairs", "rankings"] = "choice"
    ties: Literal["half", "drop"] = "half"
    weights: Literal["choices", "prompts", "pairs"] = "choices"
    image_layers: int = 3
    text_layers: int = 3
    counting: Literal["blocks", "openclip"] = "blocks"
    unit: Literal["hps", "cosine", "logit"] = "hps"
    logit_scale: float | None = None
    train_logit_scale: bool = True
    batch: int = 24
    accumulate: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpointing: bool = False
    alike: bool = False
    steps: int | None = None
    epochs: float | None = None
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-6
    warmup_steps: int = 20
    schedule: Literal["cosine", "constant"] = "cosine"
    clip: float = 1.0
    ema: float = 0.0
    shift: int = 0
    flip: bool = False
    pad: Literal["never", "training", "always"] = "never"
    cache_gb: float = 4.0
    evaluate_every: int = 50
    save_every: int = 100
    log_every: int = 10
    trackers: tuple[str, ...] = ("tensorboard",)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if (self.steps is None) == (self.epochs is None):
            raise SettingsError("give either steps or epochs, and not both")
        if self.epochs is not None and not 0 < self.epochs < math.inf:
            raise SettingsError(f"epochs is {self.epochs}, expected more than 0")
        if not self.dimensions or len(set(self.dimensions)) < len(self.dimensions):
            raise SettingsError(f"dimensions is {list(self.dimensions)}, expected different names")
        if self.accumulate < 1:
            raise SettingsError(f"accumulate is {self.accumulate}, expected at least 1")
        if self.batch < self.accumulate:
            raise SettingsError(
                f"batch is {self.batch}, expected at least accumulate, {self.accumulate}"
            )
        for name in ("image_layers", "text_layers", "shift", "cache_gb"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected 0 or more")
        if self.pad == "always" and self.model != "towers":
            raise SettingsError(
                f"pad is 'always', which is for the model 'towers', not '{self.model}'; expected training or never"
            )
        if self.logit_scale is not None and not 0 < self.logit_scale < math.inf:
            raise SettingsError(f"logit_scale is {self.logit_scale}, expected above 0")
        self._refuse_unread()
        self.loop(1)

    @property
    def altered(self) -> bool:
        """Whether images are altered in each step."""
        return bool(self.shift or self.flip)

    def _refuse_unread(self) -> None:
        """Refuse what this model would not look at."""
        standard = {part.name: part.default for part in fields(self)}
        for name in _UNREAD.get(self.model, ()):
            if (value := getattr(self, name)) != standard[name]:
                raise SettingsError(
                    f"{name} is {value!r}, but the model '{self.model}' does not read it; leave it out"
                )

    def trained(self) -> Trained:
        """Give what is trained of the towers."""
        return Trained(
            image_layers=self.image_layers,
            text_layers=self.text_layers,
            counting=self.counting,
            cache_bytes=self.cache_gb * 1e9,
            checkpointing=self.checkpointing,
        )

    def loop(self, groups: int) -> LoopSettings:
        """Give the loop's settings for so many choices."""
        steps = self.steps
        if steps is None:
            steps = max(1, math.ceil((self.epochs or 0) * groups / self.batch))
        return LoopSettings(
            steps=steps,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.epsilon,
            warmup_steps=self.warmup_steps,
            schedule=self.schedule,
            clip=self.clip,
            ema=self.ema,
            save_every=self.save_every,
            evaluate_every=self.evaluate_every,
            log_every=self.log_every,
        )
