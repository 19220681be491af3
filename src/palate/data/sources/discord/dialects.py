r"""What a bot's messages look like: which are grids, which are picks, and who asked.

A dialect is data: names of bots and regular expressions. `DREAMBOT` is Stability's bot of 2022, whose
channel the HPS paper collected; `MIDJOURNEY` is Midjourney's; `REACTIONS` is any bot whose grids people
answer with number reactions. Another one is a TOML file:

    name = "paintbot"
    bots = ["PaintBot"]
    grid = ['^\*\*(?P<prompt>.+)\*\* for (?P<person><@!?\d+>|@\S+)$']
    pick = ['^Enlarged (?P<index>\d) for (?P<person><@!?\d+>|@\S+)$']
    images = 4

Groups: `prompt`, `person` (a mention), `index` (of the picked image, from 1), `status` (a grid with a
status in `unfinished` is not counted), `command` (options such as `-S 12 -n 4`), `seeds`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from palate.data.sources.discord.exports import Message
from palate.data.sources.texts import read_text
from palate.errors import DataError

_PERSON: Final = r"(?P<person><@!?\d+>|@.+?)"
_STATUS: Final = r" \((?P<status>[^()]*)\)"
_LINK: Final = re.compile(r"(?:^|<)https?://")
_REMARKS: Final = r"(?: \([^()]*\))*"


@dataclass(frozen=True)
class Dialect:
    """How one bot writes. Patterns are tried in order and must match the whole text.

    `request` is what a person writes, `grid` and `pick` what the bot answers. `images` is how many a
    grid has where neither the text nor the bot's own number reactions say. A pick without an index is
    known by its pixels alone.
    """

    name: str
    bots: tuple[str, ...]
    grid: tuple[str, ...]
    pick: tuple[str, ...] = ()
    request: tuple[str, ...] = ()
    images: int = 4
    unfinished: str = r"\d+%|Waiting to start|Stopped|Paused"
    generator: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is no pattern, and a grid without a prompt."""
        for pattern in (*self.grid, *self.pick, *self.request, self.unfinished):
            try:
                compiled = re.compile(pattern)
            except re.error as fault:
                raise DataError(
                    f"dialect {self.name}: {pattern!r} is no pattern ({fault})"
                ) from None
            wanted = pattern in self.grid and not {"prompt", "command"} & compiled.groupindex.keys()
            if wanted:
                raise DataError(f"dialect {self.name}: the grid {pattern!r} has no group 'prompt'")


DREAMBOT: Final = Dialect(
    name="dreambot",
    bots=("DreamBotMothership", "DreamBot"),
    grid=(r"[^`!]*`?(?P<command>!dream\b[^`]*)`?(?P<seeds>.*)",),
    request=(r"`?(?P<command>!dream\b[^`]*)`?.*",),
    images=1,
    generator="stable-diffusion",
)

MIDJOURNEY: Final = Dialect(
    name="midjourney",
    bots=("Midjourney Bot",),
    grid=(
        rf"\*\*(?P<prompt>.*)\*\* - Variations(?: \([^()]*\))? by {_PERSON}{_STATUS}",
        rf"\*\*(?P<prompt>.*)\*\* - (?!Image #|Upscaled\b){_PERSON}{_STATUS}",
    ),
    pick=(
        rf"\*\*(?P<prompt>.*)\*\* - Image #(?P<index>\d) {_PERSON}{_REMARKS}",
        rf"\*\*(?P<prompt>.*)\*\* - Upscaled(?: \([^()]*\))? by {_PERSON}{_REMARKS}",
    ),
    generator="midjourney",
)

REACTIONS: Final = Dialect(
    name="reactions",
    bots=(),
    grid=(
        rf"\*\*(?P<prompt>.+)\*\* - {_PERSON}(?:{_STATUS})?",
        rf"\*\*(?P<prompt>.+)\*\*(?: {_PERSON})?",
    ),
)

DIALECTS: Final = {dialect.name: dialect for dialect in (DREAMBOT, MIDJOURNEY, REACTIONS)}


