from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from palate.adaptation.methods import METHODS, Noising, check_identifier, noising_of
from palate.errors import CheckpointError, SettingsError
from palate.generation.tiny import tiny_pipeline


@pytest.mark.parametrize("role", ["preferred", "regularisation"])
def test_only_rejected_captions_carry_the_identifier(role):
    caption = METHODS["identifier"].caption
    assert caption(role, "a ball", "Weird image. ") == "a ball"
    assert caption("rejected", "a ball", "Weird image. ") == "Weird image. a ball"


def test_the_identifier_is_read_whole_before_the_longest_caption(generator):
    check_identifier(generator.pipeline, "Weird image. ", ["a ball", "x" * 200, ""])


def test_an_identifier_that_the_model_cannot_read_whole_is_refused(generator):
    with pytest.raises(SettingsError, match="has 40 tokens, expected fewer than 22"):
        check_identifier(generator.pipeline, "x" * 40, ["a"])
    with pytest.raises(SettingsError, match="is empty"):
        check_identifier(generator.pipeline, " ", ["a"])
    # the tokenizer marks the end of a word, so a joined word reads differently
    with pytest.raises(
        SettingsError, match="is not read as such before 'ball'; end it with a space"
    ):
        check_identifier(generator.pipeline, "Weird", ["a", "ball"][1:])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noise_is_added_as_the_scheduler_does(prediction):
    pipeline = tiny_pipeline(prediction=prediction)
    noising = noising_of(pipeline)
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
        noising_of(tiny_pipeline(prediction="sample"))


def test_noise_levels_are_weighed_as_diffusers_does():
    for prediction in ("epsilon", "v_prediction"):
        pipeline = tiny_pipeline(prediction=prediction)
        noising = noising_of(pipeline)
        times = torch.arange(0, 1000, 37)
        snr = compute_snr(DDPMScheduler.from_config(pipeline.scheduler.config), times)
        wanted = torch.minimum(snr, torch.tensor(5.0)) / (snr + (prediction == "v_prediction"))
        assert torch.allclose(noising.min_snr_weights(times, 5.0), wanted, rtol=1e-4)
