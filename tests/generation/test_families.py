"""What a family computes is what the pipeline's own call feeds its denoiser."""

from __future__ import annotations

import pytest
import torch

from palate.generation.families import (
    FAMILIES,
    Conditions,
    cut_prompts,
    denoiser_of,
    family_of,
    guidance_parameter,
    reads_negative,
)
from palate.generation.text import CHUNK
from palate.generation.tiny import tiny_pipeline

KINDS = ["sd", "sdxl", "sd3"]
# as many as a chunk has, so that the pipeline's matrices have the same shape as ours
PROMPTS = [f"a red ball, {number}" for number in range(CHUNK)]


@pytest.fixture(scope="module", params=KINDS)
def pipeline(request):
    found = tiny_pipeline(request.param)
    found.set_progress_bar_config(disable=True)
    for part in found.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(requires_grad=False)
    return found


def listen(pipeline, **given):
    """Make images by the pipeline's own call, and give what its denoiser was asked and what it answered."""
    denoiser, heard = denoiser_of(pipeline), []

    def keep(_, positional, named, answer):
        heard.append((positional, named, answer[0]))

    handle = denoiser.register_forward_hook(keep, with_kwargs=True)
    draws = [torch.Generator().manual_seed(number) for number in range(len(PROMPTS))]
    with torch.inference_mode():
        pipeline(PROMPTS, generator=draws, num_inference_steps=2, output_type="np", **given)
    handle.remove()
    return heard


@pytest.mark.parametrize("negative", ["Weird image.", ""])
def test_the_denoiser_is_told_and_asked_what_the_pipelines_own_call_does(pipeline, negative):
    """At a size that is not square, so that height and width cannot change places."""
    family = family_of(pipeline)
    told = [family.encode(pipeline, [negative] * CHUNK), family.encode(pipeline, PROMPTS)]
    states = torch.cat([one.states for one in told])
    pooled = None if told[0].pooled is None else torch.cat([one.pooled for one in told])
    heard = listen(pipeline, negative_prompt=[negative] * CHUNK, height=24, width=16)
    assert len(heard) == 2
    for positional, named, answer in heard:
        sample, time = positional or (named["hidden_states"], named["timestep"])
        assert torch.equal(named["encoder_hidden_states"], states)
        more = named.get("added_cond_kwargs") or {}
        own = named.get("pooled_projections", more.get("text_embeds"))
        assert (own is None) == (pooled is None)
        assert pooled is None or torch.equal(own, pooled)
        with torch.inference_mode():
            ours = family.predict(
                denoiser_of(pipeline), sample, time, Conditions(states, pooled), (24, 16)
            )
        assert torch.equal(ours, answer)
        turned = family.predict(
            denoiser_of(pipeline), sample, time, Conditions(states, pooled), (16, 24)
        )
        assert torch.equal(turned, answer) == (family.name != "sdxl")


def test_a_prompt_is_told_the_same_whatever_the_others(pipeline):
    family, many = family_of(pipeline), [f"prompt {number}" for number in range(CHUNK + 3)]
    together = family.encode(pipeline, many)
    assert len(together) == CHUNK + 3
    for place in (0, CHUNK - 1, CHUNK + 2):
        alone = family.encode(pipeline, [many[place]])
        for name in ("states", "pooled"):
            one, all_of_them = getattr(alone, name), getattr(together, name)
            assert one is None or torch.equal(one[0], all_of_them[place])
    twice = family.encode(pipeline, ["b", "a", "b"])
    assert torch.equal(twice.states[0], twice.states[2])
    assert not torch.equal(twice.states[0], twice.states[1])
    assert len(family.encode(pipeline, [])) == 0


def test_conditions_are_cut_and_moved_in_both_parts():
    told = Conditions(torch.arange(24.0).view(3, 2, 4), torch.arange(6.0).view(3, 2))
    rows = told[torch.tensor([2, 0])]
    assert torch.equal(rows.states, told.states[[2, 0]])
    assert torch.equal(rows.pooled, told.pooled[[2, 0]])
    assert len(told[1:]) == 2
    assert told.to("cpu", torch.bfloat16).pooled.dtype == torch.bfloat16
    assert Conditions(told.states)[:1].to("cpu").pooled is None


def test_gradients_pass_through_a_wrapped_denoiser(pipeline):
    """A wrapper of data parallel has no config, and only its forward counts."""

    class Wrapped(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, *given, **named):
            return self.inner(*given, **named)

    family = family_of(pipeline)
    told = family.encode(pipeline, ["a", "b"])
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    times = torch.tensor([100, 900])
    answer = family.predict(Wrapped(denoiser_of(pipeline)), noisy, times, told, (16, 16))
    assert answer.shape == noisy.shape
    answer.square().sum().backward()
    assert noisy.grad.abs().sum() > 0
    one = family.predict(denoiser_of(pipeline), noisy[:1], times[0], told[:1], (16, 16))
    assert torch.allclose(one, answer[:1], atol=1e-5)


