"""ImageReward: a BLIP that reads the prompt while it looks at the image, and five affine maps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn

from palate.errors import CheckpointError
from palate.models.checkpoint import Weights, check_names, read_json, read_weights
from palate.models.clip_files import CARD, pretty_json
from palate.models.hashes import hash_weights
from palate.models.pixels import Preparation, preparation_dict, preparation_from
from palate.models.word_pieces import WordPieces, read_word_pieces
from palate.runs import atomic_path, write_atomic

if TYPE_CHECKING:
    from transformers import BlipTextModel, BlipVisionModel

_Sizes = dict[str, Any]

# THUDM/ImageReward `ImageReward.__init__`.
MEAN, STD = 0.16717362830052426, 1.0333394966054072
# (width, layers) to heads: the ViT-L of BLIP's `create_vit`, and BERT base.
_HEADS = {(1024, 24): 16, (768, 12): 12}
_TOWER = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_VISION_SIZES = (*_TOWER, "image_size", "patch_size")
_TEXT_SIZES = (*_TOWER, "vocab_size", "encoder_hidden_size", "max_position_embeddings")
# What is the same in every ImageReward: timm's epsilon in the image tower, BERT's in the encoder.
_VISION = {"hidden_act": "gelu", "layer_norm_eps": 1e-6}
_TEXT = {"hidden_act": "gelu", "layer_norm_eps": 1e-12}
# BLIP's projections to its contrastive space: in every official file, without a part in the score.
_PROJECTION = 256
_POSITIONS = "blip.text_encoder.embeddings.position_ids"
# From our names to the official ones, one replacement after the other.
_NAMES = (
    ("vision.embeddings.class_embedding", "blip.visual_encoder.cls_token"),
    ("vision.embeddings.position_embedding", "blip.visual_encoder.pos_embed"),
    ("vision.embeddings.patch_embedding", "blip.visual_encoder.patch_embed.proj"),
    ("vision.encoder.layers.", "blip.visual_encoder.blocks."),
    ("vision.post_layernorm", "blip.visual_encoder.norm"),
    (".layer_norm", ".norm"),
    (".self_attn.qkv", ".attn.qkv"),
    (".self_attn.projection", ".attn.proj"),
    ("text.", "blip.text_encoder."),
    ("head.", "mlp.layers."),
)


@dataclass(frozen=True)
class ImageReward:
    """An image tower, a text encoder that attends to its patches, and an affine head.

    The reward is what the official code calls so: the head's output less ``mean``, divided by
    ``std``; higher is better. ``about`` says what a saved folder says of itself.
    """

    vision: BlipVisionModel
    text: BlipTextModel
    head: nn.Sequential
    tokenizer: WordPieces
    preparation: Preparation
    mean: float = MEAN
    std: float = STD
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return next(self.head.parameters()).device

    def image_states(
        self, pixels: Float[Tensor, "images 3 size size"]
    ) -> Float[Tensor, "images patches width"]:
        """Give the states of the class token and the patches, after the last norm."""
        states: Tensor = self.vision(pixel_values=pixels).last_hidden_state
        return states

    def reward(
        self,
        states: Float[Tensor, "images patches width"],
        ids: Int[Tensor, "images context"],
        mask: Int[Tensor, "images context"],
    ) -> Float[Tensor, " images"]:
        """Give the standardised reward of each image for the prompt at the same place.

        As in the official code every patch is attended to, padded positions are not, and the
        feature is the state of the first token: ``[CLS]``, for BLIP's ``[ENC]`` is not put there.
        """
        if len(states) == 0:  # transformers cannot split nothing into heads
            return states.sum((1, 2))
        # No mask for the patches: the official one is all ones.
        encoded = self.text(input_ids=ids, attention_mask=mask, encoder_hidden_states=states)
        raw: Tensor = self.head(encoded.last_hidden_state[:, 0])
        return (raw[:, 0] - self.mean) / self.std

    def fingerprint(self) -> str:
        """Give 16 hexadecimal digits that change with any weight, the tokens or the preparation.

        The same function has the same fingerprint in whatever file it was stored, as long as its
        float32 values are the same.
        """
        facts = _config(self) | {
            "preparation": preparation_dict(self.preparation),
            "context": self.tokenizer.context,
            "pieces": self.tokenizer.pieces,
            "standard": [self.mean, self.std],
        }
        return hash_weights(facts, _parts(self))


def load_image_reward(
    path: Path,
    *,
    tokenizer: Path | None = None,
    architecture: Path | None = None,
    device: str = "cpu",
) -> ImageReward:
    """Load an ImageReward from a saved folder or from the official file, in float32.

    The official file is ``ImageReward.pt`` of THUDM/ImageReward. Its vocabulary (``tokenizer``:
    ``vocab.txt`` of bert-base-uncased, or a folder with it) is looked for beside it if it is not
    given. The weights do not tell how many attention heads they have: the text encoder's stand in
    ``med_config.json`` beside the weights, the image tower's in ``architecture`` (``vit.num_heads``;
    ``architecture.json`` beside the weights if not given), and the official sizes are known. A
    folder says all of this itself. Nothing is fetched and nothing from the file is run. Raises
    CheckpointError.
    """
    if path.is_dir():
        model = _load_folder(path, tokenizer)
    elif path.is_file():
        model = _load_official(path, tokenizer, architecture)
    else:
        raise CheckpointError(f"{path}: no such weights file or folder")
    _parts(model).to(device)
    return model


def save_image_reward(
    model: ImageReward, folder: Path, *, half: bool = False, **about: object
) -> None:
    """Write an ImageReward as a folder that Palate loads.

    ``half`` stores the weights in 16 bits. ``about`` is added to what the folder says of itself in ``palate.json``, which is written last:
    a folder with it is complete. Files that are already there are replaced one by one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    precision = torch.float16 if half else torch.float32
    weights = {
        name: value.detach().to("cpu", precision).contiguous()
        for name, value in _parts(model).state_dict().items()
    }
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    for name, text in (
        {"config.json": pretty_json(_config(model))} | model.tokenizer.files()
    ).items():
        write_atomic(folder / name, text)
    card = dict(model.about) | {
        "format": 1,
        "kind": "image-reward",
        "preparation": preparation_dict(model.preparation),
        "tokens": {"context": model.tokenizer.context},
        "mean": model.mean,
        "std": model.std,
    }
    write_atomic(folder / CARD, pretty_json(card | about))


