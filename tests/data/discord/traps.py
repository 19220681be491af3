"""One small export for each trap of the exporter's format; `notes` say what is wrong with it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from . import midjourney_scenes, ownbot_scenes
from .exporter import Json, document, file_name, serialise, stamp, time_of
from .midjourney_scenes import ERAS, Job
from .world import HOUR, Channel, Options, Person, Stage

NAMED = ERAS["2023"]


def stage_of(name: str, seed: int = 0, **options: Any) -> Stage:
    """A channel of Midjourney's bot in 2023 with nothing in it yet."""
    settings = Options(**({"start_ms": 1_682_000_000_000, "people": 6} | options))
    return Stage(seed, name, "Midjourney Bot", settings)


def played(stage: Stage, count: int) -> list[Job]:
    """So many grids with one pick each, an hour apart."""
    jobs = []
    for _ in range(count):
        stage.now += HOUR
        jobs.append(midjourney_scenes.picked(stage, NAMED, stage.now))
    return jobs


def found(stage: Stage, number: str) -> Json:
    [entry] = [entry for entry in stage.messages if entry["id"] == number]
    return entry


def trap_rendered_mentions(seed: int = 0) -> Channel:
    """Mentions as `@nickname`: two people share one, and two nicknames look like the bot's words."""
    stage = stage_of("rendered-mentions", seed, rendered=True)
    nicknames = ("fox (fast)", "twin", "twin", "a ** b - Image #2 @twin", "<@123>", "two words")
    for position, nickname in enumerate(nicknames):
        stage.people[position] = replace(stage.people[position], nicknames=(nickname,))
    for person in list(stage.people):
        stage.now += HOUR
        prompt = stage.words() + f" for <@{stage.other(person).number}>"
        job = midjourney_scenes.grid(stage, person, prompt, stage.now)
        j = stage.rng.randrange(4)
        act = midjourney_scenes.named(stage, job, j)
        stage.judge(job.number, j, person, "named", messages=[act], **job.facts)
        stranger = stage.other(person)
        act = midjourney_scenes.named(stage, job, (j + 1) % 4, stranger)
        facts = {"other": True} | job.facts
        stage.judge(job.number, (j + 1) % 4, stranger, "named", messages=[act], **facts)
    return stage.finish()


def trap_numeric_type(seed: int = 0) -> Channel:
    """Kinds without a name: slash command replies are "20"; boosts, polls and others come between."""
    stage = stage_of("numeric-type", seed)
    for job in played(stage, 4):
        entry = found(stage, job.number)
        entry["type"] = "20"
        user = entry["mentions"][0]
        entry["interaction"] = {"id": stage.number(), "name": "imagine", "user": user}
        entry["inlineEmojis"] = entry.pop("inlineEmojis")
        for kind in ("8", "24", "46", "23"):
            stage.post(stage.rng.choice(stage.people), job.ms + 1000, "", kind=kind)
    return stage.finish()


def trap_no_components(seed: int = 0, *, newer: bool = False) -> Channel:
    """No buttons and no presses: V3 leaves a grid that does not say of which image it is.

    `newer`: with the `components` that the exporter writes since a version after 2.47.1.
    """
    stage = stage_of("no-components", seed)
    played(stage, 2)
    stage.now += HOUR
    midjourney_scenes.varied(stage, NAMED, stage.now)
    if newer:
        stage.messages = [with_components(entry) for entry in stage.messages]
    return stage.finish()


def with_components(entry: Json) -> Json:
    """The message with the row of buttons U1 to U4 where the newer writer puts it."""
    labels = ("U1", "U2", "U3", "U4") if "Image #" not in entry["content"] else ("Vary", "Zoom")
    buttons = [
        {
            "type": "Button", "style": "Secondary", "label": label, "url": None,
            "customId": f"MJ::JOB::{label}", "skuId": None, "isDisabled": False,
        }
        for label in labels
    ]  # fmt: skip
    result: Json = {}
    for key, value in entry.items():
        result[key] = value
        if key == "attachments":
            result["components"] = [{"type": "ActionRow", "components": buttons}]
    return result


def trap_media_paths(seed: int = 0) -> Channel:
    """Grids whose file is not what the export says; `notes["cases"]` tells which by message id."""
    stage = stage_of("media-paths", seed)
    cases = (
        "fine", "windows separators", "leaves the folder", "leaves the folder, windows", "absolute",
        "absolute, windows", "remote", "error page", "error page of the right size", "size", "missing",
    )  # fmt: skip
    kinds: dict[str, str] = {}
    for case, job in zip(cases, played(stage, len(cases)), strict=True):
        kinds[job.number] = case
        spoil(stage, found(stage, job.number)["attachments"][0], case)
    channel = stage.finish()
    channel.notes["cases"] = kinds
    return channel


