from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_snr

from palate.adaptation.noising import Noising, noising_of
from palate.errors import CheckpointError
from palate.generation.tiny import tiny_pipeline

CPU = torch.device("cpu")


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noise_is_added_as_the_scheduler_does(prediction):
    pipeline = tiny_pipeline(prediction=prediction)
    noising = noising_of(pipeline, CPU)
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    draw = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 5, 4, 8, 8, generator=draw).unbind()
    times = torch.tensor([0, 1, 400, 998, 999])
    noisy, target = noising.add(latents, noise, times)
    assert torch.allclose(noisy, scheduler.add_noise(latents, noise, times), atol=1e-6)
    velocity = scheduler.get_velocity(latents, noise, times)
    expected = noise if prediction == "epsilon" else velocity
    assert torch.allclose(target, expected, atol=1e-6)
    assert isinstance(noising, Noising)


def test_another_kind_of_prediction_is_refused():
    with pytest.raises(CheckpointError, match="predicts 'sample', expected 'epsilon'"):
        noising_of(tiny_pipeline(prediction="sample"), CPU)


def test_noise_levels_are_weighed_as_diffusers_does():
    for prediction in ("epsilon", "v_prediction"):
        pipeline = tiny_pipeline(prediction=prediction)
        noising = noising_of(pipeline, CPU)
        times = torch.arange(0, 1000, 37)
        snr = compute_snr(DDPMScheduler.from_config(pipeline.scheduler.config), times)
        wanted = torch.minimum(snr, torch.tensor(5.0)) / (snr + (prediction == "v_prediction"))
        assert torch.allclose(noising.min_snr_weights(times, 5.0), wanted, rtol=1e-4)


def test_a_flow_is_the_straight_line_that_its_scheduler_goes():
    """As in diffusers' own training of SD3: (1 - sigma) x + sigma noise, the target noise - x, the time 1000 sigma."""
    pipeline = tiny_pipeline(kind="sd3")
    noising = noising_of(pipeline, CPU)
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    draw = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=draw).unbind()
    levels = torch.tensor([0, 400, 999])
    noisy, target = noising.add(latents, noise, levels)
    index = 999 - levels  # the scheduler begins with noise
    assert torch.equal(noising.times[levels], scheduler.timesteps[index])
    assert torch.allclose(
        noisy, scheduler.scale_noise(latents, scheduler.timesteps[index], noise), atol=1e-6
    )
    assert torch.equal(target, noise - latents)
    assert (noising.rest.diff() > 0).all()


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow"])
def test_the_clean_latents_come_back_from_the_target(kind):
    pipeline = tiny_pipeline(kind="sd3") if kind == "flow" else tiny_pipeline(prediction=kind)
    noising = noising_of(pipeline, CPU)
    draw = torch.Generator().manual_seed(1)
    latents, noise = torch.randn(2, 4, 4, 8, 8, generator=draw).unbind()
    levels = torch.tensor([0, 100, 500, 900])
    noisy, target = noising.add(latents, noise, levels)
    assert torch.allclose(noising.clean(noisy, target, levels), latents, atol=1e-4)


def test_sampling_before_does_not_change_what_is_trained():
    pipeline = tiny_pipeline(kind="sd3")
    before = noising_of(pipeline, CPU)
    pipeline.scheduler.set_timesteps(5)
    after = noising_of(pipeline, CPU)
    assert torch.equal(before.rest, after.rest)
    assert torch.equal(before.times, after.times)


def test_levels_are_drawn_as_the_family_was_trained_or_as_asked():
    diffusion = noising_of(tiny_pipeline(), CPU)
    flow = noising_of(tiny_pipeline(kind="sd3"), CPU)

    def drawn(noising, how):
        return noising.draw(20_000, how, torch.Generator().manual_seed(0)) / len(noising)

    assert torch.equal(drawn(diffusion, None), drawn(diffusion, "uniform"))
    assert torch.equal(drawn(flow, None), drawn(flow, "logit-normal"))
    for noising in (diffusion, flow):
        assert drawn(noising, "uniform").std().item() == pytest.approx(12**-0.5, rel=0.02)
        # sigmoid of a standard normal number: 0.2083 by numerical integration
        assert drawn(noising, "logit-normal").std().item() == pytest.approx(0.2083, rel=0.02)
        assert drawn(noising, "logit-normal").mean().item() == pytest.approx(0.5, abs=0.01)
