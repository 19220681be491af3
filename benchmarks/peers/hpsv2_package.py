"""The package hpsv2: one image at a time, its prompt encoded again for each, the checkpoint read in every call.

With the option ``reload`` its own ``score`` is called, once for the images of each prompt, which is the way to call it
that reads the checkpoint least often. Without, its network, preparation and tokenizer do the same without that reading.
"""

# ruff: noqa: D102 - measure.Contender says what each function does

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import hpsv2.img_score as package
import torch
from hpsv2.src.open_clip import create_model_and_transforms, get_tokenizer
from measure import Job, run
from PIL import Image


class Hpsv2:
    """The loop of ``hpsv2.score``."""

    def __init__(self, job: Job) -> None:
        self.checkpoint, self.reload = job.checkpoint, job.options["reload"]
        # as its initialize_model does, with a file in the place of a download
        model, _, preprocess = create_model_and_transforms(
            "ViT-H-14",
            job.checkpoint,
            precision="amp",
            device="cpu",
            light_augmentation=True,
            output_dict=True,
        )
        package.model_dict |= {"model": model, "preprocess_val": preprocess}
        model.load_state_dict(torch.load(job.checkpoint, map_location="cpu")["state_dict"])
        self.model, self.preprocess = model.eval(), preprocess
        self.tokenizer = get_tokenizer("ViT-H-14")

    def prepare(self, images: Sequence[tuple[str, str]]) -> Any:
        return [
            (self.preprocess(Image.open(path))[None], self.tokenizer([prompt]))
            for path, prompt in images
        ]

    def forward(self, prepared: Any) -> None:
        for pixels, tokens in prepared:
            self.cosine(pixels, tokens)

    @torch.no_grad()
    def cosine(self, pixels: Any, tokens: Any) -> float:
        with torch.cuda.amp.autocast():
            out = self.model(pixels, tokens)
        return float((out["image_features"] @ out["text_features"].T).diagonal()[0])

    def score(self, images: Sequence[tuple[str, str]]) -> list[float]:
        if not self.reload:
            return [self.cosine(*one) for pair in images for one in self.prepare([pair])]
        values: list[float] = []
        for prompt, group in itertools.groupby(images, key=lambda pair: pair[1]):
            paths = [path for path, _ in group]
            values += map(float, package.score(paths, prompt, cp=self.checkpoint))
        return values


if __name__ == "__main__":
    run(Hpsv2)
