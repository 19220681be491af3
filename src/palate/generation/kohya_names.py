"""The names of layers in kohya's form of a LoRA file, which writes every dot of a name as an underscore.

The UNet of SDXL has two sets of names there: those of diffusers, and those of the code that SDXL came with
(``input_blocks_4_1_…``), which sd-scripts writes. Both are read; those of diffusers are written, which every reader
knows for SD as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

KOHYA_PARTS: Final = {
    "unet": "unet",
    "te": "text_encoder",
    "te1": "text_encoder",
    "te2": "text_encoder_2",
}
"""Parts of a pipeline by the word for them: with two text models they are numbered."""

TRANSFORMER_BLOCKS: Final = re.compile(
    r"(joint|double|single)\.blocks|(single\.)?transformer_blocks|transformer\.blocks"
)
"""How the names of a transformer's layers begin once they have dots; those of a UNet never do."""

# the words that had an underscore before
_WORDS: Final = re.compile(
    r"(?:down|up|transformer)_blocks|mid_block|to_(?:q|k|v|out)|proj_(?:in|out)|conv_(?:in|out|shortcut)"
    r"|(?:time|add)_embedding|time_emb_proj|linear_[12]|text_(?:model|projection)|self_attn"
    r"|(?:q|k|v|out)_proj|[a-z0-9]+"
)
_BLOCK: Final = re.compile(r"(input|output)_blocks_(\d+)_(\d+)_(.+)|middle_block_(\d)_(.+)")
_EDGES: Final = {
    "input_blocks_0_0": "conv_in",
    "out_2": "conv_out",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}
_INSIDE: Final = {
    "in_layers_2": "conv1",
    "emb_layers_1": "time_emb_proj",
    "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}
_PER_LEVEL = 3  # two layers, and a place for the change of size


def dotted_name(layer: str) -> str:
    """Give a layer's name in diffusers from what stands between its part and its ending.

    >>> dotted_name("mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0")
    'mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0'
    >>> dotted_name("input_blocks_4_1_transformer_blocks_0_attn1_to_q")
    'down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q'
    """
    return ".".join(_WORDS.findall(_in_diffusers_words(layer)))


def _in_diffusers_words(layer: str) -> str:
    """Translate a name of the original code's blocks; other names stay.

    As ``diffusers.loaders.lora_conversion_utils._maybe_map_sgm_blocks_to_diffusers`` has it, for a UNet of two
    layers on each level.
    """
    if layer in _EDGES:
        return _EDGES[layer]
    match = _BLOCK.fullmatch(layer)
    if match is None:
        return layer
    side, number, place, inside, middle, in_middle = match.groups()
    if middle is not None:
        block = {"0": "resnets_0", "1": "attentions_0", "2": "resnets_1"}.get(middle, "none")
        return f"mid_block_{block}_{_INSIDE.get(in_middle, in_middle)}"
    level, index = divmod(int(number) - (side == "input"), _PER_LEVEL)
    if inside == "op":
        return f"down_blocks_{level}_downsamplers_0_conv"
    head = f"{'down' if side == 'input' else 'up'}_blocks_{level}"
    if inside == "conv":
        return f"{head}_upsamplers_0_conv"
    kind = "resnets" if place == "0" else "attentions"
    return f"{head}_{kind}_{index}_{_INSIDE.get(inside, inside)}"


def kohya_names(layers: Iterable[str]) -> dict[str, str]:
    """Give the name of each layer of an adapter, without its ending.

    >>> kohya_names(["unet.mid_block.attentions.0.proj_in"])
    {'unet.mid_block.attentions.0.proj_in': 'lora_unet_mid_block_attentions_0_proj_in'}
    """
    listed = list(layers)
    words = {part: word for word, part in reversed(KOHYA_PARTS.items())}
    words |= {"text_encoder": "te1" if any(map(_is_sdxl, listed)) else "te"}
    names = {}
    for name in listed:
        part, _, layer = name.partition(".")
        names[name] = f"lora_{words[part]}_{layer.replace('.', '_')}"
    return names


def _is_sdxl(layer: str) -> bool:
    """Tell whether only SDXL has a layer: its second text model, or a second transformer block in a row."""
    return layer.startswith("text_encoder_2.") or bool(
        re.search(r"\.transformer_blocks\.[1-9]", layer)
    )
