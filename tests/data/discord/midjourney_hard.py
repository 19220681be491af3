"""Midjourney's conversations in which a naive rule goes wrong."""

from __future__ import annotations

from .midjourney_scenes import Era, Job, cells, enlarged, grid, opening
from .pictures import sibling
from .prompts import parameters
from .world import Stage


def same_prompt(stage: Stage, era: Era, ms: int) -> Job:
    """One prompt twice by one person, a minute apart; the older grid is picked from."""
    job, j = opening(stage, ms)
    second = grid(stage, job.person, job.prompt, ms + 45_000)
    pressed = max(job.ms, second.ms) - job.ms + stage.pause(30, 900)
    act = era.play(stage, job, j, after=pressed)
    facts = {"hard": "same prompt twice"}
    stage.judge(job.number, j, job.person, era.rule, messages=[act], **facts | job.facts)
    stage.judge(second.number, None, job.person, **facts | second.facts)
    return job


def stranger(stage: Stage, era: Era, ms: int) -> Job:
    """Somebody else presses U under the grid; half of the time the requester does too."""
    job, j = opening(stage, ms)
    person = stage.other(job.person)
    facts = {"hard": "stranger"} | job.facts
    act = era.play(stage, job, j, person)
    stage.judge(job.number, j, person, era.rule, messages=[act], other=True, **facts)
    if stage.rng.random() < 0.5:
        own = (j + 1) % 4
        act = era.play(stage, job, own)
        stage.judge(job.number, own, job.person, era.rule, messages=[act], **facts)
    else:
        stage.judge(job.number, None, job.person, **facts)
    return job


def double_press(stage: Stage, era: Era, ms: int) -> Job:
    """The same button twice: two messages, one pick."""
    job, j = opening(stage, ms)
    first = era.play(stage, job, j, after=60_000)
    acts = [first, era.play(stage, job, j, after=stage.pause(90, 900))]
    facts = {"hard": "pressed twice"} | job.facts
    stage.judge(job.number, j, job.person, era.rule, messages=acts, **facts)
    return job


def redone(stage: Stage, era: Era, ms: int) -> Job:
    """The upscale is upscaled again with another upscaler: still one pick."""
    job, j = opening(stage, ms)
    first = era.play(stage, job, j, after=90_000)
    kind = stage.rng.choice(("(Beta)", "(Light)", "(2x)", "(Subtle)"))
    words = f"Upscaled {kind} by <@{job.person.number}> (fast)"
    second = enlarged(stage, job, j, words, first, after=stage.pause(120, 900))
    facts = {"hard": "upscaled again"} | job.facts
    stage.judge(job.number, j, job.person, era.rule, messages=[first, second], **facts)
    return job


def moved(stage: Stage, era: Era, ms: int) -> Job:
    """The picked image is panned or zoomed: a new grid under the upscale, with its own truth."""
    job, j = opening(stage, ms)
    act = era.play(stage, job, j, after=60_000)
    facts = {"hard": "zoom or pan"} | job.facts
    stage.judge(job.number, j, job.person, era.rule, messages=[act], **facts)
    words = stage.rng.choice(("Zoom Out by ", "Pan Left by ", "Variations (Subtle) by "))
    images = [sibling(stage.rng, job.images[j], 0.25) for _ in range(4)]
    later = job.ms + stage.pause(120, 900)
    second = grid(stage, job.person, job.prompt, later, reply=act, words=words, images=images)
    facts = {"hard": "zoom or pan"} | second.facts
    stage.judge(second.number, None, job.person, **facts)
    return job


def stopped(stage: Stage, era: Era, ms: int) -> Job:
    """A job stopped at some percentage leaves half a grid; the job is run again and picked from."""
    person = stage.rng.choice(stage.people)
    prompt = stage.words() + parameters(stage.rng)
    percent = stage.rng.choice((31, 46, 67, 93))
    status = stage.rng.choice((f"({percent}%) (fast)", f"({percent}%)", "(Stopped)"))
    first = grid(stage, person, prompt, ms, status=status)
    facts = {"hard": "stopped", "excluded": "stopped"} | first.facts
    stage.judge(first.number, None, person, **facts)
    job = grid(stage, person, prompt, first.ms + 5_000)
    j = stage.rng.randrange(4)
    act = era.play(stage, job, j)
    stage.judge(job.number, j, person, era.rule, messages=[act], **{"hard": "stopped"} | job.facts)
    return job


