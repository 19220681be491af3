"""Image towers as OpenVINO graphs: it reaches more of a processor than PyTorch does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palate.models.clip_network import ClipNetwork

if TYPE_CHECKING:
    from openvino import Model, Node

Width = Literal["float32", "bfloat16", "int8"]

# Activations are rounded to 8 bits in groups of this many numbers, each with a scale of its own.
_GROUP = 128
_HINT = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}


def openvino() -> Any:
    """Import OpenVINO, but not the telemetry that it would start: Palate sends nothing that nobody asked for."""
    telemetry = "openvino_telemetry"
    before = sys.modules.get(telemetry)
    if "openvino" not in sys.modules:
        sys.modules[telemetry] = None  # type: ignore[assignment]
    try:
        import openvino.opset13
    finally:
        if before is not None:
            sys.modules[telemetry] = before
        else:
            sys.modules.pop(telemetry, None)
    return openvino


def compiled(
    build: Callable[[Width], Model], precision: Width
) -> Callable[[Float[Tensor, "images 3 size size"]], Float[Tensor, "images *rest"]]:
    """Compile a graph for this processor; give it as a function of prepared pixels.

    ``float32`` differs from PyTorch by rounding alone. ``bfloat16`` computes products and states in 16 bits,
    ``int8`` the products of the blocks in 8 bits and everything between them in float32.
    """
    how: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _HINT[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    if precision == "int8":
        how["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = str(_GROUP)
    network = openvino().Core().compile_model(build(precision), "CPU", how)

    def look(pixels: Float[Tensor, "images 3 size size"]) -> Float[Tensor, "images *rest"]:
        return torch.from_numpy(np.array(network(pixels.numpy())[0]))

    return look


def clip_graph(network: ClipNetwork, precision: Width, *, tokens: bool = False) -> Model:
    """Write a CLIP's image tower: pixels to the class token's last state, or with ``tokens`` to all tokens'."""
    graph, tower = _Graph(precision), network.vision_model
    parts = tower.embeddings
    pixels = graph.pixels(network.config.vision_config.image_size)
    hidden = graph.embed(
        pixels, parts.patch_embedding, parts.class_embedding, parts.position_embedding.weight
    )
    hidden = graph.norm(hidden, tower.pre_layrnorm)
    blocks: list[Any] = list(tower.encoder.layers)
    for block in blocks:
        inside = block.self_attn
        projections = [
            (part.weight, part.bias) for part in (inside.q_proj, inside.k_proj, inside.v_proj)
        ]
        activation = "swish" if block.mlp.activation == "quick_gelu" else "erf"
        alone = block is blocks[-1] and not tokens
        attention = (projections, inside.out_proj, inside.heads)
        hidden = graph.block(hidden, block, attention, activation, first=alone)
    return graph.finish(pixels, hidden)


def blip_graph(tower: Any, precision: Width) -> Model:
    """Write the image tower of BLIP (transformers' ``BlipVisionModel``): pixels to normed states of all patches."""
    graph, parts = _Graph(precision), tower.embeddings
    pixels = graph.pixels(tower.config.image_size)
    hidden = graph.embed(
        pixels, parts.patch_embedding, parts.class_embedding, parts.position_embedding
    )
    for block in tower.encoder.layers:
        inside = block.self_attn
        weights, biases = inside.qkv.weight.chunk(3), inside.qkv.bias.chunk(3)
        attention = (list(zip(weights, biases, strict=True)), inside.projection, inside.num_heads)
        hidden = graph.block(hidden, block, attention, "erf")
    return graph.finish(pixels, graph.norm(hidden, tower.post_layernorm))


def siglip_graph(tower: Any, precision: Width) -> Model:
    """Write the image tower of a SigLIP (transformers' ``SiglipVisionModel``): pixels to all patches' last states."""
    graph, parts, config = _Graph(precision), tower.embeddings, tower.config
    activations = {"quick_gelu": "swish", "gelu": "erf", "gelu_pytorch_tanh": "tanh"}
    pixels = graph.pixels(config.image_size)
    hidden = graph.embed(pixels, parts.patch_embedding, None, parts.position_embedding.weight)
    for block in tower.encoder.layers:
        inside = block.self_attn
        projections = [
            (part.weight, part.bias) for part in (inside.q_proj, inside.k_proj, inside.v_proj)
        ]
        attention = (projections, inside.out_proj, inside.num_heads)
        hidden = graph.block(hidden, block, attention, activations[config.hidden_act])
    return graph.finish(pixels, hidden)


