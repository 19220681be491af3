"""The package imscore: its CLIPScore (ViT-L/14) and HPSv2 (ViT-H/14), 16 images in a batch, without gradients."""

# ruff: noqa: D102 - measure.Contender says what each function does

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import imscore.hps.model
import numpy as np
import open_clip
import torch
from imscore.preference.model import CLIPScore
from measure import Job, batches, run
from PIL import Image


def hpsv2(checkpoint: str) -> Any:
    """Build its HPSv2 with a file in the place of a download."""

    def from_file(name: str, _: str, **options: Any) -> Any:
        return open_clip.create_model_and_transforms(name, checkpoint, **options)

    imscore.hps.model.create_model_and_transforms = from_file
    return imscore.hps.model.HPSv2()


class Imscore:
    """Pixels in [0, 1] as its README reads them, then ``model.score``."""

    def __init__(self, job: Job) -> None:
        large = job.model == "ViT-L-14"
        self.model = (CLIPScore(job.folder) if large else hpsv2(job.checkpoint)).eval()
        self.scale = float(self.model.model.logit_scale.exp()) if large else 1.0

    def prepare(self, images: Sequence[tuple[str, str]]) -> Any:
        read = [self.read(batch) for batch in batches(images, 16)]
        return [(self.model._process(pixels), prompts) for pixels, prompts in read]  # noqa: SLF001

    @staticmethod
    def read(batch: Sequence[tuple[str, str]]) -> tuple[Any, list[str]]:
        arrays = [torch.tensor(np.array(Image.open(path))) for path, _ in batch]
        return torch.stack(arrays).permute(0, 3, 1, 2) / 255.0, [prompt for _, prompt in batch]

    def forward(self, prepared: Any) -> None:
        # score prepares once more, which at 224 pixels is a normalisation
        for pixels, prompts in prepared:
            self.cosines(pixels, prompts)

    @torch.no_grad()
    def cosines(self, pixels: Any, prompts: list[str]) -> list[float]:
        return (self.model.score(pixels, prompts) / self.scale).tolist()

    def score(self, images: Sequence[tuple[str, str]]) -> list[float]:
        return [v for batch in batches(images, 16) for v in self.cosines(*self.read(batch))]


if __name__ == "__main__":
    run(Imscore)
