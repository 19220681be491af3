"""A SigLIP with its tokenizer and its preparation: read it, use it, write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from palate.models.hashes import hash_weights
from palate.models.pixels import Preparation, preparation_dict
from palate.models.siglip_tokens import SiglipTokenizer


@dataclass(frozen=True)
class Siglip:
    """Two towers that place images and prompts on one sphere, trained pair by pair (Zhai et al. 2023).

    It is used as a :class:`palate.models.clip.Clip` is, and its towers can be cut at the same places.
    ``model`` is transformers' ``SiglipModel``, whose modules compute every part. Unlike a CLIP's, the image
    head pools all patches by attention, and every position of a prompt sees every other, padding too: the
    last position is the prompt's feature. ``about`` says what a saved folder says of itself: ``name``,
    ``unit``, ``dimension`` and more. With ``model.checkpointing`` a training keeps only what enters each
    block, and runs the blocks again for the gradients.
    """

    model: Any
    tokenizer: SiglipTokenizer
    preparation: Preparation
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        device: torch.device = self.model.logit_scale.device
        return device

    def image_features(
        self, pixels: Float[Tensor, "images 3 size size"]
    ) -> Float[Tensor, "images dim"]:
        """Give unit-length features of prepared pixels."""
        return self.image_head(self.image_states(pixels))

    def image_states(
        self, pixels: Float[Tensor, "images 3 size size"]
    ) -> Float[Tensor, "images patches width"]:
        """Give the states of all patches of prepared pixels after the last block."""
        return self.image_blocks(self.image_stem(pixels))

    def text_features(self, ids: Int[Tensor, "prompts context"]) -> Float[Tensor, "prompts dim"]:
        """Give unit-length features of token numbers; the whole context is read."""
        return self.text_rest(self.text_stem(ids), 0, ids)

    def image_stem(
        self, pixels: Float[Tensor, "images 3 size size"]
    ) -> Float[Tensor, "images patches width"]:
        """Embed the patches of prepared pixels."""
        hidden: Tensor = self.model.vision_model.embeddings(pixels)
        return hidden

    def image_blocks(
        self, hidden: Float[Tensor, "images patches width"], first: int = 0, last: int | None = None
    ) -> Float[Tensor, "images patches width"]:
        """Run blocks ``first`` up to but not including ``last`` of the image tower."""
        return self._run(self.model.vision_model, hidden, first, last)

    def image_rest(
        self, hidden: Float[Tensor, "images patches width"], first: int
    ) -> Float[Tensor, "images dim"]:
        """Run the blocks from ``first`` on, and the head."""
        return self.image_head(self.image_blocks(hidden, first))

    def image_head(
        self, hidden: Float[Tensor, "images patches width"]
    ) -> Float[Tensor, "images dim"]:
        """Pool all patches by attention to a unit-length feature."""
        tower = self.model.vision_model
        return functional.normalize(tower.head(tower.post_layernorm(hidden)), dim=-1)

    def text_stem(
        self, ids: Int[Tensor, "prompts context"]
    ) -> Float[Tensor, "prompts context width"]:
        """Embed token numbers."""
        hidden: Tensor = self.model.text_model.embeddings(ids)
        return hidden

    def text_blocks(
        self,
        hidden: Float[Tensor, "prompts context width"],
        first: int = 0,
        last: int | None = None,
    ) -> Float[Tensor, "prompts context width"]:
        """Run blocks ``first`` up to but not including ``last`` of the text tower, without any mask."""
        return self._run(self.model.text_model, hidden, first, last)

    def text_rest(
        self,
        hidden: Float[Tensor, "prompts context width"],
        first: int,
        ids: Int[Tensor, "prompts context"],
    ) -> Float[Tensor, "prompts dim"]:
        """Run the blocks from ``first`` on, and the head."""
        return self.text_head(self.text_blocks(hidden, first), ids)

    def text_head(
        self, hidden: Float[Tensor, "prompts context width"], ids: Int[Tensor, "prompts context"]
    ) -> Float[Tensor, "prompts dim"]:
        """Project the last position to a unit-length feature; ``ids`` are there as a CLIP needs them."""
        del ids
        tower = self.model.text_model
        pooled = tower.head(tower.final_layer_norm(hidden[:, -1]))
        return functional.normalize(pooled, dim=-1)

    def _run(self, tower: Any, hidden: Tensor, first: int, last: int | None) -> Tensor:
        """Run some blocks of a tower; while checkpointing, their inner states are computed again for gradients."""
        again = self.model.checkpointing and torch.is_grad_enabled()
        for block in tower.encoder.layers[first:last]:
            if again:
                from torch.utils.checkpoint import checkpoint

                hidden = checkpoint(block, hidden, None, use_reentrant=False)
            else:
                hidden = block(hidden, None)
        return hidden

    def fingerprint(self) -> str:
        """Give 16 hexadecimal digits that change with any weight, the tokens or the preparation.

        The same function has the same fingerprint in whatever file or precision it was stored, as
        long as its float32 values are the same.
        """
        words, config = self.tokenizer, self.model.config
        facts = {
            "image": _shape(config.vision_config),
            "text": _shape(config.text_config),
            "preparation": preparation_dict(self.preparation),
            "tokens": [words.context, words.pad, words.side, words.clean, words.fingerprint],
        }
        return hash_weights(facts, self.model)

    def image_fingerprint(self) -> str:
        """Give 16 hexadecimal digits that change with the image tower or the preparation, and nothing else."""
        facts = {
            "image": _shape(self.model.config.vision_config),
            "preparation": preparation_dict(self.preparation),
        }
        return hash_weights(facts, self.model, ("vision_model.",))


def _shape(config: Any) -> list[object]:
    """List what decides a tower's output and cannot be told from its weights."""
    return [config.num_attention_heads, config.hidden_act, config.layer_norm_eps]
