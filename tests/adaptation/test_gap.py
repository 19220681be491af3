from __future__ import annotations

import numpy as np
import pytest
import torch

from palate.adaptation.examples import TextStore, make_examples
from palate.adaptation.gap import identifier_gap
from palate.adaptation.latents import encode_latents
from palate.adaptation.methods import METHODS, Noising, noising_of


def key(embedding):
    return tuple(embedding.flatten().tolist())


class Knows:
    """A denoiser that is right by a known amount, depending on the text and the picture."""

    device = torch.device("cpu")

    def __init__(self, store, marked, texts):
        self.known = {key(store[torch.tensor([number])][0]): number for number in range(len(texts))}
        self.marked = marked

    def __call__(self, noisy, times, text, return_dict):
        del times, return_dict
        numbers = [self.known[key(row)] for row in text]
        wrong = torch.tensor([1.0 if number in self.marked else 2.0 for number in numbers])
        return (noisy + wrong.view(-1, 1, 1, 1),)


@pytest.fixture
def parts(generator, base, labels, files, tmp_path):
    examples = make_examples(labels, files, METHODS["identifier"], "Bad. ", 3, 0)
    ordered = [files[image] for image in examples.images]
    latents = encode_latents(generator.pipeline, base, ordered, (16, 16), tmp_path)
    return examples, latents, TextStore(generator.pipeline, examples.texts)


class Nothing(Noising):
    """A process without noise, so that the denoiser's answer is its error."""

    def __init__(self):
        super().__init__(torch.ones(10), "epsilon")

    def add(self, latents, noise, times):
        del noise, times
        return latents, latents


def test_an_identifier_that_helps_is_below_zero(parts):
    examples, latents, texts = parts
    marked = set(examples.marked.tolist())
    knows = Knows(texts, marked, examples.texts)
    gap = identifier_gap(knows, Nothing(), latents, texts, examples, examples.held_out)
    for role in ("preferred", "rejected"):
        # the mean square of 1 instead of 2
        assert gap[role]["gap"] == pytest.approx(-3.0, rel=1e-3)
        assert gap[role]["error"] == pytest.approx(4.0, rel=1e-3)
        assert gap[role]["standard_error"] == pytest.approx(0.0, abs=1e-3)
        assert gap[role]["images"] == 3
    assert "regularisation" not in gap


def test_it_does_not_depend_on_the_order_or_the_company(generator, parts):
    examples, latents, texts = parts
    unet, noising = generator.pipeline.unet, noising_of(generator.pipeline)
    rows = examples.held_out["rejected"]

    def measure(mine):
        return identifier_gap(unet, noising, latents, texts, examples, {"rejected": mine})[
            "rejected"
        ]

    whole = measure(rows)
    assert measure(rows[::-1])["gap"] == pytest.approx(whole["gap"], abs=1e-6)
    single = np.mean([measure([row])["gap"] for row in rows])
    assert single == pytest.approx(whole["gap"], abs=1e-6)
    assert whole["gap"] != 0
