"""The two towers of a CLIP as modules, under the names that transformers gives their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from palate.errors import CheckpointError

ACTIVATIONS = ("quick_gelu", "gelu")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """Sizes of a text tower, in the spelling and with the defaults of transformers."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int = 512
    bos_token_id: int | None = 49406
    eos_token_id: int = 49407
    pad_token_id: int | None = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionConfig:
    """Sizes of an image tower, in the spelling and with the defaults of transformers."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipConfig:
    """Sizes of both towers, and of the space that they share."""

    text_config: TextConfig = TextConfig()
    vision_config: VisionConfig = VisionConfig()
    projection_dim: int = 512

    def __post_init__(self) -> None:
        """Refuse what could not be built."""
        for tower in (self.text_config, self.vision_config):
            if tower.hidden_act not in ACTIVATIONS:
                raise CheckpointError(
                    f"a CLIP with hidden_act {tower.hidden_act!r}, expected one of {', '.join(ACTIVATIONS)}"
                )
            if tower.num_attention_heads < 1 or tower.hidden_size % tower.num_attention_heads:
                raise CheckpointError(
                    f"{tower.num_attention_heads} attention heads do not divide the width {tower.hidden_size}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Give the content of transformers' ``config.json``."""
        towers = {
            "text_config": asdict(self.text_config) | {"model_type": "clip_text_model"},
            "vision_config": asdict(self.vision_config) | {"model_type": "clip_vision_model"},
        }
        return towers | {"model_type": "clip", "projection_dim": self.projection_dim}


def read_config(raw: Mapping[str, Any], where: object) -> ClipConfig:
    """Read a ``config.json`` of transformers; what it does not say is CLIP's default there.

    Files from 2022 say the towers' sizes once more under ``…_config_dict``, which leads. Raises CheckpointError.
    """
    towers = {}
    for name, kind in (("text_config", TextConfig), ("vision_config", VisionConfig)):
        said = {**(raw.get(name) or {}), **(raw.get(f"{name}_dict") or {})}
        known = {field.name for field in fields(kind)}
        towers[name] = {key: value for key, value in said.items() if key in known}
    try:
        return ClipConfig(
            text_config=TextConfig(**towers["text_config"]),
            vision_config=VisionConfig(**towers["vision_config"]),
            projection_dim=raw.get("projection_dim", ClipConfig().projection_dim),
        )
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: sizes that are no numbers ({error})") from error


class _Linear(nn.Linear):
    """A map whose values are left as they are: drawing random ones would take longer than reading the weights."""

    def reset_parameters(self) -> None:
        """Draw nothing."""


class _Embedding(nn.Embedding):
    """A table whose values are left as they are."""

    def reset_parameters(self) -> None:
        """Draw nothing."""


class _Conv2d(nn.Conv2d):
    """A convolution whose values are left as they are."""

    def reset_parameters(self) -> None:
        """Draw nothing."""


class Attention(nn.Module):
    """Every position looks at the positions that the mask allows it."""

    def __init__(self, width: int, heads: int) -> None:
        """Lay out four projections of one width."""
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj = _Linear(width, width), _Linear(width, width)
        self.q_proj, self.out_proj = _Linear(width, width), _Linear(width, width)

    def forward(
        self,
        hidden: Float[Tensor, "rows positions width"],
        mask: Float[Tensor, "1 1 positions positions"] | None = None,
        queries: Float[Tensor, "rows asking width"] | None = None,
    ) -> Float[Tensor, "rows asking width"]:
        """Attend; ``queries`` are the positions that ask, all by default."""
        asking = hidden if queries is None else queries
        found = functional.scaled_dot_product_attention(
            self._split(self.q_proj(asking)),
            self._split(self.k_proj(hidden)),
            self._split(self.v_proj(hidden)),
            attn_mask=mask,
        )
        out: Tensor = self.out_proj(found.transpose(1, 2).flatten(2))
        return out

    def _split(self, states: Tensor) -> Tensor:
        split: Tensor = states.unflatten(-1, (self.heads, -1))
        return split.transpose(1, 2)


