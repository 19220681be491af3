"""Put the kept figures of scoring.py, drift.py and memory.py into docs/speed.md.

python benchmarks/speed_page.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "speed.md"
Facts = dict[str, Any]
_HEAD = (
    "| | end to end, images/s | × fastest peer | network alone | of the limit | opening alone "
    "| first score, s | peak GB |"
)


def newest(name: str) -> Facts:
    """Read the newest kept figures of a script."""
    kept: Facts = json.loads(max(HERE.glob(f"{name}-2*.json")).read_text("utf-8"))
    return kept


def every(name: str) -> list[Facts]:
    """Read all kept figures of a script, the newest first: machines differ."""
    return [
        json.loads(path.read_text("utf-8")) for path in sorted(HERE.glob(f"{name}-2*.json"))[::-1]
    ]


def filled(page: str, speed: list[Facts], drift: Facts, memory: Facts) -> str:
    """Give the page with its figures."""
    for name, lines in (
        ("speed", "\n\n".join("\n".join(speed_lines(one)) for one in speed).splitlines()),
        ("drift", drift_lines(drift)),
        ("memory", memory_lines(memory)),
    ):
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        before, _, rest = page.partition(start)
        page = before + start + "\n" + "\n".join(lines) + "\n\n" + end + rest.partition(end)[2]
    return page


def _told(machine: Facts) -> str:
    instructions = ", ".join(machine["instructions"])
    return f"{machine['cores']} cores of an {machine['processor']} ({instructions}), torch {machine['torch']}"


def speed_lines(speed: Facts) -> list[str]:
    """The rates of every contender, by model and size of the files."""
    lines = [
        f"{speed['date']}, {_told(speed['machine'])}; {speed['images']} images, best of {speed['rounds']} rounds."
    ]
    for model, found in speed["results"].items():
        for size, table in found["sizes"].items():
            lines += [
                "",
                f"{model}, JPEGs of {size} px:",
                "",
                _HEAD,
                "| --- " * 8 + "|",
                *(_speed_row(name, row) for name, row in table.items()),
                *_limits(found["limit"], size),
            ]
    return lines


def _speed_row(name: str, row: Facts) -> str:
    share = row["share_of_limit"]
    precision = f" ({row['precision']})" if name.startswith("Palate") else ""
    cells = [
        f"{name}{precision}",
        _number(row["end_to_end"]),
        _number(row["times_fastest_peer"]),
        _number(row["forward"]),
        "" if share is None else f"{100 * share:.0f} %",
        _number(row["prepare"]),
        _number(row["cold_seconds"]),
        _number(None if row["peak_bytes"] is None else row["peak_bytes"] / 1e9),
    ]
    return "| " + " | ".join(cells) + " |"


def _limits(limit: Facts, size: str) -> list[str]:
    rates = limit["operations_per_second"]
    best = [
        f"{precision} {max(engines.values()) / 1e9:.0f} GFLOP/s, so {limit['forward'][precision]:.2f} images/s"
        for precision, engines in rates.items()
    ]
    return [
        "",
        f"What the machine can do: {'; '.join(best)}; {limit['decode'][size]:.0f} such files decoded a second.",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def drift_lines(drift: Facts) -> list[str]:
    """How far each engine drifts, scorer by scorer."""
    return [
        f"{drift['date']}, {_told(drift['machine'])}.",
        "",
        "| scorer | weights | engine | largest difference | as a cosine | two images of a prompt differ by | reordered |",
        "| --- " * 7 + "|",
        *(_drift_row(row) for row in drift["rows"]),
    ]


def _drift_row(row: Facts) -> str:
    cosine = "" if row["largest_cosine"] is None else f"{row['largest_cosine']:.1e}"
    return (
        f"| `{row['scorer']}` | {row['weights']} | {row['engine']} | {row['largest']:.1e} {row['unit']} | {cosine} "
        f"| {row['spread']:.2g} | {100 * row['reordered']:.2f} % of {row['pairs']:,} |"
    )


def memory_lines(memory: Facts) -> list[str]:
    """Peak memory by the number of rows."""
    return [
        f"{memory['date']}, {memory['hardware']}:",
        "",
        "| | peak, MB | seconds |",
        "| --- | --- | --- |",
        *(
            f"| {name} | {row['peak_mb']} | {row['seconds']:.0f} |"
            for name, row in memory["runs"].items()
        ),
    ]


def main() -> None:
    """Fill the page."""
    memory: Facts = json.loads((HERE / "memory.json").read_text("utf-8"))
    page = PAGE.read_text("utf-8")
    PAGE.write_text(filled(page, every("scoring"), newest("drift"), memory), "utf-8")


if __name__ == "__main__":
    main()
