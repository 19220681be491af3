"""What tells two sets of weights apart."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

# A network's tensors by name: where the values lay, how often they had been changed, and their hash.
_LARGE = 2**18
_KNOWN: WeakKeyDictionary[nn.Module, dict[str, tuple[int, int, str]]] = WeakKeyDictionary()


def hash_weights(
    facts: Mapping[str, object], network: nn.Module, parts: tuple[str, ...] = ("",)
) -> str:
    """Hash plain facts and the float32 values of a network's tensors to 16 hexadecimal digits.

    Only tensors whose names start with one of ``parts`` count. Gigabytes take a while, so the tensors are hashed side
    by side, and the hash of one that has not changed since is known.
    """
    known = _KNOWN.setdefault(network, {})
    weights = {
        name: value for name, value in network.state_dict().items() if name.startswith(parts)
    }
    marks = {name: (value.data_ptr(), value._version) for name, value in weights.items()}  # noqa: SLF001
    new = [
        name
        for name, value in weights.items()
        if value.numel() < _LARGE or known.get(name, ())[:2] != marks[name]
    ]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for name, digest in zip(new, pool.map(_hash, [weights[n] for n in new]), strict=True):
            known[name] = (*marks[name], digest)
    whole = hashlib.blake2b(digest_size=8)
    whole.update(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(weights):
        whole.update(f"{name} {known[name][2]}\n".encode())
    return whole.hexdigest()


def _hash(value: Tensor) -> str:
    """Hash the float32 values of a tensor; SHA-256 because processors have an instruction for it."""
    plain = value.detach().to("cpu", torch.float32).contiguous()
    return hashlib.sha256(plain.numpy().data).hexdigest()