@dataclass(frozen=True, slots=True)
class Said:
    """What a message says: a request, a grid or a pick, of which prompt, for whom.

    `person` is a user id, or None where the text and the mentions do not tell; `index` counts from 0;
    `images` is None where the text does not tell.
    """

    kind: str
    prompt: str
    options: str = ""
    person: str | None = None
    index: int | None = None
    images: int | None = None
    seeds: tuple[int, ...] = ()
    seed: int | None = None
    collage: bool = False
    conditioned: bool = False


class Reader:
    """Reads the messages of one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._bots = {name.casefold() for name in dialect.bots}
        self._request = [re.compile(pattern, re.DOTALL) for pattern in dialect.request]
        self._grid = [re.compile(pattern, re.DOTALL) for pattern in dialect.grid]
        self._pick = [re.compile(pattern, re.DOTALL) for pattern in dialect.pick]
        self._unfinished = re.compile(dialect.unfinished, re.IGNORECASE)

    def is_bot(self, message: Message) -> bool:
        """Whether the message is by the dialect's bot; a dialect without names takes every bot.

        A person may call themselves like the bot, so a name counts for bots alone.
        """
        if message.author in self._bots:
            return True
        return message.bot and (not self._bots or message.author_name.casefold() in self._bots)

    def read(self, message: Message) -> Said | None:
        """Return what the message says; None for everything that is neither request, grid nor pick."""
        text = message.text.strip()
        if not self.is_bot(message):
            if message.bot:
                return None
            found = _first(self._request, text)
            return None if found is None else self._said("request", found, message, message.author)
        found = _first(self._pick, text)
        if found is not None:
            return self._said("pick", found, message, self._person(found, message))
        found = _first(self._grid, text)
        if found is None:
            return None
        status = found.groupdict().get("status")
        if status is not None and self._unfinished.search(status):
            return Said("unfinished", "")
        return self._said("grid", found, message, self._person(found, message))

    def _said(
        self, kind: str, match: re.Match[str], message: Message, person: str | None
    ) -> Said | None:
        found: Mapping[str, str | None] = match.groupdict()
        index = found.get("index")
        numbers = _seeds(found.get("seeds") or "")
        command = found.get("command")
        if command is None:
            whole = _with_ids(found.get("prompt") or "", message.mentions)
            prompt, options = split_options(whole)
            return Said(
                kind,
                prompt,
                options,
                person,
                int(index) - 1 if index is not None and index.isdecimal() else None,
                seeds=numbers,
                conditioned=bool(_LINK.search(prompt)),
            )
        asked = read_command(command)
        if asked is None:
            return None
        uploaded = any(is_picture(a.name) for a in message.attachments)
        return Said(
            kind,
            _with_ids(asked.prompt, message.mentions),
            asked.options,
            person,
            images=asked.images,
            seeds=numbers,
            seed=asked.seed,
            collage=asked.collage,
            conditioned=asked.conditioned or (kind == "request" and uploaded),
        )

    def _person(self, match: re.Match[str], message: Message) -> str | None:
        """The user a bot's message is for: by id where the text has one, else by the mentions.

        A nickname may hold what looks like the bot's own words: the longest one that stands there counts.
        """
        named = match.groupdict().get("person")
        if named is not None:
            digits = re.fullmatch(r"<@!?(\d+)>", named)
            if digits:
                return digits.group(1)
            rest = match.string[match.start("person") :]
            fits = [
                (len(name), who) for who, name in message.mentions if rest.startswith(f"@{name}")
            ]
            longest = {who for length, who in fits if length == max(fits)[0]}
            if len(longest) == 1:
                return longest.pop()
        if message.caller is not None:
            return message.caller
        people = {who for who, _ in message.mentions}
        return people.pop() if len(people) == 1 else None


def _seeds(text: str) -> tuple[int, ...]:
    """The seeds of single images: a list in brackets, or those of the commands that follow."""
    listed = re.search(r"\[([\d,\s]+)\]", text)
    found = re.findall(r"\d+", listed[1]) if listed else re.findall(r"\s-S\s*(\d+)", text)
    return tuple(map(int, found))


def _first(patterns: list[re.Pattern[str]], text: str) -> re.Match[str] | None:
    return next(filter(None, (pattern.fullmatch(text) for pattern in patterns)), None)


def _with_ids(text: str, mentions: tuple[tuple[str, str], ...]) -> str:
    """Write mentions by id where the exporter rendered them by name; a name of several is nobody's."""
    people: dict[str, set[str]] = {}
    for who, name in mentions:
        people.setdefault(name, set()).add(who)
    for name in sorted(people, key=len, reverse=True):
        if name and f"@{name}" in text:
            own = people[name]
            text = text.replace(f"@{name}", f"<@{min(own)}>" if len(own) == 1 else "@somebody")
    return text