def spoil(stage: Stage, attachment: Json, case: str) -> None:
    """Do to an attachment and its file what the case says."""
    local = attachment["url"]
    page = b"<!DOCTYPE html><html><body>This content is no longer available.</body></html>\n"
    if case == "windows separators":
        attachment["url"] = local.replace("/", "\\")
    elif case.startswith(("leaves", "absolute", "remote", "missing")):
        del stage.files[local]
        attachment["url"] = {
            "leaves the folder": "../outside.png",
            "leaves the folder, windows": f"{stage.folder[:-1]}\\..\\..\\outside.png",
            "absolute": "/etc/hostname",
            "absolute, windows": "C:\\Users\\ann\\Pictures\\outside.png",
            "remote": stage.remote[local],
            "missing": local,
        }[case]
    elif case == "error page":
        stage.files[local] = page
    elif case == "error page of the right size":
        stage.files[local] = page.ljust(attachment["fileSizeBytes"], b" ")
    elif case == "size":
        attachment["fileSizeBytes"] += 1


def trap_name_collision(seed: int = 0) -> Channel:
    """Old names with 5 hex digits: two attachments claim one file, which is that of the later one.

    `notes["collided"]` has the ids of the two grids; a third is as it should be.
    """
    stage = stage_of("name-collision", seed)
    jobs = played(stage, 3)
    first, second = (found(stage, job.number)["attachments"][0] for job in jobs[:2])
    name = stage.folder + "grid_0-0ab1c.png"
    stage.files.pop(first["url"])
    stage.files[name] = stage.files.pop(second["url"])
    stage.remote[name] = stage.remote[second["url"]]
    for attachment in (first, second):
        attachment |= {"url": name, "fileName": "grid_0.png"}
    channel = stage.finish()
    channel.notes["collided"] = [job.number for job in jobs[:2]]
    return channel


def trap_expired_links(seed: int = 0) -> Channel:
    """An export without `--media`: every image is a link that was signed for a day, long ago."""
    stage = stage_of("expired-links", seed, pictures=False)
    played(stage, 4)
    return stage.finish()


def zoned(entry: Json, minutes: int) -> Json:
    """The message with its times in another zone, as another machine would export it."""
    result: Json = json.loads(json.dumps(entry))
    result["timestamp"] = stamp(time_of(entry["id"]), minutes)
    return result


def trap_local_time_and_parts(seed: int = 0) -> Channel:
    """Four files of one channel, in `notes["texts"]` by name, which `write` writes.

    The first two are parts by `-p`, in the local time of a zone whose summer ends between them. The
    third is an export made elsewhere in UTC; it overlaps both, and in it a message was edited since.
    The fourth, `notes["truncated"]`, breaks off within a message and has no `messageCount`; what is
    complete in it stands in the third as well.
    """
    stage = stage_of("local-time-and-parts", seed)
    played(stage, 9)
    channel = stage.finish()
    messages = channel.export["messages"]
    half, some, most = len(messages) // 2, len(messages) // 4, 3 * len(messages) // 4
    edited = json.loads(json.dumps(messages[some:]))
    edited[0]["timestampEdited"] = stamp(time_of(edited[0]["id"]) + HOUR)
    guild, place, at = (channel.export[key] for key in ("guild", "channel", "exportedAt"))

    def text(entries: list[Json]) -> str:
        return serialise(document(guild, place, at, entries))

    cut = text(messages[most:])
    stem = file_name(channel.export)[: -len(".json")]
    channel.notes["texts"] = {
        f"{stem}.json": text([zoned(entry, 120) for entry in messages[:half]]),
        f"{stem} [part 2].json": text([zoned(entry, 60) for entry in messages[half:]]),
        f"{stem} (later).json": text(edited),
        f"{stem} (cut).json": cut[: int(len(cut) * 0.6)],
    }
    channel.notes["truncated"] = f"{stem} (cut).json"
    return channel


def trap_empty_content(seed: int = 0, empty: float = 1.0) -> Channel:
    """A bot token without the message-content intent: `empty` of the messages have no text.

    Without the intent attachments and embeds are empty too, but for messages that mention the bot.
    """
    stage = stage_of("empty-content", seed, noise=0.0)
    played(stage, 20)
    for position, entry in enumerate(stage.messages):
        if position < empty * len(stage.messages):
            entry |= {"content": "", "attachments": [], "embeds": []}
    return stage.finish()


def trap_bot_reactions(seed: int = 0) -> Channel:
    """The bot's own numbers under every grid, another bot's too; `notes["picks"]` counts people's."""
    stage = Stage(seed, "bot-reactions", "PaintPal", Options(start_ms=1_700_000_000_000, people=6))
    helper = stage.person("ModBot", is_bot=True)
    for kind in ("ignored", "own", "others", "both", "two numbers", "unseeded"):
        stage.now += HOUR
        number = ownbot_scenes.play(stage, stage.now, kind)
        add(stage, number, helper)
    channel = stage.finish()
    channel.notes["picks"] = sum(truth.picked is not None for truth in stage.truths)
    return channel


def add(stage: Stage, number: str, person: Person) -> None:
    """One more name under the first reaction of a message."""
    reaction = found(stage, number)["reactions"][0]
    reaction["users"].append(stage.user(person, stage.now, roles=False))
    reaction["count"] += 1
