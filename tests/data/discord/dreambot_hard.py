"""Conversations with DreamBot in which what is easy to read off the messages is not what was meant."""

from __future__ import annotations

from .dreambot_scenes import Grid, feed, opening, pick, request, single
from .pictures import collage, field
from .world import HOUR, Stage


def late(stage: Stage, ms: int) -> Grid:
    """A pick more than a day later."""
    grid, j = opening(stage, ms)
    messages = pick(stage, grid, j, after=stage.rng.randrange(25, 200) * HOUR)
    facts = {"hard": "late", "beyond": "late"} | grid.facts
    stage.judge(grid.number, j, grid.person, "seed", messages=messages, **facts)
    return grid


def stranger(stage: Stage, ms: int) -> Grid:
    """Somebody else refines image j; half of the time the requester picks another one."""
    grid, j = opening(stage, ms)
    person = stage.other(grid.person)
    messages = pick(stage, grid, j, person, after=stage.pause(30, 1200))
    facts = {"hard": "stranger"} | grid.facts
    stage.judge(grid.number, j, person, "seed", messages=messages, other=True, **facts)
    if stage.rng.random() < 0.5:
        own = (j + 1) % len(grid.images)
        messages = pick(stage, grid, own)
        stage.judge(grid.number, own, grid.person, "seed", messages=messages, **facts)
    else:
        stage.judge(grid.number, None, grid.person, **facts)
    return grid


def deleted(stage: Stage, ms: int) -> Grid:
    """The person's command is gone; only the bot's answer shows the pick."""
    grid, j = opening(stage, ms, ping=True)
    messages = pick(stage, grid, j, ping=True)
    stage.delete(messages[0], *([grid.command] if stage.rng.random() < 0.3 else []))
    facts = {"hard": "deleted"} | grid.facts
    stage.judge(grid.number, j, grid.person, "seed", messages=messages, **facts)
    return grid


def withdrawn(stage: Stage, ms: int) -> Grid:
    """A pick that was taken back: command and answer are deleted."""
    grid, j = opening(stage, ms)
    stage.delete(*pick(stage, grid, j))
    facts = {"hard": "withdrawn", "preferred": j} | grid.facts
    stage.judge(grid.number, None, grid.person, **facts)
    return grid


def edited(stage: Stage, ms: int) -> Grid:
    """The command was edited after it ran: the message shows a seed that never ran."""
    grid, j = opening(stage, ms)
    wrong = grid.seeds[(j + 1) % len(grid.seeds)]
    text = f'!dream "{grid.prompt}" -S {wrong} -s 100'
    after = stage.pause(60, 3600)
    messages = pick(stage, grid, j, text=text, after=after, edited_ms=grid.ms + after + 240_000)
    facts = {"hard": "edited"} | grid.facts
    stage.judge(grid.number, j, grid.person, "seed", messages=messages, **facts)
    return grid


def fewer(stage: Stage, ms: int) -> Grid:
    """The bot gives fewer images than asked for, with the seeds of those that came."""
    asked = stage.rng.choice((4, 6, 9))
    plural = stage.rng.choice(("collage", "attachments"))
    count = stage.rng.choice([k for k in (2, 3, 4) if k < asked])
    grid, j = opening(stage, ms, count=count, asked=asked, plural=plural)
    facts = {"hard": "fewer", "beyond": "fewer"} | grid.facts
    stage.judge(grid.number, j, grid.person, "seed", messages=pick(stage, grid, j), **facts)
    return grid


def conditioned(stage: Stage, ms: int) -> Grid:
    """A request with an uploaded image: published sets leave it out, whatever is picked."""
    upload = [stage.attach(field(stage.rng, 96, 96), "sketch.jpg", ms)]
    grid, j = opening(stage, ms, upload=upload)
    facts = {"hard": "conditioned", "excluded": "conditioning image"} | grid.facts
    if stage.rng.random() < 0.5:
        messages = pick(stage, grid, j)
        stage.judge(grid.number, j, grid.person, "seed", messages=messages, **facts)
    else:
        stage.judge(grid.number, None, grid.person, **facts)
    return grid


def swept(stage: Stage, ms: int) -> Grid:
    """The grid's own seed is that of image 0; running it again with more steps picks nothing."""
    base = stage.rng.randrange(2**31)
    count = stage.rng.choice((3, 4, 9))
    grid, _ = opening(stage, ms, base=base, count=count, seeds=[base + k for k in range(count)])
    facts = {"hard": "grid seed"} | grid.facts
    stage.judge(grid.number, None, grid.person, **facts)
    later = grid.ms + stage.pause(20, 900)
    again = {"base": base, "seeds": grid.seeds, "images": grid.images, "count": count}
    second = request(stage, grid.person, grid.prompt, later, **again)
    stage.judge(second.number, None, second.person, **({"hard": "grid seed"} | second.facts))
    return second


