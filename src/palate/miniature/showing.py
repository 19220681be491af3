"""The demo's report: numbers and pictures of one run of the loop, as one HTML file and one JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from palate.data.tables import load_dataset, read_table
from palate.evaluation.report import (
    picture_uri,
    plot_curves,
    plot_intervals,
    plot_points,
    write_report,
)
from palate.miniature.findings import VOTERS, Judged, judge_dataset, read_scores
from palate.miniature.loop import Loop
from palate.miniature.measure import ARMS
from palate.runs import write_atomic

SHOWN = {"questions": 6, "extremes": 10, "rows": 10}
TEMPLATE = Path(__file__).parent / "report.html"
COMMANDS = """\
palate data import folder my-images --out runs/mine
palate score runs/mine --scorer {run}/train-0 --out runs/mine-scores.parquet
palate train runs/choices --base {run}/train-0 --out runs/my-scorer
palate generate miniature --prompt "a red circle on white" --adapter {run}/adapt-0 --out runs/new
palate evaluate {run}/choices --scores runs/mine-scores.parquet"""


def show(loop: Loop, found: Mapping[str, Any], when: str) -> Path:
    """Write `report.html` and `result.json` into the folder of the run; return the page's path."""
    write_atomic(loop.out / "result.json", json.dumps(found, indent=1) + "\n")
    page = loop.out / "report.html"
    write_report(
        TEMPLATE,
        page,
        {
            "title": "The loop in miniature",
            "when": when,
            "seconds": sum(found["seconds"].values()),
            "seeds": loop.settings.seeds,
            "cards": _cards(found),
            "verdict": verdict(found),
            "choices": {**found["choices"], "examples": _questions(loop)},
            "classifier": _classifier_section(loop, found),
            "labels": _label_section(loop, found),
            "adapt": _adapt_section(loop),
            "arms": _arms_section(loop, found),
            "steps": found["seconds"],
            "caveats": CAVEATS,
            "commands": COMMANDS.format(run=loop.out),
        },
    )
    return page


CAVEATS = (
    "Four things are easier than in the paper. The words of the identifier are not new to the generator: in its"
    ' pre-training "Weird image. " stood before captions of spoilt pictures four times as often as of clean ones, as'
    " such words do on the web; the arms of the original show what that alone does. Part of the pictures that people"
    " choose between, and that are labelled, is drawn by the renderer with its usual defects, because drawing is quick."
    " Its pictures also take the place of the photographs that keep the generator steady. And some rejected captions"
    " are the identifier alone, because that is what the negative prompt will be."
)


def verdict(found: Mapping[str, Any]) -> str:
    """Say in two sentences whether the loop worked, from the intervals and whatever they say."""
    gain = found["classifier"]["drawn"]["gain"]
    last = next(arm for arm in found["arms"] if arm["name"] == ARMS["adapted-negative"])
    difference, won, lost = last["difference"], last["won"], last["lost"]
    learnt = (
        "The classifier predicts people better than the CLIP it started from"
        if gain["low"] > 0
        else "The classifier does not clearly predict people better than the CLIP it started from"
    )
    if difference["low"] > 0:
        better = "the adapted generator is better in ground truth"
    elif difference["high"] < 0:
        better = "the adapted generator is worse in ground truth"
    else:
        better = "whether the adapted generator is better in ground truth cannot be told from so few prompts"
    return (
        f"{learnt} ({gain['estimate']:+.3f} in expected accuracy), and {better}"
        f" ({difference['estimate']:+.3f} in utility, 95 % interval {difference['low']:+.3f} to"
        f" {difference['high']:+.3f}); most of {VOTERS} fresh simulated people preferred its image on"
        f" {100 * won['estimate']:.0f} % of the prompts and the original's on {100 * lost['estimate']:.0f} %."
    )


def _cards(found: Mapping[str, Any]) -> list[dict[str, str]]:
    classifier = found["classifier"]["drawn"]
    last = next(arm for arm in found["arms"] if arm["name"] == ARMS["adapted-negative"])
    costs = found["identifier_costs"]["adapted"]["difference"]
    return [
        {
            "value": f"{classifier['trained']['accuracy']['estimate']:.3f}",
            "tone": "good" if classifier["gain"]["low"] > 0 else "",
            "says": f"expected accuracy of the classifier; {classifier['zero_shot']['accuracy']['estimate']:.3f} before,"
            f" {classifier['best_possible']['estimate']:.3f} at best",
        },
        {
            "value": f"{last['difference']['estimate']:+.3f}",
            "tone": _tone(last["difference"]),
            "says": "true utility, adapted with the negative identifier against the original",
        },
        {
            "value": f"{100 * last['won']['estimate']:.0f} % : {100 * last['lost']['estimate']:.0f} %",
            "tone": "good" if last["won"]["low"] > last["lost"]["high"] else "",
            "says": f"of prompts won : lost in votes of {VOTERS} fresh simulated people",
        },
        {
            "value": f"{costs['estimate']:+.3f}",
            "tone": "good" if costs["high"] < 0 else "",
            "says": "true utility with the identifier in the prompt: it should cost",
        },
    ]


def _tone(difference: Mapping[str, float]) -> str:
    return "good" if difference["low"] > 0 else "bad" if difference["high"] < 0 else ""


