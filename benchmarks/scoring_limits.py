"""What this machine can do at best: matrix products of a CLIP's shapes, and decoding of JPEGs.

python benchmarks/scoring_limits.py '{"model": "ViT-L-14", "images": {"512": ["a.jpg"]}, "seconds": 0.5}'   # one line of JSON
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image

# width, layers, tokens of the image and what the features become
SIZES = {"ViT-L-14": (1024, 24, 257, 768), "ViT-H-14": (1280, 32, 257, 1024)}
PATCH = 3 * 14 * 14
BATCHES = (8, 32)
SLOW = 5.0  # seconds; a product that is emulated takes longer, and is no limit
PRECISIONS = ("float32", "bfloat16", "int8")


def operations(model: str) -> float:
    """Give the floating-point operations that one image costs in the tower; a multiply and an add are two.

    Each layer has four width × width and two width × 4 width products for every token, and the two products of
    attention. Softmax, norms and activations are left out.
    """
    width, layers, tokens, out = SIZES[model]
    layer = 2 * tokens * 12 * width**2 + 4 * tokens**2 * width
    return layers * layer + 2 * (tokens - 1) * PATCH * width + 2 * width * out


def shapes(model: str) -> list[tuple[int, int, int]]:
    """Give rows, inner and columns of the products that make up a layer."""
    width, _, tokens, _ = SIZES[model]
    inner = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    return [(tokens * batch, *pair) for batch in BATCHES for pair in inner]


def rate(call: Callable[[], Any], work: float, seconds: float) -> float:
    """Give operations per second, the best of the calls in some seconds; of a slow one the first counts."""
    start = time.perf_counter()
    call()
    first = time.perf_counter() - start
    if first > SLOW:
        return work / first
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return work / best


def products(model: str) -> Iterator[tuple[str, str, float, Callable[[], Any]]]:
    """Give precision, engine, operations and the product itself."""
    ways = {"torch": torch_product, "onednn": onednn_product, "openvino": openvino_product}
    if not find_spec("openvino"):
        del ways["openvino"]
    for rows, inner, columns in shapes(model):
        for precision in PRECISIONS:
            for engine, way in ways.items():
                try:
                    call = way(rows, inner, columns, precision)
                except RuntimeError:
                    continue  # this processor has no such product
                yield precision, engine, 2.0 * rows * inner * columns, call


def torch_product(rows: int, inner: int, columns: int, precision: str) -> Callable[[], Any]:
    """Multiply as every model in torch does."""
    if precision == "int8":
        left = torch.randint(-127, 127, (rows, inner), dtype=torch.int8)
        right = torch.randint(-127, 127, (inner, columns), dtype=torch.int8)
        return lambda: torch._int_mm(left, right)  # noqa: SLF001 - torch has no other product of integers
    kind = getattr(torch, precision)
    left, right = torch.randn(rows, inner, dtype=kind), torch.randn(columns, inner, dtype=kind)
    return lambda: torch.nn.functional.linear(left, right)


def onednn_product(rows: int, inner: int, columns: int, precision: str) -> Callable[[], Any]:
    """Multiply by oneDNN with the weights in its own layout."""
    if precision == "int8":
        prepack, multiply = torch.ops.onednn.qlinear_prepack, torch.ops.onednn.qlinear_pointwise
        weights = prepack(torch.randint(-127, 127, (columns, inner), dtype=torch.int8), None)
        left = torch.randint(0, 255, (rows, inner), dtype=torch.uint8)
        scales, zeros = torch.ones(columns), torch.zeros(columns, dtype=torch.int64)
        rest = (weights, scales, zeros, None, 1.0, 0, torch.float32, "none", [], "")
        return lambda: multiply(left, 1.0, 0, *rest)
    from torch.utils.mkldnn import to_mkldnn

    kind = getattr(torch, precision)
    packed = to_mkldnn(torch.nn.Linear(inner, columns).eval(), kind)
    left = torch.randn(rows, inner, dtype=kind).to_mkldnn()
    return lambda: packed(left)


def openvino_product(rows: int, inner: int, columns: int, precision: str) -> Callable[[], Any]:
    """Multiply by OpenVINO, the weights a constant of the compiled graph.

    ``int8`` is what Palate asks for: weights of 8 bits, and inputs that are rounded to 8 bits on the way.
    """
    import openvino as ov
    from openvino import opset13 as ops

    numbers = np.random.default_rng(0)
    left = ops.parameter([rows, inner], np.float32)
    how = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32"}
    if precision == "int8":
        how["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = "128"
        small = ops.constant(numbers.integers(-127, 127, (columns, inner), np.int8))
        weights = ops.multiply(ops.convert(small, "f32"), np.full((columns, 1), 0.01, np.float32))
    else:
        weights = ops.constant(numbers.standard_normal((columns, inner), np.float32))
    product = ops.matmul(left, weights, transpose_a=False, transpose_b=True)
    compiled = ov.Core().compile_model(ov.Model([product], [left]), "CPU", how)
    request = compiled.create_infer_request()
    request.set_input_tensor(ov.Tensor(numbers.standard_normal((rows, inner), np.float32)))
    return request.infer


@torch.inference_mode()
def matrix_rates(model: str, seconds: float) -> dict[str, dict[str, float]]:
    """Give the best operations per second of each precision and engine over the shapes of a model."""
    best: dict[str, dict[str, float]] = {}
    slow: set[tuple[str, str]] = set()
    for precision, engine, work, call in products(model):
        if (precision, engine) in slow:
            continue
        try:
            found = rate(call, work, seconds)
        except RuntimeError:
            continue  # this processor has no such product
        if work / found > SLOW:
            slow.add((precision, engine))
        engines = best.setdefault(precision, {})
        engines[engine] = max(engines.get(engine, 0.0), found)
    return best


def decode_rate(paths: list[str], seconds: float) -> float:
    """Give the images that Pillow decodes per second on one core, times the cores."""

    def decode() -> None:
        for path in paths:
            Image.open(path).load()

    return rate(decode, len(paths), seconds) * (os.cpu_count() or 1)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    found = {
        "operations_per_image": operations(asked["model"]),
        "matrix": matrix_rates(asked["model"], asked["seconds"]),
        "decode": {
            size: decode_rate(paths, asked["seconds"]) for size, paths in asked["images"].items()
        },
    }
    print(json.dumps(found))
