"""Synthetic Discord channels whose truth is known, in the format of DiscordChatExporter 2.47.1."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from . import (
    dreambot_hard,
    dreambot_scenes,
    midjourney_hard,
    midjourney_scenes,
    noise,
    ownbot_scenes,
)
from .exporter import Json, document, file_name, serialise
from .huge import huge
from .traps import (
    trap_bot_reactions,
    trap_empty_content,
    trap_expired_links,
    trap_local_time_and_parts,
    trap_media_paths,
    trap_name_collision,
    trap_no_components,
    trap_numeric_type,
    trap_rendered_mentions,
)
from .world import MINUTE, Channel, Options, Stage, Truth

__all__ = [
    "Channel",
    "Options",
    "Truth",
    "again",
    "dreambot",
    "huge",
    "midjourney",
    "ownbot",
    "trap_bot_reactions",
    "trap_empty_content",
    "trap_expired_links",
    "trap_local_time_and_parts",
    "trap_media_paths",
    "trap_name_collision",
    "trap_no_components",
    "trap_numeric_type",
    "trap_rendered_mentions",
    "write",
]  # fmt: skip

Scene = Callable[..., Any]

# How often each conversation happens: usual ones, and those in which a naive rule goes wrong.
DREAMBOT: dict[Scene, float] = {
    dreambot_scenes.ignored: 26, dreambot_scenes.seeded: 26, dreambot_scenes.fed: 8,
    dreambot_scenes.rerun: 4, dreambot_scenes.several: 3, dreambot_scenes.borrowed: 3,
    dreambot_scenes.random_single: 3, dreambot_scenes.parameterised: 2, dreambot_scenes.error: 3,
    dreambot_scenes.ascii_mode: 1,
}  # fmt: skip
DREAMBOT_HARD: dict[Scene, float] = {
    dreambot_hard.late: 2, dreambot_hard.stranger: 3, dreambot_hard.deleted: 2,
    dreambot_hard.withdrawn: 1, dreambot_hard.edited: 1.5, dreambot_hard.fewer: 2,
    dreambot_hard.conditioned: 3, dreambot_hard.swept: 1.5, dreambot_hard.twin_runs: 0.7,
    dreambot_hard.reworded: 1.5, dreambot_hard.photograph: 1, dreambot_hard.whole: 0.7,
    dreambot_hard.cropped: 2.5, dreambot_hard.older: 1, dreambot_hard.seed_in_prompt: 1.5,
    dreambot_hard.steps: 1, dreambot_hard.spoken: 1,
}  # fmt: skip
MIDJOURNEY: dict[Scene, float] = {
    midjourney_scenes.ignored: 25, midjourney_scenes.picked: 32, midjourney_scenes.rerolled: 5,
    midjourney_scenes.varied: 4, midjourney_scenes.late: 2, midjourney_scenes.several: 4,
    midjourney_scenes.queued: 3, midjourney_scenes.orphan: 1,
}  # fmt: skip
MIDJOURNEY_HARD: dict[Scene, float] = {
    midjourney_hard.same_prompt: 3, midjourney_hard.stranger: 3, midjourney_hard.double_press: 1.5,
    midjourney_hard.redone: 3, midjourney_hard.moved: 1, midjourney_hard.stopped: 2,
    midjourney_hard.tricky_words: 3, midjourney_hard.spoken: 1, midjourney_hard.impostor: 1,
    midjourney_hard.alike: 1, midjourney_hard.repainted: 1.5, midjourney_hard.crossing: 2,
    midjourney_hard.unlucky: 1, midjourney_hard.conditioned: 1.5,
}  # fmt: skip
OWNBOT = {"own": 35.0, "ignored": 25.0}
OWNBOT_HARD = {
    "others": 8.0, "both": 8.0, "two numbers": 4.0, "out of range": 2.0, "unseeded": 3.0,
    "missing": 2.0, "heart": 4.0,
}  # fmt: skip


def grids_of(stage: Stage) -> int:
    """How many grids were judged so far."""
    return len({truth.grid_message for truth in stage.truths})


def run(
    stage: Stage, grids: int, play: Callable[[int, Any], Any], weights: dict[Any, float]
) -> Channel:
    """Scenes that start one after the other, and overlap, until there are enough grids."""
    every = [key for key, weight in weights.items() if weight > 0]
    shares = [weights[key] for key in every]
    # what is rare comes too, even in a small channel, where there is room for it
    planned = every[:] if grids >= 2 * len(every) else []
    stage.rng.shuffle(planned)
    while grids_of(stage) < grids:
        stage.now += int(stage.rng.expovariate(1 / stage.options.pace_minutes) * MINUTE) + 1
        before = len(stage.truths)
        scene = planned.pop() if planned else stage.rng.choices(every, shares)[0]
        play(stage.now, scene)
        after = stage.truths[before:]
        noise.around(stage, stage.now, after[0].grid_message if after else "")
    return stage.finish()


def harder(usual: dict[Any, float], hard: dict[Any, float], factor: float) -> dict[Any, float]:
    return usual | {key: weight * factor for key, weight in hard.items()}


def dreambot(seed: int, grids: int = 200, **variations: Any) -> Channel:
    """A channel of Stability's DreamBot, summer 2022; `variations` are fields of `Options`."""
    stage = Stage(seed, "dreambot", "DreamBotMothership", Options(**variations))
    weights = harder(DREAMBOT, DREAMBOT_HARD, stage.options.hard)
    return run(stage, grids, lambda ms, scene: scene(stage, ms), weights)


