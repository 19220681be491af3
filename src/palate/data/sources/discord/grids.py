"""Grids that wait for a pick, the files of their images, and what became of each of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

import PIL.Image

from palate.data.images import decode_image, read_image
from palate.data.records import Choice, Image, json_text
from palate.data.sources.common import Found, Report, Row, SourceSettings, inside
from palate.data.sources.discord.dialects import Dialect, Said
from palate.data.sources.discord.exports import Attachment
from palate.data.sources.discord.people import Pseudonyms
from palate.data.sources.discord.pixels import Thumb, cut, png, thumb
from palate.errors import DataError, ImageError

Rule = Literal["named", "seed", "attach", "react", "pixels"]
Several = Literal["drop", "first", "last", "multi"]

CONFIDENCE: Final[dict[Rule, float]] = {
    "named": 0.99,
    "seed": 0.98,
    "react": 0.97,
    "attach": 0.95,
    "pixels": 0.95,
}
"""How far a rule is to be trusted; the first is the strongest. The share of right picks on the synthetic
channels is higher (docs/sources/discord.md)."""


@dataclass(frozen=True)
class DiscordSettings(SourceSettings):
    """How a channel is read.

    `legal_basis` says in words why these people's messages may be used; it is kept in the run record.
    `several` is what happens to a grid from which one person picked several images: "drop", the "first",
    the "last", or all of them as ties ("multi"). `who`: only the person who asked for the grid, or
    "anyone", whose choice is then one of its own. `within_hours` bounds what is inferred (seed, attach,
    pixels); a pick that names its grid counts for 30 days. `media=False` imports an export without files.
    `truncated="keep"` uses what an unfinished export holds.
    """

    legal_basis: str = ""
    dialect: str = "dreambot"
    several: Several = "drop"
    who: Literal["requester", "anyone"] = "requester"
    within_hours: float = 24.0
    media: bool = True
    truncated: Literal["fail", "keep"] = "fail"

    def __post_init__(self) -> None:
        """Refuse to run without a legal basis."""
        if not self.legal_basis.strip():
            raise DataError(
                "a channel is imported only with a legal basis: say in a sentence why these people's "
                "messages may be used, such as 'members agreed on 2026-01-15 (form 3)'"
            )
        if not 0 < self.within_hours <= 24 * 30:
            raise DataError(
                f"within_hours is {self.within_hours}, expected more than 0 and at most 720"
            )


@dataclass(frozen=True, slots=True)
class Pick:
    """One person's pick from a grid, as inferred by a rule."""

    index: int
    rule: Rule
    person: str
    message: int
    delay: float | None


@dataclass(slots=True)
class Grid:
    """A finished set of images for one prompt, and the picks from it so far."""

    message: int
    time: datetime
    said: Said
    person: str | None
    pictures: tuple[Attachment, ...]
    folder: Path
    reason: str | None = None
    picks: list[Pick] = field(default_factory=list)
    thumbs: list[Thumb] | None = None

    @property
    def images(self) -> int:
        """How many images it has."""
        return self.said.images or 1

    @property
    def collage(self) -> bool:
        """Whether its images lie in one picture."""
        return len(self.pictures) == 1


class Media:
    """The files of an export; what is wrong with one is counted, and the file is left alone."""

    def __init__(self, report: Report, settings: SourceSettings, names: Pseudonyms) -> None:
        self._report = report
        self._names = names
        self._settings = settings
        self._claims: dict[tuple[Path, str], tuple[str, int]] = {}
        self._quarantined: set[str] = set()

    def claim(self, attachment: Attachment, folder: Path) -> None:
        """Note which file an attachment says is its own; two of different size quarantine each other."""
        if attachment.remote:
            return
        before = self._claims.setdefault((folder, attachment.url), (attachment.id, attachment.size))
        if before[0] != attachment.id and before[1] != attachment.size:
            for name in (before[0], attachment.id):
                self._quarantine(name, "file_of_two_attachments")

    def path(self, attachment: Attachment, folder: Path) -> Path | None:
        """The file of an attachment, if it is there and has its size and decodes."""
        if attachment.id in self._quarantined or attachment.remote:
            return None
        try:
            file = inside(folder, attachment.url)
        except DataError:
            # the path itself may hold a person's name
            told = "a path of a file does not stay inside the folder of the export"
            self._report.faults.add(f"attachment {self._names.message(int(attachment.id))}", told)
            self._quarantined.add(attachment.id)
            return None
        if not file.is_file():
            return None
        if file.stat().st_size != attachment.size:
            self._quarantine(attachment.id, "file_of_another_size")
            return None
        return file

    def data(self, attachment: Attachment, folder: Path) -> bytes | None:
        """The bytes of an attachment that is a picture."""
        file = self.path(attachment, folder)
        if file is None:
            return None
        try:
            data = read_image(file)
            decode_image(data, file.name, max_pixels=self._settings.max_pixels)
        except ImageError:
            self._quarantine(attachment.id, "file_is_no_picture")
            return None
        return data

    def thumbs(self, grid: Grid) -> list[Thumb]:
        """Thumbnails of a grid's images; none where its files are not whole."""
        if grid.thumbs is None:
            pieces = self.pieces(grid)
            whole = len(pieces) == grid.images
            grid.thumbs = [thumb(piece) for _, piece in pieces] if whole else []
        return grid.thumbs

    def pieces(self, grid: Grid) -> list[tuple[Attachment, PIL.Image.Image]]:
        """The images of a grid, cut out where they lie in a collage."""
        found = []
        for picture in grid.pictures:
            data = self.data(picture, grid.folder)
            if data is None:
                return []
            limit = self._settings.max_pixels
            if grid.collage and grid.images > 1:
                parts = cut(data, picture.name, grid.images, limit) or []
                found += [(picture, part) for part in parts]
            else:
                found.append((picture, decode_image(data, picture.name, max_pixels=limit)))
        return found

    def _quarantine(self, attachment: str, why: str) -> None:
        if attachment not in self._quarantined:
            self._quarantined.add(attachment)
            self._report.count(f"quarantined_{why}")


