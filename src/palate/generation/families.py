"""Families of generators: how each is told about a prompt, and how its denoiser is asked.

A family is what adaptation needs to know of a pipeline's class; all that follows from the class stands here. What a
family computes is what the pipeline's own call feeds its denoiser: the tests look inside that call and compare. A
pipeline of no family can still make images by its own call, see ``generation.calls``.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from palate.generation.text import CHUNK, encode_prompts


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a denoiser is told about some prompts."""

    states: Float[Tensor, "prompts tokens dim"]
    """What it attends to."""
    pooled: Float[Tensor, "prompts width"] | None = None
    """One vector for the whole prompt, which SDXL and SD3 also read."""

    def __len__(self) -> int:
        """Give the number of prompts."""
        return len(self.states)

    def __getitem__(self, rows: Tensor | slice) -> Conditions:
        """Give the conditions of some of the prompts, in the order of the rows."""
        pooled = None if self.pooled is None else self.pooled[rows]
        return Conditions(self.states[rows], pooled)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Conditions:
        """Move them to a device, and convert them if a type is given."""
        pooled = None if self.pooled is None else self.pooled.to(device, dtype)
        return Conditions(self.states.to(device, dtype), pooled)


Encode = Callable[[Any, Sequence[str]], Conditions]
Predict = Callable[[Any, Tensor, Tensor, Conditions, tuple[int, int]], Tensor]


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of pipeline."""

    name: str
    pipeline: str
    """The class in ``model_index.json``."""
    denoiser: str
    """The pipeline's attribute: ``unet`` or ``transformer``."""
    encoders: tuple[str, ...]
    """The pipeline's text models; an SD3 pipeline may be without the third."""
    targets: tuple[str, ...]
    """The layers that an adapter changes: query, key, value and output of every attention layer."""
    flow: bool
    """Whether it predicts noise - latents (rectified flow, Liu et al., 2022, arXiv 2209.03003) rather than noise or v."""
    encode: Encode
    """From the pipeline and prompts to what the denoiser is told. Equal prompts are encoded once; chunks have one size,
    so that a prompt's numbers do not depend on the other prompts."""
    predict: Predict
    """From the denoiser, noisy latents, its own time inputs (one, or one for each image), the conditions and the
    images' height and width in pixels to the denoiser's answer. Gradients pass. The denoiser is only called, so a
    wrapped one (data parallel) will do."""

    def truncated(self, pipeline: Any, prompts: Sequence[str]) -> list[int]:
        """Give the positions of the prompts whose end no text model reads; see ``cut_prompts``."""
        return cut_prompts(pipeline, prompts)

    def image_size(self, pipeline: Any) -> tuple[int, int]:
        """Give the height and width in pixels that the denoiser was trained at."""
        sample = getattr(pipeline, self.denoiser).config.sample_size
        height, width = (sample, sample) if isinstance(sample, int) else tuple(sample)
        return height * pipeline.vae_scale_factor, width * pipeline.vae_scale_factor


# ------------------------------------------------------------------------------------------ telling and asking


def _encode_sd(pipeline: Any, prompts: Sequence[str]) -> Conditions:
    """Give the last states of the text model, as ``StableDiffusionPipeline`` does."""
    return Conditions(encode_prompts(pipeline, prompts))


@torch.no_grad()
def _encode_by_pipeline(pipeline: Any, prompts: Sequence[str], **more: Any) -> Conditions:
    """Give states and pooled vector by the pipeline's own ``encode_prompt``, each distinct prompt once.

    An empty prompt is encoded like any other. What SDXL does instead with a negative prompt that is not given
    (``force_zeros_for_empty_prompt``) is a matter of its call.
    """
    distinct = list(dict.fromkeys(prompts))
    row = {prompt: place for place, prompt in enumerate(distinct)}
    states, pooled = [], []
    for start in range(0, max(len(distinct), 1), CHUNK):
        chunk = distinct[start : start + CHUNK]
        filled = chunk + (chunk[-1:] or [""]) * (CHUNK - len(chunk))
        found = pipeline.encode_prompt(prompt=filled, do_classifier_free_guidance=False, **more)
        states.append(found[0][: len(chunk)])
        pooled.append(found[2][: len(chunk)])
    rows = torch.tensor([row[prompt] for prompt in prompts], dtype=torch.long)
    return Conditions(torch.cat(states), torch.cat(pooled))[rows.to(states[0].device)]


def _encode_sdxl(pipeline: Any, prompts: Sequence[str]) -> Conditions:
    """Give the last states but one of both text models, side by side, and the second one's pooled vector."""
    return _encode_by_pipeline(pipeline, prompts)


def _encode_sd3(pipeline: Any, prompts: Sequence[str]) -> Conditions:
    """Give the states of both CLIPs, then those of T5 or zeros, and the pooled vectors of both CLIPs."""
    return _encode_by_pipeline(pipeline, prompts, prompt_2=None, prompt_3=None)


def _predict_sd(
    denoiser: Any,
    noisy: Float[Tensor, "images channels rows columns"],
    times: Tensor,
    conditions: Conditions,
    size: tuple[int, int],
) -> Float[Tensor, "images channels rows columns"]:
    """Ask the UNet of Stable Diffusion 1.x and 2.x, which does not read the size."""
    del size
    answer: Tensor = denoiser(noisy, times, conditions.states, return_dict=False)[0]
    return answer


