"""What is looked at while a generator is adapted: errors on held-out pictures, and grids of images at fixed seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import PIL.Image
import torch
from PIL import ImageDraw, ImageFont

from palate.adaptation.gap import HeldOut, held_out_errors, identifier_gap
from palate.adaptation.work import Work
from palate.generation.calls import sample_by_call
from palate.generation.generator import Generator
from palate.generation.sampling import to_bytes
from palate.runs import atomic_path, seed_for

_CELL: Final = 192  # the longest side of an image on a grid, in pixels; smaller ones are enlarged by a whole factor
_AT_ONCE: Final = 4
_GAP, _HEAD, _INK, _PAPER = 6, 22, "#1d2129", "#ffffff"


@dataclass(slots=True)
class Watch:
    """Measures and pictures of one training; without a state that matters, so that a resumed one goes on alike."""

    generator: Generator
    work: Work
    out: Path
    base: list[Any] = field(default_factory=list)
    """The base's own images of the grid: columns of images."""

    @property
    def looks(self) -> bool:
        """Whether there is anything to look at."""
        settings = self.work.settings
        return bool(settings.hold_out or settings.grid_prompts)

    def before(self) -> dict[str, Any]:
        """Measure the base on what is held out, and make its half of the grid."""
        if not self.work.processes.first or not self.looks:
            return {}
        with self.work.denoiser.bare():
            if self.work.settings.grid_prompts:
                self.base = [self._column(prefix, negative) for _, prefix, negative in self._arms()]
            return self._measure()

    def after(self) -> dict[str, Any]:
        """Measure the adapted denoiser on what is held out."""
        return self._measure() if self.work.processes.first else {}

    def at(self, step: int) -> Mapping[str, float]:
        """Measure, and write a grid; the first process does, and the others wait."""
        found: dict[str, float] = {}
        processes, network = self.work.processes, self.work.denoiser.network
        if processes.first:
            network.eval()
            for role, told in self._measure().items():
                found |= {f"{name}/{role}": told[name] for name in ("error", "gap") if name in told}
            if self.base:
                self._draw(step)
            network.train()
        processes.wait()
        return found

    def _measure(self) -> dict[str, Any]:
        """Measure errors, or the identifier gap for a method that has one."""
        work = self.work
        if not work.settings.hold_out:
            return {}
        rows = work.examples.held_out
        held_out = HeldOut(work.latents, work.texts, work.examples, rows, seed=work.settings.seed)
        measure = identifier_gap if work.method.marks else held_out_errors
        return measure(work.denoiser, held_out)

    def _arms(self) -> list[tuple[str, str, str]]:
        """Give what is compared: a name, what stands before the prompt, and the negative prompt."""
        own = self.work.settings.identifier
        arms = [("", "", "")]
        if self.work.method.marks:
            arms += [(", as negative", "", own), (", in the prompt", own, "")]
        return arms

    @torch.no_grad()
    def _column(self, prefix: str, negative: str) -> Any:
        """Make one image of each prompt, from the same noise in every column."""
        settings, denoiser = self.work.settings, self.work.denoiser
        pipeline, size = self.generator.pipeline, self.work.latents.sizes[0]
        plan = {
            "steps": settings.grid_steps,
            "guidance": settings.guidance_hint,
            "negative_prompt": negative,
            "height": size[0],
            "width": size[1],
            "eta": 0.0,
        }
        prompts = [prefix + prompt for prompt in settings.grid_prompts]
        seeds = [seed_for("grid", settings.seed, number) for number in range(len(prompts))]
        low, found = denoiser.precision != torch.float32, []
        for start in range(0, len(prompts), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            with torch.autocast(denoiser.device.type, denoiser.precision, enabled=low):
                found.append(sample_by_call(pipeline, prompts[some], seeds[some], plan)[0])
        return to_bytes(torch.cat(found)).numpy()

    def _draw(self, step: int) -> None:
        """Write the grid of a step: a row for each prompt, the base's images first."""
        arms = self._arms()
        own = [self._column(prefix, negative) for _, prefix, negative in arms]
        names = [f"{who}{how}" for who in ("base", "adapted") for how, _, _ in arms]
        grid = draw_grid([*self.base, *own], names, list(self.work.settings.grid_prompts))
        with atomic_path(self.out / "grids" / f"step-{step:06d}.png") as temporary:
            grid.save(temporary, format="PNG")


def draw_grid(
    columns: list[np.ndarray[Any, np.dtype[np.uint8]]], names: list[str], prompts: list[str]
) -> PIL.Image.Image:
    """Draw images side by side, each column under its name and each row under its prompt.

    ``columns``: for each name "prompts height width 3".
    """
    height, width = columns[0].shape[1:3]
    longest = max(height, width)
    scale = _CELL // longest if longest < _CELL else _CELL / longest
    cell = (round(width * scale), round(height * scale))
    how = PIL.Image.Resampling.NEAREST if scale > 1 else PIL.Image.Resampling.LANCZOS
    row = cell[1] + _HEAD + _GAP
    size = (_GAP + len(columns) * (cell[0] + _GAP), _HEAD + _GAP + len(prompts) * row)
    grid = PIL.Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(13)
    for number, (name, images) in enumerate(zip(names, columns, strict=True)):
        left = _GAP + number * (cell[0] + _GAP)
        draw.text((left, 4), _cut(name, font, cell[0]), _INK, font)
        for place, image in enumerate(images):
            top = _HEAD + place * row
            if number == 0:
                draw.text(
                    (left, top + 4), _cut(prompts[place], font, size[0] - 2 * _GAP), _INK, font
                )
            grid.paste(PIL.Image.fromarray(image).resize(cell, how), (left, top + _HEAD))
    return grid


def _cut(text: str, font: Any, width: int) -> str:
    """Cut a text to so many pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