class _Graph:
    """Writes modules as nodes. Float32 constants share their memory with the weights."""

    def __init__(self, precision: Width) -> None:
        """Say how the maps inside blocks are computed."""
        self.ops: Any = openvino().opset13
        self.precision = precision

    def ints(self, *values: int) -> Node:
        """A constant of integers."""
        return self.ops.constant(np.array(values, dtype=np.int64))

    def weight(self, value: Tensor) -> Node:
        """A constant of float32 numbers."""
        held = value.detach().contiguous().numpy()
        return self.ops.constant(held, dtype=np.float32, shared_memory=True)

    def pixels(self, size: int) -> Node:
        """What goes in: any number of prepared images."""
        return self.ops.parameter([-1, 3, size, size], np.float32, name="pixels")

    def finish(self, pixels: Node, found: Node) -> Model:
        """Close the graph."""
        return openvino().Model([found], [pixels], "image_tower")

    def plain(self, hidden: Node, weight: Tensor, bias: Tensor | None = None) -> Node:
        """A map in float32, or whatever the graph is compiled for."""
        out = self.ops.matmul(hidden, self.weight(weight), transpose_a=False, transpose_b=True)
        return out if bias is None else self.ops.add(out, self.weight(bias))

    def linear(self, hidden: Node, weight: Tensor, bias: Tensor) -> Node:
        """A map inside a block: with ``int8`` each row of the weights becomes 8-bit numbers and a scale."""
        if self.precision != "int8":
            return self.plain(hidden, weight, bias)
        scale = weight.detach().abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
        small = (weight.detach() / scale).round().to(torch.int8)
        ops = self.ops
        back = ops.multiply(ops.convert(ops.constant(small.numpy()), "f32"), self.weight(scale))
        out = ops.matmul(hidden, back, transpose_a=False, transpose_b=True)
        return ops.add(out, self.weight(bias))

    def shaped(self, hidden: Node, shape: Node) -> Node:
        """The same numbers in another shape, in which 0 stands for the length that was there."""
        return self.ops.reshape(hidden, shape, special_zero=True)

    def norm(self, hidden: Node, layer: Any) -> Node:
        """A layer norm over the last axis."""
        flat = self.ops.mvn(
            hidden, self.ints(-1), normalize_variance=True, eps=layer.eps, eps_mode="inside_sqrt"
        )
        scaled = self.ops.multiply(flat, self.weight(layer.weight))
        return self.ops.add(scaled, self.weight(layer.bias))

    def embed(self, pixels: Node, patches: Any, token: Tensor | None, places: Tensor) -> Node:
        """Patches and, if there is one, a class token before them, each with its place."""
        ops, width, side = self.ops, patches.out_channels, patches.kernel_size[0]
        kernel = self.weight(patches.weight)
        seen = ops.convolution(pixels, kernel, [side] * 2, [0, 0], [0, 0], [1, 1])
        if patches.bias is not None:
            seen = ops.add(seen, self.weight(patches.bias.view(1, -1, 1, 1)))
        seen = ops.transpose(self.shaped(seen, self.ints(0, width, -1)), self.ints(0, 2, 1))
        if token is not None:
            count = ops.gather(ops.shape_of(pixels, "i64"), self.ints(0), self.ints(0))
            shape = ops.concat([count, self.ints(1, width)], 0)
            seen = ops.concat([ops.broadcast(self.weight(token.view(1, 1, -1)), shape), seen], 1)
        return ops.add(seen, self.weight(places.view(1, -1, width)))

    def block(
        self,
        hidden: Node,
        block: Any,
        attention: tuple[list[tuple[Tensor, Tensor]], Any, int],
        activation: str,
        *,
        first: bool = False,
    ) -> Node:
        """One layer of a tower; with ``first`` for the class token alone, which looks at all the others."""
        ops = self.ops
        normed = self.norm(hidden, block.layer_norm1)
        asking = normed
        if first:
            one = [self.ints(0), self.ints(1), self.ints(1), self.ints(1)]
            asking, hidden = ops.slice(normed, *one), ops.slice(hidden, *one)
        hidden = ops.add(hidden, self.attend(asking, normed, *attention))
        mlp = block.mlp
        inner = self.linear(self.norm(hidden, block.layer_norm2), mlp.fc1.weight, mlp.fc1.bias)
        if activation == "swish":  # x · sigmoid(1.702 x) is CLIP's quick_gelu
            inner = ops.swish(inner, ops.constant(np.float32(1.702)))
        else:
            inner = ops.gelu(inner, activation)  # exact by erf, or its tanh approximation
        return ops.add(hidden, self.linear(inner, mlp.fc2.weight, mlp.fc2.bias))

    def attend(
        self,
        asking: Node,
        normed: Node,
        projections: list[tuple[Tensor, Tensor]],
        out: Any,
        heads: int,
    ) -> Node:
        """Attention with several heads."""
        ops, width = self.ops, out.out_features
        shape, order = self.ints(0, 0, heads, width // heads), self.ints(0, 2, 1, 3)
        states = [
            ops.transpose(self.shaped(self.linear(source, *projection), shape), order)
            for source, projection in zip((asking, normed, normed), projections, strict=True)
        ]
        found = ops.transpose(ops.scaled_dot_product_attention(*states), order)
        together = self.shaped(found, self.ints(0, 0, width))
        return self.linear(together, out.weight, out.bias)
