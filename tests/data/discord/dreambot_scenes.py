"""Conversations with Stability's DreamBot of 2022: requests, answers, and ways to pick or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import PIL.Image

from .exporter import Json
from .pictures import LAYOUTS, collage, field, upscale
from .prompts import parameters
from .world import Person, Stage


@dataclass
class Grid:
    """An answer of the bot with several images, and who asked for what."""

    number: str
    command: str
    person: Person
    prompt: str
    seeds: list[int]
    images: list[PIL.Image.Image]
    files: list[bytes]
    ms: int
    facts: dict[str, Any]


def echo(prompt: str, seed: int | None, count: int, options: str, *, grid: bool = False) -> str:
    """The command as the bot repeats it: `!dream "prompt" -S seed -s … -C … -A … -n k [-g]`."""
    text = f'!dream "{prompt}"' + (f" -S {seed}" if seed is not None else "") + options
    return text + (f" -n {count}" if count > 1 else "") + (" -g" if grid else "")


def settings(stage: Stage, steps: int = 50) -> str:
    scale = stage.rng.choice(("7.0", "7.0", "7.5", "12.0", "15"))
    sampler = stage.rng.choice(("k_lms", "k_lms", "k_lms", "ddim", "k_euler_ancestral"))
    return f" -s {steps} -C {scale} -A {sampler}"


def typed(stage: Stage, prompt: str, rest: str) -> str:
    """The same command as a person types it: defaults left out, modifiers in another order."""
    draw = stage.rng.random()
    name = "!dream" if draw < 0.8 else "!Dream" if draw < 0.9 else "!dream  "
    return f'{name} "{prompt}"{rest}'


def request(stage: Stage, person: Person, prompt: str, ms: int, **how: Any) -> Grid:
    """A request and the bot's answer with `count` images.

    `how`: count, base (a seed the person gave), seeds and images (of a run to repeat), asked,
    upload (a conditioning image), plural ("collage" or "attachments").
    """
    rng = stage.rng
    count = how.get("count") or rng.choices((2, 3, 4, 6, 8, 9), (1, 1, 9, 2, 0.5, 2.5))[0]
    asked = how.get("asked", count)
    plural = how.get("plural") or rng.choice(("collage", "attachments"))
    in_grid = plural == "collage" and rng.random() < 0.7
    base = how.get("base")
    seeds = how.get("seeds") or [rng.randrange(2**32) for _ in range(count)]
    size = rng.choice(((64, 64), (64, 64), (96, 64), (64, 80)))
    images = how.get("images") or [field(rng, *size) for _ in range(count)]
    rest = (f" -S {base}" if base is not None else "") + f" -n {asked}" + (" -g" if in_grid else "")
    mentions = stage.mentioned(prompt)
    command = stage.post(
        person, ms, typed(stage, prompt, rest), mentions=mentions, attachments=how.get("upload", ())
    )
    options = settings(stage)
    answered = ms + stage.pause(8, 90)
    files, attachments = shown(stage, images, seeds, plural, answered)
    text = f"`{echo(prompt, base, asked, options, grid=in_grid)}`\n"
    text += listed(stage, prompt, seeds, options)
    ping = [person] if rng.random() < 0.85 or how.get("ping") else []
    number = stage.post(
        stage.bot, answered, text, reply=command, mentions=ping + mentions, attachments=attachments
    )
    facts = {"requester": person.number, "images": plural, "shown": count, "asked": asked}
    facts["prompt"] = prompt
    return Grid(number, command, person, prompt, seeds, images, files, answered, facts)


def shown(
    stage: Stage, images: list[PIL.Image.Image], seeds: list[int], plural: str, ms: int
) -> tuple[list[bytes], list[Json]]:
    """The attachments of an answer: one for each image, or one collage of all."""
    if plural == "collage":
        whole = stage.attach(collage(images, LAYOUTS.get(len(images))), "grid-0000.png", ms)
        return [], [whole]
    names = [f"{seed}_{position}.png" for position, seed in enumerate(seeds)]
    found = [stage.attach(image, name, ms) for image, name in zip(images, names, strict=True)]
    return [stage.files.get(entry["url"], b"") for entry in found], found


def listed(stage: Stage, prompt: str, seeds: list[int], options: str) -> str:
    """The seeds of the images: in one list, or, later in 2022, as a command for each."""
    if stage.rng.random() < 0.6:
        return f"The seeds for each individual image are {seeds}"
    lines = "\n".join(f"`{echo(prompt, seed, 1, options)}`" for seed in seeds)
    return f"The commands for each individual image are\n{lines}"


def single(stage: Stage, person: Person, prompt: str, ms: int, seed: int, **how: Any) -> list[str]:
    """A command for one image and its answer; gives both ids, the person's first.

    `how`: like (the image that the answer resembles), upload, steps, text (what the person's
    message says where it was edited afterwards), edited_ms.
    """
    steps = how.get("steps") or stage.rng.choice((50, 80, 100, 150))
    large = stage.rng.choice(("", " -W 768 -H 768", " -W 512 -H 768"))
    rest = f" -S {seed}" if not how.get("hide") else ""
    rest += stage.rng.choice(("", f" -s {steps}")) + large
    mentions = stage.mentioned(prompt)
    text = how.get("text") or typed(stage, prompt, rest)
    parts = {"attachments": how.get("upload", ()), "edited_ms": how.get("edited_ms")}
    command = stage.post(person, ms, text, mentions=mentions, **parts)
    answered = ms + stage.pause(6, 60)
    like = how.get("like")
    image = upscale(stage.rng, like) if like is not None else field(stage.rng, 128, 128)
    files = [stage.attach(image, f"{seed}_0.png", answered)]
    answer = f"`{echo(prompt, seed, 1, settings(stage, steps) + large)}`"
    ping = [person] if stage.rng.random() < 0.85 or how.get("ping") else []
    replied = stage.post(
        stage.bot, answered, answer, reply=command, mentions=ping + mentions, attachments=files
    )
    return [command, replied]


def pick(stage: Stage, grid: Grid, j: int, person: Person | None = None, **how: Any) -> list[str]:
    """The person runs the prompt again with the seed of image j."""
    who = person or grid.person
    ms = grid.ms + how.pop("after", stage.pause(15, 4 * 3600))
    return single(stage, who, grid.prompt, ms, grid.seeds[j], like=grid.images[j], **how)


def feed(stage: Stage, grid: Grid, j: int, how: str = "exact") -> list[str]:
    """The person uploads image j together with the prompt; gives the ids of what came of it."""
    ms = grid.ms + stage.pause(20, 3600)
    image = grid.images[j]
    if how == "exact" and grid.files:
        file = stage.attach(grid.files[j], f"{grid.seeds[j]}_{j}.png", ms)
    else:
        larger = upscale(stage.rng, image, 0.3) if stage.rng.random() < 0.5 else image
        file = stage.attach(larger, stage.rng.choice(("image0.jpg", "unknown.png", "crop.jpg")), ms)
    seed = stage.rng.randrange(2**32)
    return single(stage, grid.person, grid.prompt, ms, seed, upload=[file], like=image, hide=True)


# ------------------------------------------------------------------ usual scenes


def opening(stage: Stage, ms: int, **how: Any) -> tuple[Grid, int]:
    """A request by somebody, and a favourite among its images."""
    grid = request(stage, stage.rng.choice(stage.people), stage.words(), ms, **how)
    return grid, stage.rng.randrange(len(grid.images))


def ignored(stage: Stage, ms: int) -> Grid:
    grid, _ = opening(stage, ms)
    stage.judge(grid.number, None, grid.person, **grid.facts)
    return grid


def seeded(stage: Stage, ms: int) -> Grid:
    grid, j = opening(stage, ms)
    stage.judge(grid.number, j, grid.person, "seed", messages=pick(stage, grid, j), **grid.facts)
    return grid


def fed(stage: Stage, ms: int) -> Grid:
    grid, j = opening(stage, ms, plural="attachments")
    stage.judge(grid.number, j, grid.person, "attach", messages=feed(stage, grid, j), **grid.facts)
    return grid


def rerun(stage: Stage, ms: int) -> Grid:
    """Nothing pleased: the same prompt again, the bot draws new seeds; the second may be picked."""
    grid, _ = opening(stage, ms)
    stage.judge(grid.number, None, grid.person, again="rerun", **grid.facts)
    later = grid.ms + stage.pause(10, 600)
    second = request(stage, grid.person, grid.prompt, later, count=len(grid.images))
    if stage.rng.random() < 0.5:
        j = stage.rng.randrange(len(second.images))
        messages = pick(stage, second, j)
        stage.judge(second.number, j, second.person, "seed", messages=messages, **second.facts)
    else:
        stage.judge(second.number, None, second.person, **second.facts)
    return second


def several(stage: Stage, ms: int) -> Grid:
    """Two images of one grid are refined: both were picked."""
    grid, j = opening(stage, ms)
    other = (j + 1) % len(grid.images)
    for index in (j, other):
        messages = pick(stage, grid, index)
        facts = {"several": 2} | grid.facts
        stage.judge(grid.number, index, grid.person, "seed", messages=messages, **facts)
    return grid


def borrowed(stage: Stage, ms: int) -> Grid:
    """Somebody else runs the prompt and picks from their own grid."""
    grid, _ = opening(stage, ms)
    stage.judge(grid.number, None, grid.person, again="borrowed", **grid.facts)
    person = stage.other(grid.person)
    own = request(stage, person, grid.prompt, grid.ms + stage.pause(20, 1200))
    j = stage.rng.randrange(len(own.images))
    stage.judge(own.number, j, person, "seed", messages=pick(stage, own, j), **own.facts)
    return own


def random_single(stage: Stage, ms: int) -> Grid:
    """The prompt once more for a single image with a seed that no image of the grid has."""
    grid, _ = opening(stage, ms)
    later = grid.ms + stage.pause(20, 900)
    single(stage, grid.person, grid.prompt, later, stage.rng.randrange(2**32))
    stage.judge(grid.number, None, grid.person, **grid.facts)
    return grid


def parameterised(stage: Stage, ms: int) -> Grid:
    """Habits from another bot: `--ar 16:9` inside the prompt."""
    person = stage.rng.choice(stage.people)
    grid = request(stage, person, stage.words() + parameters(stage.rng), ms)
    j = stage.rng.randrange(len(grid.images))
    stage.judge(grid.number, j, person, "seed", messages=pick(stage, grid, j), **grid.facts)
    return grid


def error(stage: Stage, ms: int) -> None:
    """A command that the bot does not understand, or that has to wait."""
    person = stage.rng.choice(stage.people)
    command = stage.post(person, ms, "!dream a cat without any quotes -n 4")
    texts = (
        "Could not parse your command: put the prompt in quotes.",
        "You have 2 dreams in the queue already, please wait.",
        "`!dream` is not available right now, the server is restarting",
    )
    answer = stage.rng.choice(texts)
    number = stage.post(stage.bot, ms + 900, answer, reply=command, mentions=[person])
    if stage.rng.random() < 0.3:
        stage.delete(number)


def ascii_mode(stage: Stage, ms: int) -> None:
    """Images as letters: an answer without any picture."""
    person = stage.rng.choice(stage.people)
    prompt = stage.words()
    command = stage.post(person, ms, f'!dream "{prompt}" -a -n 2', mentions=stage.mentioned(prompt))
    rows = ["".join(stage.rng.choice(" .:-=+*#%@") for _ in range(24)) for _ in range(6)]
    text = f"`{echo(prompt, None, 2, settings(stage))} -a`\n```\n" + "\n".join(rows) + "\n```"
    mentions = [person, *stage.mentioned(prompt)]
    stage.post(stage.bot, ms + 9000, text, reply=command, mentions=mentions)
