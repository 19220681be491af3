"""An MPS that learns: the last layers of both towers, all of the cross model, and the scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from palate.data.tables import Dataset
from palate.errors import SettingsError
from palate.models.clip import Clip, encode_prompts
from palate.models.clip_files import CARD, load_clip
from palate.models.cross_attention import CrossSizes, new_cross
from palate.models.mps import Mps, holds_mps, load_mps, save_mps
from palate.models.mps_condition import CONDITIONS, Among, Masking, Pooling, tokens_kept
from palate.models.once import reading_once
from palate.models.pixels import normalise
from palate.training.batches import Batch, Groups
from palate.training.learners.learner import Change, Learner, Trained, open_pictures, shown_in
from palate.training.learners.towers import LARGEST_SCALE, unfreeze
from palate.training.states import StateBank
from palate.training.stores import Shelf

_LAYERS, _HEADS, _FORWARD = 4, 16, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MpsSettings:
    """What only an MPS has.

    ``pooling``, ``threshold`` and ``tokens`` say how a condition picks the tokens of a prompt
    (:class:`palate.models.mps_condition.Masking`); what is not given is the base's own, or official for a new
    cross model. ``layers`` and ``heads`` are those of a new cross model (official: 4, and 16 of 64 channels on 1,024);
    its feed-forward is 4 times as wide as a token, as officially. ``conditions`` are the words of a dimension,
    for those that have none or other ones than the base.
    """

    pooling: Pooling | None = None
    threshold: float | None = None
    tokens: Among | None = None
    layers: int | None = None
    heads: int | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a threshold that no token could pass."""
        self.masking(None)

    def masking(self, own: Masking | None) -> Masking:
        """Put what is given over the base's own masking. Raises SettingsError for a threshold of 1 or more."""
        own = own or Masking()
        return Masking(
            pooling=self.pooling or own.pooling,
            threshold=own.threshold if self.threshold is None else self.threshold,
            tokens=self.tokens or own.tokens,
        )

    def words(self, dimensions: Sequence[str], own: Mapping[str, str]) -> dict[str, str]:
        """Give the condition of each dimension. Raises SettingsError for a dimension without, and for one too many."""
        known = {**CONDITIONS, **own, **self.conditions}
        for name in dimensions:
            if not known.get(name, "").strip():
                raise SettingsError(
                    f"dimension '{name}' has no words for MPS to read, expected them as mps.conditions.{name}"
                )
        for name in self.conditions:
            if name not in dimensions:
                raise SettingsError(
                    f"mps.conditions.{name} is not trained, expected one of {', '.join(dimensions)}"
                )
        return {name: known[name] for name in dimensions}


AS_THE_BASE = MpsSettings()


@dataclass(frozen=True, slots=True)
class MpsMaterial:
    """The images and prompts of a data set as the towers take them; the conditions stand behind the prompts.

    ``asked`` is the place of each dimension's condition.
    """

    images: StateBank
    texts: StateBank
    ids: Int[Tensor, "texts context"]
    asked: Int[Tensor, " dimensions"]

    @property
    def cached(self) -> bool:
        """Whether the frozen blocks of the image tower ran once for all."""
        return self.images.kept is not None


