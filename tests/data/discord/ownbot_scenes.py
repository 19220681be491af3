"""A server's own bot: four images, and number reactions under them."""

from __future__ import annotations

from typing import Any

from .exporter import KEYCAPS
from .pictures import collage, field
from .world import Person, Stage


def grid(stage: Stage, person: Person, ms: int, **how: Any) -> tuple[str, dict[str, Any]]:
    """A slash command's answer: `**prompt** - <@user>`, images, and the bot's own numbers.

    Who asked stands in `interaction.user`; the bot reacts with one number for each image.
    """
    rng = stage.rng
    count = how.get("count") or rng.choice((2, 3, 4, 4, 4, 4))
    prompt = how.get("prompt") or stage.words()
    images = [field(rng) for _ in range(count)]
    plural = rng.choice(("collage", "attachments"))
    if plural == "collage":
        files = [stage.attach(collage(images), "grid.jpg", ms)]
    else:
        files = [stage.attach(image, f"image_{i}.jpg", ms) for i, image in enumerate(images)]
    mentions = [person, *(who for who in stage.mentioned(prompt) if who != person)]
    text = f"**{prompt}** - <@{person.number}>"
    by = ("imagine", person)
    parts = {"kind": "20", "by": by, "mentions": mentions, "attachments": files}
    number = stage.post(stage.bot, ms, text, **parts)
    facts = {"requester": person.number, "images": plural, "shown": count, "asked": count}
    facts["prompt"] = prompt
    return number, facts


def react(
    stage: Stage, number: str, count: int, votes: dict[int, list[Person]], **how: Any
) -> None:
    """The bot's seed reactions, with the votes of people under them."""
    seeds = [] if how.get("unseeded") else [stage.bot]
    for k in range(max(count, *(index + 1 for index in votes), 0) if votes else count):
        users = (seeds if k < count else []) + votes.get(k, [])
        if users:
            stage.react(number, KEYCAPS[k], users, missing=how.get("missing", 0))


def play(stage: Stage, ms: int, kind: str) -> str:
    """One grid of a kind; what each person meant is noted."""
    person = stage.rng.choice(stage.people)
    number, facts = grid(stage, person, ms)
    count = facts["shown"]
    j = stage.rng.randrange(count)
    others = stage.rng.sample([who for who in stage.people if who != person], 2)
    votes: dict[int, list[Person]] = {}
    hard = {} if kind in {"own", "ignored"} else {"hard": kind}
    facts = hard | facts
    wanted: list[tuple[int | None, Person, dict[str, Any]]] = []
    if kind in {"own", "unseeded", "missing", "heart"}:
        wanted.append((j, person, {}))
    elif kind == "ignored":
        wanted.append((None, person, {}))
    elif kind == "others":
        wanted += [(None, person, {}), (j, others[0], {"other": True})]
    elif kind == "both":
        wanted.append((j, person, {}))
        wanted += [((j + 1) % count, who, {"other": True}) for who in others]
    elif kind == "two numbers":
        wanted += [(k, person, {"several": 2}) for k in sorted({j, (j + 1) % count})]
    elif kind == "out of range":
        wanted.append((None, person, {}))
        votes[count] = [person]
    for picked, who, extra in wanted:
        if picked is None:
            stage.judge(number, None, who, **facts | extra)
        else:
            votes.setdefault(picked, []).append(who)
            stage.judge(number, picked, who, "react", messages=[number], **facts | extra)
    react(stage, number, count, votes, unseeded=kind == "unseeded", missing=kind == "missing")
    if kind == "heart" or stage.rng.random() < 0.2:
        stage.react(number, "❤️", stage.rng.sample(stage.people, 3))
    return number
