"""Every engine gives the official scores: float32 up to rounding, the fast ones within the drift that is stated."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from official import OFFICIAL, official_case

from palate.errors import SettingsError
from palate.models.tiny import tiny_clip
from palate.scoring import engine
from palate.scoring.engine import Engine, choose_engine
from palate.scoring.networks import ClipScorer, MpsScorer
from palate.scoring.promises import check_scorer

pytest.importorskip("openvino")
FAST = [Engine("bfloat16"), Engine("bfloat16", "openvino"), Engine("int8", "openvino")]


@pytest.fixture
def on():
    """Give the official case of a scorer on an engine, and put the shared scorer back afterwards."""
    used = []

    def build(name, how):
        case = official_case(name)
        used.append((case.scorer, case.scorer.eye))
        case.scorer.use(how)
        return case

    yield build
    for scorer, eye in used:
        scorer.eye = eye
        scorer.__dict__.pop("fingerprint", None)


@pytest.mark.parametrize("name", list(OFFICIAL))
def test_openvino_in_float32_meets_the_official_numbers(name, on):
    case = on(name, Engine("float32", "openvino"))
    scores = case.scorer.judge(case.images, case.prompts).values
    assert np.abs(scores - case.numbers).max() < case.promise


@pytest.mark.parametrize("how", FAST, ids=str)
@pytest.mark.parametrize("name", list(OFFICIAL))
def test_a_fast_engine_drifts_a_little_and_says_so(name, how, on):
    exact = official_case(name)
    exact_scores = exact.scorer.judge(exact.images, exact.prompts).values
    exact_print, exact_key = exact.scorer.fingerprint, exact.scorer.eye.key
    case = on(name, how)
    scores = case.scorer.judge(case.images, case.prompts).values
    drift = np.abs(scores - exact_scores)
    assert 0 < drift.max() < 0.1 * np.ptp(exact_scores)
    assert case.scorer.fingerprint != exact_print
    assert case.scorer.fingerprint.endswith(how.precision)
    assert case.scorer.eye.key != exact_key
    assert case.scorer.card()["precision"] == how.precision


@pytest.mark.parametrize("how", [Engine("float32", "openvino"), *FAST], ids=str)
def test_a_scorer_keeps_its_promises_on_every_engine(how):
    scorer = ClipScorer(tiny_clip(0), "tiny")
    scorer.use(how)
    # gradients are those of float32, which a fast score follows only up to its drift
    broken = [found for found in check_scorer(scorer) if "gradient" not in found.promise]
    assert broken == []


def test_the_float32_engines_agree_on_the_fingerprint_and_not_on_the_key():
    plain, fast = ClipScorer(tiny_clip(0), "tiny"), ClipScorer(tiny_clip(0), "tiny")
    fast.use(Engine("float32", "openvino"))
    assert plain.fingerprint == fast.fingerprint
    assert plain.eye.key != fast.eye.key


def test_conditions_of_mps_share_the_engine(on):
    scorer = on("mps", Engine("bfloat16", "openvino")).scorer
    assert isinstance(scorer, MpsScorer)
    assert scorer.on("detail").eye is scorer.eye


def test_gradients_are_those_of_float32():
    exact, fast = ClipScorer(tiny_clip(0), "tiny"), ClipScorer(tiny_clip(0), "tiny")
    fast.use(Engine("int8", "openvino"))
    pixels = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    assert torch.equal(exact.forward(pixels, ["a", "b"]), fast.forward(pixels, ["a", "b"]))


def test_the_choice_is_exact_unless_asked_and_cheap_for_few(monkeypatch):
    monkeypatch.setattr(engine, "bfloat16_gain", lambda: 4.0)
    assert choose_engine(images=2) == Engine("float32", "torch")
    assert choose_engine(images=2, fast=True) == Engine("bfloat16", "torch")
    assert choose_engine(images=10_000) == Engine("float32", "openvino")
    assert choose_engine(fast=True) == Engine("bfloat16", "openvino")
    assert choose_engine(images=2, precision="int8") == Engine("int8", "openvino")
    assert choose_engine(backend="torch") == Engine("float32", "torch")
    assert choose_engine(device="cuda", fast=True) == Engine("bfloat16", "torch")


def test_bfloat16_is_not_taken_where_it_is_slower(monkeypatch):
    monkeypatch.setattr(engine, "bfloat16_gain", lambda: 0.6)
    assert choose_engine(fast=True) == Engine("float32", "openvino")
    assert choose_engine(fast=True, backend="torch") == Engine("float32", "torch")


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"precision": "float8"}, "precision is 'float8', expected one of float32, bfloat16, int8"),
        ({"backend": "tpu"}, "backend is 'tpu', expected one of torch, openvino"),
        ({"precision": "int8", "backend": "torch"}, "int8 needs the backend openvino"),
    ],
)
def test_an_engine_that_is_not_there_is_refused(asked, sentence):
    with pytest.raises(SettingsError, match=sentence):
        choose_engine(**asked)


def test_without_openvino_torch_does_the_work(monkeypatch):
    monkeypatch.setattr(engine, "has_openvino", lambda: False)
    assert choose_engine(images=10_000) == Engine("float32", "torch")
    with pytest.raises(SettingsError, match="not installed"):
        choose_engine(backend="openvino")


def test_openvino_comes_without_its_telemetry():
    script = """
import sys
from palate.models.openvino_graph import openvino
openvino().Core()
assert not [name for name in sys.modules if name.startswith("openvino_telemetry")], "telemetry"
"""
    subprocess.run([sys.executable, "-c", script], check=True)
