"""A CLIP with its tokenizer and its preparation: read it, use it, write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from palate.models.clip_network import ClipNetwork
from palate.models.hashes import hash_weights
from palate.models.pixels import Preparation, preparation_dict
from palate.models.tokens import Tokenizer


@dataclass(frozen=True)
class Clip:
    """Two towers that place images and prompts on one sphere.

    ``about`` says what a saved folder says of itself: ``name``, ``unit``, ``dimension`` and more.
    The towers can be run in parts, so that what is frozen need be computed only once. Every
    feature in Palate comes from these parts; there is no second forward pass.
    """

    model: ClipNetwork
    tokenizer: Tokenizer
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
        return self.image_head(self.class_state(pixels))

    def class_state(
        self, pixels: Float[Tensor, "images 3 size size"]
    ) -> Float[Tensor, "images 1 width"]:
        """Give the class token of prepared pixels after the last block, which runs for it alone."""
        hidden = self.image_blocks(self.image_stem(pixels), last=-1)
        last: Any = self.model.vision_model.encoder.layers[-1]
        state: Tensor = last.first(hidden)
        return state

    def text_features(self, ids: Int[Tensor, "prompts context"]) -> Float[Tensor, "prompts dim"]:
        """Give unit-length features of token numbers.

        No position sees those after it, so what comes after the last end token is left out.
        """
        if len(ids):
            ids = ids[:, : self._longest(ids)]
        return self.text_head(self.text_blocks(self.text_stem(ids)), ids)

    def image_stem(
        self, pixels: Float[Tensor, "images 3 size size"]
    ) -> Float[Tensor, "images patches width"]:
        """Embed the patches of prepared pixels."""
        tower = self.model.vision_model
        hidden: Tensor = tower.pre_layrnorm(tower.embeddings(pixels))
        return hidden

    def image_blocks(
        self, hidden: Float[Tensor, "images patches width"], first: int = 0, last: int | None = None
    ) -> Float[Tensor, "images patches width"]:
        """Run blocks ``first`` up to but not including ``last`` of the image tower."""
        for block in self.model.vision_model.encoder.layers[first:last]:
            hidden = self._run(block, hidden)
        return hidden

    def image_rest(
        self, hidden: Float[Tensor, "images patches width"], first: int
    ) -> Float[Tensor, "images dim"]:
        """Run the blocks from ``first`` on, the last for the class token alone, and the head."""
        blocks: Any = self.model.vision_model.encoder.layers
        if first < len(blocks):
            hidden = blocks[-1].first(self.image_blocks(hidden, first, -1))
        return self.image_head(hidden)

    def image_head(
        self, hidden: Float[Tensor, "images patches width"]
    ) -> Float[Tensor, "images dim"]:
        """Project the class token to a unit-length feature."""
        pooled = self.model.vision_model.post_layernorm(hidden[:, 0])
        return functional.normalize(self.model.visual_projection(pooled), dim=-1)

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
        """Run blocks ``first`` up to but not including ``last`` of the text tower."""
        length = hidden.shape[1]
        ahead = torch.ones(length, length, dtype=torch.bool, device=hidden.device).triu(1)
        mask = torch.zeros(1, 1, length, length, dtype=hidden.dtype, device=hidden.device)
        mask = mask.masked_fill(ahead, torch.finfo(hidden.dtype).min)
        for block in self.model.text_model.encoder.layers[first:last]:
            hidden = self._run(block, hidden, mask)
        return hidden

    def text_rest(
        self,
        hidden: Float[Tensor, "prompts context width"],
        first: int,
        ids: Int[Tensor, "prompts context"],
    ) -> Float[Tensor, "prompts dim"]:
        """Run the blocks from ``first`` on, without what comes after all prompts' ends, and the head."""
        longest = self._longest(ids)
        hidden, ids = hidden[:, :longest], ids[:, :longest]
        return self.text_head(self.text_blocks(hidden, first), ids)

    def text_head(
        self, hidden: Float[Tensor, "prompts context width"], ids: Int[Tensor, "prompts context"]
    ) -> Float[Tensor, "prompts dim"]:
        """Project the state at the end token to a unit-length feature."""
        hidden = self.model.text_model.final_layer_norm(hidden)
        rows = torch.arange(len(ids), device=ids.device)
        pooled = hidden[rows, self._ends(ids).int().argmax(-1)]
        return functional.normalize(self.model.text_projection(pooled), dim=-1)

    def words(self, ids: Int[Tensor, "prompts context"]) -> Bool[Tensor, "prompts context"]:
        """Mark the words of token numbers: what lies between the start and the end token."""
        places = torch.arange(ids.shape[1], device=ids.device)
        return (places > 0) & (places < self._ends(ids).int().argmax(-1, keepdim=True))

    def _run(self, block: Any, *inputs: Tensor) -> Tensor:
        """Run a block; with ``model.checkpointing`` its inner states are computed again for gradients."""
        if self.model.checkpointing and torch.is_grad_enabled():
            from torch.utils.checkpoint import checkpoint

            again: Tensor = checkpoint(block, *inputs, use_reentrant=False)
            return again
        found: Tensor = block(*inputs)
        return found

    def _longest(self, ids: Int[Tensor, "prompts context"]) -> int:
        """Count the positions up to the last end token of all prompts."""
        return int(self._ends(ids).int().argmax(-1).max()) + 1

    def _ends(self, ids: Int[Tensor, "prompts context"]) -> Bool[Tensor, "prompts context"]:
        """Mark where prompts end: the end token, or the largest number in folders from before 2023.

        transformers wrote eos_token_id = 2 until mid-2023 and still pools such folders at the
        largest token number.
        """
        end = self.model.config.text_config.eos_token_id
        return ids == (ids.amax(-1, keepdim=True) if end == 2 else end)

    def fingerprint(self) -> str:
        """Give 16 hexadecimal digits that change with any weight, the tokens or the preparation.

        The same function has the same fingerprint in whatever file or precision it was stored, as
        long as its float32 values are the same.
        """
        config = self.model.config
        towers = (config.vision_config, config.text_config)
        facts = {
            "heads": [tower.num_attention_heads for tower in towers],
            "activation": [tower.hidden_act for tower in towers],
            "preparation": preparation_dict(self.preparation),
            "tokens": [self.tokenizer.context, self.tokenizer.pad, self.tokenizer.clean],
            "merges": self.tokenizer.merges,
            "vocabulary": sorted(self.tokenizer.vocabulary.items()),
        }
        return hash_weights(facts, self.model)

    def image_fingerprint(self) -> str:
        """Give 16 hexadecimal digits that change with the image tower or the preparation, and nothing else."""
        config = self.model.config.vision_config
        facts = {
            "heads": config.num_attention_heads,
            "activation": config.hidden_act,
            "preparation": preparation_dict(self.preparation),
        }
        parts = ("vision_model.", "visual_projection.")
        return hash_weights(facts, self.model, parts)


def encode_prompts(clip: Clip, prompts: Sequence[str]) -> Int[Tensor, "prompts context"]:
    """Give the token numbers of prompts on the model's device."""
    return clip.tokenizer.batch(prompts).ids.to(clip.device)
