"""Learning from a scorer's gradient: it is the gradient, it raises the score, and another scorer watches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import PNDMScheduler
from tests.adaptation.conftest import QUICK

from palate.adaptation.adapt import adapt
from palate.adaptation.curves import worries
from palate.adaptation.methods import METHODS
from palate.adaptation.settings import AdaptSettings, RewardSettings
from palate.errors import CheckpointError, SettingsError
from palate.generation.families import Conditions
from palate.generation.tiny import write_tiny_pipeline
from palate.models.clip_files import save_clip
from palate.models.tiny import tiny_clip
from palate.training.loop import fit


@pytest.fixture(scope="module")
def scorers(tmp_path_factory):
    """Two tiny scorers' folders."""
    room = tmp_path_factory.mktemp("scorers")
    for seed in (0, 1):
        save_clip(tiny_clip(seed), room / str(seed), unit="hps")
    return [str(room / str(seed)) for seed in (0, 1)]


@pytest.fixture
def rewarded(scorers):
    def make(**changes):
        values = {"scorer": scorers[0], "watch": scorers[1], "images": 2, "sampling_steps": 3}
        return RewardSettings(**(values | {"late": 2} | changes))

    return make


def far_from_the_start(made):
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for part in made.denoiser.network.parameters():
            if part.requires_grad:
                part.add_(0.05 * torch.randn(part.shape, generator=draw))
    return made


@pytest.mark.parametrize("variant", ["draft", "refl"])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_the_gradient_is_that_of_finite_differences(work, rewarded, variant, guidance):
    """Through the last step, the autoencoder and the scorer; with all steps before held as they are."""
    how = rewarded(variant=variant, guidance=guidance, supervised=0.0)
    made = far_from_the_start(work(method="reward", reward=how))
    trained = [part for part in made.denoiser.network.parameters() if part.requires_grad]
    noise = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    prompts = ["ball 1", "ball 2"]

    def score(last):
        pixels = made.rewarding.make(prompts, noise, last)
        return made.rewarding.scorer.forward(pixels, prompts).sum()

    loss = score(0)  # only one step, so that nothing before it moves with the weights
    grads = torch.autograd.grad(loss, trained)
    direction = [torch.sign(grad) for grad in grads]
    slope = sum((grad * way).sum() for grad, way in zip(grads, direction, strict=True)).item()
    step = 1e-4
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for part, way in zip(trained, direction, strict=True):
                part.add_(sign * step * way)
            values.append(score(0).item())
            for part, way in zip(trained, direction, strict=True):
                part.sub_(sign * step * way)
    assert slope > 0
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=0.05)


def test_it_makes_what_the_sampler_makes(work, rewarded, base):
    """All steps but the last are diffusers' own DDIM; the last one's estimate is the clean image."""
    from diffusers import DDIMScheduler

    made = work(method="reward", reward=rewarded(guidance=4.0, sampling_steps=4))
    pipeline, denoiser = made.rewarding.pipeline, made.denoiser
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = made.rewarding.make(["a tree"], noise, 3)
        scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        scheduler.set_timesteps(4)
        told = denoiser.family.encode(pipeline, ["", "a tree"])
        latents = noise
        for time in scheduler.timesteps:
            answer = denoiser.network(latents.repeat(2, 1, 1, 1), time, told.states).sample
            without, with_prompt = answer.chunk(2)
            stepped = scheduler.step(without + 4.0 * (with_prompt - without), time, latents)
            latents = stepped.prev_sample
        clean = stepped.pred_original_sample
        theirs = pipeline.vae.decode(clean / pipeline.vae.config.scaling_factor).sample * 0.5 + 0.5
    assert isinstance(told, Conditions)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)


def test_a_base_whose_scheduler_says_nothing_of_cutting_is_not_cut(work, rewarded):
    """DDIM's own default would cut latents to [-1, 1]."""
    made = work(method="reward", reward=rewarded(guidance=1.0))
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = made.rewarding.make(["a tree"], noise, 2)
        plain = dict(made.rewarding.pipeline.scheduler.config)
        plain.pop("clip_sample")
        made.rewarding.pipeline.scheduler = PNDMScheduler.from_config(plain)
        assert "clip_sample" not in made.rewarding.pipeline.scheduler.config
        assert torch.equal(made.rewarding.make(["a tree"], noise, 2), expected)


@pytest.mark.parametrize("zeros", [True, False])
def test_guidance_leads_away_from_what_the_pipeline_takes_for_no_prompt(work, rewarded, zeros):
    made = work(method="reward", reward=rewarded())
    pipeline = made.rewarding.pipeline
    pipeline.register_to_config(force_zeros_for_empty_prompt=zeros)
    empty = made.rewarding._empty(2)
    assert empty.states.any() != zeros


