"""Inception v3, whose features the Fréchet Inception Distance compares and whose classes the Inception Score counts.

Two networks go by that name. ``fid`` is the one that TensorFlow published on 2015-12-05, as pytorch-fid and
torch-fidelity converted it (``pt_inception-2015-12-05-6726825d.pth``, 1,008 classes): its average pooling does not
count the padding, and its last block pools by the maximum. ``torchvision`` is the network that torchvision trained
(``inception_v3_google-0cc3c7bd.pth``, 1,000 classes), whose numbers compare with nobody's FID. Weights are read from a
path, strictly by name; none is shipped or fetched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from palate.errors import CheckpointError
from palate.models.checkpoint import Weights, check_names, read_weights
from palate.models.hashes import hash_weights
from palate.models.pixels import Preparation, preparation_dict, prepare

Variant = Literal["fid", "torchvision"]
Array: TypeAlias = NDArray[Any]
CLASSES: Mapping[str, int] = {"fid": 1008, "torchvision": 1000}
DIMS = 2048
"""Numbers per image after the last pooling, which FID calls ``pool3``."""

_HALF = (0.5, 0.5, 0.5)
_MIDDLE = (128 / 255, 128 / 255, 128 / 255)

PROFILES: Mapping[str, Preparation] = {
    # pytorch-fid: a float tensor, stretched to 299 × 299 without antialias, then 2 x - 1.
    "pytorch-fid": Preparation(
        *(299, "exact", "bilinear"), antialias=False, domain="tensor", mean=_HALF, std=_HALF
    ),
    # clean-fid: Pillow's bicubic filter on floats, cut to 0..255, then (x - 128) / 128. Pillow's filter and the
    # antialiased one of PyTorch differ by less than 0.01 of 255.
    "clean-fid": Preparation(
        *(299, "exact", "bicubic"), antialias=True, domain="tensor", mean=_MIDDLE, std=_MIDDLE
    ),
}
"""The two ways to 299 × 299 pixels. A FID is only comparable with one that was prepared the same way."""

# The second classifier of torchvision's file, which is used in training alone.
_SECOND_HEAD = "AuxLogits."
_COUNTER = ".num_batches_tracked"

Pool = Literal["average", "padded average", "maximum", "shrink"]
Step = tuple[str, int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Path:
    """A chain of convolutions: name, channels, kernel (height, width) each; ``fork`` is what splits its end.

    A path that shrinks ends with a stride of 2 and without padding.
    """

    chain: tuple[Step, ...]
    fork: tuple[Step, ...] = ()
    shrinks: bool = False


_ONE, _THREE, _FIVE = (1, 1), (3, 3), (5, 5)
_WIDE, _TALL = (1, 7), (7, 1)
_FLAT, _STEEP = (1, 3), (3, 1)


def _block_a() -> tuple[_Path, ...]:
    """The block of the 35 × 35 grid."""
    return (
        _Path((("branch1x1", 64, _ONE),)),
        _Path((("branch5x5_1", 48, _ONE), ("branch5x5_2", 64, _FIVE))),
        _Path(_double(96)),
    )


def _block_b() -> tuple[_Path, ...]:
    """From 35 × 35 to 17 × 17."""
    return (_Path((("branch3x3", 384, _THREE),), shrinks=True), _Path(_double(96), shrinks=True))


def _double(channels: int) -> tuple[Step, ...]:
    first = ("branch3x3dbl_1", 64, _ONE)
    return (first, ("branch3x3dbl_2", channels, _THREE), ("branch3x3dbl_3", channels, _THREE))


def _block_c(inner: int) -> tuple[_Path, ...]:
    """The block of the 17 × 17 grid, whose 7 × 7 kernels are rows and columns."""
    once = (
        ("branch7x7_1", inner, _ONE),
        ("branch7x7_2", inner, _WIDE),
        ("branch7x7_3", 192, _TALL),
    )
    shapes = (_ONE, _TALL, _WIDE, _TALL, _WIDE)
    twice = tuple(
        (f"branch7x7dbl_{place}", 192 if place == 5 else inner, shape)
        for place, shape in enumerate(shapes, start=1)
    )
    return _Path((("branch1x1", 192, _ONE),)), _Path(once), _Path(twice)


def _block_d() -> tuple[_Path, ...]:
    """From 17 × 17 to 8 × 8."""
    short = (("branch3x3_1", 192, _ONE), ("branch3x3_2", 320, _THREE))
    shapes = (_ONE, _WIDE, _TALL, _THREE)
    long = tuple(
        (f"branch7x7x3_{place}", 192, shape) for place, shape in enumerate(shapes, start=1)
    )
    return _Path(short, shrinks=True), _Path(long, shrinks=True)


def _block_e() -> tuple[_Path, ...]:
    """The block of the 8 × 8 grid, whose paths split into a row and a column."""
    short, long = "branch3x3_", "branch3x3dbl_"
    return (
        _Path((("branch1x1", 320, _ONE),)),
        _Path(
            ((f"{short}1", 384, _ONE),),
            ((f"{short}2a", 384, _FLAT), (f"{short}2b", 384, _STEEP)),
        ),
        _Path(
            ((f"{long}1", 448, _ONE), (f"{long}2", 384, _THREE)),
            ((f"{long}3a", 384, _FLAT), (f"{long}3b", 384, _STEEP)),
        ),
    )


class _Convolution(nn.Module):
    """A convolution, its normalisation with the stored statistics (ε = 0.001), and a rectifier."""

    def __init__(
        self,
        given: int,
        channels: int,
        kernel: tuple[int, int],
        stride: int = 1,
        *,
        pads: bool = True,
    ) -> None:
        """Lay it out; ``pads`` keeps the size of the grid."""
        super().__init__()
        around = (kernel[0] // 2, kernel[1] // 2) if pads else (0, 0)
        self.conv = nn.Conv2d(given, channels, kernel, stride, around, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=0.001)

    def forward(
        self, x: Float[Tensor, "images given height width"]
    ) -> Float[Tensor, "images channels new_height new_width"]:
        """Convolve, normalise, rectify."""
        out: Tensor = functional.relu(self.bn(self.conv(x)))
        return out


class _Mixed(nn.Module):
    """A block of paths side by side, and a pooling beside them; their channels are stacked in that order.

    ``pooled`` channels come of the pooling by a convolution; 0 stacks what was pooled as it is.
    """

    def __init__(
        self, given: int, paths: Sequence[_Path], pool: Pool, pooled: int, width: float
    ) -> None:
        """Lay it out; ``width`` scales every number of channels."""
        super().__init__()
        self.paths, self.pool, self.pooled = tuple(paths), pool, pooled
        self.channels = 0
        for path in paths:
            now = given
            for place, (name, channels, kernel) in enumerate(path.chain, start=1):
                last = path.shrinks and place == len(path.chain)
                after = _scaled(channels, width)
                self.add_module(
                    name, _Convolution(now, after, kernel, 2 if last else 1, pads=not last)
                )
                now = after
            for name, channels, kernel in path.fork:
                self.add_module(name, _Convolution(now, _scaled(channels, width), kernel))
            self.channels += sum(_scaled(step[1], width) for step in path.fork) or now
        if pooled:
            self.branch_pool = _Convolution(given, _scaled(pooled, width), _ONE)
        self.channels += _scaled(pooled, width) if pooled else given

    def forward(
        self, x: Float[Tensor, "images given height width"]
    ) -> Float[Tensor, "images channels new_height new_width"]:
        """Run every path and stack what they give."""
        found: list[Tensor] = []
        for path in self.paths:
            now = x
            for name, _, _ in path.chain:
                now = self.get_submodule(name)(now)
            found += [self.get_submodule(name)(now) for name, _, _ in path.fork] or [now]
        beside = _pool(x, self.pool)
        return torch.cat([*found, self.branch_pool(beside) if self.pooled else beside], dim=1)


def _pool(x: Tensor, how: Pool) -> Tensor:
    if how == "shrink":
        return functional.max_pool2d(x, 3, stride=2)
    if how == "maximum":
        return functional.max_pool2d(x, 3, stride=1, padding=1)
    return functional.avg_pool2d(x, 3, 1, padding=1, count_include_pad=how == "padded average")


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


class Inception(nn.Module):
    """Inception v3 from prepared pixels to features, under the names that torchvision gives its tensors.

    ``width`` below 1 makes a narrow network for tests, with the same names and fewer channels.
    """

    def __init__(
        self, variant: Variant = "fid", *, width: float = 1.0, classes: int | None = None
    ) -> None:
        """Lay the network out; its values are random until weights are loaded."""
        super().__init__()
        self.variant = variant
        at_first = (_scaled(32, width), _scaled(32, width), _scaled(64, width))
        then = (_scaled(80, width), _scaled(192, width))
        self.Conv2d_1a_3x3 = _Convolution(3, at_first[0], _THREE, 2, pads=False)
        self.Conv2d_2a_3x3 = _Convolution(at_first[0], at_first[1], _THREE, pads=False)
        self.Conv2d_2b_3x3 = _Convolution(at_first[1], at_first[2], _THREE)
        self.Conv2d_3b_1x1 = _Convolution(at_first[2], then[0], _ONE)
        self.Conv2d_4a_3x3 = _Convolution(then[0], then[1], _THREE, pads=False)
        self.blocks, channels = [], then[1]
        for name, paths, pool, pooled in _blocks(variant):
            block = _Mixed(channels, paths, pool, pooled, width)
            self.add_module(name, block)
            self.blocks.append(name)
            channels = block.channels
        self.fc = nn.Linear(channels, classes or CLASSES[variant])

    def forward(
        self, pixels: Float[Tensor, "images 3 height width"]
    ) -> Float[Tensor, "images dims"]:
        """Give the features of prepared pixels: the last grid, averaged over its places (``pool3``)."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(pixels)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(functional.max_pool2d(x, 3, stride=2)))
        x = functional.max_pool2d(x, 3, stride=2)
        for name in self.blocks:
            x = self.get_submodule(name)(x)
        averaged: Tensor = x.mean(dim=(2, 3))
        return averaged

    def logits(
        self, features: Float[Tensor, "images dims"], *, bias: bool = True
    ) -> Float[Tensor, "images classes"]:
        """Give the classes' logits of features; the official Inception Score leaves the ``bias`` out."""
        return functional.linear(features, self.fc.weight, self.fc.bias if bias else None)