class Verdicts:
    """Turns finished grids into rows, and counts what became of each."""

    def __init__(
        self,
        settings: DiscordSettings,
        names: Pseudonyms,
        media: Media,
        report: Report,
        dialect: Dialect,
    ) -> None:
        self.settings = settings
        self.names = names
        self.media = media
        self.source = f"discord/{dialect.name}"
        self.generator = dialect.generator
        self.grids: dict[str, int] = {}
        self.rules: dict[str, int] = {}
        report.counts["grids"] = self.grids
        report.counts["rules"] = self.rules
        self.report = report

    def rows(self, grid: Grid) -> Iterator[Row]:
        """The images and choices of a grid; none where nobody picked, or not clearly."""
        decided = []
        reason = grid.reason or "no_pick"
        people = dict.fromkeys(pick.person for pick in grid.picks)
        for person in people if grid.reason is None else ():
            if person != grid.person and self.settings.who == "requester":
                reason = "picked_by_others"
                continue
            own = [pick for pick in grid.picks if pick.person == person]
            ranks = self._ranks(own, grid.images)
            if isinstance(ranks, str):
                reason = ranks
            else:
                decided.append((own, ranks))
        if not decided:
            self._count(self.grids, reason)
            return
        self._count(self.grids, "with_choice")
        name = f"discord/{self.names.message(grid.message)}"
        keys = tuple(f"{name}/{k}" for k in range(grid.images))
        prompt = self.names.without_ids(grid.said.prompt)
        yield from self._images(grid, keys, prompt)
        for own, ranks in decided:
            yield self._choice(grid, name, keys, prompt, own, ranks)

    def _ranks(self, own: list[Pick], images: int) -> tuple[int, ...] | str:
        """Ranks of one person's picks, or why there are none."""
        picked = list(dict.fromkeys(pick.index for pick in own))
        if len(picked) > 1:
            self.report.count("people_with_several_picks")
            if self.settings.several == "drop":
                return "several_picks"
            if self.settings.several == "first":
                picked = picked[:1]
            elif self.settings.several == "last":
                picked = [own[-1].index]
        if len(picked) == images:
            return "picked_all"
        return tuple(1 if k in picked else 2 for k in range(images))

    def _choice(
        self,
        grid: Grid,
        name: str,
        keys: tuple[str, ...],
        prompt: str,
        own: list[Pick],
        ranks: tuple[int, ...],
    ) -> Choice:
        counted = [pick for pick in own if ranks[pick.index] == 1]
        best = min(counted, key=lambda pick: list(CONFIDENCE).index(pick.rule))
        self._count(self.rules, best.rule)
        delays = [pick.delay for pick in counted if pick.delay is not None]
        facts: dict[str, object] = {
            "rule": best.rule,
            "confidence": CONFIDENCE[best.rule],
            "picked": [k for k, rank in enumerate(ranks) if rank == 1],
            "own_grid": best.person == grid.person,
            "grid_message": self.names.message(grid.message),
            "pick_message": self.names.message(best.message),
        }
        if delays:
            facts["delay_seconds"] = round(min(delays), 3)
        annotator = self.names.person(best.person)
        own_grid = best.person == grid.person
        return Choice(
            choice=name if own_grid else f"{name}/by-{annotator[:8]}",
            prompt=prompt,
            images=keys,
            ranks=ranks,
            annotator=annotator,
            source=self.source,
            details=json_text(facts),
        )

    def _images(self, grid: Grid, keys: tuple[str, ...], prompt: str) -> Iterator[Found]:
        """The images of a grid: cut out of their collage, or the files as they are."""
        seeds = grid.said.seeds
        options = self.names.without_ids(grid.said.options)
        facts: dict[str, object] = {"collage": True} if grid.collage else {}
        pieces = self.media.pieces(grid) if grid.collage else []
        if len(pieces) != grid.images:
            pieces = []
        for place, key in enumerate(keys):
            image = Image(
                image=key,
                prompt=prompt,
                generator=self.generator,
                seed=seeds[place] if len(seeds) == len(keys) else None,
                settings=json_text({"options": options} if options else {}),
                details=json_text(facts),
            )
            # a file's own name may hold a person's, so even whole files are written anew
            data = png(pieces[place][1]) if pieces else None
            if data is None and not grid.collage:
                data = self.media.data(grid.pictures[place], grid.folder)
            if data is None:
                self.report.miss(key)
            yield Found(image, data=data)

    @staticmethod
    def _count(counts: dict[str, int], name: str) -> None:
        counts[name] = counts.get(name, 0) + 1