def test_a_reward_in_parts_is_the_reward(work, rewarded):
    def gradient(accumulate):
        how = rewarded(images=4, supervised=0.0)
        made = far_from_the_start(work(method="reward", reward=how, accumulate=accumulate))
        losses = list(made.losses_at(1))
        for loss, _ in losses:
            loss.backward()
        network = made.denoiser.network
        return len(losses), [part.grad for part in network.parameters() if part.requires_grad]

    (one, whole), (two, parts) = gradient(1), gradient(2)
    assert (one, two) == (1, 2)
    for first, second in zip(whole, parts, strict=True):
        torch.testing.assert_close(second, first, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["draft", "refl"])
def test_the_score_rises_on_noise_that_was_not_trained_on(work, rewarded, tmp_path, variant):
    how = rewarded(variant=variant, supervised=0.0, images=4, guidance=1.0)
    made = work(method="reward", reward=how, steps=30, learning_rate=3e-3)
    noise = torch.randn((16, 4, 8, 8), generator=torch.Generator().manual_seed(99))
    prompts = [f"ball {number % 8}" for number in range(16)]

    def score():
        with torch.no_grad():
            pixels = made.rewarding.make(prompts, noise, how.sampling_steps - 1)
            return made.rewarding.scorer.forward(pixels, prompts)

    before = score()
    trained = {
        name: part for name, part in made.denoiser.network.named_parameters() if part.requires_grad
    }
    found = fit(trained, made.losses_at, made.settings.loop(), tmp_path)
    gain = score() - before
    assert gain.mean() > 2 * gain.std() / 4  # two standard errors of 16 images
    assert set(found.train[0]) == {"step", "loss", "reward", "watch"}


def test_the_supervised_loss_is_beside_it(work, rewarded):
    made = work(method="reward", reward=rewarded(supervised=0.5))
    losses = list(made.losses_at(0))
    assert len(losses) == 2
    assert set(losses[0][1]) == {"preferred", "regularisation"}
    assert set(losses[1][1]) == {"reward", "watch"}
    plain = work(method="sft")
    assert losses[0][0].item() == pytest.approx(0.5 * next(plain.losses_at(0))[0].item(), rel=1e-5)
    alone = work(method="reward", reward=rewarded(supervised=0.0))
    assert [set(told) for _, told in alone.losses_at(0)] == [{"reward", "watch"}]


def points(reward, watch):
    return [{"step": 1.0, "reward": r, "watch": w} for r, w in zip(reward, watch, strict=True)]


def test_a_rising_score_that_nobody_confirms_is_said():
    method = METHODS["reward"]
    assert worries(method, points(range(10), range(10))) == []
    assert worries(method, points(range(10, 0, -1), range(10))) == []
    (said,) = worries(method, points(range(10), range(10, 0, -1)))
    assert "the reward rose by 8 while the scorer that watched fell by 8" in said
    assert worries(method, [{"step": 1.0, "reward": 1.0, "watch": None}] * 5) == []


def test_a_pair_loss_that_falls_while_both_sides_get_worse_is_said():
    method = METHODS["dpo"]
    worse = [{"step": 1.0, "preferred_change": 0.1, "rejected_change": 0.3}] * 5
    assert "became worse at preferred and at rejected images" in worries(method, worse)[0]
    better = [{"step": 1.0, "preferred_change": -0.1, "rejected_change": 0.3}] * 5
    assert worries(method, better) == []


def test_what_cannot_be_learnt_from_is_refused(base, labels, files, tmp_path, rewarded, scorers):
    with pytest.raises(SettingsError, match=r"reward\.scorer is empty"):
        AdaptSettings(method="reward")
    same = rewarded(watch=scorers[0])
    with pytest.raises(SettingsError, match=r"reward\.scorer and reward\.watch are the same"):
        adapt(labels, files, base, tmp_path / "a", replace(QUICK, method="reward", reward=same))
    with pytest.raises(SettingsError, match=r"reward\.watch_weights is given without"):
        RewardSettings(watch_weights="x")
    with pytest.raises(SettingsError, match="there are settings of reward, but the method 'dpo'"):
        AdaptSettings(method="dpo", reward=rewarded())
    with pytest.raises(SettingsError, match=r"reward\.late is 9, expected at most"):
        rewarded(late=9)
    flow = write_tiny_pipeline(tmp_path / "sd3", kind="sd3")
    with pytest.raises(CheckpointError, match="samples diffusion models only"):
        adapt(
            labels, files, flow, tmp_path / "b", replace(QUICK, method="reward", reward=rewarded())
        )
