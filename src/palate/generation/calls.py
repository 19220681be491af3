"""Any text-to-image pipeline of diffusers: which classes are one, and images by the pipeline's own call.

A class is looked up in diffusers by its name in ``model_index.json``; nothing that a folder brings is ever run.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from palate.errors import CheckpointError
from palate.generation.families import call_parameters, guidance_parameter
from palate.generation.quiet import quiet_bars

INDEX: Final = "model_index.json"
_LIBRARIES: Final = ("diffusers", "transformers")
# these make an image from text alone too, though their call has a place for a picture
_PICTURE_OPTIONAL: Final = frozenset(
    {
        "BriaFibo2Pipeline",
        "Flux2KleinKVPipeline",
        "Flux2KleinPipeline",
        "Flux2Pipeline",
        "FluxKontextPipeline",
        "GlmImagePipeline",
        "OmniGenPipeline",
        "QwenImage21Pipeline",
        "StableCascadeCombinedPipeline",
        "ZImageOmniPipeline",
    }
)
_PICTURE: Final = re.compile(r"image|video|audio|frames|pose|mask")
# what is about the prompt, and picture prompts of an adapter that is not there
_NO_PICTURE: Final = re.compile(
    r"num_images_per_prompt|(negative_)?(prompt|ip_adapter)_.*|.*attention_mask.*|gligen_.*"
)
_LOADING: Final = (
    OSError,
    ValueError,
    KeyError,
    RuntimeError,
    ImportError,
    AttributeError,
    TypeError,
)


def read_index(folder: Path) -> dict[str, Any]:
    """Read which class and components a folder has.

    Raises:
        CheckpointError: no such folder, or it is none in diffusers format.
    """
    index = folder / INDEX
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such generator folder")
    if not index.is_file():
        raise CheckpointError(
            f"{folder}: no {INDEX}, expected the folder of a text-to-image pipeline in diffusers format"
        )
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{index}: expected a JSON object: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{index}: expected a JSON object, found a {type(content).__name__}")
    return content


def pipeline_class(folder: Path) -> Any:
    """Give the class of a folder's pipeline, if it is one of diffusers that makes images from text alone.

    Raises:
        CheckpointError: another class, or a component that would need code from the folder.
    """
    import diffusers

    index = read_index(folder)
    name = index.get("_class_name")
    where = f"{folder / INDEX}: a pipeline of class {name!r}"
    kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    if needed := getattr(kind, "_backends", None):
        raise CheckpointError(
            f"{where}, which needs the packages {', '.join(needed)}; install them"
        )
    if not (isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline)):
        raise CheckpointError(
            f"{where}, which diffusers {diffusers.__version__} does not have; "
            "expected a text-to-image pipeline of diffusers, since code of a folder's own is not run"
        )
    if reason := _no_text_to_image(kind):
        raise CheckpointError(f"{where}, which {reason}; expected one that makes images from text")
    _check_components(folder, index)
    return kind


def _no_text_to_image(kind: type) -> str | None:
    """Say why a class makes no images from text alone; None if it does. Its call's parameters tell."""
    known = call_parameters(kind)
    needed = [
        name
        for name, one in known.items()
        if one.default is inspect.Parameter.empty
        and one.kind is not inspect.Parameter.VAR_KEYWORD
        and name not in {"self", "prompt"}
    ]
    pictures = [n for n in known if _PICTURE.search(n) and not _NO_PICTURE.fullmatch(n)]
    if kind.__name__ in _PICTURE_OPTIONAL:
        return None
    if any(re.search("num_frames|num_videos|video_length|audio", name) for name in known):
        return "makes no images"
    if pictures or needed:
        return f"also needs '{(needed or pictures)[0]}'"
    if kind.__name__.endswith("PriorPipeline") or not {"prompt", "height", "generator"} <= set(
        known
    ):
        return "makes no images from a prompt alone"
    return None


def _check_components(folder: Path, index: Mapping[str, Any]) -> None:
    """Make sure that every component is a class of diffusers or transformers."""
    from diffusers import pipelines

    for name, given in index.items():
        if name.startswith("_") or not isinstance(given, list) or not any(given):
            continue
        library, kind = (*map(str, given), "", "")[:2]
        where = f"{folder / INDEX}: its {name} is of class '{kind}' of '{library}'"
        own = (folder / name / f"{library}.py").exists()
        if own or not (library in _LIBRARIES or hasattr(pipelines, library)):
            raise CheckpointError(
                f"{where}, expected one of diffusers or transformers; code of a folder's own is not run"
            )
        if re.match("Auto[A-Z]", kind) and _maps_to_code(folder / name):
            raise CheckpointError(
                f"{where}, which asks for code of the folder's own; it is not run"
            )


