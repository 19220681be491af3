"""Inception v3: the official files fit by name, the variants differ as published, and pixels are prepared as said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from palate.errors import CheckpointError
from palate.models.inception import (
    DIMS,
    PROFILES,
    Inception,
    InceptionLook,
    load_inception,
    prepare_for_inception,
    random_inception,
)

# The convolutions of both official files, written from the published description: name, channels in and out, kernel.
STEM = ["Conv2d_1a_3x3 3 32 3 3", "Conv2d_2a_3x3 32 32 3 3", "Conv2d_2b_3x3 32 64 3 3"]
STEM += ["Conv2d_3b_1x1 64 80 1 1", "Conv2d_4a_3x3 80 192 3 3"]


def block_a(name, given, pooled):
    yield f"{name}.branch1x1 {given} 64 1 1"
    yield f"{name}.branch5x5_1 {given} 48 1 1"
    yield f"{name}.branch5x5_2 48 64 5 5"
    yield f"{name}.branch3x3dbl_1 {given} 64 1 1"
    yield f"{name}.branch3x3dbl_2 64 96 3 3"
    yield f"{name}.branch3x3dbl_3 96 96 3 3"
    yield f"{name}.branch_pool {given} {pooled} 1 1"


def block_c(name, inner):
    yield f"{name}.branch1x1 768 192 1 1"
    yield f"{name}.branch7x7_1 768 {inner} 1 1"
    yield f"{name}.branch7x7_2 {inner} {inner} 1 7"
    yield f"{name}.branch7x7_3 {inner} 192 7 1"
    yield f"{name}.branch7x7dbl_1 768 {inner} 1 1"
    yield f"{name}.branch7x7dbl_2 {inner} {inner} 7 1"
    yield f"{name}.branch7x7dbl_3 {inner} {inner} 1 7"
    yield f"{name}.branch7x7dbl_4 {inner} {inner} 7 1"
    yield f"{name}.branch7x7dbl_5 {inner} 192 1 7"
    yield f"{name}.branch_pool 768 192 1 1"


def block_e(name, given):
    yield f"{name}.branch1x1 {given} 320 1 1"
    yield f"{name}.branch3x3_1 {given} 384 1 1"
    yield f"{name}.branch3x3_2a 384 384 1 3"
    yield f"{name}.branch3x3_2b 384 384 3 1"
    yield f"{name}.branch3x3dbl_1 {given} 448 1 1"
    yield f"{name}.branch3x3dbl_2 448 384 3 3"
    yield f"{name}.branch3x3dbl_3a 384 384 1 3"
    yield f"{name}.branch3x3dbl_3b 384 384 3 1"
    yield f"{name}.branch_pool {given} 192 1 1"


CONVOLUTIONS = [
    *STEM,
    *block_a("Mixed_5b", 192, 32),
    *block_a("Mixed_5c", 256, 64),
    *block_a("Mixed_5d", 288, 64),
    "Mixed_6a.branch3x3 288 384 3 3",
    "Mixed_6a.branch3x3dbl_1 288 64 1 1",
    "Mixed_6a.branch3x3dbl_2 64 96 3 3",
    "Mixed_6a.branch3x3dbl_3 96 96 3 3",
    *block_c("Mixed_6b", 128),
    *block_c("Mixed_6c", 160),
    *block_c("Mixed_6d", 160),
    *block_c("Mixed_6e", 192),
    "Mixed_7a.branch3x3_1 768 192 1 1",
    "Mixed_7a.branch3x3_2 192 320 3 3",
    "Mixed_7a.branch7x7x3_1 768 192 1 1",
    "Mixed_7a.branch7x7x3_2 192 192 1 7",
    "Mixed_7a.branch7x7x3_3 192 192 7 1",
    "Mixed_7a.branch7x7x3_4 192 192 3 3",
    *block_e("Mixed_7b", 1280),
    *block_e("Mixed_7c", 2048),
]


def official_shapes(classes):
    shapes = {}
    for line in CONVOLUTIONS:
        name, given, channels, height, width = line.split()
        shapes[f"{name}.conv.weight"] = (int(channels), int(given), int(height), int(width))
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{part}"] = (int(channels),)
        shapes[f"{name}.bn.num_batches_tracked"] = ()
    return shapes | {"fc.weight": (classes, 2048), "fc.bias": (classes,)}


@pytest.fixture(scope="module")
def narrow() -> Inception:
    return random_inception()


def some_images(count: int, seed: int = 0, size=(70, 50)) -> list[Image.Image]:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, size[1], size[0], 3), np.uint8)
    return [Image.fromarray(rows) for rows in pixels]


@pytest.mark.parametrize(("variant", "classes"), [("fid", 1008), ("torchvision", 1000)])
def test_the_tensors_are_those_of_the_official_files(variant, classes) -> None:
    with torch.device("meta"):
        network = Inception(variant)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert list(shapes.items()) == list(official_shapes(classes).items())
    assert len(CONVOLUTIONS) == 94
    # torchvision publishes 27,161,264 parameters, of which its second classifier has 3,326,696
    if variant == "torchvision":
        assert sum(value.numel() for value in network.parameters()) == 27_161_264 - 3_326_696


def weights_of(classes=1008, drop="\0", extra=None):
    """Weights of the official layout; one number stands for all of a tensor, which costs no memory."""
    weights = {
        name: torch.tensor(float(name.endswith("running_var"))).expand(shape)
        for name, shape in official_shapes(classes).items()
        if not name.endswith(drop)
    }
    return weights | {"fc.bias": torch.arange(classes).float()} | (extra or {})


@pytest.fixture
def load_weights(monkeypatch):
    """Load as from a file that holds these weights."""

    def load(weights, variant="fid"):
        monkeypatch.setattr("palate.models.inception.read_weights", lambda _: weights)
        return load_inception(Path("w.pth"), variant)

    return load


def test_a_file_of_the_official_layout_loads(tmp_path) -> None:
    torch.save(
        {name: value.half().clone() for name, value in weights_of().items()}, tmp_path / "w.pth"
    )
    look = load_inception(tmp_path / "w.pth")
    assert look.network.fc.bias.tolist() == list(range(1008))
    assert all(value.dtype == torch.float32 for value in look.network.parameters())
    features, chances = look(some_images(1))
    assert features.shape == (1, DIMS)
    # all weights are zero, and the bias is left out as in the official Inception Score
    assert np.allclose(chances, 1 / 1008)


def test_counters_of_training_batches_may_lack(load_weights) -> None:
    lean = load_weights(weights_of(drop="num_batches_tracked"))
    full = load_weights(weights_of())
    assert list(lean.network.state_dict()) == list(full.network.state_dict())


def test_torchvisions_second_classifier_is_left_out_in_its_own_file_only(load_weights) -> None:
    extra = {"AuxLogits.fc.bias": torch.zeros(1000)}
    found = load_weights(weights_of(1000, extra=extra), "torchvision")
    assert found.network.fc.out_features == 1000
    with pytest.raises(CheckpointError, match=r"1 extra: AuxLogits\.fc\.bias"):
        load_weights(weights_of(extra=extra))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": "Mixed_7c.branch_pool.conv.weight"}, r"1 missing: Mixed_7c\.branch_pool\.conv"),
        ({"extra": {"odd": torch.zeros(1)}}, "1 extra: odd"),
        ({"classes": 1000}, r"fc\.weight is \(1000, 2048\), expected \(1008, 2048\)"),
        ({"extra": {"fc.bias": torch.full((1008,), float("nan"))}}, "not finite: fc.bias"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(load_weights, change, message) -> None:
    with pytest.raises(CheckpointError, match=rf"w\.pth: .*{message}"):
        load_weights(weights_of(**change))


def test_a_file_that_would_run_code_is_refused(tmp_path) -> None:
    torch.save(print, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="refused, since reading it would run code"):
        load_inception(tmp_path / "w.pth")


def test_the_fid_variant_pools_without_padding_and_ends_with_a_maximum() -> None:
    x = torch.rand(1, 1, 4, 4) + 1
    fid = {name: block for name, block in random_inception().named_children() if "Mixed" in name}
    other = dict(random_inception(variant="torchvision").named_children())
    pools = {name: block.pool for name, block in fid.items()}
    assert pools.pop("Mixed_7c") == "maximum"
    assert pools.pop("Mixed_6a") == pools.pop("Mixed_7a") == "shrink"
    assert set(pools.values()) == {"average"}
    assert other["Mixed_7c"].pool == other["Mixed_5b"].pool == "padded average"
    from palate.models.inception import _pool

    corner = x[..., :2, :2].sum()
    assert _pool(x, "average")[0, 0, 0, 0] == pytest.approx(float(corner / 4))
    assert _pool(x, "padded average")[0, 0, 0, 0] == pytest.approx(float(corner / 9))
    assert _pool(x, "maximum")[0, 0, 0, 0] == x[..., :2, :2].max()
    assert _pool(x, "shrink").shape == (1, 1, 1, 1)


def test_the_variants_share_names_and_not_numbers(narrow) -> None:
    other = random_inception(variant="torchvision")
    other.load_state_dict(narrow.state_dict())
    x = torch.rand(2, 3, 299, 299)
    assert not torch.allclose(narrow(x), other(x), rtol=1e-3)


def slow_twin(network: Inception, x: torch.Tensor) -> torch.Tensor:
    """The fid variant once more: block after block, written out."""

    def run(name, x, stride=1, padding=(0, 0)):
        conv, bn = network.get_submodule(name + ".conv"), network.get_submodule(name + ".bn")
        x = functional.conv2d(x, conv.weight, stride=stride, padding=padding)
        scale = bn.weight / torch.sqrt(bn.running_var + 0.001)
        shift = bn.bias - bn.running_mean * scale
        return torch.clamp(x * scale[:, None, None] + shift[:, None, None], min=0)

    def chain(block, x, *steps):
        for name, kwargs in steps:
            x = run(f"{block}.{name}", x, **kwargs)
        return x

    def average(x):
        total = functional.avg_pool2d(x, 3, 1, 1, divisor_override=1)
        return total / functional.avg_pool2d(torch.ones_like(x), 3, 1, 1, divisor_override=1)

    same, wide, tall = {"padding": (1, 1)}, {"padding": (0, 3)}, {"padding": (3, 0)}
    x = run("Conv2d_1a_3x3", x, stride=2)
    x = run("Conv2d_2b_3x3", run("Conv2d_2a_3x3", x), padding=(1, 1))
    x = run("Conv2d_4a_3x3", run("Conv2d_3b_1x1", functional.max_pool2d(x, 3, 2)))
    x = functional.max_pool2d(x, 3, 2)
    for b in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        five = chain(b, x, ("branch5x5_1", {}), ("branch5x5_2", {"padding": (2, 2)}))
        double = [("branch3x3dbl_1", {}), ("branch3x3dbl_2", same), ("branch3x3dbl_3", same)]
        parts = [chain(b, x, ("branch1x1", {})), five, chain(b, x, *double)]
        x = torch.cat([*parts, chain(b, average(x), ("branch_pool", {}))], 1)
    double = [("branch3x3dbl_1", {}), ("branch3x3dbl_2", same), ("branch3x3dbl_3", {"stride": 2})]
    parts = [chain("Mixed_6a", x, ("branch3x3", {"stride": 2})), chain("Mixed_6a", x, *double)]
    x = torch.cat([*parts, functional.max_pool2d(x, 3, 2)], 1)
    for b in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        seven = [("branch7x7_1", {}), ("branch7x7_2", wide), ("branch7x7_3", tall)]
        long = [("branch7x7dbl_1", {}), ("branch7x7dbl_2", tall), ("branch7x7dbl_3", wide)]
        long += [("branch7x7dbl_4", tall), ("branch7x7dbl_5", wide)]
        parts = [chain(b, x, ("branch1x1", {})), chain(b, x, *seven), chain(b, x, *long)]
        x = torch.cat([*parts, chain(b, average(x), ("branch_pool", {}))], 1)
    short = [("branch3x3_1", {}), ("branch3x3_2", {"stride": 2})]
    long = [("branch7x7x3_1", {}), ("branch7x7x3_2", wide), ("branch7x7x3_3", tall)]
    long += [("branch7x7x3_4", {"stride": 2})]
    parts = [chain("Mixed_7a", x, *short), chain("Mixed_7a", x, *long)]
    x = torch.cat([*parts, functional.max_pool2d(x, 3, 2)], 1)
    flat, steep = {"padding": (0, 1)}, {"padding": (1, 0)}
    for b in ("Mixed_7b", "Mixed_7c"):
        one = chain(b, x, ("branch3x3_1", {}))
        two = chain(b, x, ("branch3x3dbl_1", {}), ("branch3x3dbl_2", same))
        pooled = average(x) if b == "Mixed_7b" else functional.max_pool2d(x, 3, 1, 1)
        parts = [chain(b, x, ("branch1x1", {}))]
        parts += [chain(b, one, ("branch3x3_2a", flat)), chain(b, one, ("branch3x3_2b", steep))]
        parts += [
            chain(b, two, ("branch3x3dbl_3a", flat)),
            chain(b, two, ("branch3x3dbl_3b", steep)),
        ]
        x = torch.cat([*parts, chain(b, pooled, ("branch_pool", {}))], 1)
    return x.mean((2, 3))


def test_the_network_equals_its_slow_twin(narrow) -> None:
    network = random_inception(seed=3)
    chance = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if "running" in name or name.endswith("bn.bias"):
            value.copy_(torch.rand(value.shape, generator=chance) + 0.5)
    x = torch.rand(1, 3, 299, 299, generator=chance) * 2 - 1
    with torch.inference_mode():
        found, twin = network(x), slow_twin(network, x)
    assert found.shape == (1, network.fc.in_features)
    assert found.std() > 0
    torch.testing.assert_close(found, twin, rtol=1e-4, atol=1e-5)


def test_logits_are_linear_in_the_features_and_the_bias_may_be_left_out(narrow) -> None:
    features = torch.rand(3, narrow.fc.in_features)
    network = random_inception()
    torch.nn.init.normal_(network.fc.bias)
    assert torch.allclose(network.logits(features), network.fc(features))
    assert torch.allclose(
        network.logits(features) - network.logits(features, bias=False),
        network.fc.bias.expand(3, -1),
        atol=1e-5,
    )


@pytest.mark.parametrize("profile", PROFILES)
def test_a_look_is_the_same_alone_and_in_a_batch_and_follows_its_image(narrow, profile) -> None:
    look = InceptionLook(narrow, profile, batch=2)
    images = some_images(3)
    features, chances = look(images)
    assert features.dtype == np.float32
    assert chances.shape == (3, 10)
    assert np.allclose(chances.sum(axis=1), 1, atol=1e-12)
    for row, image in enumerate(images):
        alone = look([image])
        assert np.allclose(alone[0][0], features[row], rtol=1e-4, atol=1e-5)
    turned = look(images[::-1])
    assert np.allclose(turned[0][::-1], features, rtol=1e-4, atol=1e-5)
    nothing = look([])
    assert nothing[0].shape == (0, narrow.fc.in_features)
    assert nothing[1].shape == (0, 10)


def test_the_fingerprint_tells_weights_variant_and_preparation_apart(narrow) -> None:
    looks = [InceptionLook(narrow, profile) for profile in PROFILES]
    looks += [
        InceptionLook(random_inception(seed=1)),
        InceptionLook(random_inception(variant="torchvision")),
    ]
    assert len({look.fingerprint for look in looks}) == 4
    assert InceptionLook(random_inception()).fingerprint == looks[0].fingerprint


def test_an_unknown_preparation_is_refused(narrow) -> None:
    with pytest.raises(CheckpointError, match="no preparation 'tf', expected one of pytorch-fid"):
        InceptionLook(narrow, "tf")


def test_pytorch_fids_pixels() -> None:
    (image,) = some_images(1, size=(640, 480))
    unit = torch.from_numpy(np.array(image, np.float32) / 255).permute(2, 0, 1)[None]
    stretched = functional.interpolate(unit, (299, 299), mode="bilinear", align_corners=False)
    assert torch.allclose(prepare_for_inception([image]), 2 * stretched - 1, atol=1e-6)


@pytest.mark.parametrize("size", [(640, 480), (90, 130), (299, 299)])
def test_clean_fids_pixels_are_pillows_on_floats(size) -> None:
    (image,) = some_images(1, size=size)
    found = prepare_for_inception([image], "clean-fid")[0].numpy() * 128 + 128
    for channel, plane in enumerate(image.split()):
        filtered = Image.fromarray(np.asarray(plane, np.float32)).resize(
            (299, 299), Image.Resampling.BICUBIC
        )
        assert np.abs(found[channel] - np.asarray(filtered).clip(0, 255)).max() < 0.01
    assert found.min() >= -1e-4
    assert found.max() <= 255 + 1e-4


def test_the_profiles_differ_on_a_shrunk_image() -> None:
    images = some_images(1, size=(1200, 900))
    plain, clean = (prepare_for_inception(images, profile) for profile in PROFILES)
    assert plain.std() > 2 * clean.std()


def test_random_weights_repeat_and_leave_the_callers_chance_alone() -> None:
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    one = random_inception(seed=2)
    assert torch.rand(1) == before
    two = random_inception(seed=2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
