"""CLIPModel and CLIPProcessor as the documentation of transformers shows them, 16 images in a batch."""

# ruff: noqa: D102 - measure.Contender says what each function does

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from measure import Job, batches, run
from PIL import Image
from transformers import CLIPModel, CLIPProcessor


class Transformers:
    """One call of the processor and one of the model for each batch."""

    def __init__(self, job: Job) -> None:
        self.model = CLIPModel.from_pretrained(job.folder)
        self.processor = CLIPProcessor.from_pretrained(job.folder)
        self.scale = float(self.model.logit_scale.exp())

    def prepare(self, images: Sequence[tuple[str, str]]) -> Any:
        return [self.inputs(batch) for batch in batches(images, 16)]

    def inputs(self, batch: Sequence[tuple[str, str]]) -> Any:
        return self.processor(
            text=[prompt for _, prompt in batch],
            images=[Image.open(path) for path, _ in batch],
            return_tensors="pt",
            padding=True,
            truncation=True,
        )

    def forward(self, prepared: Any) -> None:
        for inputs in prepared:
            self.cosines(inputs)

    @torch.inference_mode()
    def cosines(self, inputs: Any) -> list[float]:
        return (self.model(**inputs).logits_per_image.diagonal() / self.scale).tolist()

    def score(self, images: Sequence[tuple[str, str]]) -> list[float]:
        return [
            value for batch in batches(images, 16) for value in self.cosines(self.inputs(batch))
        ]


if __name__ == "__main__":
    run(Transformers)