def twin_runs(stage: Stage, ms: int) -> Grid:
    """The same run twice gives the same images; the pick was made from the second."""
    base = stage.rng.randrange(2**31)
    grid, j = opening(stage, ms, base=base, count=4, seeds=[base + 7 * k + 3 for k in range(4)])
    facts = {"hard": "same run twice"} | grid.facts
    stage.judge(grid.number, None, grid.person, **facts)
    later = grid.ms + stage.pause(20, 900)
    again = {"base": base, "seeds": grid.seeds, "images": grid.images, "count": 4}
    second = request(stage, grid.person, grid.prompt, later, **again)
    facts = {"hard": "same run twice"} | second.facts
    stage.judge(second.number, j, grid.person, "seed", messages=pick(stage, second, j), **facts)
    return second


def reworded(stage: Stage, ms: int) -> Grid:
    """The seed of image j with a changed prompt: liked enough to work on, but no longer that prompt."""
    grid, j = opening(stage, ms)
    later = grid.ms + stage.pause(20, 3600)
    prompt = stage.rng.choice(
        (grid.prompt + ", in the rain", grid.prompt.upper(), "more " + grid.prompt)
    )
    messages = single(stage, grid.person, prompt, later, grid.seeds[j], like=grid.images[j])
    facts = {"hard": "reworded", "beyond": "reworded"} | grid.facts
    stage.judge(grid.number, j, grid.person, "seed", messages=messages, **facts)
    return grid


def photograph(stage: Stage, ms: int) -> Grid:
    """An image of one's own is uploaded with the same prompt: no image of the grid was picked."""
    grid, _ = opening(stage, ms)
    later = grid.ms + stage.pause(20, 1800)
    upload = [stage.attach(field(stage.rng, 64, 64), "photo.jpg", later)]
    seed = stage.rng.randrange(2**32)
    single(stage, grid.person, grid.prompt, later, seed, upload=upload, hide=True)
    stage.judge(grid.number, None, grid.person, **({"hard": "own photograph"} | grid.facts))
    return grid


def whole(stage: Stage, ms: int) -> Grid:
    """The whole collage is fed back: no image was picked."""
    grid, _ = opening(stage, ms, plural="collage", count=4)
    later = grid.ms + stage.pause(20, 1800)
    upload = [stage.attach(collage(grid.images), "grid-0000.png", later)]
    seed = stage.rng.randrange(2**32)
    single(stage, grid.person, grid.prompt, later, seed, upload=upload, hide=True)
    stage.judge(grid.number, None, grid.person, **({"hard": "whole collage"} | grid.facts))
    return grid


def cropped(stage: Stage, ms: int) -> Grid:
    """Image j is cut out of the collage, or saved again by another program, and fed back."""
    grid, j = opening(stage, ms)
    messages = feed(stage, grid, j, "again")
    facts = {"hard": "saved again"} | grid.facts
    stage.judge(grid.number, j, grid.person, "attach", messages=messages, **facts)
    return grid


def older(stage: Stage, ms: int) -> Grid:
    """The prompt ran twice; an image of the first grid is fed back after the second came."""
    grid, j = opening(stage, ms, plural="attachments")
    second = request(stage, grid.person, grid.prompt, grid.ms + 15_000, plural="attachments")
    grid.ms = second.ms
    messages = feed(stage, grid, j)
    facts = {"hard": "older grid"} | grid.facts
    stage.judge(grid.number, j, grid.person, "attach", messages=messages, **facts)
    stage.judge(second.number, None, grid.person, **({"hard": "older grid"} | second.facts))
    return grid


def seed_in_prompt(stage: Stage, ms: int) -> Grid:
    """The prompt itself holds `-S` and `-n`: only what follows the last quote counts."""
    person = stage.rng.choice(stage.people)
    grid = request(stage, person, f"{stage.words()} -S 77 -n 2, s -s", ms)
    j = stage.rng.randrange(len(grid.images))
    facts = {"hard": "modifiers in the prompt"} | grid.facts
    stage.judge(grid.number, j, person, "seed", messages=pick(stage, grid, j), **facts)
    return grid


def steps(stage: Stage, ms: int) -> Grid:
    """`-s` is the number of steps: a lower-case s with the number of a seed picks nothing."""
    seeds = [stage.rng.randrange(60, 150) + 200 * k for k in range(4)]
    grid, _ = opening(stage, ms, count=4, seeds=seeds)
    later = grid.ms + stage.pause(20, 900)
    number = stage.rng.randrange(2**32)
    single(stage, grid.person, grid.prompt, later, number, steps=seeds[0], hide=True)
    stage.judge(grid.number, None, grid.person, **({"hard": "steps"} | grid.facts))
    return grid


def spoken(stage: Stage, ms: int) -> Grid:
    """The person names a favourite in chat and does nothing with it."""
    grid, j = opening(stage, ms)
    text = stage.rng.choice((f"number {j + 1} is great", f"I love image #{j + 1}", f"{j + 1}!!"))
    stage.post(grid.person, grid.ms + 60_000, text, reply=grid.number, mentions=[stage.bot])
    facts = {"hard": "said in chat", "preferred": j} | grid.facts
    stage.judge(grid.number, None, grid.person, **facts)
    return grid
