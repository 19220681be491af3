"""A tiny random generator, its own pictures as a data set, and labels on them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from palate.adaptation.adapt import _plan, _prepare
from palate.adaptation.examples import image_files
from palate.adaptation.settings import AdaptSettings, RoleWeights
from palate.data.records import Label
from palate.data.tables import read_table, to_table
from palate.generation.generate import GenerateSettings, generate
from palate.generation.generator import load_generator
from palate.generation.tiny import write_tiny_pipeline
from palate.training.processes import Processes

ROLES = ("preferred", "rejected", "regularisation")
EVEN = RoleWeights(preferred=1.0, rejected=1.0, regularisation=1.0)
QUICK = AdaptSettings(
    steps=6,
    batch=4,
    rank=2,
    alpha=6.0,
    learning_rate=1e-2,
    identifier="Bad. ",
    role_weights=EVEN,
    save_every=3,
    log_every=1,
    seed=7,
    trackers=(),
)


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


@pytest.fixture(scope="session")
def dataset(generator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "images"
    settings = GenerateSettings(images_per_prompt=3, steps=2, batch=6)
    generate([f"ball {number}" for number in range(8)], generator, folder, settings)
    return folder


@pytest.fixture(scope="session")
def images(dataset):
    return read_table(dataset / "images.parquet", "images")


@pytest.fixture(scope="session")
def files(dataset):
    return image_files(dataset)


@pytest.fixture(scope="session")
def labels(images):
    """One image of each role for every prompt."""
    rows = [
        Label(row["image"], ROLES[number % 3], row["prompt"], row["prompt"])
        for number, row in enumerate(images.to_pylist())
    ]
    return to_table(rows, "labels")


@pytest.fixture
def work(base, labels, files, tmp_path):
    """What a step computes, for the settings QUICK with some changes."""

    def make(rows=labels, pictures=files, **changes):
        settings = replace(QUICK, **changes)
        job = _plan(load_generator(base), rows, pictures, settings, Processes())
        ordered = [pictures[image] for image in job.examples.images]
        return _prepare(job, ordered, base, tmp_path / "latents")

    return make
