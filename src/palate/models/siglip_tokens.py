"""From a prompt to token numbers, as SigLIP and SigLIP 2 were trained."""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from palate.errors import CheckpointError
from palate.models.tokens import Tokens

CleanUp = Literal["canonical", "lower"]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
# SigLIP cuts with a Unigram model, SigLIP 2 with the byte pairs of Gemma.
_CLEAN: dict[str, CleanUp] = {"Unigram": "canonical", "BPE": "lower"}
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


class SiglipTokenizer:
    """A SigLIP's tokenizer: sentence pieces, an end token behind them, and padding to a fixed length.

    ``words`` is a tokenizer of transformers and decides how a text is cut. ``context`` is the number of
    positions, all of which the network reads, padding too. ``clean`` names what is done to a prompt first:
    "canonical" lowers the case, drops ASCII punctuation and joins white space, as big_vision's
    ``canonicalize_text`` and transformers' SiglipTokenizer do for SigLIP; "lower" only lowers the case, as
    transformers' documentation asks for SigLIP 2. A tokenizer that cleans by itself changes nothing more.
    A special token that a prompt spells is one of the prompt's words where its marks are dropped.
    """

    def __init__(self, words: Any, *, context: int, clean: CleanUp) -> None:
        """Take a tokenizer of transformers that has a padding token."""
        if words.pad_token_id is None:
            raise CheckpointError("the tokenizer has no padding token, expected pad_token")
        self.words, self.context, self.clean = words, context, clean
        self.pad: int = words.pad_token_id
        self.side: str = words.padding_side
        if words.is_fast:
            words.backend_tokenizer.no_padding()
            words.backend_tokenizer.no_truncation()
        self._ends = self.ids("")[-1:]

    def ids(self, prompt: str) -> list[int]:
        """Give every token of a prompt, with the end token."""
        text = self.cleaned(prompt)
        if self.words.is_fast:
            found = self.words.backend_tokenizer.encode(text).ids
        else:
            found = self.words(text, verbose=False)["input_ids"]
        return list(found)

    def cleaned(self, prompt: str) -> str:
        """Give a prompt as it looks before it is cut into pieces."""
        # Half a surrogate pair is no character, and the tokenizers take none.
        text = prompt.encode("utf-8", "ignore").decode("utf-8").lower()
        if self.clean == "lower":
            return text
        return re.sub(r"\s+", " ", text.translate(_PUNCTUATION)).strip()

    def batch(self, prompts: Sequence[str]) -> Tokens:
        """Give the tokens of prompts, cut to the context with the end token kept last."""
        ids = np.full((len(prompts), self.context), self.pad, dtype=np.int64)
        given = np.zeros(len(prompts), dtype=np.int32)
        kept = np.zeros(len(prompts), dtype=np.int32)
        for row, prompt in enumerate(prompts):
            numbers = self.ids(prompt)
            given[row] = len(numbers)
            if len(numbers) > self.context:
                numbers = [*numbers[: self.context - len(self._ends)], *self._ends]
            kept[row] = len(numbers)
            start = 0 if self.side == "right" else self.context - len(numbers)
            ids[row, start : start + len(numbers)] = numbers
        return Tokens(torch.from_numpy(ids), given, kept)

    @property
    def size(self) -> int:
        """How many rows the network's embedding must have."""
        return 1 + int(max(self.words.get_vocab().values()))

    @cached_property
    def fingerprint(self) -> str:
        """Give 16 hexadecimal digits of the pieces and of how texts are cut into them."""
        return hashlib.blake2b(self._content, digest_size=8).hexdigest()

    def files(self) -> dict[str, bytes]:
        """Give the tokenizer as the files that transformers' AutoTokenizer reads."""
        fast = self.words.is_fast
        special = {name: getattr(self.words, name) for name in _SPECIAL}
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast" if fast else "SiglipTokenizer",
            **{name: str(token) for name, token in special.items() if token is not None},
            "model_input_names": ["input_ids"],
            "model_max_length": self.context,
            "padding_side": self.side,
        }
        return {
            "tokenizer.json" if fast else "spiece.model": self._content,
            "tokenizer_config.json": (json.dumps(config, indent=2) + "\n").encode(),
        }

    @property
    def _content(self) -> bytes:
        if self.words.is_fast:
            return str(self.words.backend_tokenizer.to_str()).encode()
        return bytes(self.words.sp_model.serialized_model_proto())


def read_siglip_tokenizer(
    folder: Path, *, context: int, vocabulary_size: int, clean: str | None = None
) -> SiglipTokenizer:
    """Read the tokenizer of a folder: ``tokenizer.json``, else ``spiece.model``.

    transformers' AutoTokenizer takes the second if the library sentencepiece is installed, whatever else is
    there; here the tokens do not depend on that. ``vocabulary_size`` is the number of rows of the network's
    embedding. ``clean`` is told from the kind of the tokenizer if it is not given. Raises CheckpointError.
    """
    if (folder / "tokenizer.json").is_file():
        path = folder / "tokenizer.json"
        words, kind = _read_fast(path)
    elif (folder / "spiece.model").is_file():
        path = folder / "spiece.model"
        words, kind = _read_sentence_pieces(path), "Unigram"
    else:
        raise CheckpointError(
            f"{folder}: no tokenizer, expected tokenizer.json or spiece.model beside the weights"
        )
    if kind not in _CLEAN:
        raise CheckpointError(
            f"{path}: a {kind} tokenizer, expected Unigram (SigLIP) or BPE (SigLIP 2)"
        )
    if (how := clean or _CLEAN[kind]) not in _CLEAN.values():
        raise CheckpointError(
            f"{path}: clean is {how!r}, expected one of {', '.join(_CLEAN.values())}"
        )
    try:
        found = SiglipTokenizer(words, context=context, clean=how)  # type: ignore[arg-type]
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error} in tokenizer_config.json") from error
    if found.size > vocabulary_size:
        raise CheckpointError(
            f"{path}: a vocabulary of {found.size} pieces, but the weights know {vocabulary_size}"
        )
    return found


def _read_fast(path: Path) -> tuple[Any, str]:
    """Read ``tokenizer.json`` with the settings beside it; give the tokenizer and its kind."""
    from transformers import PreTrainedTokenizerFast

    try:
        words = PreTrainedTokenizerFast.from_pretrained(path.parent, local_files_only=True)
    except Exception as error:  # tokenizers raises bare Exception for what it does not understand
        raise CheckpointError(f"{path}: not a tokenizer that can be read ({error})") from error
    return words, type(words.backend_tokenizer.model).__name__


def _read_sentence_pieces(path: Path) -> Any:
    """Read ``spiece.model``, which only the libraries that wrote it understand."""
    try:
        from transformers.models.siglip.tokenization_siglip import SiglipTokenizer as Slow

        return Slow.from_pretrained(path.parent, local_files_only=True)
    except ImportError as error:
        raise CheckpointError(
            f"{path}: to read it without a tokenizer.json beside it needs two more libraries: "
            "pip install sentencepiece protobuf"
        ) from error
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: not a tokenizer that can be read ({error})") from error
