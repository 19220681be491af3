from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, PNDMScheduler

from palate.generation.sampling import Sampling, sample, to_bytes
from palate.generation.text import encode, encode_prompts, tokenize

PROMPTS = ["a red ball", "a blue cube on top of it", "x" * 40]
SEEDS = [5, 6, 2**62 + 3]
HOW = Sampling(steps=4, guidance=3.0, height=16, width=16)


def ours(generator, how, prompts=PROMPTS, seeds=SEEDS, negative="bad"):
    images, flags = sample(
        generator.pipeline, generator.encode(prompts), generator.encode([negative]), seeds, how
    )
    assert flags == [False] * len(prompts)
    return to_bytes(images).numpy()


def theirs(generator, how, negative="bad"):
    images = generator.pipeline(
        PROMPTS,
        negative_prompt=[negative] * len(PROMPTS),
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        num_inference_steps=how.steps,
        guidance_scale=how.guidance,
        eta=how.eta,
        height=how.height,
        width=how.width,
    ).images
    return np.stack([np.asarray(image) for image in images])


@pytest.mark.parametrize("guidance", [1.0, 3.0, 7.5])
def test_the_loop_gives_the_bytes_of_diffusers_own_call(generator, guidance):
    how = Sampling(steps=4, guidance=guidance, height=16, width=16)
    images = ours(generator, how)
    assert np.array_equal(images, theirs(generator, how))
    assert images.std() > 5


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Euler's
@pytest.mark.parametrize("scheduler", [PNDMScheduler, EulerAncestralDiscreteScheduler])
def test_it_does_so_with_other_schedulers(fresh, scheduler):
    config = fresh.pipeline.scheduler.config
    fresh.pipeline.scheduler = scheduler(
        beta_start=config.beta_start, beta_end=config.beta_end, beta_schedule=config.beta_schedule
    )
    assert np.array_equal(ours(fresh, HOW), theirs(fresh, HOW))


def test_it_does_so_when_noise_is_added_on_the_way(generator):
    how = Sampling(steps=4, guidance=3.0, height=16, width=16, eta=0.8)
    assert np.array_equal(ours(generator, how), theirs(generator, how))


def test_it_does_so_at_another_size(generator):
    how = Sampling(steps=2, guidance=3.0, height=32, width=16)
    assert ours(generator, how).shape == (3, 32, 16, 3)
    assert np.array_equal(ours(generator, how), theirs(generator, how))


def test_the_negative_prompt_counts(generator):
    assert not np.array_equal(
        ours(generator, HOW, negative="bad"), ours(generator, HOW, negative="")
    )


def test_a_safety_checker_blackens_and_is_told(fresh):
    def checker(images, clip_input):
        del clip_input
        images[1] = 0
        return images, [False, True, False]

    class Features(dict):
        def to(self, _device):
            return self

        @property
        def pixel_values(self):
            return torch.zeros(1)

    fresh.pipeline.safety_checker = checker
    fresh.pipeline.feature_extractor = lambda *_, **__: Features()
    images, flags = sample(fresh.pipeline, fresh.encode(PROMPTS), fresh.encode([""]), SEEDS, HOW)
    assert flags == [False, True, False]
    assert images[1].max() == 0
    assert images[0].std() > 0.01
    assert np.array_equal(to_bytes(images).numpy(), theirs(fresh, HOW, negative=""))


def test_text_embeddings_are_those_of_the_pipeline(generator):
    expected = generator.pipeline.encode_prompt(PROMPTS, "cpu", 1, False)[0]
    assert torch.equal(encode_prompts(generator.pipeline, PROMPTS), expected)


def test_a_text_embedding_does_not_depend_on_the_other_prompts(generator):
    many = [f"prompt {number}" for number in range(35)]
    together = encode(generator.pipeline, tokenize(generator.pipeline, many))
    for place in (0, 17, 34):
        alone = encode(generator.pipeline, tokenize(generator.pipeline, [many[place]]))
        assert torch.equal(alone[0], together[place])
    assert encode(generator.pipeline, tokenize(generator.pipeline, [])).shape == (0, 24, 16)


def test_prompts_that_are_cut_are_counted(generator):
    tokens = tokenize(generator.pipeline, PROMPTS)
    # a byte per token, with start and end; spaces are no token
    assert tokens.given == [10, 20, 42]
    assert generator.truncated(PROMPTS) == ["x" * 40]