def _load_official(path: Path, tokenizer: Path | None, architecture: Path | None) -> ImageReward:
    """Load a file with the official names."""
    weights = read_weights(path)
    weights.pop(_POSITIONS, None)  # 0 to 511; transformers makes them itself
    vision, text = _measure(weights, path)
    beside = path.parent / "architecture.json"
    given = architecture or (beside if beside.is_file() else None)
    said = read_json(given) if given is not None else {}
    vision = _add_architecture(vision, text, said, given or path)
    text = _add_med_config(text, path)
    words = read_word_pieces(tokenizer or path.parent, vocabulary_size=text["vocab_size"])
    parts = _lay_out(vision, text)
    theirs = {name: _official(name) for name in parts.state_dict()}
    expected = {theirs[name]: value.shape for name, value in parts.state_dict().items()}
    for name, width in (("vision", vision["hidden_size"]), ("text", text["hidden_size"])):
        expected[f"blip.{name}_proj.weight"] = torch.Size([_PROJECTION, width])
        expected[f"blip.{name}_proj.bias"] = torch.Size([_PROJECTION])
    check_names(weights, expected, path)
    filled = _fill(parts, {name: weights[official] for name, official in theirs.items()})
    preparation = Preparation(size=vision["image_size"], convert="after")
    return ImageReward(*filled, words, preparation, *_standard(said, given or path))


