"""Image tokens that look at the words of a prompt: the fusion part of MPS."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from palate.errors import CheckpointError
from palate.models.checkpoint import Weights, check_names
from palate.runs import seed_for

_FIRST = "layers.0.0.fn."
_ZERO = ".norm.bias"
_FREQUENCIES = ".rotary_emb.inv_freq"


@dataclass(frozen=True, slots=True)
class CrossSizes:
    """The sizes of a cross model, in the spelling of Kwai-Kolors/MPS; the weights tell them all.

    ``dim`` is the width of a token, ``layer_num`` the number of layers, ``heads`` how many queries
    share one key and value of width ``dim_head``, and ``ff_mult`` how many times ``dim`` the hidden
    width of the feed-forward is.
    """

    dim: int
    layer_num: int
    heads: int
    dim_head: int
    ff_mult: int


class CrossModel(nn.Module):
    """Image tokens read prompt tokens, then each other, layer after layer; no norm at the end.

    The same function as ``Cross_model`` of Kwai-Kolors/MPS, with its tensor names, but without the
    constants that it stores among its weights (zero biases, rotary frequencies).
    """

    def __init__(self, sizes: CrossSizes) -> None:
        """Take random weights of the given sizes."""
        super().__init__()
        self.sizes = sizes
        self.layers = nn.ModuleList(
            nn.ModuleList([_Residual(_CrossAttention(sizes)), _Residual(_ParallelBlock(sizes))])
            for _ in range(sizes.layer_num)
        )

    def forward(
        self,
        images: Float[Tensor, "images tokens dim"],
        prompts: Float[Tensor, "images context dim"],
        kept: Bool[Tensor, "images context"],
    ) -> Float[Tensor, "images tokens dim"]:
        """Fuse the tokens of each image with those tokens of its prompt that are kept.

        A prompt that keeps no token is read in whole: attention to nothing has no value.
        """
        kept = kept | ~kept.any(-1, keepdim=True)
        turns = rotary(images.shape[1], self.sizes.dim_head, images)
        for layer in self.layers:
            read, reflect = layer.children()
            images = reflect(read(images, prompts, kept), turns)
        return images


class _Residual(nn.Module):
    """Adds what a block finds to what it was given."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(
        self, hidden: Float[Tensor, "images tokens dim"], *others: Any
    ) -> Float[Tensor, "images tokens dim"]:
        found: Tensor = self.fn(hidden, *others)
        return hidden + found


class _SwiGlu(nn.Module):
    """Gates the first half of the last axis by the second: ``a · silu(b)``."""

    def forward(self, both: Float[Tensor, "*axes double"]) -> Float[Tensor, "*axes single"]:
        values, gate = both.chunk(2, dim=-1)
        gated: Tensor = values * functional.silu(gate)
        return gated


