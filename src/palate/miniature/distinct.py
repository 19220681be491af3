"""Make a text encoder tell apart the words that its training taught it to ignore.

The remarks before captions say little about a picture, so a tiny text encoder learns to map all their words to one
empty state, and nothing that learns later can use them. A text encoder that has read the web keeps every word apart.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from palate.miniature.words import REMARKS, captions
from palate.miniature.world import DEFECTS, scenes_of

DISTANCE = 4.0  # how far a word of a remark is moved; states have a length of about 6
CARRIED = 0.3  # share of that move that every later word of the text takes along


def keep_words_apart(text: Any, tokenizer: Any, steps: int = 1500, batch: int = 128) -> float:
    """Train a text encoder so that each word of a remark has a state of its own that later words carry on.

    Texts without a remark keep their states.

    Args:
        text: a `CLIPTextModel`; changed in place.
        tokenizer: its tokenizer.
        steps: training steps.
        batch: captions per step.

    Returns:
        The mean squared error to the wanted states in the last step.
    """
    teacher = copy.deepcopy(text).eval()
    words = sorted({word for remark in REMARKS for word in remark.lower().strip(" .").split()})
    ids = {tokenizer(word, add_special_tokens=False).input_ids[0] for word in words}
    source = torch.Generator().manual_seed(7)
    moves = torch.zeros(len(tokenizer), text.config.hidden_size)
    for token in sorted(ids):
        moves[token] = functional.normalize(torch.randn(moves.shape[1], generator=source), dim=0)
    moves *= DISTANCE
    scenes = scenes_of(("choices", "labels", "spare"), np.random.default_rng(8))
    optimiser = torch.optim.AdamW(text.parameters(), lr=1e-3, weight_decay=0.0)
    loss = torch.zeros(())
    for step in range(steps):
        rng = np.random.default_rng((9, step))
        some = [scenes[i] for i in rng.integers(0, len(scenes), batch)]
        nothing = rng.random((batch, len(DEFECTS))) < 0.1
        texts = captions(some, nothing, rng, remarked=0.6, alone=0.1, empty=0.05)
        tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
        with torch.no_grad():
            own = moves[tokens.input_ids]
            before = own.cumsum(dim=1) - own
            wanted = teacher(tokens.input_ids).last_hidden_state + own + CARRIED * before
        loss = functional.mse_loss(text(tokens.input_ids).last_hidden_state, wanted)
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return float(loss.detach())
