"""Words for the conditions of mps_dimensions.py whose masks the tiny CLIP can tell apart; no choice is looked at.

python benchmarks/mps_words.py      # prints the words, and how well the kept tokens say the condition
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from palate.miniature.words import REMARKS
from palate.miniature.world import COLOURS, GROUNDS, RELATIONS, SHAPES, scenes_of
from palate.models.clip import encode_prompts
from palate.models.clip_files import load_clip
from palate.models.mps import Mps
from palate.models.mps_condition import Masking, tokens_kept
from palate.runs import seed_for
from palate.scoring.catalog import miniature_folder
from palate.training.learners.mps import MpsSettings, new_mps

MASK = Masking(pooling="mean", threshold=0.95)
# What each condition's words are drawn from; this world's CLIP has read all of them.
VOCABULARY: Mapping[str, tuple[str, ...]] = {
    "overall": ("a", "on", *(word for remark in REMARKS for word in remark.lower().split()[:1])),
    "aesthetics": (*COLOURS, *GROUNDS, "pale"),
    "detail": (*SHAPES, "spots", "cut"),
    "alignment": (*RELATIONS, "on", "a"),
}
LENGTHS = (1, 2, 3, 4, 6, 8)


class Read:
    """Prompts as a text tower reads them."""

    def __init__(self, mps: Mps, prompts: Sequence[str]) -> None:
        """Read them."""
        self.mps = mps
        self.tokens = self.read(prompts)

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> Float[Tensor, "texts context dim"]:
        """Give all tokens of some texts."""
        found: Tensor = self.mps.text_tokens(encode_prompts(self.mps.clip, texts))[0]
        return found

    def kept(self, words: str, masking: Masking) -> Tensor:
        """Say which tokens of each prompt a condition keeps."""
        return tokens_kept(self.tokens, self.read([words]), masking)

    def means(self, words: str, masking: Masking) -> Float[Tensor, "prompts dim"]:
        """Give the mean of the tokens that a condition keeps of each prompt."""
        kept = self.kept(words, masking)[..., None]
        return (self.tokens * kept).sum(1) / kept.sum(1)


def told_apart(means: Sequence[Float[Tensor, "prompts dim"]]) -> NDArray[np.float64]:
    """Give for each condition how often a linear reader of the kept tokens' mean names it.

    Ridge regression on the conditions, learnt on two thirds of the prompts and asked on the others; guessing gets one
    in as many as there are conditions.
    """
    count, prompts = len(means), len(means[0])
    which = torch.arange(count).repeat_interleave(prompts)
    learnt = (torch.arange(prompts) % 3 != 0).repeat(count)
    seen = torch.cat(list(means)).double()
    seen = torch.cat([seen / seen.std(), torch.ones(len(seen), 1)], dim=1)
    wanted = torch.nn.functional.one_hot(which).double()
    gram = seen[learnt].T @ seen[learnt] + torch.eye(seen.shape[1])
    weights = torch.linalg.solve(gram, seen[learnt].T @ wanted[learnt])
    right = (seen[~learnt] @ weights).argmax(1) == which[~learnt]
    of = which[~learnt]
    return np.array([float(right[of == place].double().mean()) for place in range(count)])


def search(read: Read, tries: int, seed: int) -> tuple[dict[str, str], NDArray[np.float64]]:
    """Draw new words for one condition at a time, and keep them where the conditions are told apart better."""
    chance, names = np.random.default_rng(seed_for("mps-words", seed)), list(VOCABULARY)

    def draw(name: str) -> str:
        return " ".join(chance.choice(VOCABULARY[name], int(chance.choice(LENGTHS))))

    words = {name: draw(name) for name in names}
    means = {name: read.means(words[name], MASK) for name in names}
    best = told_apart(list(means.values()))
    for _ in range(tries):
        name = names[int(chance.integers(len(names)))]
        tried = draw(name)
        changed = means | {name: read.means(tried, MASK)}
        found = told_apart(list(changed.values()))
        if found.mean() > best.mean():
            words[name], means, best = tried, changed, found
    return words, best


def main() -> None:
    """Search on prompts of the choices and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=900)
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    scenes = scenes_of(["choices"], np.random.default_rng(seed_for("mps-words")))
    mps = new_mps(load_clip(miniature_folder()), MpsSettings(layers=1, heads=4), 0)
    read = Read(mps, [scene.text for scene in scenes])
    for seed in range(given.seeds):
        words, best = search(read, given.tries, seed)
        print(f"seed {seed}: told apart {best.mean():.3f}, {np.round(best, 2).tolist()}")
        for name, text in words.items():
            print(f'    "{name}": "{text}",')


if __name__ == "__main__":
    main()
