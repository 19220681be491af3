"""A SigLIP small enough to build in a blink, with random weights: for tests and trials."""

from __future__ import annotations

import string

import torch
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import Unigram

from palate.models.pixels import Preparation
from palate.models.siglip import Siglip
from palate.models.siglip_tokens import SiglipTokenizer

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"


def tiny_siglip(
    seed: int = 0, *, size: int = 32, patch: int = 8, width: int = 32, layers: int = 2
) -> Siglip:
    """Build a SigLIP with random weights: its scores mean nothing, but every part is real.

    Images become ``size`` pixels square. Words are spelled in letters, in 24 positions. The same
    seed gives the same weights, and the caller's random numbers are left alone.
    """
    from transformers import SiglipConfig, SiglipModel

    tokenizer = _tokenizer()
    tower = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
    }
    text = {
        "vocab_size": tokenizer.size,
        "max_position_embeddings": tokenizer.context,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": tokenizer.pad,
    }
    vision = {"image_size": size, "patch_size": patch}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SiglipModel(SiglipConfig(text_config=tower | text, vision_config=tower | vision))
        with torch.no_grad():  # transformers starts at 0, where a wrong scale or bias is not seen
            model.logit_scale.fill_(2.0)
            model.logit_bias.fill_(-3.0)
    model.checkpointing = False
    model.requires_grad_(requires_grad=False).eval()
    half = (0.5, 0.5, 0.5)
    return Siglip(model, tokenizer, Preparation(size=size, resize="exact", mean=half, std=half))


def _tokenizer() -> SiglipTokenizer:
    """Spell words in letters, digits and marks, with an end token behind them."""
    from transformers import PreTrainedTokenizerFast

    letters = ["▁", *string.ascii_letters, *string.digits, *string.punctuation]
    pieces = [(PAD, 0.0), (END, 0.0), (UNKNOWN, 0.0), *((letter, -1.0) for letter in letters)]
    cutter = Tokenizer(Unigram(pieces, unk_id=2))
    cutter.pre_tokenizer = pre_tokenizers.Metaspace()
    cutter.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, 1)]
    )
    words = PreTrainedTokenizerFast(
        tokenizer_object=cutter, eos_token=END, pad_token=END, unk_token=UNKNOWN
    )
    return SiglipTokenizer(words, context=24, clean="canonical")
