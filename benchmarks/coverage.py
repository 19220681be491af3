"""Whether 95 % intervals hold the truth in 95 % of simulated studies, and plans their power.

Every study is simulated from a known truth and analysed by the library's own functions. Nothing
here is data of people.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import math
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

from palate.stats.planning.power import PlanSettings, approximate_prompts, plan, simulated_power
from palate.stats.planning.simulated import Design, Truth, simulate_votes
from palate.stats.sequential import SequentialSettings, cluster_means, confidence_sequence
from palate.stats.two_way.clusters import (
    ClusterSettings,
    Sample,
    clustered_share,
    compare_generators,
    compare_scorers,
)

START, END = "<!-- measured -->", "<!-- end of measured -->"
COMMAND = "python benchmarks/coverage.py --json benchmarks/coverage.json --write docs/statistics/intervals.md"
METHODS = ("wilson", "prompts", "sandwich", "jackknife", "pigeonhole", "bootstrap")
EVEN, UNEVEN = "even", "uneven"
# win rate, prompts, votes per prompt, people, how people share the work, ties, sd between people
STUDIES = (
    (0.5, 100, 20, 20, EVEN, 0.0, 0.5),
    (0.5, 300, 5, 30, EVEN, 0.0, 0.5),
    (0.5, 1000, 1, 50, EVEN, 0.0, 0.5),
    (0.5, 300, 3, 20, EVEN, 0.0, 1.0),
    (0.5, 100, 3, 20, EVEN, 0.3, 0.5),
    (0.5, 100, 3, 20, EVEN, 0.0, 0.0),
    (0.77, 50, 3, 10, EVEN, 0.0, 0.5),
    (0.92, 100, 3, 20, EVEN, 0.0, 0.5),
    (0.5, 300, 5, 30, UNEVEN, 0.0, 0.5),
    (0.5, 1000, 1, 50, UNEVEN, 0.0, 0.5),
    (0.5, 30, 3, 8, EVEN, 0.0, 0.5),
    (0.5, 20, 5, 5, EVEN, 0.0, 0.5),
)
TABLE = {  # the prompts of the planning table that the closed form must give
    0.55: {1: 783, 3: 366, 5: 282, 20: 188},
    0.60: {1: 194, 3: 91, 5: 70, 20: 47},
    0.65: {1: 85, 3: 40, 5: 31, 20: 21},
    0.70: {1: 47, 3: 22, 5: 17, 20: 12},
}


def assigned(design: Design, work: str, rng: np.random.Generator) -> Any:
    """Who votes on each prompt; where the work is uneven, person j does in proportion to 1 / j."""
    if work == EVEN:
        return design.assignment(rng)
    assert design.people is not None
    chances = 1 / np.arange(1, design.people + 1)
    chances /= chances.sum()
    each = design.votes_per_prompt
    return np.array(
        [rng.choice(design.people, each, replace=False, p=chances) for _ in range(design.prompts)]
    )


def intervals(votes: Any, prompts: Any, people: Any, seed: int) -> dict[str, tuple[float, float]]:
    """The interval of each method for one study."""
    found = {"wilson": clustered_share(votes, settings=ClusterSettings("wilson"))}
    found["prompts"] = clustered_share(votes, prompts)
    for method in ("sandwich", "jackknife", "pigeonhole", "bootstrap"):
        settings = ClusterSettings(method, resamples=500, seed=seed)
        found[method] = clustered_share(votes, prompts, people, settings=settings)
    return {name: (each.low, each.high) for name, each in found.items()}


def covered(study: tuple[Any, ...], runs: int) -> dict[str, Any]:
    """How often each interval of a study holds the truth, and how wide it is on average."""
    rate, prompts, each, people, work, ties, taste = study
    truth = Truth(rate, ties, prompt_sd=1.0, rater_sd=taste)
    rng = np.random.default_rng(STUDIES.index(study))
    labels = np.repeat(np.arange(prompts), each)
    held, width = dict.fromkeys(METHODS, 0), dict.fromkeys(METHODS, 0.0)
    for run in range(runs):
        who = assigned(Design(prompts, each, people), work, rng)
        votes = simulate_votes(truth, who, (1, prompts, each), rng).ravel()
        for name, (low, high) in intervals(votes, labels, who.ravel(), run).items():
            held[name] += low <= rate <= high
            width[name] += (high - low) / runs
    names = ("win_rate", "prompts", "votes_per_prompt", "people", "work", "tie_share", "rater_sd")
    return {
        **dict(zip(names, study, strict=True)),
        "runs": runs,
        "coverage": {name: round(count / runs, 4) for name, count in held.items()},
        "width": {name: round(wide, 4) for name, wide in width.items()},
    }


def compared(kind: str, shape: tuple[int, int, int], runs: int) -> dict[str, Any]:
    """How often the interval of the difference of two equals holds zero, by the jackknife.

    `scorers`: right or wrong about the same choices. `generators`: ratings of images of the same
    prompts by people who differ in strictness and in taste.
    """
    prompts, each, people = shape
    rng = np.random.default_rng(prompts)
    held = 0
    prompt = np.repeat(np.arange(prompts), each)
    for _ in range(runs):
        level, strict = rng.normal(size=prompts)[prompt], 0.5 * rng.normal(size=people)
        sides: list[Sample] = []
        for _ in range(2):
            who = Design(prompts, each, people).assignment(rng)
            assert who is not None
            person = who.ravel() if kind == "generators" or not sides else sides[0].people
            own = 0.7 * rng.normal(size=prompts)[prompt] + 0.4 * rng.normal(size=people)[person]
            rated = level + own + rng.normal(size=len(prompt))
            values = rated + strict[person] if kind == "generators" else (rated > 0) * 1.0
            sides.append(Sample(values, prompt, person))
        if kind == "generators":
            found = compare_generators(*sides).difference
        else:
            first, second = sides
            found = compare_scorers(first.values, second.values, prompt, first.people).difference
        held += found.low <= 0 <= found.high
    names = ("prompts", "votes_per_prompt", "people")
    size = dict(zip(names, shape, strict=True))
    return {"kind": kind, **size, "runs": runs, "coverage": round(held / runs, 4)}


def streams(kind: str, runs: int, rate: float, votes: int, seed: int) -> Any:
    """Give runs × votes in the order in which they come, of a known win rate."""
    rng = np.random.default_rng(seed)
    if kind == "independent votes":
        return (rng.random((runs, votes)) < rate) * 1.0
    if kind == "independent votes, 30 % ties":
        found = simulate_votes(Truth(rate, 0.3, 0.0, rater_sd=0.0), None, (runs, votes, 1), rng)
        return found.reshape(runs, votes)
    # five votes of a prompt after each other; people, if any, differ by 0.5 logits
    design = Design(votes // 5, 5, 50 if "people" in kind else None)
    truth = Truth(rate, prompt_sd=1.0, rater_sd=0.5 if "people" in kind else 0.0)
    who = design.assignment(rng)
    return simulate_votes(truth, who, (runs, votes // 5, 5), rng).reshape(runs, votes)


def z_alarms(values: Any, looks: Any) -> Any:
    """Whether an ordinary 95 % z-test finds a winner at any of the looks."""
    count = np.arange(1, values.shape[1] + 1)
    total = values.cumsum(axis=1)
    squares = (values**2).cumsum(axis=1)
    mean = total / count
    error = np.sqrt(np.maximum(squares / count - mean**2, 1e-12) / count)
    return (np.abs(mean - 0.5) > 1.96 * error)[:, looks].any(axis=1)


def alarms(kind: str, means: bool, method: Any, runs: int, votes: int = 2000) -> dict[str, Any]:  # noqa: FBT001
    """Share of studies of two equals that find a winner, looking every 50, 10 and 1 values."""
    values = streams(kind, runs, 0.5, votes, seed=len(kind))
    if means:
        prompts = np.repeat(np.arange(votes // 5), 5)
        values = np.array([cluster_means(row, prompts, 5).means for row in values])
    share = {}
    paths = None
    if method != "z-test":
        settings = SequentialSettings(method=method)
        paths = np.array([confidence_sequence(row, settings).evidence for row in values])
    for step in (50, 10, 1):
        # an ordinary test is not begun before 20 values
        looks = np.arange(step, values.shape[1] + 1, step) - 1
        looks = looks[looks >= 19]
        hits = z_alarms(values, looks) if paths is None else (paths[:, looks] >= 20).any(axis=1)
        share[str(step)] = round(float(hits.mean()), 4)
    each = "prompt means" if means else "votes"
    # Promised where each value has the true rate as its mean, whatever came before.
    promised = method != "z-test" and (means or "in a row" not in kind) and "people" not in kind
    facts = {"votes": kind, "values": each, "method": method, "promised": promised}
    return {**facts, "runs": runs, "alarms": share}


def stops(rate: float, method: Any, runs: int) -> dict[str, Any]:
    """After how many independent votes a true difference is found when looking at every vote."""
    settings = SequentialSettings(method=method)
    values = streams("independent votes", runs, rate, 6000, seed=1)
    found = [confidence_sequence(row, settings).stopped or math.inf for row in values]
    # The fixed number for 80 % power, each vote about another prompt.
    fixed = approximate_prompts(Truth(rate, icc=0.2, rater_sd=0.0), 1)
    middle, late = (float(np.quantile(found, share)) for share in (0.5, 0.8))
    return {"win_rate": rate, "method": method, "fixed": fixed, "median": middle, "late": late}


def powered(rate: float, each: int, runs: int) -> dict[str, Any]:
    """The closed form, the simulated power at its number of prompts, and the number searched."""
    truth = Truth(rate, icc=0.2, rater_sd=0.0)
    prompts = approximate_prompts(truth, each)
    assert prompts is not None
    power, low, high = simulated_power(
        truth, Design(prompts, each), PlanSettings(runs=runs, seed=1)
    )
    found = plan(truth, votes_per_prompt=each, settings=PlanSettings(runs=runs))
    return {
        "win_rate": rate,
        "votes_per_prompt": each,
        "published": TABLE[rate][each],
        "closed_form": prompts,
        "power": round(power, 4),
        "power_low": round(low, 4),
        "power_high": round(high, 4),
        "searched": found.design.prompts,
    }


def timed(prompts: int, people: int) -> dict[str, Any]:
    """Processor seconds for a million votes: the jackknife, and a bootstrap of a thousand resamples."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, prompts, 10**6), rng.integers(0, people, 10**6)
    votes = (rng.random(10**6) < 0.55) * 1.0
    seconds = {}
    for method in ("jackknife", "bootstrap"):
        start = time.process_time()
        clustered_share(votes, *codes, settings=ClusterSettings(method))
        seconds[method] = round(time.process_time() - start, 1)
    return {"prompts": prompts, "people": people, "seconds": seconds}