class MpsLearner(Learner):
    """Scores by exp(logit scale) times the cosine of the fused class token and the prompt's end, as MPS does.

    Each choice is judged under the condition of its own dimension. The mask, which is no smooth function of
    anything, has no gradient; it moves with the text tower where that is trained. The scale is kept at 100
    or below, as in CLIP's training. The final norm of the image tower has no part in an MPS and is never trained.
    """

    unit = "logit"

    def __init__(
        self,
        mps: Mps,
        how: Trained,
        dimensions: Sequence[str],
        settings: MpsSettings = AS_THE_BASE,
        *,
        logit_scale: float | None = None,
        train_logit_scale: bool = True,
    ) -> None:
        """Mark what is trained. Raises SettingsError as :func:`unfreeze` does, and for a dimension without words."""
        super().__init__()
        self.mps, self.model, self.cross = mps, mps.clip.model, mps.cross
        self.how, self.preparation = how, mps.clip.preparation
        self.masking = settings.masking(mps.masking)
        self.conditions = settings.words(dimensions, mps.conditions)
        self.model.checkpointing = how.checkpointing
        self.frozen = unfreeze(mps.clip, how)
        self.model.vision_model.post_layernorm.requires_grad_(requires_grad=False)
        self.cross.requires_grad_(requires_grad=True)
        self.model.logit_scale.requires_grad_(train_logit_scale)
        if logit_scale is not None:
            if logit_scale > LARGEST_SCALE:
                raise SettingsError(
                    f"logit_scale is {logit_scale:g}, expected up to 100, the limit of a CLIP"
                )
            with torch.no_grad():
                self.model.logit_scale.fill_(math.log(logit_scale))

    def open(
        self, dataset: Dataset, groups: Groups, shelf: Shelf, *, altered: bool, pad: bool = False
    ) -> MpsMaterial:
        """Open the images, and run the frozen blocks where their states are to be kept."""
        pictures = open_pictures(dataset, groups.keys, self.preparation, shelf, pad=pad)
        conditions = [self.conditions[name] for name in groups.dimensions]
        ids = encode_prompts(self.mps.clip, [*groups.prompts, *conditions])
        room = self.how.cache_bytes
        images = StateBank(
            "image-tokens",
            pictures,
            self._image_below,
            None if altered or self.frozen.image == 0 else shelf,
            room,
            label="frozen blocks",
        )
        kept = None if self.frozen.text == 0 else shelf
        texts = StateBank("text-tokens", ids, self._text_below, kept, room)
        asked = len(groups.prompts) + torch.arange(len(conditions))
        return MpsMaterial(images, texts, ids, asked)

    def forward(
        self, material: MpsMaterial, batch: Batch, change: Change | None = None
    ) -> Float[Tensor, "groups most"]:
        """Score the images of a batch; each image, prompt and condition is encoded once, and each question asked once."""
        shown, mask = shown_in(batch), batch.mask
        images = self._image_above(material.images.states(shown.images, change))
        words, ends = self._text_above(material, shown.prompts)
        columns = (shown.image, shown.prompt[:, None], batch.dimension[:, None])
        asked = torch.stack([column.expand_as(mask)[mask] for column in columns])
        asked, where = asked.unique(dim=1, return_inverse=True)
        image, prompt, dimension = asked.to(images.device)
        kept = self._kept(material, shown.prompts, words.detach(), prompt, dimension)
        fused = self.cross(images[image], words[prompt], kept)[:, 0]
        # in 16 bits a cosine of ¼ times 100 would move in steps of ⅛
        found = self.mps.compare(_wide(fused), _wide(ends[prompt]))
        scores = found.new_zeros(mask.shape)
        scores[mask.to(found.device)] = found[where.to(found.device)]
        return scores

    def after_step(self) -> None:
        """Keep the scale at 100 or below."""
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=math.log(LARGEST_SCALE))

    def scale(self) -> Tensor:
        """Give exp(logit scale)."""
        scale: Tensor = self.model.logit_scale.exp()
        return scale

    def save(self, folder: Path, **about: object) -> list[str]:
        """Write a folder that Palate loads: its card says the conditions that were trained, and the mask."""
        for part in (self.model, self.cross):
            part.requires_grad_(requires_grad=False)
        if about.get("dimension") not in self.conditions:
            about["dimension"] = next(iter(self.conditions))
        mps = replace(self.mps, about={}, conditions=self.conditions, masking=self.masking)
        save_mps(mps, folder, half=False, unit=self.unit, **about)
        return ["config.json", "model.safetensors", CARD]

    @torch.no_grad()
    def _kept(
        self,
        material: MpsMaterial,
        prompts: Int[Tensor, " prompts"],
        words: Float[Tensor, "prompts context dim"],
        prompt: Int[Tensor, " asked"],
        dimension: Int[Tensor, " asked"],
    ) -> Bool[Tensor, "asked context"]:
        """Say which tokens each question keeps, in 32 bits whatever the towers compute in."""
        clip, only_words = self.mps.clip, self.masking.tokens == "words"
        kept = torch.ones(len(prompt), words.shape[1], dtype=torch.bool, device=words.device)
        among = clip.words(material.ids[prompts.to(material.ids.device)]) if only_words else None
        places = dimension.unique()
        texts = material.asked[places.cpu()]
        conditions = _wide(self._text_above(material, texts)[0])
        in_words = clip.words(material.ids[texts.to(material.ids.device)])
        for place, asked, own in zip(places, conditions, in_words, strict=True):
            rows = dimension == place
            with torch.autocast(words.device.type, enabled=False):
                kept[rows] = tokens_kept(
                    _wide(words[prompt[rows]]),
                    asked[own if only_words else slice(None)].expand(int(rows.sum()), -1, -1),
                    self.masking,
                    None if among is None else among[prompt[rows]],
                )
        return kept

    def _image_below(self, pictures: Tensor) -> Tensor:
        """Run the frozen part of the image tower."""
        clip = self.mps.clip
        pixels = normalise(pictures.to(clip.device), clip.preparation)
        if self.frozen.image == 0:
            return pixels
        with torch.no_grad():
            return clip.image_blocks(clip.image_stem(pixels), 0, self._first_image)

    def _image_above(self, states: Tensor) -> Float[Tensor, "images tokens dim"]:
        """Run the rest of it; a frozen projection costs next to nothing and is not kept apart."""
        clip, states = self.mps.clip, states.to(self.device)
        if self.frozen.image == 0:
            states = clip.image_stem(states)
        return self.mps.project(clip.image_blocks(states, self._first_image))

    def _text_below(self, ids: Tensor) -> Tensor:
        """Run the frozen part of the text tower."""
        clip = self.mps.clip
        if self.frozen.text == 0:
            return ids
        with torch.no_grad():
            return clip.text_blocks(clip.text_stem(ids), 0, self._first_text)

    def _text_above(
        self, material: MpsMaterial, places: Int[Tensor, " texts"]
    ) -> tuple[Float[Tensor, "texts context dim"], Float[Tensor, "texts dim"]]:
        """Run the rest of it for some texts."""
        clip, states = self.mps.clip, material.texts.states(places).to(self.device)
        if self.frozen.text == 0:
            states = clip.text_stem(states)
        ids = material.ids[places.to(material.ids.device)]
        return self.mps.text_head(clip.text_blocks(states, self._first_text), ids)

    @property
    def _first_image(self) -> int:
        return _first(self.frozen.image, len(list(self.model.vision_model.encoder.layers)))

    @property
    def _first_text(self) -> int:
        return _first(self.frozen.text, len(list(self.model.text_model.encoder.layers)))


