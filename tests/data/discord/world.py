"""A channel in the making: its people, its clock, its messages, and what was meant by them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import PIL.Image

from .exporter import CDN, Json, document, emoji, file_name, local_name, message, snowflake, stamp
from .pictures import encode
from .pictures import field as picture
from .prompts import prompt as words

MINUTE = 60_000
HOUR = 60 * MINUTE
NAMES = [
    "ann",
    "ben",
    "cem",
    "dora",
    "émile",
    "fred",
    "gül",
    "hana",
    "igor",
    "jo",
    "kai",
    "lúcia",
    "mio",
    "nils",
    "olga",
    "père",
    "quin",
    "ravi",
    "søren",
    "tomás",
    "uma",
    "vera",
    "wen",
    "xu",
    "yara",
    "zoë",
    "アキ",
    "小明",
    "ivy",
    "ned",
    "pixelwitch",
    "🦊fox",
]


@dataclass(frozen=True)
class Truth:
    """What a person meant: the image picked from a grid, or that nothing was picked."""

    grid_message: str
    picked: int | None
    person: str
    rule: str
    pick_message: str
    extra: dict[str, Any] = field(default_factory=dict, compare=True, hash=False)


@dataclass
class Channel:
    """An export, the files beside it, and the truth about every grid in it."""

    export: Json
    truths: list[Truth]
    files: dict[str, bytes]
    notes: dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How a channel is made.

    Args:
        rendered: write `@nickname` in place of `<@id>`, as the exporter does by default.
        hard: how often what misleads a naive rule happens, as a multiple of its usual share.
        noise: messages of chat and system for each grid.
        people: how many people write in the channel.
        offset_minutes: the exporting machine's time zone.
        pictures: draw the images; without them attachments lead to Discord, with made-up sizes.
        tail: text at the end of every prompt.
        start_ms: when the channel starts, in milliseconds since 1970.
        pace_minutes: the mean time between two requests; the conversations themselves overlap.
    """

    rendered: bool = False
    hard: float = 1.0
    noise: float = 1.0
    people: int = 24
    offset_minutes: int = 0
    pictures: bool = True
    tail: str = ""
    start_ms: int = 1_661_000_000_000
    pace_minutes: float = 4.0


@dataclass(frozen=True)
class Person:
    """Somebody with an account; the nickname may change at a time."""

    number: str
    name: str
    nicknames: tuple[str, ...]
    changes_ms: int = 0
    is_bot: bool = False

    def nickname(self, ms: int) -> str:
        return self.nicknames[-1] if ms >= self.changes_ms else self.nicknames[0]