def _blocks(variant: Variant) -> list[tuple[str, tuple[_Path, ...], Pool, int]]:
    """Name, paths, pooling and pooled channels of every block; the variants differ in their pooling alone."""
    average: Pool = "average" if variant == "fid" else "padded average"
    last: Pool = "maximum" if variant == "fid" else "padded average"
    inner = {"Mixed_6b": 128, "Mixed_6c": 160, "Mixed_6d": 160, "Mixed_6e": 192}
    return [
        ("Mixed_5b", _block_a(), average, 32),
        ("Mixed_5c", _block_a(), average, 64),
        ("Mixed_5d", _block_a(), average, 64),
        ("Mixed_6a", _block_b(), "shrink", 0),
        *((name, _block_c(channels), average, 192) for name, channels in inner.items()),
        ("Mixed_7a", _block_d(), "shrink", 0),
        ("Mixed_7b", _block_e(), average, 192),
        ("Mixed_7c", _block_e(), last, 192),
    ]


class InceptionLook:
    """Looks at images through an Inception: a call gives their features and the chances of their classes.

    It is what :mod:`palate.evaluation.distribution` takes as an extractor.
    """

    def __init__(
        self,
        network: Inception,
        profile: str = "pytorch-fid",
        *,
        device: str = "cpu",
        batch: int = 16,
    ) -> None:
        """Take a network, the name of a preparation in ``PROFILES``, and how many images are seen at once."""
        if profile not in PROFILES:
            raise CheckpointError(
                f"an Inception has no preparation {profile!r}, expected one of {', '.join(PROFILES)}"
            )
        self.network = network.eval().requires_grad_(requires_grad=False).to(device)
        self.profile, self.device, self.batch = profile, device, batch

    @property
    def fingerprint(self) -> str:
        """Hash of the weights, the variant and the preparation."""
        facts = {
            "inception": self.network.variant,
            "preparation": self.profile,
            **preparation_dict(PROFILES[self.profile]),
        }
        return hash_weights(facts, self.network)

    def __call__(
        self, images: Sequence[Image.Image]
    ) -> tuple[Float[Array, "images dims"], Float[Array, "images classes"]]:
        """Give features (float32) and chances of the classes (float64), each image on its own.

        The chances are those of the official Inception Score: the softmax of the logits without their bias.
        """
        features, chances = [], []
        # A GPU would round what it multiplies to ten bits otherwise.
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            for start in range(0, len(images), self.batch):
                pixels = prepare_for_inception(images[start : start + self.batch], self.profile)
                found = self.network(pixels.to(self.device))
                logits = self.network.logits(found, bias=False).double()
                features.append(found.cpu().numpy())
                chances.append(logits.softmax(dim=1).cpu().numpy())
        if not features:
            head = self.network.fc
            return np.zeros((0, head.in_features), np.float32), np.zeros((0, head.out_features))
        return np.concatenate(features), np.concatenate(chances)