def tricky_words(stage: Stage, era: Era, ms: int) -> Job:
    """The prompt itself holds what the bot writes after a prompt."""
    person = stage.rng.choice(stage.people)
    me = f"<@{person.number}>"
    odd = (
        f"poster ** of ** stars - Image #2 {me}",
        f"a - Upscaled by {me} (fast)",
        f"**bold** - {me} (fast)",
        "street (fast) at night (67%)",
        "two words ** - Variations by nobody",
        "* - Image #4 * - (Waiting to start)",
        "first line\nsecond line",
    )
    job = grid(stage, person, stage.words() + " " + stage.rng.choice(odd), ms)
    j = stage.rng.randrange(4)
    facts = {"hard": "the bot's words in the prompt"} | job.facts
    if stage.rng.random() < 0.6:
        act = era.play(stage, job, j)
        stage.judge(job.number, j, person, era.rule, messages=[act], **facts)
    else:
        stage.judge(job.number, None, person, **facts)
    return job


def spoken(stage: Stage, era: Era, ms: int) -> Job:
    """A favourite named in chat, by somebody who cannot press the button."""
    job, j = opening(stage, ms)
    text = stage.rng.choice(
        (f"U{j + 1}", f"Image #{j + 1} <@{stage.bot.number}>", f"#{j + 1} wins")
    )
    who = stage.other(job.person)
    stage.post(who, job.ms + 60_000, text, reply=job.number, mentions=[stage.bot])
    facts = {"hard": "said in chat", "preferred": j} | job.facts
    stage.judge(job.number, None, job.person, **facts)
    return job


def impostor(stage: Stage, era: Era, ms: int) -> Job:
    """A person, not the bot, quotes the bot's message with an image."""
    job, j = opening(stage, ms)
    who = stage.other(job.person)
    text = f"**{job.prompt}** - Image #{j + 1} <@{job.person.number}>"
    file = stage.attach(job.images[(j + 1) % 4], "screenshot.png", job.ms + 90_000)
    parts = {"mentions": [job.person], "attachments": [file]}
    stage.post(who, job.ms + 90_000, text, reply=job.number, **parts)
    stage.judge(job.number, None, job.person, **{"hard": "quoted"} | job.facts)
    return job


def alike(stage: Stage, era: Era, ms: int) -> Job:
    """Two of four images are nearly the same: pixels cannot tell which was meant, words can."""
    images = cells(stage.rng, "")
    images[2] = sibling(stage.rng, images[0], 0.01)
    job, _ = opening(stage, ms, images=images, prompt=stage.words())
    j = stage.rng.choice((0, 2))
    facts = {"hard": "two alike", "beyond": "two alike"} | job.facts
    if era.rule == "named":
        del facts["beyond"]
    act = era.play(stage, job, j)
    stage.judge(job.number, j, job.person, era.rule, messages=[act], **facts)
    return job


def repainted(stage: Stage, era: Era, ms: int) -> Job:
    """An upscaler that paints much of its own."""
    job, j = opening(stage, ms)
    like = sibling(stage.rng, job.images[j], 0.3)
    act = era.play(stage, job, j, strength=4.0, like=like)
    facts = {"hard": "repainted"} | job.facts
    stage.judge(job.number, j, job.person, era.rule, messages=[act], **facts)
    return job


def crossing(stage: Stage, era: Era, ms: int) -> Job:
    """Two people run one prompt at the same time; each picks from their own grid."""
    job, j = opening(stage, ms)
    person = stage.other(job.person)
    second = grid(stage, person, job.prompt, ms + 5_000)
    facts = {"hard": "two people, one prompt"}
    k = stage.rng.randrange(4)
    for mine, index in ((job, j), (second, k)):
        act = era.play(stage, mine, index)
        stage.judge(mine.number, index, mine.person, era.rule, messages=[act], **facts | mine.facts)
    return job


def unlucky(stage: Stage, era: Era, ms: int) -> Job:
    """The upscale was deleted: picked, and taken back."""
    job, j = opening(stage, ms)
    stage.delete(era.play(stage, job, j))
    facts = {"hard": "withdrawn", "preferred": j} | job.facts
    stage.judge(job.number, None, job.person, **facts)
    return job


def conditioned(stage: Stage, era: Era, ms: int) -> Job:
    """The prompt starts with the link of an uploaded image: published sets leave such grids out."""
    link = f"<https://s.mj.run/{stage.rng.getrandbits(48):x}>"
    job, j = opening(stage, ms, prompt=f"{link} {stage.words()}")
    facts = {"hard": "conditioned", "excluded": "conditioning image"} | job.facts
    act = era.play(stage, job, j)
    stage.judge(job.number, j, job.person, era.rule, messages=[act], **facts)
    return job