def midjourney(seed: int, grids: int = 200, era: str = "2023", **variations: Any) -> Channel:
    """A channel of Midjourney's bot: upscales that name the image (2023), or do not (2022)."""
    start = 1_682_000_000_000 if era == "2023" else 1_660_000_000_000
    options = Options(**({"start_ms": start} | variations))
    stage = Stage(seed, f"midjourney-{era}", "Midjourney Bot", options)
    weights = harder(MIDJOURNEY, MIDJOURNEY_HARD, options.hard)
    if era == "2022":
        weights.pop(midjourney_hard.moved)
    found = midjourney_scenes.ERAS[era]
    return run(stage, grids, lambda ms, scene: scene(stage, found, ms), weights)


def ownbot(seed: int, grids: int = 200, **variations: Any) -> Channel:
    """A channel of a server's own bot with number reactions."""
    stage = Stage(
        seed, "ownbot", "PaintPal", Options(**({"start_ms": 1_700_000_000_000} | variations))
    )
    weights = harder(OWNBOT, OWNBOT_HARD, stage.options.hard)
    return run(stage, grids, lambda ms, kind: ownbot_scenes.play(stage, ms, kind), weights)


def relinked(value: Any, links: dict[str, str], *, windows: bool) -> Any:
    """The same JSON with local paths as links, or with the separators of another system."""
    if isinstance(value, dict):
        return {key: relinked(part, links, windows=windows) for key, part in value.items()}
    if isinstance(value, list):
        return [relinked(part, links, windows=windows) for part in value]
    if isinstance(value, str) and value in links:
        return links[value].replace("/", "\\") if windows else links[value]
    return value


def parts_of(export: Json, split: int) -> list[Json]:
    """The export in complete documents of about as many messages each."""
    messages = export["messages"]
    bounds = [round(i * len(messages) / split) for i in range(split + 1)]
    names = ("guild", "channel", "exportedAt")
    guild, channel, exported = (export[name] for name in names)
    chunks = [messages[a:b] for a, b in pairwise(bounds)]
    return [document(guild, channel, exported, chunk) for chunk in chunks]


def write(
    channel: Channel,
    folder: Path,
    *,
    indent: int | None = 2,
    split: int = 1,
    media: bool = True,
    windows_paths: bool = False,
) -> list[Path]:
    """Write the export as the exporter does, in `split` parts, with the images beside it.

    Without `media` every path is the link it was. `windows_paths` also ends lines as Windows does.
    """
    export = channel.export
    if not media:
        export = relinked(export, channel.notes["remote"], windows=False)
    elif windows_paths:
        export = relinked(export, {name: name for name in channel.files}, windows=True)
    parts = enumerate(parts_of(export, split))
    texts = {file_name(export, number): serialise(part, indent) for number, part in parts}
    paths = []
    for name, text in channel.notes.get("texts", texts).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\r\n" if windows_paths else "\n")
        paths.append(path)
    for name, data in channel.files.items() if media else ():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return paths


def again(channel: Channel, more: Channel | None = None) -> Channel:
    """The channel exported later: people carry new nicknames; `more` may add what came since."""
    text = json.dumps(channel.export)
    export = renamed(json.loads(text))
    if more is not None:
        export["messages"] = export["messages"] + more.export["messages"]
        export["messageCount"] = len(export["messages"])
    return replace(channel, export=export)


def renamed(value: Any) -> Any:
    """Every person's nickname with a mark."""
    if isinstance(value, dict):
        found = {key: renamed(part) for key, part in value.items()}
        if "nickname" in found and not found["isBot"]:
            found["nickname"] += " (renamed)"
        return found
    return [renamed(part) for part in value] if isinstance(value, list) else value
