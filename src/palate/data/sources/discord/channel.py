"""Go through a channel in the order of time: every message is accounted for, and picks find their grids."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from palate.data.images import decode_image
from palate.data.sources.common import Report, Row
from palate.data.sources.discord.dialects import Reader, Said, is_picture
from palate.data.sources.discord.exports import Attachment, Export, Message, Reaction
from palate.data.sources.discord.grids import DiscordSettings, Grid, Pick, Rule, Verdicts
from palate.data.sources.discord.pixels import best_match, thumb
from palate.errors import DataError

_KEPT: Final = timedelta(days=30)
_SPOKEN: Final = {"Default", "Reply", "ChatInputCommand", "ContextMenuCommand"}
_ENOUGH: Final = 20
_EMPTY: Final = 0.95
_LOOKED_AT: Final = 20


class Channel:
    """Reads messages, holds the grids that may still be picked from, and gives rows as they close."""

    def __init__(
        self,
        reader: Reader,
        settings: DiscordSettings,
        verdicts: Verdicts,
        report: Report,
        deleted: frozenset[str],
    ) -> None:
        self.reader = reader
        self.settings = settings
        self.media = verdicts.media
        self.verdicts = verdicts
        self.report = report
        self.deleted = deleted
        self.within = timedelta(hours=settings.within_hours)
        self.messages: dict[str, int] = {}
        report.counts["messages"] = self.messages
        self._open: OrderedDict[int, Grid] = OrderedDict()
        # grids that may be picked from, in the order of time, by their prompt and person, and prompt and seed
        self._of_person: dict[tuple[str, str | None], deque[Grid]] = {}
        self._of_seed: dict[tuple[str, int], deque[Grid]] = {}
        self._requests: OrderedDict[int, tuple[Message, Said]] = OrderedDict()
        self._shown: dict[int, int] = {}
        self._spoken = self._silent = 0
        self._pictures = self._remote = 0

    def read(self, export: Export, message: Message | None, *, again: bool) -> Iterator[Row]:
        """Take the next message, and give the rows of grids that nobody can pick from any more.

        None stands for a message that could not be read.
        """
        self.report.faults.rows += 1
        if message is None:
            kind = "unreadable"
        else:
            kind = "repeated" if again else self._take(export.path.parent, message)
        self.messages[kind] = self.messages.get(kind, 0) + 1
        if message is None:
            return
        while self._open and message.time - next(iter(self._open.values())).time > _KEPT:
            yield from self._close()
        while self._requests and self._is_old(next(iter(self._requests.values()))[0], message):
            self._requests.popitem(last=False)

    def end(self) -> Iterator[Row]:
        """Give the rows of all grids that are left."""
        self._refuse_silence()
        self._refuse_links(self._pictures)
        while self._open:
            yield from self._close()

    def _close(self) -> Iterator[Row]:
        _, grid = self._open.popitem(last=False)
        _forget(self._of_person, (grid.said.prompt, grid.person))
        for seed in dict.fromkeys(grid.said.seeds):
            _forget(self._of_seed, (grid.said.prompt, seed))
        yield from self.verdicts.rows(grid)

    def _is_old(self, before: Message, now: Message) -> bool:
        return now.time - before.time > self.within

    def _take(self, folder: Path, message: Message) -> str:
        """Read one message, and name its kind for the funnel."""
        if message.author in self.deleted:
            return "by_deleted_people"
        if message.kind not in _SPOKEN:
            return "system"
        self._listen(message)
        said = self.reader.read(message)
        pictures = tuple(a for a in message.attachments if is_picture(a.name))
        if self.reader.is_bot(message):
            return self._by_the_bot(message, said, pictures, folder)
        if pictures and not message.bot:
            self._fed_back(message, pictures, folder)
        if said is None:
            return "other_bots" if message.bot else "chat"
        self._requests[message.id] = (message, said)
        self._seeded(message, said, message.author)
        return "requests"

    def _by_the_bot(
        self, message: Message, said: Said | None, pictures: tuple[Attachment, ...], folder: Path
    ) -> str:
        if said is None:
            return "other_by_the_bot"
        if said.kind == "unfinished":
            return "unfinished"
        self._look(pictures, folder)
        if said.kind == "pick":
            return self._named(message, said, pictures, folder)
        return self._grid(message, said, pictures, folder)

    def _listen(self, message: Message) -> None:
        """Stop early where the exporting bot was not allowed to read texts."""
        self._spoken += 1
        self._silent += not message.text
        if self._spoken == 100 * _ENOUGH:
            self._refuse_silence()

    def _refuse_silence(self) -> None:
        if self._spoken >= _ENOUGH and self._silent > _EMPTY * self._spoken:
            raise DataError(
                f"{self.report.faults.source}: {self._silent:,} of {self._spoken:,} messages have no text; "
                "export again with a bot that has the message content intent"
            )

    def _look(self, pictures: tuple[Attachment, ...], folder: Path) -> None:
        """Note what files the bot's pictures claim, and refuse early an export without files."""
        for picture in pictures:
            self.media.claim(picture, folder)
            self._pictures += 1
            self._remote += picture.remote
            if picture.remote:
                self.report.counts["pictures_not_saved"] = self._remote
        if self._pictures == _LOOKED_AT:
            self._refuse_links(_LOOKED_AT)

    def _refuse_links(self, pictures: int) -> None:
        if self.settings.media and pictures and self._remote == pictures:
            raise DataError(
                f"{self.report.faults.source}: its pictures are links, which expire after a day; export "
                "again with --media, or import the choices without pictures (--without-media)"
            )

    # ------------------------------------------------------------------------------------------ grids

    def _grid(
        self, message: Message, said: Said, pictures: tuple[Attachment, ...], folder: Path
    ) -> str:
        asked = self._requests.get(message.reference) if message.reference is not None else None
        person = said.person if asked is None else asked[0].author
        many = self._images(message, said, len(pictures))
        if many < 2:
            if person is not None:
                self._seeded(message, said, person)
            return "single_images"
        said = replace(said, images=many)
        grid = Grid(message.id, message.time, said, person, pictures, folder)
        grid.reason = self._unusable(grid, None if asked is None else asked[1])
        self._open[message.id] = grid
        self._of_person.setdefault((said.prompt, person), deque()).append(grid)
        for seed in dict.fromkeys(said.seeds):
            self._of_seed.setdefault((said.prompt, seed), deque()).append(grid)
        self._reacted(grid, message.reactions)
        return "grids"

    def _images(self, message: Message, said: Said, pictures: int) -> int:
        """How many images a bot's message has: by its text, its files, or the numbers that the bot set."""
        if said.images is not None or pictures > 1:
            return max(said.images or 1, pictures)
        numbers = [r.number for r in message.reactions if r.by_bot and r.number is not None]
        return max(numbers, default=self.reader.dialect.images)

    def _unusable(self, grid: Grid, asked: Said | None) -> str | None:
        """Why no choice can come from a grid, or None."""
        if grid.person is None:
            return "unknown_person"
        if grid.person in self.deleted:
            return "of_deleted_people"
        if grid.said.conditioned or (asked is not None and asked.conditioned):
            return "from_an_uploaded_image"
        if not grid.pictures:
            return "no_images"
        seeds = len(grid.said.seeds)
        wanted = max(grid.images, 1 if asked is None else asked.images or 1)
        several = len(grid.pictures)
        if (seeds and seeds != wanted) or (several > 1 and several != wanted):
            return "fewer_images"
        return None

    # ------------------------------------------------------------------------------------------ picks

    def _add(
        self, grid: Grid, index: int, rule: Rule, person: str, message: Message | None
    ) -> None:
        """Note a pick, unless it is by a deleted person or of an image that is not there.

        A reaction has no message of its own, and no time.
        """
        if person in self.deleted:
            self.report.count("picks_of_deleted_people")
        elif not 0 <= index < grid.images:
            self.report.count("picks_of_no_image")
        else:
            self.report.count("picks_by_others", int(person != grid.person))
            delay = None if message is None else (message.time - grid.time).total_seconds()
            own = grid.message if message is None else message.id
            grid.picks.append(Pick(index, rule, person, own, delay))

    def _reacted(self, grid: Grid, reactions: tuple[Reaction, ...]) -> None:
        """People who set a number under the grid."""
        for reaction in reactions:
            number = reaction.number
            for person in reaction.people if number is not None else ():
                self._add(grid, (number or 0) - 1, "react", person, None)

    def _seeded(self, message: Message, said: Said, person: str) -> None:
        """A command for one image, with the seed of an image of an earlier grid of the same prompt."""
        if said.seed is None or said.images != 1 or said.conditioned:
            return
        grids = self._young(self._of_seed.get((said.prompt, said.seed)), message)
        own = [grid for grid in grids if grid.person == person]
        for grid in (own or grids)[:1]:
            self._add(grid, grid.said.seeds.index(said.seed), "seed", person, message)

    def _young(self, grids: deque[Grid] | None, message: Message) -> list[Grid]:
        """Those that are young enough to be picked from, the latest first."""
        young = takewhile(lambda grid: not self._is_older(grid, message), reversed(grids or ()))
        return [grid for grid in young if grid.reason is None]

    def _is_older(self, grid: Grid, message: Message) -> bool:
        return message.time - grid.time > self.within

    def _named(
        self, message: Message, said: Said, pictures: tuple[Attachment, ...], folder: Path
    ) -> str:
        """A message of the bot that says which image was picked, or shows it larger."""
        person = said.person
        if person is None:
            self.report.count("picks_by_unknown_people")
            return "picks"
        # an upscale that is made larger again refers to the first one
        origin = self._shown.get(message.reference or 0, message.reference)
        named = self._open.get(origin) if origin is not None else None
        if origin is not None and named is None:
            self.report.count("picks_of_unknown_grids")
            return "picks"
        if named is not None:
            grids = [named]
        else:
            grids = self._young(self._of_person.get((said.prompt, person)), message)
        if said.index is None:
            self._by_pixels(message, grids, pictures, folder, person, "pixels")
        elif len(grids) == 1:
            self._add(grids[0], said.index, "named", person, message)
            self._shown[message.id] = grids[0].message
        else:
            self.report.count("picks_without_a_clear_grid")
        return "picks"

    def _by_pixels(
        self,
        message: Message,
        grids: list[Grid],
        pictures: tuple[Attachment, ...],
        folder: Path,
        person: str,
        rule: Rule,
    ) -> None:
        """Find the image of these grids that a picture shows."""
        for picture in pictures:
            data = self.media.data(picture, folder)
            if data is None:
                self.report.count("picks_without_a_picture")
                continue
            places = [(grid, k) for grid in grids for k in range(len(self.media.thumbs(grid)))]
            shown = thumb(decode_image(data, picture.name, max_pixels=self.settings.max_pixels))
            found = best_match(shown, [self.media.thumbs(grid)[k] for grid, k in places])
            if found is None or not found.sure:
                self.report.count("pictures_like_no_grid")
                continue
            grid, place = places[found.place]
            self._add(grid, place, rule, person, message)
            self._shown[message.id] = grid.message

    def _fed_back(self, message: Message, pictures: tuple[Attachment, ...], folder: Path) -> None:
        """A person's own message with a picture: one of the images of a grid, brought back."""
        young = takewhile(lambda g: not self._is_older(g, message), reversed(self._open.values()))
        own = [grid for grid in young if grid.person == message.author and grid.reason is None]
        if own:
            for picture in pictures:
                self.media.claim(picture, folder)
            self._by_pixels(message, own, pictures, folder, message.author, "attach")


def _forget(grids: dict[Any, deque[Grid]], key: object) -> None:
    """Drop the oldest grid of a key."""
    grids[key].popleft()
    if not grids[key]:
        del grids[key]
