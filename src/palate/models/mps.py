"""MPS, the Multi-dimensional Preference Score: read it, use it, write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from palate.errors import CheckpointError
from palate.models.checkpoint import Weights, read_json, read_weights, some
from palate.models.clip import Clip
from palate.models.clip_files import CARD, build_model, pretty_json
from palate.models.clip_names import PUBLISHED
from palate.models.clip_network import ClipConfig, TextConfig, VisionConfig
from palate.models.cross_attention import CrossModel, CrossSizes, build_cross, cross_sizes
from palate.models.hashes import hash_weights
from palate.models.mps_condition import CONDITIONS, Masking, read_question, write_question
from palate.models.pixels import preparation_dict, preparation_from
from palate.models.tokens import find_tokenizer, read_tokenizer
from palate.runs import atomic_path, write_atomic

_PREFIXES = ("model.", "cross_model.")
_UNTOLD = ("num_attention_heads", "hidden_act")
# The CLIP that MPS starts from, laion's; its weights do not tell that it has the exact GELU.
_BASE = "ViT-H/14"


@dataclass(frozen=True)
class Mps:
    """A CLIP whose image tokens read those words of the prompt that a condition speaks of.

    The same function as ``infer_one_sample`` of Kwai-Kolors/MPS, with two differences. All is
    computed in float32, where the official code rounds pixels, tokens and rotary angles to 16
    bits. And each prompt's mask comes from that prompt alone, where the official code divides by
    a maximum over the batch: for a batch of one, which the published numbers use, that is the same.

    ``conditions`` are the words of each dimension that it was trained on. ``masking`` is how it was trained;
    the official file and what was converted from it do not say, so that their scorer's profile does.
    """

    clip: Clip
    cross: CrossModel
    about: Mapping[str, Any] = field(default_factory=dict)
    conditions: Mapping[str, str] = field(default_factory=lambda: CONDITIONS)
    masking: Masking | None = None

    def image_tokens(
        self, pixels: Float[Tensor, "images 3 size size"]
    ) -> Float[Tensor, "images tokens dim"]:
        """Give the class token and all patches of prepared pixels, projected without final norm."""
        return self.project(self.image_states(pixels))

    def image_states(
        self, pixels: Float[Tensor, "images 3 size size"]
    ) -> Float[Tensor, "images tokens width"]:
        """Give the class token and all patches of prepared pixels, before the projection."""
        return self.clip.image_blocks(self.clip.image_stem(pixels))

    def project(
        self, states: Float[Tensor, "images tokens width"]
    ) -> Float[Tensor, "images tokens dim"]:
        """Project what :meth:`image_states` gives."""
        tokens: Tensor = self.clip.model.visual_projection(states)
        return tokens

    def text_tokens(
        self, ids: Int[Tensor, "prompts context"]
    ) -> tuple[Float[Tensor, "prompts context dim"], Float[Tensor, "prompts dim"]]:
        """Give all positions of token numbers, projected, and the unit-length end-token features.

        Start, end and padding are positions like any other: the official code lets them take part.
        """
        return self.text_head(self.clip.text_blocks(self.clip.text_stem(ids)), ids)

    def text_head(
        self, hidden: Float[Tensor, "prompts context width"], ids: Int[Tensor, "prompts context"]
    ) -> tuple[Float[Tensor, "prompts context dim"], Float[Tensor, "prompts dim"]]:
        """Give tokens and end features of what the last block of the text tower gives."""
        model = self.clip.model
        tokens: Tensor = model.text_projection(model.text_model.final_layer_norm(hidden))
        return tokens, self.clip.text_head(hidden, ids)

    def score(
        self,
        image_tokens: Float[Tensor, "images tokens dim"],
        text_tokens: Float[Tensor, "images context dim"],
        ends: Float[Tensor, "images dim"],
        kept: Bool[Tensor, "images context"],
    ) -> Float[Tensor, " images"]:
        """Give exp(logit scale) times the cosine of each image's fused class token and its prompt.

        Higher is better. The prompt's tokens, end feature and mask stand at the place of its image.
        """
        return self.compare(self.cross(image_tokens, text_tokens, kept)[:, 0], ends)

    def compare(
        self, fused: Float[Tensor, "images dim"], ends: Float[Tensor, "images dim"]
    ) -> Float[Tensor, " images"]:
        """Give exp(logit scale) times the cosine of fused class tokens and end features."""
        cosines = (functional.normalize(fused, dim=-1) * functional.normalize(ends, dim=-1)).sum(-1)
        scale: Tensor = self.clip.model.logit_scale.exp()
        return scale * cosines

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return self.clip.device

    def fingerprint(self) -> str:
        """Give 16 hexadecimal digits that change with any weight, the tokens or the preparation."""
        facts = {"clip": self.clip.fingerprint(), "cross_model": asdict(self.cross.sizes)}
        return hash_weights(facts, self.cross)


def load_mps(
    path: Path,
    *,
    tokenizer: Path | None = None,
    architecture: Path | None = None,
    device: str = "cpu",
) -> Mps:
    """Load an MPS from the official checkpoint or from a folder that :func:`save_mps` wrote.

    The official file is a pickled module, or a state dict of it; nothing from it is run and it is
    computed with in float32. Its vocabulary (``tokenizer``, that of laion/CLIP-ViT-H-14) and
    ``architecture`` are looked for beside it when they are not given. The latter, a transformers
    configuration of the CLIP, is needed for other sizes than the published: it says
    ``num_attention_heads`` and ``hidden_act`` of both towers, and the sizes that it says must agree
    with the weights. Raises CheckpointError.
    """
    if path.is_dir():
        mps = _load_folder(path, tokenizer, architecture)
    elif path.is_file():
        mps = _load_official(path, tokenizer, architecture)
    else:
        raise CheckpointError(f"{path}: no such weights file or folder")
    mps.clip.model.to(device)
    mps.cross.to(device)
    return mps


def holds_mps(path: Path) -> bool:
    """Say whether a folder calls itself an MPS, or a file has the tensors of one."""
    if path.is_dir():
        config = path / "config.json"
        return config.is_file() and read_json(config).get("model_type") == "mps"
    return path.is_file() and any(name.startswith(_PREFIXES[1]) for name in read_weights(path))


def save_mps(mps: Mps, folder: Path, *, half: bool = False, **about: object) -> None:
    """Write an MPS as a folder that :func:`load_mps` reads, with the official tensor names.

    ``half`` stores the weights in 16 bits. ``about`` is added to what the folder says of itself in
    ``palate.json``, which is written last: a folder with it is complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = zip(_PREFIXES, (mps.clip.model, mps.cross), strict=True)
    precision = torch.float16 if half else torch.float32
    weights = {
        prefix + name: value.detach().to("cpu", precision).contiguous()
        for prefix, module in parts
        for name, value in module.state_dict().items()
    }
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    config = mps.clip.model.config.to_dict() | {
        "model_type": "mps",
        "architectures": ["Mps"],
        "dtype": str(precision).removeprefix("torch."),
        "cross_model": asdict(mps.cross.sizes),
    }
    for name, text in ({"config.json": pretty_json(config)} | mps.clip.tokenizer.files()).items():
        write_atomic(folder / name, text)
    words = mps.clip.tokenizer
    card = dict(mps.about) | {
        "format": 1,
        "kind": "mps",
        "preparation": preparation_dict(mps.clip.preparation),
        "tokens": {"context": words.context, "pad": words.pad, "clean": words.clean},
        **write_question(mps.conditions, mps.masking),
    }
    write_atomic(folder / CARD, pretty_json(card | about))


