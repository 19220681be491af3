"""What else stands in a channel: chat, stickers, pins, joins, errors, queues, embeds, threads."""

from __future__ import annotations

from .exporter import CDN, embed, emoji
from .pictures import field
from .prompts import CHAT
from .world import Person, Stage


def chat(stage: Stage, ms: int, grid: str = "") -> None:
    """Somebody says something that looks like a choice and is none."""
    who = stage.rng.choice(stage.people)
    reply = grid if grid and stage.rng.random() < 0.5 else None
    text = stage.rng.choice(CHAT)
    mentions: list[Person] = []
    if stage.rng.random() < 0.2:
        mentions = [stage.other(who)]
        text = f"<@{mentions[0].number}> {text}"
    edited = ms + stage.pause(2, 90) if stage.rng.random() < 0.1 else None
    number = stage.post(who, ms, text, reply=reply, mentions=mentions, edited_ms=edited)
    if stage.rng.random() < 0.2:
        stage.react(number, stage.rng.choice(("👍", "❤️", "1️⃣")), stage.rng.sample(stage.people, 2))
    if stage.rng.random() < 0.05:
        stage.delete(number)


def sticker(stage: Stage, ms: int) -> None:
    number = stage.number()
    found = {
        "id": number,
        "name": "Wave",
        "format": "Lottie",
        "sourceUrl": f"{CDN}/stickers/{number}.json",
    }
    stage.post(stage.rng.choice(stage.people), ms, "", stickers=[found])


def pin(stage: Stage, ms: int, grid: str = "") -> None:
    who = stage.rng.choice(stage.people)
    if grid:
        [found] = [entry for entry in stage.messages if entry["id"] == grid]
        found["isPinned"] = True
    kind = "ChannelPinnedMessage"
    stage.post(who, ms, "Pinned a message.", kind=kind, reference=stage.reference(grid or None))


def join(stage: Stage, ms: int) -> None:
    kind = "GuildMemberJoin"
    stage.post(stage.rng.choice(stage.people), ms, "Joined the server.", kind=kind)


def picture(stage: Stage, ms: int) -> None:
    """A photograph of somebody's own, without a request."""
    image = stage.attach(field(stage.rng, 96, 64), "IMG_2041.jpg", ms)
    stage.post(stage.rng.choice(stage.people), ms, "my cat", attachments=[image])


def thread(stage: Stage, ms: int) -> None:
    kind = "ThreadCreated"
    reference = stage.reference(None)
    who = stage.rng.choice(stage.people)
    stage.post(who, ms, "Started a thread.", kind=kind, reference=reference)


def spoken(stage: Stage, ms: int) -> None:
    """The bot answers a command that has nothing to do with images, in an embed."""
    who = stage.rng.choice(stage.people)
    fields = [{"name": "Fast time", "value": "3.2/15 hours", "isInline": True}]
    named = stage.render(f"<@{who.number}>", [who], ms)
    card = embed("Your info", named, "#58B9FF", fields=fields, footer={"text": "info"})
    stage.post(stage.bot, ms, "", kind="20", by=("info", who), embeds=[card])


def custom(stage: Stage, ms: int) -> None:
    """A message with an emoji of the server's own, rendered by its name."""
    number = stage.number()
    text = ":partyfox: yes" if stage.options.rendered else f"<:partyfox:{number}> yes"
    inline = [emoji("partyfox", number)]
    stage.post(stage.rng.choice(stage.people), ms, text, inline=inline)


def forward(stage: Stage, ms: int, grid: str) -> None:
    """The bot's message forwarded to the same channel: a copy of it that is no answer."""
    [found] = [entry for entry in stage.messages if entry["id"] == grid]
    names = ("timestamp", "timestampEdited", "content", "attachments", "embeds", "stickers")
    copy = {name: found[name] for name in names}
    reference = stage.reference(grid) | {"type": "Forward"}
    who = stage.rng.choice(stage.people)
    stage.post(who, ms, "", reference=reference, forwardedMessage=copy)


def around(stage: Stage, ms: int, grid: str = "") -> None:
    """As much noise around a time as the options ask for."""
    amount = stage.options.noise
    count = int(amount) + (stage.rng.random() < amount % 1)
    for _ in range(count):
        moment = ms + stage.pause(1, 1800)
        draw = stage.rng.random()
        if draw < 0.7:
            chat(stage, moment, grid)
        elif draw < 0.74:
            pin(stage, moment, grid)
        elif draw < 0.77 and grid:
            forward(stage, moment, grid)
        else:
            stage.rng.choice((sticker, join, picture, thread, spoken, custom))(stage, moment)
