"""HPS v1's evaluation: OpenAI's clip, batches of 16 from a DataLoader with 4 workers, text encoded per image."""

# ruff: noqa: D102 - measure.Contender says what each function does

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import clip
import torch
from measure import Job, run
from PIL import Image


class Pairs(torch.utils.data.Dataset):
    """Prepared images and the tokens of their prompts."""

    def __init__(self, images: Sequence[tuple[str, str]], preprocess: Any) -> None:
        self.images, self.preprocess = images, preprocess

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> Any:
        path, prompt = self.images[place]
        tokens = clip.tokenize(prompt, context_length=77, truncate=True)[0]
        return self.preprocess(Image.open(path)), tokens


class AlignSd:
    """The loop of evaluate_hps.py."""

    def __init__(self, job: Job) -> None:
        # clip.load reads OpenAI's weights, over which the checkpoint is then loaded
        state = torch.load(job.checkpoint, map_location="cpu")["state_dict"]
        self.model = clip.model.build_model(dict(state)).float()
        self.model.load_state_dict(state)
        self.preprocess = clip.clip._transform(self.model.visual.input_resolution)  # noqa: SLF001

    def loader(self, images: Sequence[tuple[str, str]]) -> Any:
        return torch.utils.data.DataLoader(
            Pairs(images, self.preprocess), batch_size=16, num_workers=4
        )

    def prepare(self, images: Sequence[tuple[str, str]]) -> Any:
        return list(self.loader(images))

    def forward(self, prepared: Any) -> None:
        for pixels, tokens in prepared:
            self.cosines(pixels, tokens)

    @torch.no_grad()
    def cosines(self, pixels: Any, tokens: Any) -> list[float]:
        seen, read = self.model.encode_image(pixels), self.model.encode_text(tokens)
        seen = seen / seen.norm(dim=-1, keepdim=True)
        read = read / read.norm(dim=-1, keepdim=True)
        return (seen @ read.T).diagonal().tolist()

    def score(self, images: Sequence[tuple[str, str]]) -> list[float]:
        return [value for batch in self.loader(images) for value in self.cosines(*batch)]


if __name__ == "__main__":
    run(AlignSd)
