"""The scorers: what each network reads of a prompt, and how it compares that with an image."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palate.errors import CheckpointError
from palate.models.aesthetic import AestheticHead
from palate.models.clip import Clip
from palate.models.image_reward import ImageReward
from palate.models.mps import Mps
from palate.models.mps_condition import CONDITIONS, Masking, tokens_kept
from palate.models.openvino_graph import blip_graph, clip_graph, siglip_graph
from palate.models.siglip import Siglip
from palate.models.towers import Towers
from palate.scoring.eye import Eye
from palate.scoring.scorer import NetworkScorer, Read
from palate.scoring.units import cosine_scale


@final
class ClipScorer(NetworkScorer):
    """Scores by the cosine between a CLIP's image and text features, in one of the units made of it.

    ``prefix`` is put before every prompt, as Hessel's CLIPScore does.
    """

    def __init__(
        self,
        clip: Clip,
        name: str,
        *,
        unit: str = "hps",
        dimension: str = "overall",
        prefix: str = "",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Take a loaded CLIP; it is put in evaluation mode."""
        clip.model.eval()
        self.clip, self.prefix = clip, prefix
        logit_scale = float(clip.model.logit_scale.detach().exp())
        self.scale, self.cut_at_zero = cosine_scale(unit, logit_scale)
        facts = {"tokens": _tokens(clip), **(about or {})}
        super().__init__(clip_eye(clip), name, unit, dimension, facts)

    def identify(self) -> str:
        """Hash weights, tokens, preparation and prefix."""
        found = self.clip.fingerprint()
        return _hash(found, self.prefix) if self.prefix else found

    def read(self, prompts: Sequence[str]) -> Read:
        """Give the unit-length text features."""
        tokens = self.clip.tokenizer.batch([self.prefix + prompt for prompt in prompts])
        features = self.clip.text_features(tokens.ids.to(self.clip.device))
        return Read((features,), tokens.given, tokens.kept)

    def compare(self, seen: Tensor, states: tuple[Tensor, ...]) -> Float[Tensor, " images"]:
        """Give the cosine in the scorer's unit."""
        scores = self.scale * (seen * states[0]).sum(-1)
        return scores.clamp(min=0) if self.cut_at_zero else scores


