"""Put the kept figures of readers.py and discord_picks.py into docs/sources.

python benchmarks/readers_page.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGES = HERE.parent / "docs" / "sources"
Facts = dict[str, Any]
_COUNTS = ("right", "wrong", "not found", "beyond the rules")


def kept(name: str) -> Facts:
    """Read the kept figures of a script."""
    found: Facts = json.loads((HERE / f"{name}.json").read_text("utf-8"))
    return found


def filled(page: str, parts: dict[str, list[str]]) -> str:
    """Give a page with lines between its marks."""
    for name, lines in parts.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, found, rest = page.partition(start)
        if not found or end not in rest:
            raise ValueError(f"the page has no marks {start.strip()} and {end}")
        page = before + start + "\n" + "\n".join(lines) + "\n\n" + end + rest.partition(end)[2]
    return page


def sources_page(page: str, readers: Facts) -> str:
    """Give docs/sources/README.md with its figures."""
    return filled(page, {"readers": reader_lines(readers)})


def discord_page(page: str, picks: Facts) -> str:
    """Give docs/sources/discord.md with its figures."""
    return filled(page, {"picks": pick_lines(picks), "large": large_lines(picks)})


def _told(facts: Facts) -> str:
    machine = facts["machine"]
    return f"{facts['date']}, {machine['cores']} cores of an {machine['processor']}, Python {machine['python']}"


def reader_lines(facts: Facts) -> list[str]:
    """Rates and peaks of every reader, by the size of the file."""
    sizes = sorted({row["size"] for one in facts["readers"].values() for row in one["runs"]})
    head = ["", "what is read", *(f"{size:,}" for size in sizes)]
    head += [f"MB at {size:,}" for size in sizes]
    starts = [row["start_bytes"] / 1e6 for one in facts["readers"].values() for row in one["runs"]]
    return [
        f"{_told(facts)}, shared with other work. Choices a second of processor time",
        "(images, where it says so) in files of so many choices; then the most memory of the process, of which",
        f"{min(starts):.0f} MB are Python and its libraries. The smallest files pay for what is loaded once.",
        "",
        _row(head),
        _row(["---"] * len(head)),
        *(_reader_row(name, one, sizes) for name, one in facts["readers"].items()),
        "",
        f"A size has no figure where it would have taken more than {facts['limit_seconds']:.0f} seconds, or where all images",
        "are opened: their number makes no difference then, and their size does.",
    ]


def _reader_row(name: str, one: Facts, sizes: list[int]) -> str:
    runs = {row["size"]: row for row in one["runs"]}
    images = " (images)" if not any(row["choices"] for row in one["runs"]) else ""
    rates = [f"{runs[s]['rows_per_second']:,.0f}{images}" if s in runs else "" for s in sizes]
    peaks = [f"{runs[s]['peak_bytes'] / 1e6:,.0f}" if s in runs else "" for s in sizes]
    return _row([f"`{name}`", one["file"], *rates, *peaks])


def pick_lines(facts: Facts) -> list[str]:
    """How many picks of each rule are right, wrong and not found."""
    head = ["channel", "rule", *_COUNTS, "right, of those inferred"]
    return [
        f"{_told(facts)}; {facts['seeds']} channels of each kind with {facts['grids']} grids each.",
        "",
        _row(head),
        _row(["---"] * len(head)),
        *map(_pick_row, facts["picks"]),
        "",
        "*Beyond the rules* is what no rule is meant to see, such as a pick that came too late.",
    ]


def _pick_row(row: Facts) -> str:
    right, wrong = row.get("right", 0), row.get("wrong", 0)
    share = f"{100 * right / (right + wrong):.1f} %" if right + wrong else ""
    counts = [f"{row.get(name, 0):,}" for name in _COUNTS]
    return _row([row["channel"], f"`{row['rule']}`", *counts, share])


def large_lines(facts: Facts) -> list[str]:
    """How fast a large export is read, and with how much memory."""
    large = facts["large"]
    what = f"{large['bytes'] / 1e9:.1f} GB with {large['messages']:,} messages"
    rate = f"{large['seconds']:.0f} seconds, {large['megabytes_per_second']:.0f} MB a second"
    return [
        f"{what} took {rate},",
        f"and at most {large['peak_bytes'] / 1e6:.0f} MB of memory ({_told(facts)}).",
    ]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Fill both pages."""
    sources, discord = PAGES / "README.md", PAGES / "discord.md"
    sources.write_text(sources_page(sources.read_text("utf-8"), kept("readers")), "utf-8")
    discord.write_text(discord_page(discord.read_text("utf-8"), kept("discord-picks")), "utf-8")


if __name__ == "__main__":
    main()
