"""One tiny random generator for all tests of this folder."""

from __future__ import annotations

import pytest
import torch

from palate.generation.generator import load_generator
from palate.generation.tiny import write_tiny_pipeline


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return write_tiny_pipeline(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def generator(base):
    """The generator, not to be changed."""
    return load_generator(base)


@pytest.fixture
def fresh(base):
    """The generator, to be changed."""
    return load_generator(base)


@pytest.fixture(scope="session")
def adapter(base, tmp_path_factory):
    """A LoRA with alpha 3 and rank 2 whose product is not zero."""
    from palate.adaptation.lora_files import add_lora, save_adapter

    folder = tmp_path_factory.mktemp("adapter") / "weird"
    folder.mkdir()
    unet = load_generator(base).pipeline.unet
    draw = torch.Generator().manual_seed(1)
    for name, part in add_lora(unet, rank=2, alpha=3.0, seed=0).items():
        if "lora_B" in name:
            part.data = torch.randn(part.shape, generator=draw)
    details = {"method": "identifier", "identifier": "Weird. ", "rank": 2, "alpha": 3.0}
    return save_adapter(unet, folder, details)
