"""Midjourney's grids, re-rolls, variations and upscales, in the words of its bot."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import PIL.Image

from .pictures import collage, field, sibling, upscale
from .prompts import parameters
from .world import Person, Stage

SPEEDS = ("fast", "fast", "fast", "relaxed", "fast, stealth", "turbo")


@dataclass
class Job:
    """A grid of four, who asked for it, and what is in its cells."""

    number: str
    person: Person
    prompt: str
    images: list[PIL.Image.Image]
    ms: int
    facts: dict[str, Any]


def name_of(stage: Stage, person: Person, prompt: str) -> str:
    """`user_the_first_words_uuid.png`, as the bot names its files."""
    slug = "".join(c if c.isascii() and c.isalnum() else "_" for c in prompt)[:40].strip("_")
    code = f"{stage.rng.getrandbits(128):032x}"
    job = "-".join((code[:8], code[8:12], code[12:16], code[16:20], code[20:]))
    name = "".join(c for c in person.name if c.isascii() and c.isalnum()) or "user"
    return f"{name}_{slug}_{job}.png"


def cells(rng: random.Random, prompt: str) -> list[PIL.Image.Image]:
    """Four different pictures, wide or tall where the prompt asks for it."""
    size = (96, 54) if "--ar 16:9" in prompt else (48, 72) if "--ar 2:3" in prompt else (64, 64)
    return [field(rng, *size) for _ in range(4)]


def grid(stage: Stage, person: Person, prompt: str, ms: int, **how: Any) -> Job:
    """A grid: of /imagine, of a re-roll (`reply`), or of variations (`words`: "Variations by ").

    `how`: reply (the message whose button was pressed), words, images, status, deliver_ms.
    """
    status = how.get("status") or f"({stage.rng.choice(SPEEDS)})"
    images = how.get("images") or cells(stage.rng, prompt)
    done = ms + stage.pause(20, 120)
    text = f"**{prompt}** - {how.get('words', '')}<@{person.number}> {status}"
    file = stage.attach(collage(images), name_of(stage, person, prompt), done)
    mentions = [person, *(who for who in stage.mentioned(prompt) if who != person)]
    parts = {"mentions": mentions, "attachments": [file], "reply": how.get("reply")}
    number = stage.post(stage.bot, done, text, **parts)
    facts = {"requester": person.number, "images": "collage", "shown": 4, "asked": 4}
    facts["prompt"] = prompt
    facts["job"] = "re-roll" if how.get("reply") else "imagine"
    if how.get("words"):
        facts["job"] = "variation"
    return Job(number, person, prompt, images, done, facts)


def waiting(stage: Stage, person: Person, prompt: str, ms: int, status: str) -> str:
    """A slash command's reply that never became a grid: type 20, with its interaction."""
    text = f"**{prompt}** - <@{person.number}> ({status})"
    mentions = [person, *(who for who in stage.mentioned(prompt) if who != person)]
    return stage.post(stage.bot, ms, text, kind="20", by=("imagine", person), mentions=mentions)


def enlarged(stage: Stage, job: Job, j: int, words: str, reply: str | None, **how: Any) -> str:
    """A message of the bot with image j alone; `words` say by whom, and perhaps which.

    `how`: after (milliseconds), strength (of what the upscaler changes), like.
    """
    ms = job.ms + how.get("after", stage.pause(15, 3 * 3600))
    image = how.get("like") or job.images[j]
    large = upscale(stage.rng, image, how.get("strength", 1.0))
    person = how.get("person", job.person)
    file = stage.attach(large, name_of(stage, person, job.prompt), ms)
    mentions = [person, *(who for who in stage.mentioned(job.prompt) if who != person)]
    text = f"**{job.prompt}** - {words}"
    return stage.post(stage.bot, ms, text, reply=reply, mentions=mentions, attachments=[file])


def named(stage: Stage, job: Job, j: int, person: Person | None = None, **how: Any) -> str:
    """`Image #j`, a reply to the grid: the pick of 2023."""
    who = person or job.person
    words = f"Image #{j + 1} <@{who.number}>"
    return enlarged(stage, job, j, words, job.number, person=who, **how)