def _load_official(path: Path, tokenizer: Path | None, architecture: Path | None) -> Mps:
    """Load the official file."""
    beside = path.parent / "architecture.json"
    words = tokenizer or find_tokenizer(path.parent)
    if words is None:
        raise CheckpointError(
            f"{path}: no vocabulary beside the weights; expected vocab.json and merges.txt there or "
            "a tokenizer file or folder given by name"
        )
    return _assemble(path, words, architecture or (beside if beside.is_file() else None), {})


def _load_folder(folder: Path, tokenizer: Path | None, architecture: Path | None) -> Mps:
    """Load a folder that :func:`save_mps` wrote."""
    config = folder / "config.json"
    for name in (config.name, CARD):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: no {name}, expected a folder with a saved MPS")
    kind = read_json(config).get("model_type")
    if kind != "mps":
        raise CheckpointError(f"{config}: model_type is {kind!r}, expected 'mps'")
    weights = folder / "model.safetensors"
    return _assemble(weights, tokenizer or folder, architecture or config, read_json(folder / CARD))


def _assemble(path: Path, words: Path, given: Path | None, card: Mapping[str, Any]) -> Mps:
    """Put weights, tokens and preparation together: those of the card, else the official ones.

    Official are transformers' clean-up, padding with the end token, and its CLIP preparation.
    """
    weights = read_weights(path)
    towers, fusion = (
        {name.removeprefix(prefix): weights[name] for name in weights if name.startswith(prefix)}
        for prefix in _PREFIXES
    )
    if odd := [name for name in weights if not name.startswith(_PREFIXES)]:
        raise CheckpointError(f"{path}: {len(odd)} tensors that MPS does not have: {some(odd)}")
    config, sizes = read_architecture(towers, fusion, path, given)
    tokens = card.get("tokens", {})
    reader = read_tokenizer(
        words,
        vocabulary_size=config.text_config.vocab_size,
        context=tokens.get("context", config.text_config.max_position_embeddings),
        pad=tokens.get("pad", "end"),
        clean=tokens.get("clean", "transformers"),
    )
    text = replace(config.text_config, bos_token_id=reader.start, pad_token_id=reader.pad)
    config = replace(config, text_config=text)
    size = config.vision_config.image_size
    preparation = preparation_from(card.get("preparation", {"size": size}), str(path.parent / CARD))
    if preparation.size != size:
        raise CheckpointError(
            f"{path}: the weights take images of {size} pixels, "
            f"but the preparation makes {preparation.size}"
        )
    clip = Clip(build_model(config, towers, path), reader, preparation)
    question = read_question(card, path.parent / CARD)
    return Mps(clip, build_cross(fusion, sizes, path), card, *question)


