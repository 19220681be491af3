"""What one step computes: against a slow twin, in parts, in shapes, with a reference, and twice through the blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch
from tests.adaptation.conftest import QUICK

from palate.adaptation.adapt import adapt
from palate.adaptation.denoiser import Denoiser
from palate.adaptation.examples import TextStore
from palate.adaptation.latents import ImageFile
from palate.adaptation.lora_files import add_lora
from palate.adaptation.methods import METHODS
from palate.adaptation.noising import noising_of
from palate.data.images import hash_image
from palate.data.records import ROLES, Label
from palate.data.tables import to_table
from palate.errors import DataError
from palate.generation.families import family_of
from palate.generation.generator import load_generator
from palate.runs import seed_for

LABELLED = [name for name in METHODS if name != "reward"]


def total(work, step=2):
    return sum(loss for loss, _ in work.losses_at(step))


def gradients(work, step=2):
    network = work.denoiser.network
    network.zero_grad()
    for loss, _ in work.losses_at(step):
        loss.backward()
    trained = {name: part for name, part in network.named_parameters() if part.requires_grad}
    return {name: part.grad.clone() for name, part in trained.items()}


def far_from_the_start(work):
    """Give the adapter weights that do something: fresh ones change nothing."""
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for part in work.denoiser.network.parameters():
            if part.requires_grad:
                part.add_(0.1 * torch.randn(part.shape, generator=draw))
    return work


def test_a_step_is_what_diffusers_training_script_computes(work):
    """The slow obvious twin: encode, draw, add noise, predict, average; one image at a time."""
    made = work()
    loss, parts = next(made.losses_at(2))
    rows = made.plan[2]
    draw = torch.Generator().manual_seed(seed_for("adapt", QUICK.seed, 2))
    size = made.latents.moments(made.examples.latent[rows])[0].shape
    drawn = made.latents.draw(made.examples.latent[rows], torch.randn(size, generator=draw))
    noise = torch.randn(drawn.shape, generator=draw)
    times = torch.randint(0, 1000, (4,), generator=draw)
    by_role = {role: [] for role in ROLES}
    for place, row in enumerate(rows):
        signal, rest = (
            made.denoiser.noising.signal[times[place]],
            made.denoiser.noising.rest[times[place]],
        )
        text = made.examples.texts[made.examples.caption[row]]
        known = load_generator_text(made, text)
        with torch.no_grad():
            answer = made.denoiser.network(
                (signal * drawn[place] + rest * noise[place])[None], times[place], known
            ).sample[0]
        role = ROLES[made.examples.role[row]]
        assert text.startswith("Bad. ") == (role == "rejected")
        by_role[role].append(torch.nn.functional.mse_loss(answer, noise[place]))
    every = torch.stack([one for losses in by_role.values() for one in losses])
    assert loss.item() == pytest.approx(every.mean().item(), rel=1e-5)
    for role, losses in by_role.items():
        if losses:
            assert parts[role].item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
        else:
            assert parts[role].isnan()


def load_generator_text(made, text):
    """Encode a text by diffusers' own call, in a pipeline that still has its text model."""
    if made.texts.pipeline.text_encoder is None:
        number = made.examples.texts.index(text)
        return made.texts[torch.tensor([number])].states
    return made.texts.pipeline.encode_prompt(text, "cpu", 1, False)[0]


def test_a_fresh_lora_changes_nothing_and_trains_only_itself(base):
    pipeline = load_generator(base).pipeline
    unet, family = pipeline.unet, family_of(pipeline)
    inputs = torch.randn(2, 4, 8, 8), torch.tensor([3, 500]), torch.randn(2, 5, 16)
    with torch.no_grad():
        before = unet(*inputs).sample
        parameters = add_lora(unet, family.targets, rank=2, alpha=6.0, seed=0)
        assert torch.equal(unet(*inputs).sample, before)
    # 7 transformers with two attentions of four layers, A and B each
    assert len(parameters) == 7 * 2 * 4 * 2
    assert all(("lora_A" in name) or not part.any() for name, part in parameters.items())
    unet(*inputs).sample.mean().backward()
    touched = {name for name, part in unet.named_parameters() if part.grad is not None}
    assert touched == set(parameters)
    denoiser = Denoiser(family, unet, noising_of(pipeline, unet.device))
    with torch.no_grad():
        for part in parameters.values():
            part.add_(0.1)
        assert not torch.equal(unet(*inputs).sample, before)
        with denoiser.bare():
            assert torch.equal(unet(*inputs).sample, before)
        assert not torch.equal(unet(*inputs).sample, before)


def test_weights_scale_the_loss_of_their_rows(work):
    made = work()
    whole, parts = next(made.losses_at(0))
    made.examples.weight.mul_(2)
    doubled, same = next(made.losses_at(0))
    assert doubled.item() == pytest.approx(2 * whole.item(), rel=1e-6)
    assert parts.keys() == same.keys()


def test_captions_are_dropped_and_left_alone_at_their_shares(work):
    def captions(**changes):
        made = work(**changes)
        rows = made.examples.units[made.plan.ravel()]
        numbers = made._captions(rows, torch.Generator().manual_seed(0))[:, 0]
        role = [ROLES[made.examples.role[row]] for row in rows[:, 0]]
        return list(zip(role, [made.examples.texts[number] for number in numbers], strict=True))

    plain = captions()
    assert all(text.startswith("Bad. ball") for role, text in plain if role == "rejected")
    assert all(text.startswith("ball") for role, text in plain if role != "rejected")
    assert {text for _, text in captions(caption_dropout=1.0)} == {""}
    alone = captions(identifier_alone=1.0)
    assert {text for role, text in alone if role == "rejected"} == {"Bad. "}
    assert [text for role, text in alone if role != "rejected"] == [
        text for role, text in plain if role != "rejected"
    ]