class Stage:
    """Where scenes are played: every call adds a message, and every message has its own id."""

    def __init__(self, seed: int, dialect: str, bot: str, options: Options) -> None:
        self.rng = random.Random(f"{dialect} {seed}")
        self.options = options
        self.low = self.rng.randrange(2**20)
        self.messages: list[Json] = []
        self.truths: list[Truth] = []
        self.files: dict[str, bytes] = {}
        self.remote: dict[str, str] = {}
        self.hidden: set[str] = set()
        self.now = options.start_ms
        self.guild: Json = {"id": self.number(-HOUR * 9000), "name": "Synthetic Server"}
        icon = f"{CDN}/icons/{self.guild['id']}/0.png"
        self.channel = {
            "id": self.number(-HOUR * 8000), "type": "GuildTextChat", "categoryId": None,
            "category": None, "name": f"{dialect}-{seed}", "topic": "made by a program",
        }  # fmt: skip
        self.folder = file_name({"guild": self.guild, "channel": self.channel}) + "_Files/"
        self.bot = self.person(bot, is_bot=True)
        self.people = self.crowd()
        self.guild["iconUrl"] = self.save(icon, "0.png", encode(picture(self.rng, 8, 8)))

    def number(self, shift_ms: int = 0) -> str:
        self.low += 1
        return snowflake(self.options.start_ms + shift_ms, self.low)

    def person(self, name: str, *, is_bot: bool = False) -> Person:
        number = self.number(-HOUR * self.rng.randrange(100, 20_000))
        changes = self.options.start_ms + self.rng.randrange(1, 48) * 10 * MINUTE
        nicknames = (name,) if self.rng.random() < 0.6 else (name, f"{name} | {number[-3:]} ✨")
        person = Person(number, name, nicknames, changes, is_bot)
        self.avatar(person)
        return person

    def crowd(self) -> list[Person]:
        """Everybody but the bot; two of them go by the same nickname."""
        people = [
            self.person(NAMES[i % len(NAMES)] + (str(i // len(NAMES)) if i >= len(NAMES) else ""))
            for i in range(max(self.options.people, 3))
        ]
        twin = people[1]
        people[2] = Person(people[2].number, people[2].name, twin.nicknames, twin.changes_ms)
        return people

    def avatar(self, person: Person) -> str:
        url = f"{CDN}/avatars/{person.number}/0.png?size=512"
        name = self.folder + local_name(url, "0.png")
        if not self.options.pictures:
            return url
        if name not in self.files:
            self.save(url, "0.png", encode(picture(random.Random(person.number), 8, 8)))
        return name

    def user(self, person: Person, ms: int, *, roles: bool = True) -> Json:
        """A person as the exporter writes them: with roles, but for who reacted."""
        found: Json = {
            "id": person.number,
            "name": person.name,
            "discriminator": f"{int(person.number) % 9999 + 1:04}" if person.is_bot else "0000",
            "nickname": person.nickname(ms),
            "color": "#1ABC9C" if int(person.number) % 3 == 0 else None,
            "isBot": person.is_bot,
        }
        if roles:
            found["roles"] = []
        return found | {"avatarUrl": self.avatar(person)}

    def save(self, url: str, name: str, data: bytes) -> str:
        """Keep a file as `--media` does, and give what stands in its place in the export."""
        if not self.options.pictures:
            return url
        local = self.folder + local_name(url, name)
        self.files[local] = data
        self.remote[local] = url
        return local

    def attach(self, image: PIL.Image.Image | bytes, name: str, ms: int) -> Json:
        """An attachment with the bytes of an image; its format is told by the name."""
        number = snowflake(ms, self.low + 1)
        self.low += 1
        url = (
            f"{CDN}/attachments/{self.channel['id']}/{number}/{name}?ex=650f0f0f&is=650d0d0d&hm=0a"
        )
        if not self.options.pictures:
            return {"id": number, "url": url, "fileName": name, "fileSizeBytes": 51_234}
        kind = "JPEG" if name.endswith((".jpg", ".jpeg")) else "PNG"
        data = image if isinstance(image, bytes) else encode(image, kind)
        local = self.save(url, name, data)
        return {"id": number, "url": local, "fileName": name, "fileSizeBytes": len(data)}

    def post(self, who: Person, ms: int, content: str, **parts: Any) -> str:
        """Add a message and give its id. `mentions` are people; `reply` is the id of a message."""
        self.low += 1
        number = snowflake(ms, self.low)
        people: list[Person] = list(parts.pop("mentions", ()))
        reply = parts.pop("reply", None)
        if reply:
            parts.setdefault("kind", "Reply")
            parts["reference"] = self.reference(reply)
        by = parts.pop("by", None)
        if by is not None:
            name, person = by
            user = self.user(person, ms)
            parts["interaction"] = {"id": self.number(), "name": name, "user": user}
        edited = parts.pop("edited_ms", None)
        parts["edited"] = stamp(edited, self.options.offset_minutes) if edited else None
        parts["timestamp"] = stamp(ms, self.options.offset_minutes)
        parts["mentions"] = [self.user(person, ms) for person in people]
        text = self.render(content, people, ms)
        self.messages.append(message(number, self.user(who, ms), text, **parts))
        return number

    def reference(self, number: str | None) -> Json:
        place = {"channelId": self.channel["id"], "guildId": self.guild["id"]}
        return {"type": "Default", "messageId": number} | place

    def render(self, content: str, people: Sequence[Person], ms: int) -> str:
        if self.options.rendered:
            for person in people:
                content = content.replace(f"<@{person.number}>", f"@{person.nickname(ms)}")
        return content

    def react(self, number: str, name: str, people: Sequence[Person], missing: int = 0) -> None:
        """Reactions of people to a message; `missing` ones are counted but not listed."""
        [found] = [entry for entry in self.messages if entry["id"] == number]
        users = [self.user(person, self.now, roles=False) for person in people]
        count = len(users) + missing
        found["reactions"].append({"emoji": emoji(name), "count": count, "users": users})

    def delete(self, *numbers: str) -> None:
        """Messages that were deleted before the export: others may still refer to them."""
        self.hidden.update(numbers)

    def judge(
        self, grid: str, picked: int | None, person: Person, rule: str = "none", /, **extra: Any
    ) -> None:
        """Note what a person meant. `messages` of a pick come in order; the first counts."""
        acts = [number for number in extra.pop("messages", []) if number not in self.hidden]
        first = acts[0] if acts else ""
        extra = {k: v for k, v in extra.items() if v is not None and v is not False and v != ""}
        self.truths.append(
            Truth(grid, picked, person.number, rule, first, extra | {"messages": acts})
        )

    def words(self) -> str:
        """A fresh prompt. Its mention stands as `<@id>`; `mentioned` gives who that is."""
        return words(self.rng, f"<@{self.rng.choice(self.people).number}>") + self.options.tail

    def mentioned(self, text: str) -> list[Person]:
        return [person for person in self.people if f"<@{person.number}>" in text]

    def other(self, *people: Person) -> Person:
        return self.rng.choice([person for person in self.people if person not in people])

    def pause(self, low: float, high: float) -> int:
        """Milliseconds of a delay between two numbers of seconds, short ones more often."""
        return int(1000 * low * (high / low) ** self.rng.random())

    def finish(self) -> Channel:
        """The export: messages in order, deleted ones left out."""
        kept = [entry for entry in self.messages if entry["id"] not in self.hidden]
        kept.sort(key=lambda entry: int(entry["id"]))
        exported = stamp(
            max((self.now + 90 * 24 * HOUR, 1_700_000_000_000)), self.options.offset_minutes
        )
        export = document(self.guild, self.channel, exported, kept)
        notes = {"remote": self.remote, "options": self.options, "folder": self.folder}
        return Channel(export, self.truths, self.files, notes)
