"""The shapes that DiscordChatExporter 2.47.1 writes, taken from its JSON writer and a real export."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import PurePosixPath
from typing import Any

EPOCH_MS = 1_420_070_400_000
CDN = "https://cdn.discordapp.com"
ABOVE_BMP = re.compile("[\U00010000-\U0010ffff\u200d\u00a0]")
KEYCAPS = ("1️⃣", "2️⃣", "3️⃣", "4️⃣", "5️⃣", "6️⃣", "7️⃣", "8️⃣", "9️⃣")
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

Json = dict[str, Any]


def snowflake(ms: int, low: int) -> str:
    """Discord's id of something made at a time in milliseconds since 1970."""
    return str(((ms - EPOCH_MS) << 22) | (low & 0x3FFFFF))


def time_of(number: str) -> int:
    """The milliseconds since 1970 at which an id was made."""
    return (int(number) >> 22) + EPOCH_MS


def stamp(ms: int, offset_minutes: int = 0) -> str:
    """A time as .NET writes it: with its offset, and without the zeros that end a fraction."""
    zone = timezone(timedelta(minutes=offset_minutes))
    moment = datetime.fromtimestamp(ms // 1000, zone)
    fraction = f".{ms % 1000:03}".rstrip("0").rstrip(".")
    text = moment.isoformat(timespec="seconds")
    return text[:19] + fraction + text[19:]


def local_name(url: str, file_name: str, digits: int = 16) -> str:
    """The name under which `--media` saves what a link leads to: 42 letters and a hash."""
    path = PurePosixPath(file_name)
    hashed = hashlib.sha256(url.split("?", maxsplit=1)[0].encode()).hexdigest()[:digits]
    return f"{path.stem[:42]}-{hashed}{path.suffix}"


def escape(text: str) -> str:
    """The text as .NET's relaxed encoder leaves it: what is beyond the BMP as surrogate pairs."""

    def pair(match: re.Match[str]) -> str:
        units = match[0].encode("utf-16-be").hex().upper()
        return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))

    return ABOVE_BMP.sub(pair, text)


def serialise(document: Any, indent: int | None = 2) -> str:
    """JSON as the exporter indents it; an empty list is `[]` on its line, no newline at the end."""
    return escape(json.dumps(document, indent=indent, ensure_ascii=False))


def emoji(name: str, custom: str = "") -> Json:
    """An emoji of the standard set, or a server's own where it has an id."""
    if custom:
        image = f"{CDN}/emojis/{custom}.png"
        return {"id": custom, "name": name, "code": name, "isAnimated": False, "imageUrl": image}
    code = WORDS[KEYCAPS.index(name)] if name in KEYCAPS else {"❤️": "heart"}.get(name, name)
    points = "-".join(f"{ord(c):x}" for c in name if c != "\ufe0f")
    image = f"https://cdn.jsdelivr.net/gh/twitter/twemoji@latest/assets/svg/{points}.svg"
    return {"id": "", "name": name, "code": code, "isAnimated": False, "imageUrl": image}


def embed(title: str = "", description: str = "", color: str | None = None, **parts: Any) -> Json:
    """An embed with its parts in the writer's order."""
    found: Json = {"title": title, "url": None, "timestamp": None, "description": description}
    if color:
        found["color"] = color
    for name in ("author", "thumbnail", "image", "video", "footer"):
        if name in parts:
            found[name] = parts[name]
    return (
        found
        | {"images": parts.get("images", []), "fields": parts.get("fields", [])}
        | {"inlineEmojis": []}
    )


def message(number: str, author: Json, content: str, **parts: Any) -> Json:
    """A message with its fields in the writer's order; what is optional only where it is given."""
    found: Json = {
        "id": number,
        "type": parts.get("kind", "Default"),
        "timestamp": parts["timestamp"],
        "timestampEdited": parts.get("edited"),
        "callEndedTimestamp": None,
        "isPinned": parts.get("pinned", False),
        "content": content,
        "author": author,
        "attachments": list(parts.get("attachments", ())),
        "embeds": list(parts.get("embeds", ())),
        "stickers": list(parts.get("stickers", ())),
        "reactions": list(parts.get("reactions", ())),
        "mentions": list(parts.get("mentions", ())),
    }
    for name in ("reference", "forwardedMessage", "interaction"):
        if parts.get(name) is not None:
            found[name] = parts[name]
    found["inlineEmojis"] = list(parts.get("inline", ()))
    return found


def document(guild: Json, channel: Json, exported: str, messages: list[Json]) -> Json:
    """The whole export of a channel; the number of messages comes last."""
    return {
        "guild": guild,
        "channel": channel,
        "dateRange": {"after": None, "before": None},
        "exportedAt": exported,
        "messages": messages,
        "messageCount": len(messages),
    }


def file_name(export: Json, part: int = 0) -> str:
    """The default name of an export, and of its further parts."""
    channel = export["channel"]
    category = f"{channel['category']} - " if channel["category"] else ""
    stem = f"{export['guild']['name']} - {category}{channel['name']} [{channel['id']}]"
    return f"{stem} [part {part + 1}].json" if part else f"{stem}.json"