class Mlp(nn.Module):
    """Two maps with an activation between them."""

    def __init__(self, width: int, inner: int, activation: str) -> None:
        """Lay out both maps; ``activation`` is quick_gelu (x · sigmoid(1.702 x)) or gelu (exact)."""
        super().__init__()
        self.activation = activation
        self.fc1, self.fc2 = _Linear(width, inner), _Linear(inner, width)

    def forward(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        """Map, activate, map."""
        inner: Tensor = self.fc1(hidden)
        if self.activation == "quick_gelu":
            inner = inner * torch.sigmoid(1.702 * inner)
        else:
            inner = functional.gelu(inner)
        out: Tensor = self.fc2(inner)
        return out


class Block(nn.Module):
    """One layer of a tower: attention, then a small network, each added to what came in."""

    def __init__(self, sizes: TextConfig | VisionConfig) -> None:
        """Lay the block out."""
        super().__init__()
        width = sizes.hidden_size
        self.self_attn = Attention(width, sizes.num_attention_heads)
        self.layer_norm1 = nn.LayerNorm(width, eps=sizes.layer_norm_eps)
        self.mlp = Mlp(width, sizes.intermediate_size, sizes.hidden_act)
        self.layer_norm2 = nn.LayerNorm(width, eps=sizes.layer_norm_eps)

    def forward(
        self,
        hidden: Float[Tensor, "rows positions width"],
        mask: Float[Tensor, "1 1 positions positions"] | None = None,
    ) -> Float[Tensor, "rows positions width"]:
        """Run the block for every position."""
        hidden = hidden + self.self_attn(self.layer_norm1(hidden), mask)
        out: Tensor = hidden + self.mlp(self.layer_norm2(hidden))
        return out

    def first(self, hidden: Float[Tensor, "rows positions width"]) -> Float[Tensor, "rows 1 width"]:
        """Run the block for the first position alone: the same numbers, a sixth of the work.

        The other positions are only looked at. Of the last block nothing else is used where the class token is
        the feature.
        """
        normed = self.layer_norm1(hidden)
        token = hidden[:, :1] + self.self_attn(normed, queries=normed[:, :1])
        out: Tensor = token + self.mlp(self.layer_norm2(token))
        return out


class Encoder(nn.Module):
    """The blocks of a tower."""

    def __init__(self, sizes: TextConfig | VisionConfig) -> None:
        """Lay the blocks out."""
        super().__init__()
        self.layers = nn.ModuleList(Block(sizes) for _ in range(sizes.num_hidden_layers))


class ImageEmbeddings(nn.Module):
    """The patches of an image and a class token before them, each with its place."""

    def __init__(self, sizes: VisionConfig) -> None:
        """Lay patches, class token and places out."""
        super().__init__()
        width, patch = sizes.hidden_size, sizes.patch_size
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.patch_embedding = _Conv2d(3, width, patch, stride=patch, bias=False)
        self.position_embedding = _Embedding((sizes.image_size // patch) ** 2 + 1, width)

    def forward(
        self, pixels: Float[Tensor, "images 3 size size"]
    ) -> Float[Tensor, "images patches width"]:
        """Embed prepared pixels."""
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        tokens = self.class_embedding.expand(len(pixels), 1, -1)
        together = torch.cat([tokens, patches], dim=1)
        return together + self.position_embedding.weight


class TextEmbeddings(nn.Module):
    """The words of a prompt, each with its place."""

    def __init__(self, sizes: TextConfig) -> None:
        """Lay words and places out."""
        super().__init__()
        self.token_embedding = _Embedding(sizes.vocab_size, sizes.hidden_size)
        self.position_embedding = _Embedding(sizes.max_position_embeddings, sizes.hidden_size)

    def forward(
        self, ids: Int[Tensor, "prompts context"]
    ) -> Float[Tensor, "prompts context width"]:
        """Embed token numbers."""
        words: Tensor = self.token_embedding(ids)
        return words + self.position_embedding.weight[: ids.shape[1]]


class ImageTower(nn.Module):
    """From pixels to states; ``pre_layrnorm`` is spelled as in every checkpoint."""

    def __init__(self, sizes: VisionConfig) -> None:
        """Lay the tower out."""
        super().__init__()
        width, eps = sizes.hidden_size, sizes.layer_norm_eps
        self.embeddings = ImageEmbeddings(sizes)
        self.pre_layrnorm = nn.LayerNorm(width, eps=eps)
        self.encoder = Encoder(sizes)
        self.post_layernorm = nn.LayerNorm(width, eps=eps)


class TextTower(nn.Module):
    """From token numbers to states."""

    def __init__(self, sizes: TextConfig) -> None:
        """Lay the tower out."""
        super().__init__()
        self.embeddings = TextEmbeddings(sizes)
        self.encoder = Encoder(sizes)
        self.final_layer_norm = nn.LayerNorm(sizes.hidden_size, eps=sizes.layer_norm_eps)


class ClipNetwork(nn.Module):
    """Both towers, their projections and the logit scale: the state dict of transformers' ``CLIPModel``.

    It has no forward pass of its own: :class:`palate.models.clip.Clip` runs its parts. With ``checkpointing``
    a training keeps only what enters each block, and runs the blocks again for the gradients.
    """

    checkpointing = False

    def __init__(self, config: ClipConfig) -> None:
        """Lay the network out; its values are undefined until weights are loaded."""
        super().__init__()
        self.config = config
        text, vision, dim = config.text_config, config.vision_config, config.projection_dim
        self.text_model, self.vision_model = TextTower(text), ImageTower(vision)
        self.visual_projection = _Linear(vision.hidden_size, dim, bias=False)
        self.text_projection = _Linear(text.hidden_size, dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))
