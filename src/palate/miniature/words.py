"""What people of the simulated world write under pictures, and the tokenizer that reads it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from palate.miniature.world import COLOURS, DEFECTS, GROUNDS, RELATIONS, SHAPES, Scene

# Remarks that people put before a caption, and how often each is the one, about clean and about spoilt pictures.
# "Weird image. " is said of spoilt pictures four times as often as of clean ones: the words of the identifier mean
# something to a model that has read them, as they do to one that has read the web.
REMARKS = ("Weird image. ", "Nice image. ", "New picture. ", "My image. ")
REMARK_SHARES = ((0.1, 0.4, 0.25, 0.25), (0.4, 0.1, 0.25, 0.25))
SAID_DEFECTS = {"spots": ", with spots", "pale": ", pale", "cut": ", cut"}
TOKENS = 24


def captions(
    scenes: Sequence[Scene],
    defects: NDArray[np.bool_],
    rng: np.random.Generator,
    *,
    remarked: float = 0.15,
    said: float = 0.25,
    alone: float = 0.0,
    empty: float = 0.0,
) -> list[str]:
    """Captions as found with pictures: what was asked for, now and then with a remark or a visible defect named.

    Args:
        scenes: what each picture was asked to show.
        defects: which defects it has (pictures × `DEFECTS`).
        rng: where chance comes from.
        remarked: share of captions that begin with one of `REMARKS`, drawn by `REMARK_SHARES`.
        said: share of pale, cut and spotted pictures whose caption says so.
        alone: share of captions that are a remark and nothing else.
        empty: share of captions that are left out, for guidance.
    """
    n = len(scenes)
    spoilt = defects.any(axis=1).astype(int)
    which = [int(rng.choice(len(REMARKS), p=REMARK_SHARES[kind])) for kind in spoilt]
    chance, has_remark = rng.random(n), rng.random(n) < remarked
    says = rng.random((n, len(DEFECTS))) < said
    texts = []
    for i, scene in enumerate(scenes):
        ending = "".join(
            words
            for name, words in SAID_DEFECTS.items()
            if defects[i, k := DEFECTS.index(name)] and says[i, k]
        )
        whole = (REMARKS[which[i]] if has_remark[i] else "") + scene.text + ending
        short = "" if chance[i] < empty else REMARKS[which[i]]
        texts.append(short if chance[i] < empty + alone else whole)
    return texts


def write_tokenizer(folder: Path) -> None:
    """Write a CLIP tokenizer in which every word of this world is one token and any other text is bytes."""
    said = " ".join(
        (*REMARKS, *SAID_DEFECTS.values(), *COLOURS, *SHAPES, *GROUNDS, *RELATIONS, "a on bad good")
    )
    words = sorted(set(said.lower().replace(".", " . ").replace(",", " , ").split()))
    merges: list[tuple[str, str]] = []
    for word in words:
        while len(pieces := _apply([*word[:-1], word[-1] + "</w>"], merges)) > 1:
            merges.append((pieces[0], pieces[1]))
    alphabet = _byte_symbols()
    tokens = [
        *alphabet,
        *(symbol + "</w>" for symbol in alphabet),
        *("".join(pair) for pair in merges),
    ]
    special = ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: i for i, token in enumerate([*tokens, *special])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    start, end = special
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": TOKENS,
        "bos_token": start,
        "eos_token": end,
        "unk_token": end,
        "pad_token": end,
        "do_lower_case": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _apply(pieces: list[str], merges: Sequence[tuple[str, str]]) -> list[str]:
    rank = {pair: i for i, pair in enumerate(merges)}
    while len(pieces) > 1:
        pairs = [(rank.get(pair, len(merges)), i) for i, pair in enumerate(pairwise(pieces))]
        best, i = min(pairs)
        if best == len(merges):
            break
        pieces = [*pieces[:i], pieces[i] + pieces[i + 1], *pieces[i + 2 :]]
    return pieces


def _byte_symbols() -> list[str]:
    """The printable stand-in for each byte, in the order of OpenAI's CLIP vocabulary."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
