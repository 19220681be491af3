"""A head rates CLIP features as the official code does, and its file says which head it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional

from palate.errors import CheckpointError
from palate.models.aesthetic import load_head, save_head
from palate.models.clip_files import load_clip
from palate.models.pixels import open_picture, prepare

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
TINY = FIXTURES / "aesthetic" / "aesthetic_mlp_tiny.pth"
CASES = json.loads((FIXTURES / "aesthetic" / "cases.json").read_text("utf-8"))
WIDTHS = (1024, 128, 64, 16, 1)
PLACES = {"laion-v2": (0, 2, 4, 6, 7), "laion-v2-relu": (0, 3, 6, 9, 11)}
KINDS = ["laion-v1", "simulacra", *PLACES]
AFFINE = [kind for kind in KINDS if kind != "laion-v2-relu"]


def network(kind: str, width: int) -> nn.Module:
    """The slow twin: modules whose names in a state dict are the official ones."""
    if kind == "laion-v1":
        return nn.Linear(width, 1)
    if kind == "simulacra":
        twin = nn.Module()
        twin.linear = nn.Linear(width, 1)
        return twin
    layers = [nn.Identity() for _ in range(max(PLACES[kind]) + 1)]
    for place, (into, out) in zip(
        PLACES[kind], zip((width, *WIDTHS), WIDTHS, strict=False), strict=True
    ):
        layers[place] = nn.Linear(into, out)
        if kind == "laion-v2-relu" and out > 1:
            layers[place + 1] = nn.ReLU()
    twin = nn.Module()
    twin.layers = nn.Sequential(*layers)
    return twin


def twin_rating(kind: str, twin: nn.Module, features: torch.Tensor) -> torch.Tensor:
    if kind == "laion-v1":
        return twin(features).squeeze(1)
    if kind == "simulacra":
        return twin.linear(features * features.shape[1] ** 0.5).squeeze(1)
    return twin.layers(features).squeeze(1)


@pytest.fixture
def head_of(tmp_path):
    def make(kind: str, width: int = 24):
        torch.manual_seed(len(kind))
        twin = network(kind, width).requires_grad_(requires_grad=False)
        torch.save(twin.state_dict(), tmp_path / "weights.pt")
        return load_head(tmp_path / "weights.pt"), twin

    return make


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    clip = load_clip(
        FIXTURES / "hps_v1" / "hpc_tiny.pt", tokenizer=FIXTURES / "tokenizer" / "bpe_small.txt.gz"
    )
    images = [open_picture(FIXTURES / "images" / case["image"]) for case in CASES]
    with torch.inference_mode():
        return clip.image_features(prepare(images, clip.preparation))


def unit(images: int, width: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(images)
    return functional.normalize(torch.randn(images, width, generator=generator), dim=-1)


def test_the_official_ratings_alone_and_in_a_batch(features):
    head = load_head(TINY)
    assert (head.kind, head.width, len(head.layers)) == ("laion-v2", 64, 5)
    official = torch.tensor([case["score"] for case in CASES])
    together = head.rate(features)
    alone = torch.cat([head.rate(feature[None]) for feature in features])
    assert (together - official).abs().max() < 1e-5
    assert (alone - official).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_told_by_its_names_and_rates_as_its_twin(head_of, kind):
    head, twin = head_of(kind)
    assert (head.kind, head.width) == (kind, 24)
    assert torch.allclose(head.rate(unit(7)), twin_rating(kind, twin, unit(7)), atol=1e-6)
    assert head.rate(unit(0)).shape == (0,)
    assert head.rate(unit(3).half()).dtype == torch.float32


@pytest.mark.parametrize("kind", AFFINE)
def test_folded_is_the_same_function(head_of, kind):
    head, _ = head_of(kind)
    direction, offset = head.folded()
    assert direction.dtype == offset.dtype == torch.float64
    rated = head.rate(unit(50)).double()
    assert torch.allclose(unit(50).double() @ direction + offset, rated, atol=1e-5)


def test_activations_do_not_fold(head_of):
    with pytest.raises(CheckpointError, match="no affine map"):
        head_of("laion-v2-relu")[0].folded()


def test_the_kinds_differ_where_their_weights_agree(head_of):
    one, _ = head_of("laion-v2")
    other, _ = head_of("laion-v2-relu")
    assert one.fingerprint() != other.fingerprint()
    assert not torch.allclose(one.rate(unit(9)), other.rate(unit(9)), atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_head_is_read_back_identically(head_of, tmp_path, kind):
    head, _ = head_of(kind)
    path = tmp_path / "new" / "head.safetensors"
    save_head(head, path)
    again = load_head(path)
    assert (again.kind, again.width) == (head.kind, head.width)
    assert again.fingerprint() == head.fingerprint()
    assert torch.equal(again.rate(unit(5)), head.rate(unit(5)))
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"kind": kind}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_fingerprint_follows_every_weight(head_of):
    head, _ = head_of("laion-v1")
    before = head.fingerprint()
    head.layers[0][1].add_(1e-6)
    assert head.fingerprint() != before


def test_gradients_reach_the_features(head_of):
    asked = unit(4).requires_grad_()
    head_of("laion-v2")[0].rate(asked).sum().backward()
    assert asked.grad.abs().sum() > 0


def test_features_of_another_clip_are_refused(head_of):
    with pytest.raises(CheckpointError, match="width 32, but the aesthetic head expects 24"):
        head_of("laion-v1")[0].rate(unit(2, 32))


def test_another_ending_is_refused(head_of, tmp_path):
    with pytest.raises(CheckpointError, match=r"head\.pt: a head is saved as safetensors"):
        save_head(head_of("laion-v1")[0], tmp_path / "head.pt")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda w: w.pop("layers.4.bias"), "1 missing: layers.4.bias"),
        (lambda w: w.pop("layers.0.weight"), "1 missing: layers.0.weight"),
        (lambda w: w.update(extra=torch.zeros(1)), "1 extra: extra"),
        (lambda w: w.update({"layers.7.weight": torch.zeros(2, 16)}), r"layers\.7\.weight is \(2"),
        (lambda w: w.update({"layers.0.weight": torch.zeros(())}), r"layers\.0\.weight is \(\)"),
        (lambda w: w["layers.2.bias"].fill_(float("nan")), "not finite: layers.2.bias"),
        (lambda w: w.pop("layers.2.weight"), "not a known aesthetic head: found layers.0.weight"),
        (lambda w: w.update(weight=torch.zeros(1, 64)), "not a known aesthetic head"),
    ],
)
def test_what_is_no_head_is_refused(tmp_path, change, sentence):
    weights = torch.load(TINY, weights_only=True)
    change(weights)
    torch.save(weights, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=sentence) as refused:
        load_head(tmp_path / "odd.pth")
    assert str(refused.value).startswith(f"{tmp_path / 'odd.pth'}: ")


def test_a_clip_is_no_head():
    with pytest.raises(CheckpointError, match="not a known aesthetic head"):
        load_head(FIXTURES / "hps_v1" / "hpc_tiny.pt")


@pytest.mark.parity
@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("sa_0_4_vit_l_14_linear.pth", "laion-v1"),
        ("sac+logos+ava1-l14-linearMSE.pth", "laion-v2"),
    ],
)
def test_real_heads_rank_real_features(shared, file, kind):
    """The anchors are real embeddings, one per mean rating from 0 to 9."""
    folder = shared / "data" / "aesthetic_heads"
    head = load_head(folder / file)
    anchors = [np.load(folder / "anchors_vit_l_14" / f"rating{n}.npy") for n in range(10)]
    features = torch.from_numpy(np.concatenate(anchors))
    rated = head.rate(features)
    direction, offset = head.folded()
    assert (head.kind, head.width) == (kind, 768)
    assert (rated.diff() > 0).all()
    assert torch.allclose(features.double() @ direction + offset, rated.double(), atol=1e-4)