def measure(runs: int, workers: int) -> dict[str, Any]:
    """Measure all tables; studies run in processes of their own."""
    kinds = (
        ("independent votes", False, "z-test"),
        ("independent votes", False, "mixture"),
        ("independent votes", False, "betting"),
        ("independent votes, 30 % ties", False, "mixture"),
        ("five votes of a prompt in a row", False, "mixture"),
        ("five votes of a prompt in a row", True, "mixture"),
        ("five votes of a prompt in a row", True, "betting"),
        ("five votes of a prompt in a row, 50 people", True, "betting"),
    )
    speed = [timed(*shape) for shape in ((20_000, 2_000), (100_000, 10_000), (300_000, 3_000))]
    with ProcessPoolExecutor(workers) as pool:
        cover = [pool.submit(covered, study, runs) for study in STUDIES]
        differ = [
            pool.submit(compared, kind, shape, runs)
            for kind in ("scorers", "generators")
            for shape in ((100, 3, 20), (300, 1, 30), (30, 3, 8))
        ]
        alarm = [pool.submit(alarms, *kind, runs) for kind in kinds]
        stop = [
            pool.submit(stops, rate, method, runs // 2)
            for rate in (0.55, 0.6)
            for method in ("mixture", "betting")
        ]
        power = [
            pool.submit(powered, rate, k, 2 * max(runs, 50))
            for rate, row in TABLE.items()
            for k in row
        ]
        named = {
            "coverage": cover,
            "differences": differ,
            "alarms": alarm,
            "stops": stop,
            "power": power,
        }
        found = {name: [each.result() for each in jobs] for name, jobs in named.items()}
    return {**found, "speed": speed}


def shown(content: dict[str, Any]) -> list[str]:
    """The tables, as lines of Markdown."""
    results = content["results"]
    runs = results["coverage"][0]["runs"]
    error = 100 * 1.96 * math.sqrt(0.95 * 0.05 / runs)
    machines = f"{content['machine']['cores']} cores, {content['date']}"
    lines = [
        (
            f"Share of {runs} simulated studies whose 95 % interval holds the truth, in percent"
            f" (simulation error ± {error:.1f}); prompts differ by 1 logit."
        ),
        "",
        (
            "| win rate | prompts × votes | people (logits) | ties | Wilson | prompts only | sandwich"
            " | **jackknife** | pigeonhole | bootstrap | width: Wilson → jackknife |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in results["coverage"]:
        shares = " | ".join(
            f"**{100 * row['coverage'][name]:.1f}**"
            if name == "jackknife"
            else f"{100 * row['coverage'][name]:.1f}"
            for name in METHODS
        )
        work = ", uneven" if row["work"] == UNEVEN else ""
        lines.append(
            f"| {row['win_rate']} | {row['prompts']} × {row['votes_per_prompt']}"
            f" | {row['people']} ({row['rater_sd']}){work} | {100 * row['tie_share']:.0f} % | {shares}"
            f" | {row['width']['wilson']:.3f} → {row['width']['jackknife']:.3f} |"
        )
    return [
        *lines,
        *_difference_lines(results),
        *_sequential_lines(results),
        *_power_lines(results),
        *_speed_lines(results, machines),
    ]


def _difference_lines(results: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "The same for the difference of two equals, by the jackknife.",
        "",
        "| compared | prompts × votes | people | holds zero, % |",
        "| --- | --- | --- | --- |",
    ]
    return lines + [
        f"| {row['kind']} | {row['prompts']} × {row['votes_per_prompt']} | {row['people']}"
        f" | {100 * row['coverage']:.1f} |"
        for row in results["differences"]
    ]


def _sequential_lines(results: dict[str, Any]) -> list[str]:
    lines = [
        "",
        (
            f"False alarms: share of {results['alarms'][0]['runs']} studies of two equals, 2,000 votes"
            " each, in which a winner was found at any look, in percent."
        ),
        "",
        "| votes come as | looked at | by | promised | every 50 | every 10 | every one |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in results["alarms"]:
        shares = " | ".join(f"{100 * row['alarms'][step]:.1f}" for step in ("50", "10", "1"))
        promised = "yes" if row["promised"] else "no"
        lines.append(
            f"| {row['votes']} | {row['values']} | {row['method']} | {promised} | {shares} |"
        )
    lines += [
        "",
        "What looking costs: independent votes until a true difference is found.",
        "",
        "| win rate | fixed, 80 % power | by | median | found in 80 % |",
        "| --- | --- | --- | --- | --- |",
    ]
    return lines + [
        f"| {row['win_rate']} | {row['fixed']} | {row['method']} | {row['median']:.0f} | {row['late']:.0f} |"
        for row in results["stops"]
    ]


def _power_lines(results: dict[str, Any]) -> list[str]:
    lines = [
        "",
        (
            "Prompts for 80 % power at the level of 95 %, intraclass correlation 0.2, every vote by"
            " another person."
        ),
        "",
        "| win rate | votes per prompt | closed form | its simulated power, % | by simulation |",
        "| --- | --- | --- | --- | --- |",
    ]
    return lines + [
        f"| {row['win_rate']} | {row['votes_per_prompt']} | {row['closed_form']}"
        f" | {100 * row['power']:.1f} ({100 * row['power_low']:.1f}–{100 * row['power_high']:.1f})"
        f" | {row['searched']} |"
        for row in results["power"]
    ]


def _speed_lines(results: dict[str, Any], machines: str) -> list[str]:
    lines = [
        "",
        f"A million votes, in one thread ({machines}, shared with other work), in processor seconds.",
        "",
        "| prompts | people | jackknife | bootstrap, 1,000 resamples |",
        "| --- | --- | --- | --- |",
    ]
    return lines + [
        f"| {row['prompts']} | {row['people']} | {row['seconds']['jackknife']}"
        f" | {row['seconds']['bootstrap']} |"
        for row in results["speed"]
    ]


def filled(page: str, content: dict[str, Any]) -> str:
    """Give the page with the figures."""
    before, _, rest = page.partition(START)
    return f"{before}{START}\n" + "\n".join(shown(content)) + f"\n\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Measure, print, keep and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write", type=Path, help="put the tables into this page")
    given = parser.parse_args()
    content = {
        "command": COMMAND,
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "machine": machine(),
        "results": measure(given.runs, given.workers),
    }
    print("\n".join(shown(content)))
    if given.json:
        given.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    if given.write:
        given.write.write_text(filled(given.write.read_text("utf-8"), content), "utf-8")


if __name__ == "__main__":
    main()