def _load_folder(folder: Path, tokenizer: Path | None) -> ImageReward:
    """Load a folder that :func:`save_image_reward` wrote."""
    for name in ("config.json", CARD):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: no {name}, expected a saved ImageReward")
    where = folder / "config.json"
    raw, card = read_json(where), read_json(folder / CARD)
    if (kind := raw.get("model_type")) != "image-reward":
        raise CheckpointError(f"{where}: model_type is {kind!r}, expected 'image-reward'")
    vision = _checked(raw.get("vision_config"), _VISION_SIZES, where)
    text = _checked(raw.get("text_config"), _TEXT_SIZES, where)
    preparation = preparation_from(card.get("preparation", {}), str(folder / CARD))
    if preparation.size != vision["image_size"]:
        raise CheckpointError(
            f"{folder}: the weights take images of {vision['image_size']} pixels, "
            f"but the preparation makes {preparation.size}"
        )
    words = read_word_pieces(
        tokenizer or folder,
        context=card.get("tokens", {}).get("context", 35),
        vocabulary_size=text["vocab_size"],
    )
    path = folder / "model.safetensors"
    weights, parts = read_weights(path), _lay_out(vision, text)
    check_names(weights, {name: value.shape for name, value in parts.state_dict().items()}, path)
    standard = _standard(card, folder / CARD)
    return ImageReward(*_fill(parts, weights), words, preparation, *standard, card)


def _measure(weights: Weights, where: Path) -> tuple[_Sizes, _Sizes]:
    """Read what the shapes of officially named weights tell of the image tower and the text encoder."""

    def shape(name: str, axes: int) -> tuple[int, ...]:
        if name not in weights or weights[name].ndim != axes:
            raise CheckpointError(
                f"{where}: not an ImageReward in the official format, '{name}' is missing or misshapen"
            )
        return tuple(weights[name].shape)

    def count(prefix: str) -> int:
        return len({name[len(prefix) :].split(".")[0] for name in weights if prefix in name})

    blocks, layers = "blip.visual_encoder.blocks.", "blip.text_encoder.encoder.layer."
    embeddings = "blip.text_encoder.embeddings."
    width, _, patch, _ = shape("blip.visual_encoder.patch_embed.proj.weight", 4)
    grid = math.isqrt(max(shape("blip.visual_encoder.pos_embed", 3)[1] - 1, 0))
    vocabulary, text_width = shape(f"{embeddings}word_embeddings.weight", 2)
    depth, text_depth = count(blocks), count(layers)
    vision = {
        "hidden_size": width,
        "intermediate_size": shape(f"{blocks}0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": depth,
        "num_attention_heads": _HEADS.get((width, depth)),
        "image_size": grid * patch,
        "patch_size": patch,
    }
    text = {
        "hidden_size": text_width,
        "intermediate_size": shape(f"{layers}0.intermediate.dense.weight", 2)[0],
        "num_hidden_layers": text_depth,
        "num_attention_heads": _HEADS.get((text_width, text_depth)),
        "vocab_size": vocabulary,
        "encoder_hidden_size": width,
        "max_position_embeddings": shape(f"{embeddings}position_embeddings.weight", 2)[0],
    }
    return vision, text


def _add_architecture(vision: _Sizes, text: _Sizes, said: Mapping[str, Any], where: Path) -> _Sizes:
    """Take the image tower's heads from an architecture file; all its sizes must agree with the weights."""
    tower = said.get("vit", {})
    if not isinstance(tower, dict):
        raise CheckpointError(f"{where}: vit is {tower!r}, expected an object")
    flat = {f"vit.{name}": value for name, value in tower.items()}
    flat |= {name: value for name, value in said.items() if name != "vit"}
    sizes = {
        "vit.embed_dim": vision["hidden_size"],
        "vit.depth": vision["num_hidden_layers"],
        "vit.patch_size": vision["patch_size"],
        "vit.img_size": vision["image_size"],
        "mlp_input": text["hidden_size"],
    }
    known = {*sizes, "vit.num_heads", "mean", "std"}
    if unknown := sorted(set(flat) - known):
        raise CheckpointError(f"{where}: unknown entry '{unknown[0]}', expected {sorted(known)}")
    _agree(flat, sizes, where)
    heads = flat.get("vit.num_heads", vision["num_attention_heads"])
    return _checked({**vision, "num_attention_heads": heads}, _VISION_SIZES, where)


def _add_med_config(text: _Sizes, where: Path) -> _Sizes:
    """Take the text encoder's heads from ``med_config.json`` beside the weights.

    The official code replaces the file's ``encoder_width`` by the width of the image tower, and so
    it is not looked at; the other sizes must agree with the weights.
    """
    path = where.parent / "med_config.json"
    said = read_json(path) if path.is_file() else {}
    own = {"encoder_hidden_size", "num_attention_heads"}
    sizes = {name: size for name, size in text.items() if name not in own}
    _agree(said, sizes | _TEXT, path)
    heads = said.get("num_attention_heads", text["num_attention_heads"])
    return _checked({**text, "num_attention_heads": heads}, _TEXT_SIZES, path if said else where)


def _agree(said: Mapping[str, Any], sizes: _Sizes, where: Path) -> None:
    """Refuse a file that says something else than the weights."""
    for name, size in sizes.items():
        if said.get(name, size) != size:
            raise CheckpointError(f"{where}: {name} is {said[name]}, but the weights have {size}")


def _checked(said: Any, names: tuple[str, ...], where: Path) -> _Sizes:
    """Refuse sizes of which one is missing, unknown or impossible."""
    if not isinstance(said, Mapping) or set(said) != set(names):
        found = sorted(said) if isinstance(said, Mapping) else said
        raise CheckpointError(f"{where}: found the sizes {found}, expected {sorted(names)}")
    if said["num_attention_heads"] is None:
        raise CheckpointError(
            f"{where}: the weights do not say how many attention heads they have; expected "
            "vit.num_heads in an architecture file, num_attention_heads in med_config.json beside them"
        )
    for name in names:
        if type(said[name]) is not int or said[name] < 1:
            raise CheckpointError(f"{where}: {name} is {said[name]!r}, expected a positive integer")
    width, heads = said["hidden_size"], said["num_attention_heads"]
    if width % heads:
        raise CheckpointError(f"{where}: {heads} attention heads do not divide the width {width}")
    return dict(said)


def _standard(said: Mapping[str, Any], where: Path) -> tuple[float, float]:
    """Read the mean and the deviation of the reward; the official ones where none are given."""
    mean, std = said.get("mean", MEAN), said.get("std", STD)
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in (mean, std))
    if not numbers or std <= 0:
        raise CheckpointError(
            f"{where}: mean is {mean!r} and std is {std!r}, expected a number and a positive number"
        )
    return float(mean), float(std)