def load_mps_base(
    path: Path,
    settings: MpsSettings,
    seed: int,
    *,
    tokenizer: Path | None = None,
    architecture: Path | None = None,
    device: str = "cpu",
) -> Mps:
    """Read an MPS to go on with, or a CLIP that gets a new cross model with random weights.

    Raises CheckpointError as their readers do, and SettingsError for sizes that cannot be.
    """
    with reading_once():
        if holds_mps(path):
            mps = load_mps(path, tokenizer=tokenizer, architecture=architecture, device=device)
            sizes = mps.cross.sizes
            for name, has in (("layers", sizes.layer_num), ("heads", sizes.heads)):
                if (asked := getattr(settings, name)) not in {None, has}:
                    raise SettingsError(f"mps.{name} is {asked}, but {path} has {has}")
            return mps
        clip = load_clip(path, tokenizer=tokenizer, architecture=architecture, device=device)
    return new_mps(clip, settings, seed)


def new_mps(clip: Clip, settings: MpsSettings, seed: int) -> Mps:
    """Give a CLIP a cross model with random weights. Raises SettingsError for sizes that cannot be."""
    dim = clip.model.config.projection_dim
    layers = _LAYERS if settings.layers is None else settings.layers
    heads = _HEADS if settings.heads is None else settings.heads
    if layers < 1:
        raise SettingsError(f"mps.layers is {layers}, expected 1 or more")
    if heads < 1 or dim % (2 * heads):
        raise SettingsError(
            f"mps.heads is {heads}, expected heads of an even width on {dim} channels"
        )
    cross = new_cross(CrossSizes(dim, layers, heads, dim // heads, _FORWARD), seed)
    return Mps(clip, cross.to(clip.device))


def _wide(states: Tensor) -> Tensor:
    """Give states in 32 bits, if they had fewer."""
    return states.to(torch.promote_types(states.dtype, torch.float32))


def _first(frozen: int | None, blocks: int) -> int:
    """Give the first block that is run in every step."""
    return blocks if frozen is None else max(0, frozen - 1)