def test_texts_are_the_same_from_memory_and_encoded_anew(generator):
    texts = ["", "a ball", "Bad. a ball", "x" * 60]
    numbers = torch.tensor([2, 0, 2, 3])
    family = family_of(generator.pipeline)
    kept = TextStore(generator.pipeline, family, texts)
    fresh = TextStore(generator.pipeline, family, texts, limit=0)
    assert fresh.known is None
    assert torch.equal(kept[numbers].states, fresh[numbers].states)
    assert kept.truncated == fresh.truncated == [3]


@pytest.mark.parametrize("method", LABELLED)
def test_a_batch_in_parts_is_the_batch(work, method):
    # a beta of 2000 would be that many times the rounding of an error
    whole = far_from_the_start(work(method=method, beta=50.0))
    parts = far_from_the_start(work(method=method, beta=50.0, accumulate=2))
    if method == "kto":  # z is the mean reward of a part
        assert len(list(parts.losses_at(2))) == 2
        return
    assert total(parts).item() == pytest.approx(total(whole).item(), rel=1e-5)
    one, two = gradients(whole), gradients(parts)
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method", LABELLED)
def test_blocks_that_are_computed_twice_give_the_same_gradients(work, method):
    """For dpo and kto also: the adapter is on again when backward asks the blocks a second time."""
    plain, twice = (
        far_from_the_start(work(method=method, checkpointing=on)) for on in (False, True)
    )
    for made in (plain, twice):
        made.denoiser.network.train()
    assert twice.denoiser.network.is_gradient_checkpointing
    one, two = gradients(plain), gradients(twice)
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-8)


def test_both_images_of_a_pair_get_the_same_noise_level_and_caption(work, monkeypatch):
    made = work(method="dpo")
    seen = []
    errors = Denoiser.errors

    def spy(self, latents, noise, levels, conditions):
        seen.append((noise, levels, conditions.states))
        return errors(self, latents, noise, levels, conditions)

    monkeypatch.setattr(Denoiser, "errors", spy)
    next(made.losses_at(1))
    assert len(seen) == 2  # without the adapter, and with it
    for noise, levels, states in seen:
        assert len(noise) == 8
        for part in (noise, levels, states):
            assert torch.equal(part[:4], part[4:])
    rows = made.draw(1).rows
    assert {ROLES[made.examples.role[row]] for row in rows[:, 0]} == {"preferred"}
    assert {ROLES[made.examples.role[row]] for row in rows[:, 1]} == {"rejected"}


def test_the_reference_is_the_bare_denoiser(work):
    made = far_from_the_start(work(method="dpo"))
    drawn = made.draw(0)
    errors = made.errors(drawn, np.arange(4))
    assert not torch.equal(errors.own, errors.base)
    with made.denoiser.bare():
        bare = made.denoiser.errors(*made._given(drawn, np.arange(4))).view(2, 4).T
    assert torch.equal(errors.base, bare)
    assert errors.own.requires_grad
    assert not errors.base.requires_grad


@pytest.fixture
def mixed(files, tmp_path):
    """The pictures, half of them twice as wide as high."""
    changed = dict(files)
    for image in sorted(files)[::2]:
        wide = tmp_path / f"{image}.png"
        PIL.Image.open(files[image].path).resize((32, 16)).save(wide)
        changed[image] = ImageFile(wide, hash_image(wide), 32, 16)
    return changed


def test_pictures_of_several_shapes_are_trained_at_their_own(work, mixed):
    """A batch with two shapes is each picture's own error, whatever the company."""
    made = work(pictures=mixed, buckets=True, batch=24)
    drawn = made.draw(0)
    shapes = made.latents.shape[made.examples.latent[drawn.rows[:, 0]]]
    assert [made.latents.sizes[shape] for shape in sorted(set(shapes.tolist()))] == [
        (16, 16),
        (12, 24),
    ]
    errors = made.errors(drawn, np.arange(24)).own[:, 0]
    for place in range(24):
        alone = made.errors(drawn, np.array([place])).own
        assert errors[place].item() == pytest.approx(alone.item(), rel=1e-5)


def test_a_pair_of_two_shapes_is_refused(work, images, mixed):
    table = images.sort_by("image").to_pylist()
    wide, square = table[0]["image"], table[1]["image"]
    labels = [Label(wide, "preferred", "b", "b"), Label(square, "rejected", "b", "b")]
    with pytest.raises(DataError, match="1 of 1 pairs have images of two shapes, expected one"):
        work(method="dpo", rows=to_table(labels, "labels"), pictures=mixed, buckets=True)


@pytest.mark.parametrize("method", LABELLED)
def test_every_method_writes_an_adapter_that_says_how_it_was_made(
    base, labels, files, tmp_path, method
):
    from palate.generation.adapters import read_adapter

    result = adapt(labels, files, base, tmp_path / "out", replace(QUICK, method=method, hold_out=2))
    found = read_adapter(tmp_path / "out")
    assert found.method == method
    assert found.identifier == ("Bad. " if method == "identifier" else None)
    load_generator(base, tmp_path / "out")
    if method == "dpo":
        assert result["rows"] == {"pair": 6}
        assert result["loss_first"]["loss"] == pytest.approx(np.log(2))
    if method != "identifier":
        assert set(result["held_out_errors"]) == {"before", "after"}
        assert result["identifier_gap"] == {}
