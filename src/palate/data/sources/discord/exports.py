"""Read channel exports of DiscordChatExporter (JSON) message by message, several parts as one.

An export is one document: `guild`, `channel`, `dateRange`, `exportedAt`, `messages` and, last,
`messageCount`. A channel split into parts gives several complete documents, which may overlap: they
are merged by the message's id, which also orders messages in time (a Discord id is a time stamp).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from palate.data.sources.common import Report
from palate.data.sources.texts import JsonText, json_items
from palate.errors import DataError

_NUMBERED: Final = {
    "0": "Default",
    "19": "Reply",
    "20": "ChatInputCommand",
    "23": "ContextMenuCommand",
}
"""Kinds of message that the exporter writes as a number, because it has no name for them."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file of a message; `url` is a path below the export if the exporter saved it."""

    id: str
    url: str
    name: str
    size: int

    @property
    def remote(self) -> bool:
        """Whether the file stayed where it was, behind a link that expires."""
        return "://" in self.url


@dataclass(frozen=True, slots=True)
class Reaction:
    """An emoji under a message, the people (no bots) who are known to have set it, and whether a bot did."""

    name: str
    people: tuple[str, ...]
    by_bot: bool

    @property
    def number(self) -> int | None:
        """The number that the emoji shows, such as 1 for the key 1; None for another."""
        digit, rest = self.name[:1], self.name[1:]
        return int(digit) if digit.isdecimal() and not rest.strip("\ufe0f\u20e3") else None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a channel, with what an importer needs; times are UTC."""

    id: int
    kind: str
    time: datetime
    author: str
    author_name: str
    bot: bool
    text: str
    attachments: tuple[Attachment, ...]
    reactions: tuple[Reaction, ...]
    mentions: tuple[tuple[str, str], ...]
    reference: int | None
    caller: str | None


@dataclass
class Export:
    """One document: its path, what stands before and after the messages, and whether it is whole."""

    path: Path
    head: dict[str, Any] = field(default_factory=dict)
    messages: int = 0
    broken: str | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield every message as the exporter wrote it; nothing is left out.

        A document that breaks off ends the messages, and `broken` says where. Raises `DataError` where
        the file is no export.
        """
        self.head.clear()
        self.messages, self.broken = 0, None
        with JsonText(self.path) as text:
            if text.take() != "{":
                raise DataError(
                    f"{self.path}: is no export of DiscordChatExporter (expected an object)"
                )
            if text.peek() == "}":
                raise DataError(f"{self.path}: is no export of DiscordChatExporter (empty object)")
            yield from self._fields(text)
        if "messages" not in self.head:
            raise DataError(f"{self.path}: is no export of DiscordChatExporter (no 'messages')")
        count = self.head.get("messageCount")
        if self.broken is None and count != self.messages:
            self.broken = f"says {count} messages, but holds {self.messages}"
            if count is None:
                self.broken = "has no messageCount at its end, so the export did not finish"

    def _fields(self, text: JsonText) -> Iterator[dict[str, Any]]:
        while True:
            key = text.value("the head")
            if text.take() != ":":
                raise DataError(f"{self.path}: is no valid JSON (no colon after {key!r})")
            if key == "messages" and text.peek() == "[":
                self.head[key] = None
                try:
                    for _, message in json_items(text, "message"):
                        self.messages += 1
                        yield message
                except DataError as fault:
                    if not text.cut:
                        raise
                    self.broken = str(fault).removeprefix(f"{self.path}: ")
                    return
            else:
                self.head[key] = text.value(f"{key!r}")
            mark = text.take()
            if mark == "}":
                return
            if mark != ",":
                if not mark:
                    self.broken = f"breaks off after {key!r}"
                    return
                raise DataError(f"{self.path}: is no valid JSON ({mark!r} after {key!r})")


