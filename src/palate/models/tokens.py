"""From a prompt to token numbers, exactly as the official CLIP tokenizers do it."""

from __future__ import annotations

import gzip
import html
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ftfy
import numpy as np
import regex  # type: ignore[import-untyped]
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from tokenizers.models import BPE
from torch import Tensor

from palate.errors import CheckpointError

START, END = "<|startoftext|>", "<|endoftext|>"
# The merges that openai/CLIP takes from its file of 262,144: 49,408 - 2 * 256 - 2.
OFFICIAL_MERGES = 48_894
_WORDS = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)

CleanUp = Literal["openai", "transformers"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token numbers of some prompts, and how much of each prompt they hold.

    ``given`` counts the tokens of the whole prompt and ``kept`` those that the network sees, both
    with the start and the end token; ``kept < given`` means that the prompt was cut.
    """

    ids: Int[Tensor, "prompts context"]
    given: NDArray[np.int32]
    kept: NDArray[np.int32]


class Tokenizer:
    """CLIP's byte-pair tokenizer over a given vocabulary.

    ``vocabulary`` maps a piece to its number and ``merges`` lists pairs of pieces, most frequent
    first. ``context`` is the number of positions, start and end included. Unused positions hold
    ``pad``. ``clean`` names the clean-up before splitting: "transformers" repairs mojibake and
    resolves HTML entities where it is safe (ftfy), as transformers' CLIPTokenizer did until version
    4; "openai" then resolves entities twice more. Both join white space and lower the case. A piece that the vocabulary lacks is
    left out and counted as given but not kept.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        *,
        context: int = 77,
        pad: int = 0,
        clean: CleanUp = "openai",
    ) -> None:
        """Take a vocabulary that holds CLIP's start and end token."""
        if missing := [name for name in (START, END) if name not in vocabulary]:
            raise CheckpointError(f"the vocabulary of {len(vocabulary)} pieces lacks {missing[0]}")
        self.vocabulary, self.merges = dict(vocabulary), list(merges)
        self.context, self.pad, self.clean = context, pad, clean
        self.start, self.end = self.vocabulary[START], self.vocabulary[END]
        try:
            self._pairs = BPE(
                self.vocabulary, self.merges, unk_token=END, end_of_word_suffix="</w>"
            )
        except (
            Exception
        ) as error:  # tokenizers raises bare Exception for a merge outside the vocabulary
            raise CheckpointError(
                f"the vocabulary and the merges do not belong together: {error}"
            ) from error
        self._words: dict[str, tuple[list[int], int]] = {}

    def ids(self, prompt: str) -> tuple[list[int], int]:
        """Give every token of a prompt with start and end, and the number of pieces left out."""
        numbers, lost = [self.start], 0
        for word in _WORDS.findall(self.cleaned(prompt)):
            known, unknown = self._word(word)
            numbers.extend(known)
            lost += unknown
        return [*numbers, self.end], lost

    def cleaned(self, prompt: str) -> str:
        """Give a prompt as it looks before it is split into words."""
        prompt = ftfy.fix_text(prompt)
        if self.clean == "openai":
            prompt = html.unescape(html.unescape(prompt))
        return str(regex.sub(r"\s+", " ", prompt)).strip().lower()

    def batch(self, prompts: Sequence[str]) -> Tokens:
        """Give the tokens of prompts, cut to the context with the end token kept last."""
        ids = np.full((len(prompts), self.context), self.pad, dtype=np.int64)
        given = np.zeros(len(prompts), dtype=np.int32)
        kept = np.zeros(len(prompts), dtype=np.int32)
        for row, prompt in enumerate(prompts):
            numbers, lost = self.ids(prompt)
            given[row] = len(numbers) + lost
            if len(numbers) > self.context:
                numbers = [*numbers[: self.context - 1], self.end]
            ids[row, : len(numbers)] = numbers
            kept[row] = len(numbers)
        return Tokens(torch.from_numpy(ids), given, kept)

    def files(self) -> dict[str, str]:
        """Give the tokenizer as the text files that transformers' CLIPTokenizer reads."""
        merges = "".join(f"{first} {second}\n" for first, second in self.merges)
        inverse = {number: piece for piece, number in self.vocabulary.items()}
        config = {
            "tokenizer_class": "CLIPTokenizer",
            "bos_token": START,
            "eos_token": END,
            "unk_token": END,
            "pad_token": inverse.get(self.pad, END),
            "model_max_length": self.context,
        }
        return {
            "vocab.json": json.dumps(self.vocabulary, ensure_ascii=False) + "\n",
            "merges.txt": "#version: 0.2\n" + merges,
            "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
        }

    def _word(self, word: str) -> tuple[list[int], int]:
        """Give the tokens of one word, remembered, and how many pieces were left out."""
        if word in (START, END):  # as in openai/CLIP, the literal text is the special token
            return [self.vocabulary[word]], 0
        found = self._words.get(word)
        if found is None:
            text = "".join(_BYTES[byte] for byte in word.encode("utf-8"))
            pieces = [token.id for token in self._pairs.tokenize(text)]
            known = [piece for piece in pieces if piece != self.end]
            found = (known, len(pieces) - len(known))
            if len(self._words) < 100_000:
                self._words[word] = found
        return found