def read_architecture(
    towers: Weights, fusion: Weights, where: Path, given: Path | None = None
) -> tuple[ClipConfig, CrossSizes]:
    """Read what an MPS is built like: sizes from its weights, heads and activation from a file.

    ``towers`` and ``fusion`` are the weights without their prefixes. ``given`` is spelled like a
    transformers configuration, with ``cross_model`` beside the towers; other entries of such a file
    do not matter here.
    """
    dim, vision, text = _measure(towers, where)
    said = read_json(given) if given is not None else {}
    source = given or where
    cross = cross_sizes(fusion, where, _section(said, "cross_model", source), source)
    if cross.dim != dim:
        raise CheckpointError(
            f"{where}: the towers project to {dim} numbers, but the cross model takes {cross.dim}"
        )
    _agree({"projection_dim": dim}, said, "", where, source)
    key = (
        *(vision["hidden_size"], vision["num_hidden_layers"], vision["patch_size"]),
        *(text["hidden_size"], text["num_hidden_layers"], dim),
    )
    base, *heads = PUBLISHED.get(key, ("", 0, 0))
    configs: dict[str, dict[str, Any]] = {}
    for name, sizes, own in zip(
        ("vision_config", "text_config"), (vision, text), heads, strict=True
    ):
        known: dict[str, Any] = {}
        if base == _BASE:
            known = {"num_attention_heads": own, "hidden_act": "gelu"}
        told = _section(said, name, source)
        _agree(sizes, told, f"{name}.", where, source)
        configs[name] = sizes | _untold(known | dict(told), sizes["hidden_size"], name, source)
    # 2 is transformers' old way to say that a prompt's feature stands at its largest token number; the other
    # tokens are set once their numbers are known
    ends: dict[str, Any] = {"bos_token_id": None, "pad_token_id": None, "eos_token_id": 2}
    vision_config = VisionConfig(**configs["vision_config"], projection_dim=dim)
    text_config = TextConfig(**configs["text_config"], **ends, projection_dim=dim)
    towers_config = ClipConfig(
        text_config=text_config, vision_config=vision_config, projection_dim=dim
    )
    return towers_config, cross