def _maps_to_code(folder: Path) -> bool:
    """Tell whether a component's settings name code, which the classes that choose a class would ask to run."""
    return any('"auto_map"' in path.read_text("utf-8", "replace") for path in folder.glob("*.json"))


def load_pipeline(folder: Path, dtype: torch.dtype) -> Any:
    """Load a folder's pipeline from the disk only, its weights from safetensors only, ready to make images.

    Raises:
        CheckpointError: see ``pipeline_class``; or a file is missing or damaged.
    """
    with quiet_bars():
        kind = pipeline_class(folder)
        try:
            pipeline = kind.from_pretrained(
                str(folder),
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                **_left_out(folder, kind),
            )
        except _LOADING as error:
            first = str(error).strip().split("\n")[0]
            raise CheckpointError(
                f"{folder}: could not be loaded as {kind.__name__}: {first}"
            ) from error
    pipeline.set_progress_bar_config(disable=True)
    for part in modules_of(pipeline).values():
        part.eval().requires_grad_(requires_grad=False)
        if getattr(part, "dtype", dtype) != dtype:
            part.to(dtype)
    return pipeline


def _left_out(folder: Path, kind: Any) -> dict[str, None]:
    """Give the components that a folder says it is without, such as SD3's T5, though the class wants them named."""
    null = [name for name, given in read_index(folder).items() if given == [None, None]]
    optional = getattr(kind, "_optional_components", ())
    return dict.fromkeys(name for name in null if name not in optional)


def modules_of(pipeline: Any) -> dict[str, Any]:
    """Give a pipeline's networks by name."""
    components = pipeline.components.items()
    return {name: part for name, part in components if isinstance(part, torch.nn.Module)}


def sample_by_call(
    pipeline: Any, prompts: Sequence[str], seeds: Sequence[int], plan: Mapping[str, Any]
) -> tuple[Float[Tensor, "images 3 height width"], list[bool]]:
    """Make one image for each prompt by the pipeline's own call, in [0, 1], and say which ones it blackened.

    Each image has its own source of chance, on the CPU, from its own seed.

    Args:
        pipeline: from ``load_pipeline``.
        prompts: one for each image.
        seeds: one for each image.
        plan: ``steps``, ``guidance``, ``negative_prompt``, ``height``, ``width`` and ``eta``, as ``generate``
            resolves them. What the call has no parameter for is not passed; an empty negative prompt is left to the
            call, and no height or width is the call's own.

    Raises:
        CheckpointError: the call fails, or gives something that is no image.
    """
    known, kind = call_parameters(pipeline), type(pipeline).__name__
    given = _arguments(pipeline, len(prompts), plan)
    draws = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    try:
        made = pipeline(
            prompt=list(prompts),
            generator=draws,
            output_type="np",
            **{name: value for name, value in given.items() if name in known},
        )
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        first = str(error).strip().split("\n")[0]
        raise CheckpointError(f"the call of {kind} failed: {first}") from error
    images = getattr(made, "images", None)
    shape: tuple[int, ...] = getattr(images, "shape", ())
    if len(shape) != 4 or shape[0] != len(prompts) or shape[3] != 3:
        found = f"an array of {tuple(shape)}" if shape else f"a {type(made).__name__}"
        raise CheckpointError(
            f"the call of {kind} gave {found}, expected {len(prompts)} pictures in colour"
        )
    flags = getattr(made, "nsfw_content_detected", None) or getattr(made, "nsfw_detected", None)
    flagged = [bool(flag) for flag in flags] if flags else [False] * len(prompts)
    return torch.as_tensor(images).permute(0, 3, 1, 2).float(), flagged


def _arguments(pipeline: Any, rows: int, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a plan into the words of a pipeline's call."""
    given: dict[str, Any] = {"num_inference_steps": plan["steps"]}
    given |= {name: plan[name] for name in ("height", "width") if plan[name] is not None}
    if plan["eta"]:
        given["eta"] = plan["eta"]
    negative, scale = plan["negative_prompt"], guidance_parameter(pipeline)
    if scale is not None:
        given[scale] = plan["guidance"]
    if scale == "true_cfg_scale" and plan["guidance"] > 1:
        # without a negative prompt this call leaves guidance out; diffusers' examples give it a space
        negative = negative or " "
    if negative:
        given["negative_prompt"] = [negative] * rows
    return given
