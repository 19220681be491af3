"""Import picks from a Discord channel in which a bot made images: the way the HPS paper's data came about.

What is read is an export of DiscordChatExporter (JSON). Who picked what is inferred by named rules, each
with a confidence, and a funnel accounts for every message and every grid. People and messages appear
under keyed pseudonyms alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from palate.data.sources.common import Report, Row, Source
from palate.data.sources.discord.channel import Channel
from palate.data.sources.discord.dialects import Dialect, Reader, load_dialect
from palate.data.sources.discord.exports import Export, export_files, merged, same_channel
from palate.data.sources.discord.grids import DiscordSettings, Media, Verdicts
from palate.data.sources.discord.people import Pseudonyms, read_deletions, read_key
from palate.errors import DataError
from palate.runs import hash_file

__all__ = ["DiscordSettings", "discord"]


def discord(
    path: Path, key: Path, settings: DiscordSettings, deletions: Path | None = None
) -> Source:
    """Open an export: one `.json` file, or a folder with the parts of one channel.

    `key` is the file of the secret for pseudonyms, made if it is not there. `deletions` lists user ids
    whose messages and picks are left out.
    """
    files = export_files(path)
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: does not exist")
    names = Pseudonyms(read_key(key))
    left_out = frozenset[str]() if deletions is None else read_deletions(deletions)
    dialect = load_dialect(settings.dialect)
    # names of exports hold the channel, and lists of ids could be tried out: neither is recorded plainly
    inputs: dict[str, Path | str] = {
        f"export {number}": f"a file with the content {hash_file(file)}"
        for number, file in enumerate(files, start=1)
    }
    inputs["key"] = f"a key with the fingerprint {names.fingerprint()}"
    if deletions is not None:
        inputs["deletions"] = f"{len(left_out)} people with the mark {names.people(left_out)}"
    if Path(settings.dialect).suffix == ".toml":
        inputs["dialect"] = Path(settings.dialect)
    rows = partial(_rows, files, names, left_out, dialect, settings)
    folder = path if path.is_dir() else path.parent
    return Source("discord", settings, inputs, rows, folder, label=str(path))


def _rows(
    files: list[Path],
    names: Pseudonyms,
    deleted: frozenset[str],
    dialect: Dialect,
    settings: DiscordSettings,
    report: Report,
) -> Iterator[Row]:
    exports = [Export(file) for file in files]
    verdicts = Verdicts(settings, names, Media(report, settings, names), report, dialect)
    channel = Channel(Reader(dialect), settings, verdicts, report, deleted)
    for export, message, again in merged(exports, report):
        yield from channel.read(export, message, again=again)
    same_channel(exports)
    for export in exports:
        if export.broken is not None:
            if settings.truncated == "fail":
                raise DataError(
                    f"{export.path}: {export.broken}; export it again, or use what is there "
                    "(--truncated keep)"
                )
            report.count("unfinished_exports")
    yield from channel.end()
    report.counts["legal_basis"] = settings.legal_basis