class _CrossAttention(nn.Module):
    """Normed image tokens ask, prompt tokens as they are answer; a feed-forward runs beside."""

    def __init__(self, sizes: CrossSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        inner, hidden = sizes.heads * sizes.dim_head, sizes.ff_mult * sizes.dim
        self.norm = nn.LayerNorm(sizes.dim, bias=False)
        self.to_q = nn.Linear(sizes.dim, inner, bias=False)
        self.to_kv = nn.Linear(sizes.dim, 2 * sizes.dim_head, bias=False)
        self.to_out = nn.Linear(inner, sizes.dim, bias=False)
        self.ff = nn.Sequential(
            nn.Linear(sizes.dim, 2 * hidden, bias=False),
            _SwiGlu(),
            nn.Linear(hidden, sizes.dim, bias=False),
        )

    def forward(
        self,
        images: Float[Tensor, "images tokens dim"],
        prompts: Float[Tensor, "images context dim"],
        kept: Bool[Tensor, "images context"],
    ) -> Float[Tensor, "images tokens dim"]:
        normed = self.norm(images)
        queries = _split(self.to_q(normed), self.heads)
        keys, values = self.to_kv(prompts).chunk(2, dim=-1)
        found: Tensor = self.to_out(_attend(queries, keys, values, kept[:, None, None, :]))
        thought: Tensor = self.ff(normed)
        return found + thought


class _ParallelBlock(nn.Module):
    """Self-attention with rotary positions and a feed-forward, both from one projection."""

    def __init__(self, sizes: CrossSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        inner, hidden = sizes.heads * sizes.dim_head, sizes.ff_mult * sizes.dim
        self.parts = (inner, sizes.dim_head, sizes.dim_head, 2 * hidden)
        self.norm = nn.LayerNorm(sizes.dim, bias=False)
        self.fused_attn_ff_proj = nn.Linear(sizes.dim, sum(self.parts), bias=False)
        self.attn_out = nn.Linear(inner, sizes.dim, bias=False)
        self.ff_out = nn.Sequential(_SwiGlu(), nn.Linear(hidden, sizes.dim, bias=False))

    def forward(
        self,
        images: Float[Tensor, "images tokens dim"],
        turns: tuple[Float[Tensor, "tokens width"], Float[Tensor, "tokens width"]],
    ) -> Float[Tensor, "images tokens dim"]:
        fused = self.fused_attn_ff_proj(self.norm(images))
        queries, keys, values, hidden = fused.split(self.parts, dim=-1)
        queries = turn(_split(queries, self.heads), turns)
        found: Tensor = self.attn_out(_attend(queries, turn(keys, turns), values, None))
        thought: Tensor = self.ff_out(hidden)
        return found + thought


def rotary(
    length: int, width: int, like: Tensor
) -> tuple[Float[Tensor, "tokens width"], Float[Tensor, "tokens width"]]:
    """Give the cosines and sines of each position's turns, as RotaryEmbedding of Kwai-Kolors/MPS.

    Channel ``i`` of the first half of ``width`` turns by ``position · 10000^(-2i / width)``,
    together with channel ``i`` of the second half. The angles are float32 at least, whatever
    ``like`` has: in 16 bits a late position would be off by up to a tenth of a radian.
    """
    precision = torch.promote_types(like.dtype, torch.float32)
    positions = torch.arange(length, device=like.device, dtype=precision)
    half = positions[:, None] * _frequencies(width).to(like.device, precision)
    angles = torch.cat([half, half], dim=-1)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def turn(
    states: Float[Tensor, "*axes tokens width"],
    turns: tuple[Float[Tensor, "tokens width"], Float[Tensor, "tokens width"]],
) -> Float[Tensor, "*axes tokens width"]:
    """Turn each pair of channels by its position's angle (rotary positions, arXiv 2104.09864)."""
    cosines, sines = (part.to(states.dtype) for part in turns)
    first, second = states.chunk(2, dim=-1)
    return states * cosines + torch.cat([-second, first], dim=-1) * sines


def new_cross(sizes: CrossSizes, seed: int) -> CrossModel:
    """Build a cross model with random weights, in float32 and evaluation mode.

    It begins as ``Cross_model`` of Kwai-Kolors/MPS does, which sets no values of its own: PyTorch's for maps
    (uniform up to 1 / sqrt(inputs)), ones for norms. The caller's random numbers are left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("cross model", seed))
        cross = CrossModel(sizes)
    return cross.requires_grad_(requires_grad=False).eval()


def cross_sizes(weights: Weights, where: Path, said: Mapping[str, Any], given: Path) -> CrossSizes:
    """Read the sizes of a cross model from its weights; what a file says of them must agree."""

    def shape(name: str) -> tuple[int, int]:
        name = _FIRST + name
        if name not in weights or weights[name].ndim != 2:
            raise CheckpointError(
                f"{where}: not an MPS checkpoint, 'cross_model.{name}' is missing or misshapen"
            )
        rows, columns = weights[name].shape
        return rows, columns

    inner, dim = shape("to_q.weight")
    dim_head = shape("to_kv.weight")[0] // 2
    hidden = shape("ff.2.weight")[1]
    if not dim or dim_head < 2 or dim_head % 2 or inner % dim_head or hidden % dim:
        raise CheckpointError(
            f"{where}: {inner} query channels, keys of {dim_head} and a feed-forward of {hidden} on "
            f"{dim} channels do not make a cross model; expected whole heads and a whole multiple"
        )
    layers = {name.split(".")[1] for name in weights if name.startswith("layers.")}
    sizes = CrossSizes(dim, len(layers), inner // dim_head, dim_head, hidden // dim)
    found = asdict(sizes)
    if unknown := sorted(set(said) - set(found)):
        raise CheckpointError(
            f"{given}: unknown entry 'cross_model.{unknown[0]}', expected {sorted(found)}"
        )
    for name, value in said.items():
        if value != found[name]:
            raise CheckpointError(
                f"{given}: cross_model.{name} is {value!r}, but {where} has {found[name]}"
            )
    return sizes


def build_cross(weights: Weights, sizes: CrossSizes, where: Path) -> CrossModel:
    """Build a cross model around weights, in float32 and evaluation mode.

    The constants that official files carry are checked and left out.
    """
    with torch.device("meta"):
        cross = CrossModel(sizes)
    weights = _without_constants(weights, sizes, where)
    check_names(weights, {name: value.shape for name, value in cross.state_dict().items()}, where)
    cross.load_state_dict(
        {name: value.to(torch.float32) for name, value in weights.items()}, assign=True
    )
    return cross.requires_grad_(requires_grad=False).eval()


def _without_constants(weights: Weights, sizes: CrossSizes, where: Path) -> Weights:
    """Leave out zero biases and rotary frequencies, after a look at whether they are that."""
    blocks = {f"layers.{layer}.{part}.fn" for layer in range(sizes.layer_num) for part in (0, 1)}
    rest = {}
    for name, value in weights.items():
        if name.endswith(_ZERO) and name.removesuffix(_ZERO) in blocks:
            expected, said = torch.zeros(sizes.dim, dtype=torch.float64), "zeros"
        elif name.endswith(_FREQUENCIES) and name.removesuffix(_FREQUENCIES) in blocks:
            expected, said = _frequencies(sizes.dim_head), "rotary frequencies of base 10000"
        else:
            rest[name] = value
            continue
        # one part in a hundred: files in 16 bits have rounded them
        if value.shape != expected.shape or not torch.allclose(
            value.to("cpu", torch.float64), expected, rtol=0.01, atol=0
        ):
            raise CheckpointError(
                f"{where}: cross_model.{name} holds other values than expected "
                f"({len(expected)} {said})"
            )
    return rest


def _frequencies(width: int) -> Float[Tensor, " half"]:
    """Give the turn per position of each pair of channels."""
    turned = torch.arange(0, width, 2, dtype=torch.float64) / -width
    return turned.mul(math.log(10_000)).exp()


def _split(
    states: Float[Tensor, "images tokens inner"], heads: int
) -> Float[Tensor, "images heads tokens width"]:
    """Deal the channels out to the heads."""
    images, tokens, inner = states.shape
    return states.reshape(images, tokens, heads, inner // heads).transpose(1, 2)


def _attend(
    queries: Float[Tensor, "images heads tokens width"],
    keys: Float[Tensor, "images context width"],
    values: Float[Tensor, "images context width"],
    kept: Bool[Tensor, "images 1 1 context"] | None,
) -> Float[Tensor, "images tokens inner"]:
    """Attend with many queries to one shared key and value (arXiv 1911.02150), then join heads."""
    heads = queries.shape[1]
    keys, values = (part[:, None].expand(-1, heads, -1, -1) for part in (keys, values))
    found = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=kept)
    return found.transpose(1, 2).flatten(2)
