"""The model card of an aesthetic head names what that head is, and its CLIP apart from it."""

from __future__ import annotations

import json
from typing import get_args

import official
import pytest
import torch
from official import OFFICIAL
from safetensors.torch import save_file

from palate.models.aesthetic import Kind, load_head
from palate.scoring.convert import convert_checkpoint
from palate.scoring.model_card import Origin, terms_of, write_model_card
from palate.scoring.networks import AestheticScorer

LAION_V2 = "christophschuhmann/improved-aesthetic-predictor"
TERMS = {
    "laion-v1": ("MIT", "LAION-AI/aesthetic-predictor"),
    "laion-v2": ("Apache-2.0", LAION_V2),
    "laion-v2-relu": ("Apache-2.0", LAION_V2),
    "simulacra": ("MIT", "crowsonkb/simulacra-aesthetic-models"),
}


def scorer_of(kind, folder):
    """An aesthetic scorer with a head of zeros."""
    clip = official.official_case("aesthetic").scorer.clip
    wide = clip.model.config.projection_dim
    places = {
        "laion-v1": [""],
        "simulacra": ["linear."],
        "laion-v2": [f"layers.{place}." for place in (0, 2, 4, 6, 7)],
        "laion-v2-relu": [f"layers.{place}." for place in (0, 3, 6, 9, 11)],
    }[kind]
    widths = [wide, *([1024, 128, 64, 16] if len(places) > 1 else []), 1]
    weights = {}
    for prefix, before, after in zip(places, widths[:-1], widths[1:], strict=True):
        weights[f"{prefix}weight"] = torch.zeros(after, before)
        weights[f"{prefix}bias"] = torch.zeros(after)
    save_file(weights, folder / "head.safetensors")
    about = official.official_case("aesthetic").scorer.facts()
    head = load_head(folder / "head.safetensors")
    return AestheticScorer(clip, head, {**about, "head": head.kind})


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_head_has_its_own_licence_and_path(kind, tmp_path):
    scorer = scorer_of(kind, tmp_path)
    origin = Origin("head.pth", "head.pth", 3, "0" * 64)
    text = write_model_card(scorer, origin, half=False, loss=None)
    licence, path = TERMS[kind]
    assert f"| Licence of the head | {licence}" in text
    assert f"| Official path | {path}" in text
    assert "| CLIP in this folder | that of the source folder; licence: its own, not known" in text
    assert "license: unknown" in text
    for other in {name for _, name in TERMS.values()} - {path}:
        assert other not in text
    assert terms_of(scorer).licence.startswith(licence)


def test_a_converted_head_says_so_in_both_cards(tmp_path):
    given = dict(OFFICIAL["aesthetic"][0])
    convert_checkpoint(given.pop("weights"), tmp_path / "out", "aesthetic", **given)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "LAION v1" not in text
    assert "bytes, SHA-256" in text.split("| CLIP in this folder | ")[1].splitlines()[0]
    card = json.loads((tmp_path / "out" / "palate.json").read_text())
    assert card["matches"] == LAION_V2
    assert card["licence"] == f"Apache-2.0 (that of the repository {LAION_V2})"