def prepare_for_inception(
    images: Sequence[Image.Image], profile: str = "pytorch-fid"
) -> Float[Tensor, "images 3 299 299"]:
    """Prepare pictures of any size and mode as the profile says.

    What a bicubic filter overshoots is cut, as clean-fid does: values stay those of 0..255.
    """
    how = PROFILES[profile]
    low, high = (0 - how.mean[0]) / how.std[0], (1 - how.mean[0]) / how.std[0]
    return prepare(images, how).clamp(low, high)


def load_inception(
    path: Path,
    variant: Variant = "fid",
    profile: str = "pytorch-fid",
    *,
    device: str = "cpu",
    batch: int = 16,
) -> InceptionLook:
    """Read an Inception's weights from a file and give what looks through it.

    ``variant`` says which file it is: ``fid`` for the converted TensorFlow network, ``torchvision`` for torchvision's.
    Raises CheckpointError for a file that is damaged, would run code, or misses or adds a tensor.
    """
    with torch.device("meta"):  # random values would only be drawn to be replaced
        network = Inception(variant)
    network.load_state_dict(_fitting(read_weights(path), network, path), assign=True)
    return InceptionLook(network, profile, device=device, batch=batch)


def random_inception(
    width: float = 1 / 16, variant: Variant = "fid", *, classes: int = 10, seed: int = 0
) -> Inception:
    """Make a narrow Inception of random weights: the same for the same seed, and good for tests alone."""
    chance = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        network = Inception(variant, width=width, classes=classes)
    for name, value in network.named_parameters():
        if value.dim() > 1:
            nn.init.kaiming_normal_(value, nonlinearity="relu", generator=chance)
        elif name.endswith("bias"):
            nn.init.zeros_(value)
    return network.eval()


def _fitting(weights: Weights, network: Inception, where: Path) -> Weights:
    """Check the names and shapes of weights, and give those that the network holds.

    Counters of training batches may lack and are not used; neither is torchvision's second classifier.
    """
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    counters = {name for name in shapes if name.endswith(_COUNTER)}
    unused = _SECOND_HEAD if network.variant == "torchvision" else "\0"
    used = {n: v for n, v in weights.items() if n not in counters and not n.startswith(unused)}
    kept = {name: value.float() for name, value in used.items()}
    expected = {n: s for n, s in shapes.items() if n not in counters}
    hints = {n: f"; it has the {n:,} classes of the variant {v!r}" for v, n in CLASSES.items()}
    try:
        check_names(kept, expected, where)
    except CheckpointError as fault:
        raise CheckpointError(f"{fault}{hints.get(len(kept.get('fc.bias', ())), '')}") from None
    return {**{name: torch.tensor(0) for name in counters}, **kept}