def _measure(weights: Weights, where: Path) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Read the sizes of two towers, in transformers' spelling, from the shapes of their weights."""

    def shape(name: str, axes: int) -> tuple[int, ...]:
        if name not in weights or weights[name].ndim != axes:
            raise CheckpointError(
                f"{where}: not an MPS checkpoint, 'model.{name}' is missing or misshapen"
            )
        return tuple(weights[name].shape)

    def tower(name: str) -> dict[str, Any]:
        prefix = f"{name}.encoder.layers."
        hidden, width = shape(f"{prefix}0.mlp.fc1.weight", 2)
        layers = {name.split(".")[3] for name in weights if name.startswith(prefix)}
        return {
            "hidden_size": width,
            "intermediate_size": hidden,
            "num_hidden_layers": len(layers),
        }

    patch = shape("vision_model.embeddings.patch_embedding.weight", 4)[2]
    places = shape("vision_model.embeddings.position_embedding.weight", 2)[0]
    vision = {"patch_size": patch, "image_size": patch * round((places - 1) ** 0.5)}
    text = {
        "vocab_size": shape("text_model.embeddings.token_embedding.weight", 2)[0],
        "max_position_embeddings": shape("text_model.embeddings.position_embedding.weight", 2)[0],
    }
    dim = shape("text_projection.weight", 2)[0]
    return dim, tower("vision_model") | vision, tower("text_model") | text


def _section(said: Mapping[str, Any], name: str, source: Path) -> Mapping[str, Any]:
    """Give one part of an architecture file, empty if the file does not have it."""
    section = said.get(name, {})
    if not isinstance(section, dict):
        raise CheckpointError(f"{source}: {name} is {section!r}, expected an object")
    return section


def _agree(
    found: Mapping[str, int], told: Mapping[str, Any], prefix: str, where: Path, source: Path
) -> None:
    """Refuse a size that the file says otherwise than the weights."""
    for name, size in found.items():
        if told.get(name, size) != size:
            raise CheckpointError(
                f"{source}: {prefix}{name} is {told[name]!r}, but {where} has {size}"
            )


def _untold(told: Mapping[str, Any], width: int, name: str, source: Path) -> dict[str, Any]:
    """Take what the shapes of weights do not tell: heads and activation."""
    if missing := [entry for entry in _UNTOLD if entry not in told]:
        raise CheckpointError(
            f"{source}: {name}.{missing[0]} is not said and cannot be read from weights of this "
            "size, expected it in an architecture file"
        )
    heads, activation = (told[entry] for entry in _UNTOLD)
    if type(heads) is not int or heads < 1 or width % heads:
        raise CheckpointError(
            f"{source}: {name}.num_attention_heads is {heads!r}, which does not divide {width}"
        )
    if activation not in {"gelu", "quick_gelu"}:
        raise CheckpointError(
            f"{source}: {name}.hidden_act is {activation!r}, expected 'gelu' or 'quick_gelu'"
        )
    return {entry: told[entry] for entry in _UNTOLD}