def unnamed(stage: Stage, job: Job, j: int, person: Person | None = None, **how: Any) -> str:
    """`Upscaled by`, without saying which image: the pick of 2022; only some refer to the grid."""
    who = person or job.person
    kind = how.pop("kind", "") or stage.rng.choice(("", "", "", "(Beta) ", "(Light) ", "(Max) "))
    status = stage.rng.choice(
        ("(fast)", "(fast)", "(relaxed)", "(Open on website for full quality) (fast)")
    )
    words = f"Upscaled {kind}by <@{who.number}> {status}"
    reply = job.number if how.pop("refer", stage.rng.random() < 0.6) else None
    return enlarged(stage, job, j, words, reply, person=who, **how)


@dataclass
class Era:
    """How a pick looks: its rule, and the function that plays it."""

    rule: str
    play: Any


ERAS = {"2023": Era("named", named), "2022": Era("pixels", unnamed)}


def opening(stage: Stage, ms: int, **how: Any) -> tuple[Job, int]:
    """A grid for somebody, and a favourite among its images."""
    prompt = how.pop("prompt", None) or stage.words() + parameters(stage.rng)
    job = grid(stage, stage.rng.choice(stage.people), prompt, ms, **how)
    return job, stage.rng.randrange(4)


# ------------------------------------------------------------------ usual scenes


def ignored(stage: Stage, era: Era, ms: int) -> Job:
    job, _ = opening(stage, ms)
    stage.judge(job.number, None, job.person, **job.facts)
    return job


def picked(stage: Stage, era: Era, ms: int) -> Job:
    job, j = opening(stage, ms)
    stage.judge(
        job.number, j, job.person, era.rule, messages=[era.play(stage, job, j)], **job.facts
    )
    return job


def rerolled(stage: Stage, era: Era, ms: int) -> Job:
    """None of four pleased: the same job again; one of the second four is picked."""
    job, j = opening(stage, ms)
    stage.judge(job.number, None, job.person, again="re-roll", **job.facts)
    second = grid(stage, job.person, job.prompt, job.ms + stage.pause(10, 600), reply=job.number)
    act = era.play(stage, second, j)
    stage.judge(second.number, j, job.person, era.rule, messages=[act], **second.facts)
    return second


def varied(stage: Stage, era: Era, ms: int) -> Job:
    """Variations of image j, then an upscale out of them: V does not say which image, U does."""
    job, j = opening(stage, ms)
    facts = {"hard": "variation", "preferred": j} | job.facts
    stage.judge(job.number, None, job.person, again="variation", **facts)
    images = [sibling(stage.rng, job.images[j], 0.35) for _ in range(4)]
    words = stage.rng.choice(("Variations by ", "Variations by ", "Variations (Strong) by "))
    later = job.ms + stage.pause(10, 900)
    second = grid(
        stage, job.person, job.prompt, later, reply=job.number, words=words, images=images
    )
    k = stage.rng.randrange(4)
    act = era.play(stage, second, k)
    stage.judge(second.number, k, job.person, era.rule, messages=[act], **second.facts)
    return second


def late(stage: Stage, era: Era, ms: int) -> Job:
    """Days later the grid is still there to press a button under."""
    job, j = opening(stage, ms)
    act = era.play(stage, job, j, after=stage.rng.randrange(25, 300) * 3_600_000)
    facts = {"late": True} | job.facts
    stage.judge(job.number, j, job.person, era.rule, messages=[act], **facts)
    return job


def several(stage: Stage, era: Era, ms: int) -> Job:
    """Two or all four images are upscaled."""
    job, _ = opening(stage, ms)
    chosen = stage.rng.sample(range(4), stage.rng.choice((2, 2, 3, 4)))
    for index in chosen:
        facts = {"several": len(chosen)} | job.facts
        act = era.play(stage, job, index)
        stage.judge(job.number, index, job.person, era.rule, messages=[act], **facts)
    return job


def queued(stage: Stage, era: Era, ms: int) -> None:
    """Jobs that never gave a grid: waiting, or refused."""
    person = stage.rng.choice(stage.people)
    prompt = stage.words()
    if stage.rng.random() < 0.6:
        waiting(stage, person, prompt, ms, "Waiting to start")
    else:
        text = f"Invalid parameter: `--v 9` is not compatible. /imagine {prompt}"
        stage.post(stage.bot, ms, text, kind="20", by=("imagine", person))


def orphan(stage: Stage, era: Era, ms: int) -> None:
    """An upscale whose grid was deleted: there is nothing left to compare it with."""
    job, j = opening(stage, ms)
    era.play(stage, job, j)
    stage.delete(job.number)
