"""From a prompt to word pieces, as the uncased BERT tokenizer of BLIP and ImageReward does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from tokenizers import AddedToken
from tokenizers import Tokenizer as Cutter
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from torch import Tensor

from palate.errors import CheckpointError
from palate.models.tokens import Tokens

PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
_BERT = (PAD, UNKNOWN, START, END, "[MASK]")
# BLIP's `init_tokenizer` adds these after reading the vocabulary, in this order.
_BLIP = ("[DEC]", "[ENC]")


@dataclass(frozen=True, slots=True)
class MaskedTokens(Tokens):
    """Tokens with a mask: 1 where a prompt has a token, 0 where it is padded."""

    mask: Int[Tensor, "prompts context"]


class WordPieces:
    """The tokenizer of THUDM/ImageReward: transformers' slow BertTokenizer of ``bert-base-uncased``.

    ``pieces`` lists the vocabulary by number, as ``vocab.txt`` does. BLIP then adds ``[DEC]`` and
    ``[ENC]`` behind it. ImageReward's score begins with ``[CLS]`` and never puts them in, so they
    only take two rows of the embedding; as with the other special tokens, a prompt that holds one
    literally gets its number. A word without pieces becomes ``[UNK]``. ``context`` is the number of
    positions, start and end included.

    The character tables are those of the ``tokenizers`` library. For characters that came to
    Unicode after them (marks and punctuation of rare scripts, unassigned code points) and for 256
    rare Chinese characters from U+2B820 on, the slow tokenizer may split or drop differently.
    """

    def __init__(self, pieces: Sequence[str], *, context: int = 35) -> None:
        """Take a vocabulary that holds BERT's special tokens and no piece twice."""
        self.pieces, self.context = list(pieces), context
        vocabulary = {piece: number for number, piece in enumerate(self.pieces)}
        if len(vocabulary) != len(self.pieces):
            double = next(p for number, p in enumerate(self.pieces) if vocabulary[p] != number)
            raise CheckpointError(f"the vocabulary holds the piece {double!r} twice")
        if missing := [piece for piece in _BERT if piece not in vocabulary]:
            raise CheckpointError(
                f"the vocabulary of {len(self.pieces)} pieces lacks {', '.join(missing)}"
            )
        self.start, self.end, self.pad = (vocabulary[piece] for piece in (START, END, PAD))
        self._cutter = Cutter(WordPiece(vocabulary, unk_token=UNKNOWN))
        self._cutter.normalizer = BertNormalizer(lowercase=True)
        self._cutter.pre_tokenizer = BertPreTokenizer()
        self._cutter.add_special_tokens(
            [AddedToken(piece, special=True, normalized=False) for piece in (*_BERT, *_BLIP)]
        )

    @property
    def size(self) -> int:
        """How many rows the network's embedding must have: the vocabulary and what BLIP adds."""
        return int(self._cutter.get_vocab_size(with_added_tokens=True))

    def ids(self, prompt: str) -> list[int]:
        """Give every token of a prompt, with the start and the end token."""
        # Half a surrogate pair is no character; BERT drops it as it drops control characters.
        text = prompt.encode("utf-8", "ignore").decode("utf-8")
        return [self.start, *self._cutter.encode(text, add_special_tokens=False).ids, self.end]

    def batch(self, prompts: Sequence[str]) -> MaskedTokens:
        """Give the tokens of prompts, cut to the context with the end token kept last."""
        ids = np.full((len(prompts), self.context), self.pad, dtype=np.int64)
        mask = np.zeros_like(ids)
        given = np.zeros(len(prompts), dtype=np.int32)
        kept = np.zeros(len(prompts), dtype=np.int32)
        for row, prompt in enumerate(prompts):
            numbers = self.ids(prompt)
            given[row] = len(numbers)
            if len(numbers) > self.context:
                numbers = [*numbers[: self.context - 1], self.end]
            ids[row, : len(numbers)] = numbers
            mask[row, : len(numbers)] = 1
            kept[row] = len(numbers)
        return MaskedTokens(torch.from_numpy(ids), given, kept, torch.from_numpy(mask))

    def files(self) -> dict[str, str]:
        """Give the vocabulary as the text file that transformers' BertTokenizer reads."""
        return {"vocab.txt": "".join(f"{piece}\n" for piece in self.pieces)}


def read_word_pieces(
    path: Path, *, context: int = 35, vocabulary_size: int | None = None
) -> WordPieces:
    """Read a tokenizer from BERT's ``vocab.txt`` or from a folder with one.

    The file has one piece a line, and the number of the line is the number of the piece.
    ``vocabulary_size`` is the number of rows of the network's embedding, which the vocabulary with
    ``[DEC]`` and ``[ENC]`` must fill. Raises CheckpointError.
    """
    file = path / "vocab.txt" if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"{file}: no such vocabulary file, expected BERT's vocab.txt")
    try:
        pieces = file.read_text("utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file}: not a readable text file ({error})") from error
    try:
        words = WordPieces(pieces, context=context)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    if vocabulary_size not in {None, words.size}:
        raise CheckpointError(
            f"{file}: a vocabulary of {words.size} pieces with [DEC] and [ENC], "
            f"but the weights know {vocabulary_size}"
        )
    return words
