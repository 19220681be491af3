"""The page of an adapter's arms: the verdict, the tables, the sweep, and the same prompts and seeds side by side."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import PIL.Image

from palate.data.images import open_image
from palate.data.tables import image_path
from palate.evaluation.arms.measures import ArmImages, read_arm
from palate.evaluation.arms.plan import ORIGINAL
from palate.evaluation.arms.plots import plot_sweep
from palate.evaluation.arms.tables import (
    Found,
    difference_text,
    effect_of,
    four_table,
    pair_table,
    sweep_table,
    wins_text,
)
from palate.evaluation.report import PAGES, SERIES, picture_uri, plot_intervals, write_report

_SIDE: Final = 320
_TINY: Final = 64
_ROWS: Final = 8
_STRIPS: Final = 4
_SEEDS: Final = 4
_ROLES: Final = {"labelling": "labelled the images", "watching": "watches"}
_COLOURS: Final = dict(
    zip(("labelling", "watching", "diversity", "statistic"), SERIES, strict=False)
)


def write_arms_page(found: Found, out: Path) -> Path:
    """Write ``index.html`` with its pictures inside into the folder of the arms; give its path."""
    images = {arm["name"]: read_arm(out / "arms" / arm["name"]) for arm in found["arms"]}
    page = out / "index.html"
    write_report(PAGES / "arms.html", page, _facts(found, images))
    return page


def _facts(found: Found, images: Mapping[str, ArmImages]) -> dict[str, Any]:
    told = {arm["name"]: arm["told"] for arm in found["arms"]}
    sampling = found["sampling"]
    return {
        "title": f"Is {found['adapter']['name']} better?",
        "found": found,
        "told": told,
        "about": [
            f"adapter {found['adapter']['name']} on {found['base']['name']}",
            f"{found['prompts']:,} prompts × {found['images_per_prompt']} images, the same seeds in every arm",
            f"{sampling['steps']} steps, guidance {sampling['guidance']:g}",
        ],
        "cards": list(_cards(found)),
        "four": four_table(found),
        "pairs": pair_table(found),
        "wins": _wins_plot(found, told),
        "grid_rows": _grid(images, found["four"], _ROWS),
        "sweep": sweep_table(found),
        "curves": list(_curves(found)),
        "strips": _grid(images, found["sweep"], _STRIPS),
        "strengths": [
            f"{_arm(found, name)['strength']:g}"
            + (f" ({told[name]})" if name in found["four"] else "")
            for name in found["sweep"]
        ],
        "extremes": {
            name: [_extreme(one, found["main"], images) for one in own]
            for name, own in found["extremes"].items()
        },
        "seeds_shown": min(_SEEDS, found["images_per_prompt"]),
    }


def _arm(found: Found, name: str) -> Mapping[str, Any]:
    arm: Mapping[str, Any] = next(one for one in found["arms"] if one["name"] == name)
    return arm


def _cards(found: Found) -> Iterable[dict[str, str]]:
    """The main arm against the original: every scorer, and diversity."""
    for measure in found["measures"]:
        if measure["kind"] == "statistic":
            continue
        effect = effect_of(found, found["main"], ORIGINAL, measure["name"])
        assert effect is not None
        value, _, interval = difference_text(effect).removesuffix(" *").partition(" ")
        yield {
            "value": value,
            "tone": {1: "good", 0: "", -1: "bad"}[effect["direction"]],
            "name": measure["name"],
            "role": _ROLES.get(measure["kind"], ""),
            "share": _share(measure, effect),
            "interval": interval.strip("()"),
            "wins": f"wins {wins_text(effect)}" if effect["win_rate"] else "",
        }


def _share(measure: Mapping[str, Any], effect: Mapping[str, Any]) -> str:
    """Say how much of its diversity an arm lost or won, in per cent."""
    if measure["kind"] != "diversity" or not effect["mean_b"]:
        return ""
    return f"{100 * effect['a_minus_b']['value'] / effect['mean_b']:+.0f} %"


def _wins_plot(found: Found, told: Mapping[str, str]) -> str:
    """How often each arm wins against the original, by every scorer."""
    rows = []
    for measure in found["measures"]:
        for name in found["four"]:
            effect = effect_of(found, name, ORIGINAL, measure["name"])
            if effect is None or effect["win_rate"] is None:
                continue
            rate = effect["win_rate"]["rate"]
            value = 100 * rate["value"]
            ends = [value if rate[key] is None else 100 * rate[key] for key in ("low", "high")]
            rows.append((f"{measure['name']}: {told[name]}", value, *ends))
    return plot_intervals(rows, across="% of pairs of images won against the original", level=50.0)


def _curves(found: Found) -> Iterable[tuple[str, str]]:
    """One curve for each measure over the strengths."""
    if len(found["sweep"]) < 2:
        return
    for measure in found["measures"]:
        points = []
        for name in found["sweep"]:
            effect = effect_of(found, name, ORIGINAL, measure["name"])
            its = effect["a_minus_b"] if effect else {"value": 0.0, "low": 0.0, "high": 0.0}
            points.append((_arm(found, name)["strength"], its["value"], its["low"], its["high"]))
        up = measure["unit"] or measure["name"]
        yield measure["name"], plot_sweep(points, up=up, colour=_COLOURS[measure["kind"]])


def _grid(images: Mapping[str, ArmImages], names: Sequence[str], rows: int) -> list[dict[str, Any]]:
    """The first prompts, which nobody picked, with the first image of every arm."""
    if not names:
        return []
    prompts = images[ORIGINAL].prompts[:rows]
    return [
        {
            "prompt": prompt,
            "seed": images[ORIGINAL].rows[place][0]["seed"],
            "cells": [_thumb(images[name], place, 0) for name in names],
        }
        for place, prompt in enumerate(prompts)
    ]


def _extreme(one: Mapping[str, Any], main: str, images: Mapping[str, ArmImages]) -> dict[str, Any]:
    """One prompt with the images of the original above those of the main arm."""
    place = images[ORIGINAL].prompts.index(one["prompt"])
    seeds = range(min(_SEEDS, len(images[ORIGINAL].rows[place])))
    return {
        **one,
        "before": [_thumb(images[ORIGINAL], place, seed) for seed in seeds],
        "after": [_thumb(images[main], place, seed) for seed in seeds],
    }


def _thumb(arm: ArmImages, prompt: int, seed: int) -> dict[str, Any]:
    """A small picture inside the page; tiny ones keep every pixel."""
    picture = open_image(image_path(arm.rows[prompt][seed], arm.folder))
    if max(picture.size) <= _TINY:
        return {"uri": picture_uri(np.asarray(picture)), "tiny": True}
    picture.thumbnail((_SIDE, _SIDE), PIL.Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"uri": uri, "tiny": False}