def test_the_targets_are_query_key_value_and_output_of_every_attention_layer(pipeline):
    """The slow twin asks the attention modules themselves."""
    from diffusers.models.attention_processor import Attention
    from peft import LoraConfig

    family, fresh = family_of(pipeline), tiny_pipeline(family_of(pipeline).name)
    expected = set()
    for name, module in denoiser_of(fresh).named_modules():
        if isinstance(module, Attention) or type(module).__name__ == "Attention":
            inner = {n for n, one in module.named_modules() if isinstance(one, torch.nn.Linear)}
            expected |= {f"{name}.{one}" for one in inner}
    denoiser = denoiser_of(fresh)
    denoiser.add_adapter(LoraConfig(r=2, target_modules=list(family.targets)))
    found = {n.split(".lora_A")[0] for n, _ in denoiser.named_parameters() if "lora_A" in n}
    assert found == expected
    assert len(found) == {"sd": 56, "sdxl": 64, "sd3": 19}[family.name]


def test_a_familys_facts_are_those_of_the_pipeline(pipeline):
    family = family_of(pipeline)
    assert family.image_size(pipeline) == (16, 16)
    assert denoiser_of(pipeline) is getattr(pipeline, family.denoiser)
    assert all(hasattr(pipeline, name) for name in family.encoders)
    assert family.flow == hasattr(pipeline.scheduler, "shift")
    assert reads_negative(pipeline) is None
    assert guidance_parameter(pipeline) == "guidance_scale"
    assert len({one.pipeline for one in FAMILIES}) == len(FAMILIES)


def test_a_prompt_is_cut_if_every_tokenizer_cuts_it(pipeline):
    family = family_of(pipeline)
    assert family.truncated(pipeline, ["short", "x" * 40, "x" * 22, "x" * 23]) == [1, 3]
    assert family.truncated(pipeline, []) == []
    if family.name == "sd":
        return
    from palate.generation.tiny import tiny_tokenizer

    other = tiny_pipeline(family.name)
    other.tokenizer_2 = tiny_tokenizer(60)
    assert cut_prompts(other, ["x" * 40, "x" * 70]) == [1]


def test_sd3_with_its_third_text_model_reads_t5_after_the_clips():
    from transformers import T5Config, T5EncoderModel

    from palate.generation.tiny import tiny_tokenizer

    full = tiny_pipeline("sd3")
    without = family_of(full).encode(full, PROMPTS).states
    assert torch.equal(without[:, 24:], torch.zeros(CHUNK, 256, 40))
    config = T5Config(vocab_size=514, d_model=40, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    full.register_modules(
        text_encoder_3=T5EncoderModel(config).eval(), tokenizer_3=tiny_tokenizer(300)
    )
    full.set_progress_bar_config(disable=True)
    told = family_of(full).encode(full, PROMPTS)
    heard = listen(full, guidance_scale=1.0)
    assert torch.equal(heard[0][1]["encoder_hidden_states"], told.states)
    assert torch.equal(told.states[:, :24], without[:, :24])
    assert told.states[:, 24:].abs().sum() > 0
    # what the CLIPs cut off at 24 tokens, T5 still reads, up to the call's 256
    assert cut_prompts(full, ["x" * 40, "x" * 270]) == [1]


def test_a_pipeline_that_does_not_read_a_negative_prompt_says_why():
    from diffusers import FluxPipeline, LatentConsistencyModelPipeline, QwenImagePipeline

    class Bare:
        def __init__(self, **config):
            self.transformer = type("Denoiser", (), {"config": config})()

    def with_call_of(kind, **config):
        return type(kind.__name__, (Bare,), {"__call__": kind.__call__})(**config)

    dev, schnell = (with_call_of(FluxPipeline, guidance_embeds=yes) for yes in (True, False))
    assert reads_negative(dev) == "its Denoiser was distilled to take the guidance as an input"
    assert reads_negative(schnell).startswith(
        "FluxPipeline reads a negative prompt only with a true"
    )
    assert guidance_parameter(dev) == guidance_parameter(schnell) == "guidance_scale"
    qwen = with_call_of(QwenImagePipeline, guidance_embeds=False)
    assert (reads_negative(qwen), guidance_parameter(qwen)) == (None, "true_cfg_scale")
    lcm = with_call_of(LatentConsistencyModelPipeline)
    assert (
        reads_negative(lcm) == "the call of LatentConsistencyModelPipeline has no negative prompt"
    )
    distilled = tiny_pipeline()
    distilled.unet.register_to_config(time_cond_proj_dim=8)
    assert "UNet2DConditionModel was distilled" in reads_negative(distilled)
    assert family_of(lcm) is None