@dataclass(frozen=True, slots=True)
class Command:
    """A `!dream` command: prompt and options; `images` is how many it asks for."""

    prompt: str
    options: str
    seed: int | None
    images: int
    collage: bool
    conditioned: bool


_OPTION: Final = re.compile(r"(?:^|\s)(--?[A-Za-z][\w-]*)(?:[ =]?(-?[\w./:]*))?(?=\s|$)")
_COUNTS: Final = ("-n", "--number", "--num")
_SEEDS: Final = ("-S", "--seed")
_INITS: Final = ("-I", "--init", "--init_img", "--image")


def read_command(text: str) -> Command | None:
    """Read `!dream "prompt" -S 1 -n 4 -g`; None where there is no prompt.

    >>> read_command('!dream "a red fox" -S 7 -s 50 -n 4 -g')
    Command(prompt='a red fox', options='-S 7 -s 50 -n 4 -g', seed=7, images=4, collage=True, conditioned=False)
    """
    body = text.removeprefix("!dream").strip()
    quoted = re.match(r'[“"](?P<prompt>.*)[”"](?P<options>[^"“”]*)$', body, re.DOTALL)
    if quoted:
        prompt, options = quoted["prompt"].strip(), quoted["options"].strip()
    else:
        start = re.search(r"\s--?[A-Za-z]", body)
        prompt = (body[: start.start()] if start else body).strip()
        options = body[start.start() :].strip() if start else ""
    if not prompt:
        return None
    given: dict[str, str] = dict(_OPTION.findall(options))
    return Command(
        prompt=prompt,
        options=options,
        seed=_number(given, _SEEDS),
        images=_number(given, _COUNTS) or 1,
        collage="-g" in given or "--grid" in given,
        conditioned=any(name in given for name in _INITS),
    )


def _number(given: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = given.get(name, "")
        if value.isdecimal():
            return int(value)
    return None


def split_options(prompt: str) -> tuple[str, str]:
    """Split a Midjourney prompt from its parameters.

    >>> split_options("a red fox --ar 16:9 --v 4")
    ('a red fox', '--ar 16:9 --v 4')
    """
    start = re.search(r"(?:^|\s)--[a-z]", prompt)
    if start is None:
        return prompt.strip(), ""
    return prompt[: start.start()].strip(), prompt[start.start() :].strip()


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its name."""
    return name.lower().endswith((".png", ".jpg", ".jpeg", ".webp", ".gif"))


def load_dialect(name: str) -> Dialect:
    """Return a known dialect by name, or read one from a TOML file.

    Raises `DataError` for an unknown name, an unknown key and a value of another type.
    """
    if name in DIALECTS:
        return DIALECTS[name]
    path = Path(name)
    if path.suffix != ".toml":
        raise DataError(
            f"no dialect is called {name!r}; there are {', '.join(DIALECTS)}, or a .toml file"
        )
    try:
        given = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as fault:
        raise DataError(f"{path}: is no valid TOML ({fault})") from None
    return _from_toml(given, path)


def _from_toml(given: dict[str, Any], path: Path) -> Dialect:
    known = {field.name for field in fields(Dialect)}
    for key, value in given.items():
        if key not in known:
            raise DataError(f"{path}: unknown key {key!r}; there are {', '.join(sorted(known))}")
        if key in {"bots", "grid", "pick", "request"}:
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise DataError(f"{path}: {key} is {value!r}, expected a list of texts")
            given[key] = tuple(value)
        elif not isinstance(value, int if key == "images" else str) or isinstance(value, bool):
            what = "a whole number" if key == "images" else "a text"
            raise DataError(f"{path}: {key} is {value!r}, expected {what}")
    for key in ("bots", "grid"):
        if key not in given:
            raise DataError(f"{path}: has no {key!r}")
    given.setdefault("name", path.stem)
    return Dialect(**given)