def _questions(loop: Loop) -> list[dict[str, Any]]:
    choices = load_dataset(loop.out / "choices").choices.to_pylist()
    judged = judge_dataset(loop.out / "choices-images")
    pictures = dict(zip(judged.keys, judged.pictures, strict=True))
    first = list({choice["prompt"]: choice for choice in reversed(choices)}.values())[::-1]
    return [
        {
            "prompt": choice["prompt"],
            "images": [
                {"uri": picture_uri(pictures[image]), "chosen": rank == 1}
                for image, rank in zip(choice["images"], choice["ranks"], strict=True)
            ],
        }
        for choice in first[: SHOWN["questions"]]
    ]


def _classifier_section(loop: Loop, found: Mapping[str, Any]) -> dict[str, Any]:
    curves = json.loads((loop.out / "train-0" / "curves.json").read_text())
    lines = {"training": [(point["step"], point["loss"]) for point in curves["train"]]}
    if curves["validation"]:
        lines["validation"] = [(point["step"], point["loss"]) for point in curves["validation"]]
    return {
        "test": found["classifier"]["drawn"]["test_prompts"],
        "first_seed": 0,
        "curves": plot_curves(
            lines, across="step", up="cross-entropy", lines={"guessing": np.log(4)}
        ),
        "tables": {maker: _accuracy_rows(facts) for maker, facts in found["classifier"].items()},
    }


def _accuracy_rows(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    guess, habit = (_exactly(facts[name]) for name in ("guessing", "always_last_place"))
    rows = [
        {"name": "guessing", "accuracy": guess, "tau": None},
        {"name": "always the last place", "accuracy": habit, "tau": None},
        {"name": "the tiny CLIP as it was", **facts["zero_shot"]},
        {"name": "the trained classifier", **facts["trained"], "strong": True},
        {
            "name": "the best that any scorer can reach",
            "accuracy": facts["best_possible"],
            "tau": None,
        },
    ]
    return [{"strong": False, **row} for row in rows]


def _exactly(value: float) -> dict[str, float]:
    """A known number in the place of an estimate."""
    return {"estimate": value, "low": value, "high": value}


def _label_section(loop: Loop, found: Mapping[str, Any]) -> dict[str, Any]:
    facts = found["labels"]
    judged = judge_dataset(loop.out / "labels-images")
    scores = read_scores(loop.score(0, loop.out / "labels-images"), judged)
    labels = read_table(loop.out / "labels-0" / "labels.parquet", "labels")
    role = dict(
        zip(labels.column("image").to_pylist(), labels.column("role").to_pylist(), strict=True)
    )
    order = np.argsort(-scores)
    none = {"count": 0, "utility": float("nan")}
    return {
        "images": facts["images"],
        "prompts": facts["prompts"],
        "preferred": facts.get("preferred", none)["count"],
        "rejected": facts.get("rejected", none)["count"],
        "utility": {
            "all": facts["utility"],
            "preferred": facts.get("preferred", none)["utility"],
            "rejected": facts.get("rejected", none)["utility"],
        },
        "scatter": plot_points(
            scores,
            judged.utility,
            across="score of the classifier (HPS, 100 × cosine)",
            up="true utility",
            groups=[role.get(key, "no label") for key in judged.keys],
        ),
        "extremes": {
            "Highest scores": _thumbs(judged, scores, order[: SHOWN["extremes"]]),
            "Lowest scores": _thumbs(judged, scores, order[::-1][: SHOWN["extremes"]]),
        },
    }


def _thumbs(judged: Judged, scores: Any, places: Any) -> list[dict[str, Any]]:
    return [
        {
            "uri": picture_uri(judged.pictures[i]),
            "prompt": judged.prompts[i],
            "score": float(scores[i]),
        }
        for i in places
    ]


def _adapt_section(loop: Loop) -> dict[str, Any]:
    settings = loop.adapt_settings(0)
    curves = json.loads((loop.out / "adapt-0" / "curves.json").read_text())["train"]
    roles = ("preferred", "rejected", "regularisation")
    lines = {
        role: [(point["step"], point[role]) for point in curves if point.get(role) is not None]
        for role in roles
    }
    result = json.loads((loop.out / "adapt-0" / "run.json").read_text())["result"]
    return {
        "rank": settings.rank,
        "identifier": settings.identifier,
        "curves": plot_curves(
            {role: points for role, points in lines.items() if points},
            across="step",
            up="denoising error",
        ),
        "gap": result["identifier_gap"].get("after"),
    }


def _arms_section(loop: Loop, found: Mapping[str, Any]) -> dict[str, Any]:
    rows = found["arms"]
    prompts = loop.evaluation_prompts[: SHOWN["rows"]]
    judged = {
        arm: judge_dataset(loop.out / "arms" / folder) for arm, folder in loop.arms(0).items()
    }
    firsts = {arm: _firsts(of) for arm, of in judged.items()}
    return {
        "prompts": len(loop.evaluation_prompts),
        "voters": VOTERS,
        "rows": [{**row, "strong": row["name"] == ARMS["adapted-negative"]} for row in rows],
        "plot": plot_intervals(
            [(row["name"], *row["difference"].values()) for row in rows[1:]],
            across="difference in utility from the original",
            level=0.0,
        ),
        "by_seed": found["by_seed"],
        "identifier_costs": found["identifier_costs"],
        "names": list(ARMS.values()),
        "pictures": [
            {
                "prompt": prompt,
                "images": [
                    {
                        "uri": picture_uri(judged[arm].pictures[firsts[arm][prompt]]),
                        "utility": float(judged[arm].utility[firsts[arm][prompt]]),
                    }
                    for arm in ARMS
                ],
            }
            for prompt in prompts
        ],
    }


def _firsts(judged: Judged) -> dict[str, int]:
    """The place of each prompt's first image."""
    return {prompt: i for i, prompt in reversed([*enumerate(judged.prompts)])}