@final
class SiglipScorer(NetworkScorer):
    """Scores by the cosine between a SigLIP's image and text features, in one of the units made of it.

    In the unit ``logit`` the bias is added, so that the sigmoid of a score is the probability that image and
    prompt belong together.
    """

    def __init__(
        self,
        siglip: Siglip,
        name: str,
        *,
        unit: str = "cosine",
        dimension: str = "overall",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Take a loaded SigLIP; it is put in evaluation mode."""
        siglip.model.eval()
        self.siglip = siglip
        logit_scale = float(siglip.model.logit_scale.detach().exp())
        self.scale, self.cut_at_zero = cosine_scale(unit, logit_scale)
        self.bias = float(siglip.model.logit_bias.detach()) if unit == "logit" else 0.0
        eye = Eye(
            siglip.image_states,
            siglip.image_head,
            siglip.preparation,
            siglip.device,
            siglip.image_fingerprint,
            lambda precision: siglip_graph(siglip.model.vision_model, precision),
        )
        facts = {"tokens": _tokens(siglip), **(about or {})}
        super().__init__(eye, name, unit, dimension, facts)

    def identify(self) -> str:
        """Hash weights, tokens and preparation."""
        return self.siglip.fingerprint()

    def read(self, prompts: Sequence[str]) -> Read:
        """Give the unit-length text features."""
        tokens = self.siglip.tokenizer.batch(prompts)
        features = self.siglip.text_features(tokens.ids.to(self.siglip.device))
        return Read((features,), tokens.given, tokens.kept)

    def compare(self, seen: Tensor, states: tuple[Tensor, ...]) -> Float[Tensor, " images"]:
        """Give the cosine in the scorer's unit."""
        scores = self.scale * (seen * states[0]).sum(-1) + self.bias
        return scores.clamp(min=0) if self.cut_at_zero else scores


@final
class MpsScorer(NetworkScorer):
    """Scores one dimension by MPS: the condition's words decide which prompt tokens the image is compared with."""

    def __init__(
        self,
        mps: Mps,
        dimension: str,
        condition: str,
        masking: Masking,
        about: Mapping[str, Any] | None = None,
        name: str = "mps",
    ) -> None:
        """Take a loaded MPS, the condition's words and how they pick the tokens of a prompt."""
        self.mps, self.condition, self.masking = mps, condition, masking
        self.given = dict(about or {})
        ids = mps.clip.tokenizer.batch([condition]).ids.to(mps.clip.device)
        with torch.no_grad():
            asked = mps.text_tokens(ids)[0]
        words = mps.clip.words(ids) if masking.tokens == "words" else torch.ones_like(ids).bool()
        self._condition = asked[words][None]
        eye = Eye(
            mps.image_states,
            mps.clip.model.visual_projection,
            mps.clip.preparation,
            mps.clip.device,
            lambda: _hash(mps.clip.image_fingerprint(), "tokens"),
            lambda precision: clip_graph(mps.clip.model, precision, tokens=True),
        )
        facts = {
            "condition": condition,
            "mask_threshold": masking.threshold,
            **_other_masking(masking),
            "tokens": _tokens(mps.clip),
            **self.given,
        }
        super().__init__(eye, name, "logit", dimension, facts)

    def on(self, condition: str | None = None, mask_threshold: float | None = None) -> MpsScorer:
        """Give the scorer of another condition (a dimension's name or words) or threshold, on the same network."""
        dimension = self.dimension if condition is None else condition
        words = self.condition
        if condition is not None:
            words = {**CONDITIONS, **self.mps.conditions}.get(condition, condition)
        given, masking = self.given, self.masking
        if mask_threshold is not None and mask_threshold != masking.threshold:
            profile = f"{given['profile']}, " if "profile" in given else ""
            given = {**given, "profile": f"{profile}mask threshold changed", "matches": None}
            masking = replace(masking, threshold=mask_threshold)
        other = MpsScorer(self.mps, dimension, words, masking, given, self.name)
        other.eye = self.eye
        return other

    def identify(self) -> str:
        """Hash weights, tokens, preparation, condition and masking."""
        threshold = repr(float(self.masking.threshold))
        others = _other_masking(self.masking).values()
        return _hash(self.mps.fingerprint(), self.condition, threshold, *others)

    def read(self, prompts: Sequence[str]) -> Read:
        """Give every prompt's token features, its end feature, and which tokens the condition keeps."""
        clip = self.mps.clip
        tokens = clip.tokenizer.batch(prompts)
        ids = tokens.ids.to(clip.device)
        words, ends = self.mps.text_tokens(ids)
        condition = self._condition.expand(len(words), -1, -1)
        among = clip.words(ids) if self.masking.tokens == "words" else None
        kept = tokens_kept(words, condition, self.masking, among)
        return Read((words, ends, kept), tokens.given, tokens.kept)

    def compare(self, seen: Tensor, states: tuple[Tensor, ...]) -> Float[Tensor, " images"]:
        """Give exp(logit scale) × cosine between the prompt's end and the fused class token."""
        return self.mps.score(seen, *states)


@final
class ImageRewardScorer(NetworkScorer):
    """Scores by ImageReward: a BLIP text encoder reads the prompt while it looks at the image."""

    def __init__(
        self,
        model: ImageReward,
        about: Mapping[str, Any] | None = None,
        name: str = "image-reward",
        dimension: str = "overall",
    ) -> None:
        """Take a loaded ImageReward."""
        self.model = model
        eye = Eye(
            model.image_states,
            _as_they_are,
            model.preparation,
            model.device,
            lambda: _hash(model.fingerprint(), "image"),
            lambda precision: blip_graph(model.vision, precision),
        )
        facts = {"tokens": {"context": model.tokenizer.context}, **(about or {})}
        super().__init__(eye, name, "reward", dimension, facts)

    def identify(self) -> str:
        """Hash weights, vocabulary, preparation and standardisation."""
        return self.model.fingerprint()

    def read(self, prompts: Sequence[str]) -> Read:
        """Give token numbers and their mask; the network reads them beside each image."""
        words = self.model.tokenizer.batch(prompts)
        device = self.model.device
        return Read((words.ids.to(device), words.mask.to(device)), words.given, words.kept)

    def compare(self, seen: Tensor, states: tuple[Tensor, ...]) -> Float[Tensor, " images"]:
        """Give the standardised reward."""
        return self.model.reward(seen, *states)


@final
class AestheticScorer(NetworkScorer):
    """Rates the image alone, by a head on its CLIP feature. Prompts are taken and not read."""

    reads_prompts = False

    def __init__(
        self,
        clip: Clip,
        head: AestheticHead,
        about: Mapping[str, Any] | None = None,
        *,
        name: str = "aesthetic",
        unit: str = "rating",
        dimension: str = "aesthetics",
    ) -> None:
        """Take the CLIP whose features the head was trained on, and the head."""
        width = clip.model.config.projection_dim
        if head.width != width:
            raise CheckpointError(
                f"{name}: the head takes features of {head.width} numbers, but this CLIP gives {width}"
            )
        self.clip, self.head = clip, head
        facts = {"head": head.kind, **(about or {})}
        super().__init__(clip_eye(clip), name, unit, dimension, facts)

    def identify(self) -> str:
        """Hash the image tower, its preparation and the head."""
        return _hash(self.clip.image_fingerprint(), self.head.fingerprint())

    def read(self, prompts: Sequence[str]) -> Read:
        """Read nothing."""
        none = np.zeros(len(prompts), dtype=np.int32)
        return Read((torch.zeros(len(prompts), 0, device=self.clip.device),), none, none)

    def compare(self, seen: Tensor, states: tuple[Tensor, ...]) -> Float[Tensor, " images"]:
        """Give the rating."""
        del states
        return self.head.rate(seen)


def clip_eye(clip: Clip) -> Eye:
    """Give the eye that all scorers on one CLIP's pooled image feature share."""
    return Eye(
        clip.class_state,
        clip.image_head,
        clip.preparation,
        clip.device,
        clip.image_fingerprint,
        lambda precision: clip_graph(clip.model, precision),
    )


def _as_they_are(states: Tensor) -> Tensor:
    return states


def _other_masking(masking: Masking) -> dict[str, str]:
    """Give the pooling and the tokens of a mask where they are not the official code's."""
    named = {"mask_pooling": masking.pooling, "mask_tokens": masking.tokens}
    return {name: value for name, value in named.items() if value not in {"max", "all"}}


def _tokens(clip: Towers) -> dict[str, Any]:
    words = clip.tokenizer
    return {"context": words.context, "clean": words.clean, "pad": words.pad}


def _hash(*parts: str) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()
