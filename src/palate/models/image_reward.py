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
from palate.models.image_reward_parts import (
    TEXT_SIZES,
    VISION_SIZES,
    add_architecture,
    add_med_config,
    checked,
    fill,
    lay_out,
    measure,
    official_name,
)
from palate.models.pixels import Preparation, preparation_dict, preparation_from
from palate.models.word_pieces import WordPieces, read_word_pieces
from palate.runs import atomic_path, write_atomic

if TYPE_CHECKING:
    from transformers import BlipTextModel, BlipVisionModel

# THUDM/ImageReward `ImageReward.__init__`.
MEAN, STD = 0.16717362830052426, 1.0333394966054072
# BLIP's projections to its contrastive space: in every official file, without a part in the score.
_PROJECTION = 256
_POSITIONS = "blip.text_encoder.embeddings.position_ids"


@dataclass(frozen=True)
class ImageReward:
    """An image tower, a text encoder that attends to its patches, and an affine head.

    The reward is what the official code calls so: the head's output less ``mean``, divided by
    ``std``; higher is better. ``about`` says what a saved folder says of itself. The image tower can
    be run in parts, so that what is frozen in a training need be computed only once.
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
        return self.image_rest(self.image_stem(pixels), 0)

    def image_stem(
        self, pixels: Float[Tensor, "images 3 size size"]
    ) -> Float[Tensor, "images patches width"]:
        """Embed the patches of prepared pixels."""
        hidden: Tensor = self.vision.embeddings(pixels)
        return hidden

    def image_blocks(
        self, hidden: Float[Tensor, "images patches width"], first: int = 0, last: int | None = None
    ) -> Float[Tensor, "images patches width"]:
        """Run blocks ``first`` up to but not including ``last`` of the image tower."""
        for block in self.vision.encoder.layers[first:last]:
            hidden = block(hidden)
        return hidden

    def image_rest(
        self, hidden: Float[Tensor, "images patches width"], first: int
    ) -> Float[Tensor, "images patches width"]:
        """Run the blocks from ``first`` on, and the last norm."""
        states: Tensor = self.vision.post_layernorm(self.image_blocks(hidden, first))
        return states

    def reward(
        self,
        states: Float[Tensor, "images patches width"],
        ids: Int[Tensor, "images context"],
        mask: Int[Tensor, "images context"],
    ) -> Float[Tensor, " images"]:
        """Give the standardised reward of each image for the prompt at the same place."""
        return (self.raw_reward(states, ids, mask) - self.mean) / self.std

    def raw_reward(
        self,
        states: Float[Tensor, "images patches width"],
        ids: Int[Tensor, "images context"],
        mask: Int[Tensor, "images context"],
    ) -> Float[Tensor, " images"]:
        """Give the head's output for each image and the prompt at the same place, which training compares.

        As in the official code every patch is attended to, padded positions are not, and the
        feature is the state of the first token: ``[CLS]``, for BLIP's ``[ENC]`` is not put there.
        """
        if len(states) == 0:  # transformers cannot split nothing into heads
            return states.sum((1, 2))
        # No mask for the patches: the official one is all ones.
        encoded = self.text(input_ids=ids, attention_mask=mask, encoder_hidden_states=states)
        feature = encoded.last_hidden_state[:, 0]
        # As officially the head is computed in full, whatever autocast makes of the towers.
        with torch.autocast(feature.device.type, enabled=False):
            raw: Tensor = self.head(feature.to(next(self.head.parameters()).dtype))
        return raw[:, 0]

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
        model = from_official(read_weights(path), path, tokenizer, architecture)
    else:
        raise CheckpointError(f"{path}: no such weights file or folder")
    _parts(model).to(device)
    return model


def holds_image_reward(folder: Path) -> bool:
    """Say whether a folder calls itself an ImageReward."""
    config = folder / "config.json"
    return config.is_file() and read_json(config).get("model_type") == "image-reward"


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


def from_official(
    weights: Weights, path: Path, tokenizer: Path | None, architecture: Path | None
) -> ImageReward:
    """Build an ImageReward from tensors with the official names; ``path`` is the file they come from."""
    weights.pop(_POSITIONS, None)  # 0 to 511; transformers makes them itself
    vision, text = measure(weights, path)
    beside = path.parent / "architecture.json"
    given = architecture or (beside if beside.is_file() else None)
    said = read_json(given) if given is not None else {}
    vision = add_architecture(vision, text, said, given or path)
    text = add_med_config(text, path)
    words = read_word_pieces(tokenizer or path.parent, vocabulary_size=text["vocab_size"])
    parts = lay_out(vision, text)
    theirs = {name: official_name(name) for name in parts.state_dict()}
    expected = {theirs[name]: value.shape for name, value in parts.state_dict().items()}
    for name, width in (("vision", vision["hidden_size"]), ("text", text["hidden_size"])):
        expected[f"blip.{name}_proj.weight"] = torch.Size([_PROJECTION, width])
        expected[f"blip.{name}_proj.bias"] = torch.Size([_PROJECTION])
    check_names(weights, expected, path)
    filled = fill(parts, {name: weights[official] for name, official in theirs.items()})
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
    vision = checked(raw.get("vision_config"), VISION_SIZES, where)
    text = checked(raw.get("text_config"), TEXT_SIZES, where)
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
    weights, parts = read_weights(path), lay_out(vision, text)
    check_names(weights, {name: value.shape for name, value in parts.state_dict().items()}, path)
    standard = _standard(card, folder / CARD)
    return ImageReward(*fill(parts, weights), words, preparation, *standard, card)


def _standard(said: Mapping[str, Any], where: Path) -> tuple[float, float]:
    """Read the mean and the deviation of the reward; the official ones where none are given."""
    mean, std = said.get("mean", MEAN), said.get("std", STD)
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in (mean, std))
    if not numbers or std <= 0:
        raise CheckpointError(
            f"{where}: mean is {mean!r} and std is {std!r}, expected a number and a positive number"
        )
    return float(mean), float(std)


def _parts(model: ImageReward) -> nn.ModuleDict:
    """Give the three parts under the names that a saved folder has."""
    return nn.ModuleDict({"vision": model.vision, "text": model.text, "head": model.head})


def _config(model: ImageReward) -> dict[str, Any]:
    """Give the sizes of both towers in transformers' spelling."""
    vision, text = model.vision.config, model.text.config
    return {
        "model_type": "image-reward",
        "architectures": ["ImageReward"],
        "vision_config": {name: getattr(vision, name) for name in VISION_SIZES},
        "text_config": {name: getattr(text, name) for name in TEXT_SIZES},
    }
