"""A large export, written fast: the conversations of small channels again and again, later each time."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

from .exporter import document, serialise, snowflake, stamp, time_of

# no letters, so that a prompt in capitals still has it
MARK = "⟦0⟧"
DAY = 24 * 3_600_000


def templates(seed: int) -> tuple[list[list[str]], dict[str, Any], int]:
    """Messages of three dialects, cut at their ids, times and marks; and how long they last, in ms."""
    from .channels import dreambot, midjourney, ownbot

    how: dict[str, Any] = {"pictures": False, "tail": f" {MARK}", "start_ms": 1_661_000_000_000}
    channels = [
        dreambot(seed, 60, noise=3.0, **how),
        midjourney(seed, 60, noise=3.0, **how),
        midjourney(seed + 1, 40, era="2022", noise=3.0, **how),
        ownbot(seed, 30, noise=3.0, **how),
    ]
    messages = [entry for channel in channels for entry in channel.export["messages"]]
    messages.sort(key=lambda entry: int(entry["id"]))
    times = [time_of(entry["id"]) for entry in messages]
    people = r'(?<="id": ")\d{17,20}(?=")|(?<=messageId": ")\d{17,20}(?=")'
    cut = re.compile(rf"({people}|\d{{4}}-\d\d-\d\dT[\d:.]+\+00:00|{MARK})")
    found = []
    for entry in messages:
        text = serialise(entry).replace("\n", "\n    ")
        found.append(cut.split("    " + text))
    span = (max(times) - min(times)) // DAY * DAY + 3 * DAY
    return found, channels[0].export, span


def shifted(token: str, ms: int, start_ms: int, cycle: int) -> str:
    """An id, a time or a mark in a later cycle; people stay who they are."""
    if token == MARK:
        return f"take {cycle}"
    if token.isdigit():
        made = time_of(token)
        return token if made < start_ms else snowflake(made + ms, int(token))
    return stamp(round(datetime.fromisoformat(token).timestamp() * 1000) + ms)


def huge(path: Path, megabytes: int, seed: int = 0) -> int:
    """Write an export of about so many megabytes and give its number of messages.

    All three dialects and chat are mixed in one channel; nothing is kept in memory. Every message
    has its own id, and every cycle its own prompts, but for chat. Attachments lead to Discord.
    """
    pieces, export, span = templates(seed)
    empty = document(export["guild"], export["channel"], export["exportedAt"], [])
    head = serialise(empty).split("[]", 1)[0] + "[\n"
    limit = megabytes * 1_000_000
    count = cycle = written = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        written += file.write(head)
        while written < limit:
            for parts in pieces:
                text = "".join(
                    shifted(part, cycle * span, 1_661_000_000_000, cycle) if odd % 2 else part
                    for odd, part in enumerate(parts)
                )
                written += len(text.encode()) + file.write(",\n" if count else "")
                file.write(text)
                count += 1
                if written >= limit:
                    break
            cycle += 1
        file.write(f'\n  ],\n  "messageCount": {count}\n}}')
    return count