def _predict_sdxl(
    denoiser: Any,
    noisy: Float[Tensor, "images channels rows columns"],
    times: Tensor,
    conditions: Conditions,
    size: tuple[int, int],
) -> Float[Tensor, "images channels rows columns"]:
    """Ask the UNet of SDXL, which is told the size of the picture that it makes: original and target are equal, and nothing is said to be cut off.

    The six numbers are original height and width, top and left of the cut, target height and width (Podell et al.,
    2023, arXiv 2307.01952, section 2.2).
    """
    states = conditions.states
    told = torch.tensor([[*size, 0, 0, *size]], device=states.device, dtype=states.dtype)
    answer: Tensor = denoiser(
        noisy,
        times,
        encoder_hidden_states=states,
        added_cond_kwargs={
            "text_embeds": conditions.pooled,
            "time_ids": told.expand(len(noisy), -1),
        },
        return_dict=False,
    )[0]
    return answer


def _predict_sd3(
    denoiser: Any,
    noisy: Float[Tensor, "images channels rows columns"],
    times: Tensor,
    conditions: Conditions,
    size: tuple[int, int],
) -> Float[Tensor, "images channels rows columns"]:
    """Ask the transformer of Stable Diffusion 3, which does not read the size."""
    del size
    answer: Tensor = denoiser(
        hidden_states=noisy,
        timestep=times.expand(len(noisy)),
        encoder_hidden_states=conditions.states,
        pooled_projections=conditions.pooled,
        return_dict=False,
    )[0]
    return answer


_UNET: Final = ("to_q", "to_k", "to_v", "to_out.0")
# the text has projections of its own beside the picture's
_JOINT: Final = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out")

FAMILIES: Final = (
    Family(
        name="sd",
        pipeline="StableDiffusionPipeline",
        denoiser="unet",
        encoders=("text_encoder",),
        targets=_UNET,
        flow=False,
        encode=_encode_sd,
        predict=_predict_sd,
    ),
    Family(
        name="sdxl",
        pipeline="StableDiffusionXLPipeline",
        denoiser="unet",
        encoders=("text_encoder", "text_encoder_2"),
        targets=_UNET,
        flow=False,
        encode=_encode_sdxl,
        predict=_predict_sdxl,
    ),
    Family(
        name="sd3",
        pipeline="StableDiffusion3Pipeline",
        denoiser="transformer",
        encoders=("text_encoder", "text_encoder_2", "text_encoder_3"),
        targets=(*_UNET, *_JOINT),
        flow=True,
        encode=_encode_sd3,
        predict=_predict_sd3,
    ),
)
"""The families that can be adapted; ``family_of`` finds a pipeline's."""


def family_of(pipeline: Any) -> Family | None:
    """Give a pipeline's family, None for a class of no family, which can only make images."""
    kind = type(pipeline).__name__
    return next((family for family in FAMILIES if family.pipeline == kind), None)


# ------------------------------------------------------------------------------------------ what any pipeline says


def denoiser_of(pipeline: Any) -> Any:
    """Give the network that is asked at every step, None where it has no name that is known."""
    return next(
        (found for name in ("unet", "transformer") if (found := getattr(pipeline, name, None))),
        None,
    )


def call_parameters(pipeline: Any) -> Mapping[str, inspect.Parameter]:
    """Give the parameters of a pipeline's own call; a class will do in its place."""
    kind = pipeline if isinstance(pipeline, type) else type(pipeline)
    return inspect.signature(kind.__call__).parameters


def cut_prompts(pipeline: Any, prompts: Sequence[str]) -> list[int]:
    """Give the positions of the prompts whose end no text model reads.

    A prompt counts if every tokenizer cuts it: in SD3 what the CLIPs cut off may still reach T5. A tokenizer cuts
    at its own length or at the call's ``max_sequence_length``, whichever is shorter; words that a pipeline puts
    around every prompt are not counted.
    """
    if not prompts:
        return []
    ceiling = call_parameters(pipeline).get("max_sequence_length")
    longest = ceiling.default if ceiling and isinstance(ceiling.default, int) else sys.maxsize
    cut = set(range(len(prompts)))
    known: list[Any] = [getattr(pipeline, f"tokenizer{n}", None) for n in ("", "_2", "_3", "_4")]
    tokenizers = [one for one in known if hasattr(one, "model_max_length")]
    for tokenizer in tokenizers:
        length = min(tokenizer.model_max_length, longest)
        counts = [len(ids) for ids in tokenizer(list(prompts)).input_ids]
        cut &= {place for place, count in enumerate(counts) if count > length}
    return sorted(cut) if tokenizers else []


def guidance_parameter(pipeline: Any) -> str | None:
    """Give the parameter of the pipeline's call that guidance goes to, None if it has none.

    Qwen-Image calls it ``true_cfg_scale``; FluxPipeline has that too, but off, since its denoiser was distilled to
    take ``guidance_scale`` as an input.
    """
    known = call_parameters(pipeline)
    true_scale = known.get("true_cfg_scale")
    if true_scale is not None and not _distilled(pipeline) and true_scale.default > 1:
        return "true_cfg_scale"
    return "guidance_scale" if "guidance_scale" in known else None


def reads_negative(pipeline: Any) -> str | None:
    """Say why a pipeline does not read a negative prompt; None if it does, at a guidance above 1."""
    kind = type(pipeline).__name__
    known = call_parameters(pipeline)
    if "negative_prompt" not in known:
        return f"the call of {kind} has no negative prompt"
    if _distilled(pipeline):
        return f"its {type(denoiser_of(pipeline)).__name__} was distilled to take the guidance as an input"
    if "true_cfg_scale" in known and guidance_parameter(pipeline) != "true_cfg_scale":
        return f"{kind} reads a negative prompt only with a true_cfg_scale above 1, and by itself has none"
    return None


def _distilled(pipeline: Any) -> bool:
    """Tell whether the denoiser takes the guidance as an input, so that one pass is all that is made."""
    config = getattr(denoiser_of(pipeline), "config", {})
    return config.get("time_cond_proj_dim") is not None or bool(config.get("guidance_embeds"))