def read_message(raw: dict[str, Any]) -> Message:
    """Read a message as the exporter wrote it.

    Raises `DataError` where a field is not as the exporter writes it.
    """
    try:
        author = raw["author"]
        kind = str(raw["type"])
        reference = raw.get("reference") or {}
        caller = (raw.get("interaction") or {}).get("user") or {}
        return Message(
            id=int(raw["id"]),
            kind=_NUMBERED.get(kind, kind),
            time=_time(raw["timestamp"]),
            author=str(author["id"]),
            author_name=str(author["name"]),
            bot=bool(author["isBot"]),
            text=_text(raw["content"]),
            attachments=tuple(
                Attachment(
                    str(int(a["id"])),
                    _text(a["url"]),
                    _text(a["fileName"]),
                    int(a["fileSizeBytes"]),
                )
                for a in raw["attachments"]
            ),
            reactions=tuple(_reactions(raw.get("reactions") or ())),
            mentions=tuple((str(m["id"]), _called(m)) for m in raw.get("mentions") or ()),
            reference=None if reference.get("messageId") is None else int(reference["messageId"]),
            caller=None if caller.get("id") is None else str(caller["id"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as fault:
        reason = f"no {fault}" if isinstance(fault, KeyError) else str(fault)
        raise DataError(f"is not as the exporter writes it ({reason})") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:20]!r} where a text was expected")
    value.encode()  # half a character is a ValueError
    return value


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"the time {text!r} names no zone")
    return found.astimezone(UTC)


def _called(person: dict[str, Any]) -> str:
    return str(person.get("nickname") or person.get("name") or "")


def _reactions(raw: Iterable[dict[str, Any]]) -> Iterator[Reaction]:
    for reaction in raw:
        emoji = reaction["emoji"]
        users = reaction.get("users") or ()
        people = tuple(str(user["id"]) for user in users if not user.get("isBot"))
        name = str(emoji.get("name") or emoji.get("code") or "")
        yield Reaction(name, people, any(user.get("isBot") for user in users))


def merged(
    exports: Sequence[Export], report: Report
) -> Iterator[tuple[Export, Message | None, bool]]:
    """Yield the messages of all parts in the order of their ids, and whether each came before.

    Of a message that several exports hold, the latest export has the first word: it knows later
    reactions and edits. None stands for a message that cannot be read, which is a fault. Raises
    `DataError` where a part is not in the order of time.
    """
    streams = [_stream(export, number, report) for number, export in enumerate(exports, start=1)]
    last = -1
    for number, _, _, export, message in heapq.merge(*streams, key=lambda item: item[:3]):
        yield export, message, message is not None and number == last
        last = number


def _stream(
    export: Export, place: int, report: Report
) -> Iterator[tuple[int, float, int, Export, Message | None]]:
    last, age = -1, None
    for number, raw in enumerate(export):
        if age is None:
            age = -_exported(export)
        try:
            message = read_message(raw)
        except DataError as fault:
            report.faults.add(f"export {place}, message {number}", str(fault))
            yield last, age, place, export, None
            continue
        if message.id < last:
            raise DataError(
                f"{export.path}: message {number} is earlier than the one before it; export in the order "
                f"of time (without --reverse)"
            )
        last = message.id
        yield message.id, age, place, export, message


def _exported(export: Export) -> float:
    """When the export was made, in seconds; 0 where it does not say."""
    try:
        return _time(str(export.head.get("exportedAt"))).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def export_files(path: Path) -> list[Path]:
    """List the documents of an export: the file itself, or all `.json` files of a folder.

    Raises `DataError` where there is none.
    """
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.glob("*.json") if file.is_file())
    if not found:
        raise DataError(f"{path}: holds no .json export")
    return found


def same_channel(exports: Sequence[Export]) -> None:
    """Raise `DataError` where the documents read are of several channels."""
    for one, other in pairwise(exports):
        a, b = _channel(one), _channel(other)
        if a != b:
            raise DataError(
                f"{other.path}: is of channel {b!r}, but {one.path.name} is of {a!r}; import each by itself"
            )


def _channel(export: Export) -> object:
    channel = export.head.get("channel")
    return channel.get("id") if isinstance(channel, dict) else None