def _lay_out(vision: _Sizes, text: _Sizes) -> nn.ModuleDict:
    """Build the three parts without memory, so that no random numbers are drawn."""
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    width = text["hidden_size"]
    nothing = {"bos_token_id": None, "eos_token_id": None}  # no text is generated
    with torch.device("meta"):
        vision_model = BlipVisionModel(BlipVisionConfig(**vision, **_VISION))
        text_config = BlipTextConfig(**text, **_TEXT, **nothing)
        text_model = BlipTextModel(text_config, add_pooling_layer=False)
        # Five affine maps with nothing between them but dropout, which only acts in training.
        head = nn.Sequential(
            *(nn.Linear(width, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2)),
            *(nn.Linear(128, 64), nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1)),
        )
    return nn.ModuleDict({"vision": vision_model, "text": text_model, "head": head})


def _fill(parts: nn.ModuleDict, weights: Weights) -> tuple[Any, Any, Any]:
    """Give laid-out parts their weights, in float32 and evaluation mode, and give them one by one."""
    parts.to_empty(device="cpu")
    # `to_empty` leaves a buffer that is not saved undefined; there is this one.
    embeddings: Any = parts["text"].embeddings
    positions = embeddings.position_ids.shape[-1]
    embeddings.position_ids = torch.arange(positions).expand(1, -1).clone()
    parts.load_state_dict({name: value.to(torch.float32) for name, value in weights.items()})
    parts.requires_grad_(requires_grad=False).eval()
    return parts["vision"], parts["text"], parts["head"]


def _official(name: str) -> str:
    """Give the official name of a tensor of ours."""
    for ours, theirs in _NAMES:
        name = name.replace(ours, theirs)
    return name


def _parts(model: ImageReward) -> nn.ModuleDict:
    """Give the three parts under the names that a saved folder has."""
    return nn.ModuleDict({"vision": model.vision, "text": model.text, "head": model.head})


def _config(model: ImageReward) -> dict[str, Any]:
    """Give the sizes of both towers in transformers' spelling."""
    vision, text = model.vision.config, model.text.config
    return {
        "model_type": "image-reward",
        "architectures": ["ImageReward"],
        "vision_config": {name: getattr(vision, name) for name in _VISION_SIZES},
        "text_config": {name: getattr(text, name) for name in _TEXT_SIZES},
    }