def read_tokenizer(
    path: Path,
    *,
    vocabulary_size: int | None = None,
    context: int | None = None,
    pad: int | str | None = None,
    clean: CleanUp | None = None,
) -> Tokenizer:
    """Read a tokenizer from OpenAI's vocabulary file, from a transformers folder, or from a folder with the file.

    ``vocabulary_size`` is the number of rows of the network's embedding: OpenAI's file holds more
    merges than CLIP uses, and the size says how many to take. What is not given comes from the
    folder's ``tokenizer_config.json``, else from CLIP: 77 positions; OpenAI's file pads with 0 and
    a folder with its padding token, else its end token; ``pad`` is a number, or ``end`` for the end token.
    """
    if path.is_dir():
        path = find_tokenizer(path) or path
    if path.is_dir():
        vocabulary, merges, settings = _read_folder(path)
        clean = clean or "transformers"
    elif path.is_file():
        vocabulary, merges = _read_official(path, vocabulary_size)
        clean, settings = clean or "openai", {"pad": 0}
    else:
        raise CheckpointError(f"{path}: no such tokenizer file or folder")
    if vocabulary_size is not None and len(vocabulary) > vocabulary_size:
        raise CheckpointError(
            f"{path}: a vocabulary of {len(vocabulary)} pieces, but the weights know {vocabulary_size}"
        )
    if pad == "end":
        pad = vocabulary.get(END, 0)
    if not isinstance(pad, int):
        pad = int(settings.get("pad", vocabulary.get(END, 0)))
    if context is None:
        context = settings.get("context", 77)
    return Tokenizer(vocabulary, merges, context=context, pad=pad, clean=clean)


def find_tokenizer(folder: Path) -> Path | None:
    """Look in a folder for a tokenizer: transformers' files, or one ``bpe*.txt.gz``."""
    if any((folder / name).is_file() for name in ("vocab.json", "tokenizer.json")):
        return folder
    found = sorted(folder.glob("bpe*.txt.gz"))
    return found[0] if len(found) == 1 else None


def byte_pieces() -> list[str]:
    """List the 512 pieces that any CLIP vocabulary begins with: each byte inside and ending a word."""
    letters = [_BYTES[byte] for byte in _BYTE_ORDER]
    return [*letters, *(letter + "</w>" for letter in letters)]


def _read_official(path: Path, size: int | None) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Read the merges of OpenAI's ``bpe_simple_vocab_16e6.txt.gz`` and number the pieces."""
    try:
        text = gzip.decompress(path.read_bytes()).decode("utf-8")
    except (gzip.BadGzipFile, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise CheckpointError(f"{path}: not a gzip file of byte-pair merges ({error})") from error
    lines = [line.split() for line in text.split("\n")[1:]]
    wanted = OFFICIAL_MERGES if size is None else size - 514
    lines = lines[:wanted]
    if size is None and lines and not lines[-1]:
        lines.pop()
    merges = [(line[0], line[1]) for line in lines if len(line) == 2]
    if len(merges) != len(lines) or (size is not None and len(merges) != wanted):
        raise CheckpointError(f"{path}: found {len(merges)} byte-pair merges, expected {wanted}")
    letters = [_BYTES[byte] for byte in _BYTE_ORDER]
    pieces = [
        *letters,
        *(letter + "</w>" for letter in letters),
        *(a + b for a, b in merges),
        START,
        END,
    ]
    return {piece: number for number, piece in enumerate(pieces)}, merges


def _read_folder(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]], dict[str, Any]]:
    """Read ``vocab.json`` and ``merges.txt``, or ``tokenizer.json``, and what the folder says beside."""
    try:
        if (folder / "vocab.json").is_file():
            vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
            lines = (folder / "merges.txt").read_text("utf-8").split("\n")
            pairs = [
                line.split() for line in lines if line.strip() and not line.startswith("#version")
            ]
        else:
            model = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
            vocabulary = model["vocab"]
            pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        merges = [(first, second) for first, second in pairs]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{folder}: expected vocab.json and merges.txt, or tokenizer.json ({error})"
        ) from error
    return vocabulary, merges, _folder_settings(folder, vocabulary)


def _folder_settings(folder: Path, vocabulary: Mapping[str, int]) -> dict[str, Any]:
    """Read the context and the padding number from ``tokenizer_config.json``, where they are given."""
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from error
    settings: dict[str, Any] = {}
    length = config.get("model_max_length")
    if isinstance(length, int) and length < 100_000:  # transformers writes 1e30 for "unknown"
        settings["context"] = length
    padding = config.get("pad_token")
    if isinstance(padding, dict):
        padding = padding.get("content")
    if padding in vocabulary:
        settings["pad"] = vocabulary[padding]
    return settings


# OpenAI's printable stand-ins for the 256 bytes: printable Latin-1 stays, the rest moves past 255.
_PRINTABLE = [
    *range(ord("!"), ord("~") + 1),
    *range(ord("¡"), ord("¬") + 1),
    *range(ord("®"), ord("ÿ") + 1),
]
_BYTE_ORDER = [*_PRINTABLE, *(byte for byte in range(256) if byte not in _PRINTABLE)]
_BYTES = {
    byte: chr(byte if place < len(_PRINTABLE) else 256 + place - len(_PRINTABLE))
    for place, byte in enumerate(_BYTE_ORDER)
}
