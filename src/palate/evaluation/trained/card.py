"""The model card of what a training made: what it is, on what, how good, and what to watch for."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from palate.data.audit.audit import Audit
from palate.evaluation.bias_text import bias_table
from palate.evaluation.trained.measure import Measured
from palate.scoring.networks import ClipScorer, SiglipScorer
from palate.scoring.scorer import Scorer
from palate.scoring.units import describe_unit
from palate.stats.accuracy import Accuracy
from palate.stats.calibrations.calibration import calibration_table

_FINDINGS = 12
_COMPARE = "Scores of one prompt's images compare; scores of different prompts do not."


@dataclass(frozen=True)
class TrainedFacts:
    """What a model card tells: the scorer, the record of its run, and what was measured."""

    scorer: Scorer
    record: Mapping[str, Any]
    audit: Audit
    measured: Sequence[Measured]
    base: str
    licence: str | None
    pictures: Sequence[str]


def write_trained_card(facts: TrainedFacts) -> str:
    """Write the README.md of a trained scorer: YAML that the Hub reads, then text."""
    scorer = facts.scorer
    unit = f"in the unit {scorer.unit} ({describe_unit(scorer.unit)})"
    parts = [
        _front_matter(facts),
        f"# {scorer.name}",
        f"A scorer of images, taught from people's choices. It scores {unit}; higher is better. {_COMPARE}",
        _table(["", ""], list(_facts(facts))),
        *_accuracy(facts),
        *_curves(facts),
        *_calibration(facts),
        *_bias(facts),
        *_data(facts),
        _recipe(facts),
        f"## Use\n\n{_use(facts)}",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: TrainedFacts) -> str:
    # transformers cannot pad as Palate does, so that such a folder has no file of its processor
    whole = facts.record["settings"]["pad"] == "always"
    plain = isinstance(facts.scorer, ClipScorer | SiglipScorer) and not whole
    lines = [f"library_name: {'transformers' if plain else 'palate'}"]
    lines += [f"license: {facts.licence or 'unknown'}", "tags:"]
    tags = ("palate", "text-to-image", "human-preference")
    return "\n".join(["---", *lines, *(f"- {tag}" for tag in tags), "---"])


def _facts(facts: TrainedFacts) -> Iterator[tuple[str, str]]:
    record, result, settings = facts.record, facts.record["result"], facts.record["settings"]
    inputs = record["inputs"]
    counts = (
        f"{result['choices']:,} choices, {result['images']:,} images, {result['prompts']:,} prompts"
    )
    yield "Model", f"{settings['model']}, dimensions {', '.join(settings['dimensions'])}"
    yield "Started from", f"{facts.base}, fingerprint `{_digest(inputs['base'])}`"
    yield (
        "Taught on",
        f"{counts}; sources {_sources(facts.audit)}; hash `{_digest(inputs['choices'])}`",
    )
    yield (
        "Objective",
        f"{settings['objective']}, {result['steps']:,} steps of {settings['batch']} choices",
    )
    if settings["pad"] != "never":
        yield "Images", _PADDED[settings["pad"]]
    yield "Kept", f"step {result['best_step']:,}{_kept(result)}"
    yield "Fingerprint", f"`{facts.scorer.fingerprint}`"
    yield "Licence of the weights", facts.licence or _UNKNOWN
    yield "Made with", f"Palate {record['palate']}, torch {record['versions']['torch']}"


_PADDED = {
    "training": "learnt from whole, padded with black to a square; scored as the base prepares them",
    "always": "whole, padded with black to a square, in learning and scoring",
}

_UNKNOWN = (
    "not stated; those of the weights that it started from and of the data may bind it "
    "(several are non-commercial)"
)


def _digest(said: Mapping[str, str]) -> str:
    return str(said["text"])[:16]


def _sources(audit: Audit) -> str:
    return ", ".join(name or "not named" for name in audit.counts["sources"])


def _kept(result: Mapping[str, Any]) -> str:
    if not result["validation"]:
        return ", the last one: there was no validation"
    return f", the best of the validation on {result['validation_choices']:,} choices"


def _accuracy(facts: TrainedFacts) -> Iterator[str]:
    """Write what was measured beside chance and what needs no scorer."""
    if not facts.measured:
        yield "## Accuracy\n\nNot measured: there were no choices to hold the scorer against."
        return
    rows = []
    for one in facts.measured:
        found = one.accuracy.overall
        rows += [
            (one.dimension, "best image", _share(found.top1), _percent(found.chance)),
            (one.dimension, "decided pairs", _share(found.pairwise), "50.0"),
            (
                one.dimension,
                "always the first image",
                _share(found.always_first),
                _percent(found.chance),
            ),
        ]
    whole = facts.measured[0].accuracy.overall
    before = facts.record["result"]["before"]["accuracy"]
    notes = (
        f"In %, with 95 % intervals over {' and '.join(whole.clusters)}; {whole.choices:,} choices, {whole.prompts:,} prompts; equal scores "
        f"share a choice. Before training it was {_percent(before)} by the objective's own accuracy. These choices "
        "picked the step that is kept, so that the numbers are optimistic: measure with `palate evaluate` on "
        "choices that no training saw."
    )
    cautions = "".join(f" Caution: {one}." for one in whole.cautions())
    header = ["dimension", "what", "accuracy", "chance"]
    yield f"## Accuracy\n\n{_table(header, rows)}\n\n{notes}{cautions}"


def _curves(facts: TrainedFacts) -> Iterator[str]:
    if facts.pictures:
        shown = "\n".join(f"![{name.removesuffix('.svg')}]({name})" for name in facts.pictures)
        yield f"## Curves\n\n{shown}\n\nThe numbers are in `curves.json`."


def _calibration(facts: TrainedFacts) -> Iterator[str]:
    for one in facts.measured:
        title = f"## Calibration, {one.dimension}"
        if isinstance(one.calibration, str):
            yield f"{title}\n\nNot measured: {one.calibration}."
            continue
        temperature = one.calibration.fit.temperature
        told = (
            f"Divided by {temperature:.4g}, scores become by softmax how often people choose each image of a prompt."
            if temperature is not None
            else "People prefer what the scorer does not: it has no temperature."
        )
        yield f"{title}\n\n{told}\n\n```text\n{calibration_table(one.calibration)}\n```"


def _bias(facts: TrainedFacts) -> Iterator[str]:
    for one in facts.measured:
        title = f"## What it goes by, {one.dimension}"
        if isinstance(one.bias, str):
            yield f"{title}\n\nNot measured: {one.bias}."
        else:
            yield f"{title}\n\nSlopes of `palate stats bias` on the validation choices.\n\n```text\n{bias_table(one.bias)}\n```"


def _data(facts: TrainedFacts) -> Iterator[str]:
    """Write the first findings on the choices that taught it."""
    found = facts.audit.at("error", "warning")
    lines = [f"- {one.level}: {one.message}" for one in found[:_FINDINGS]]
    if len(found) > _FINDINGS:
        lines.append(f"- and {len(found) - _FINDINGS} more")
    if not lines:
        lines = ["- no errors or warnings"]
    yield (
        "## The choices it was taught on\n\nFindings of `palate data audit`, the validation held against them for "
        f"leaks; `data-audit.json` has all {len(facts.audit.findings)}, with notes and examples.\n\n"
        + "\n".join(lines)
    )


def _recipe(facts: TrainedFacts) -> str:
    """Write the settings as the recipe that makes it again."""
    settings = dict(facts.record["settings"])
    if settings["model"] != "mps":
        del settings["mps"]  # other models refuse what they do not read
    lines = [f"{name} = {_toml(it)}" for name, it in settings.items() if it is not None]
    return "\n".join(["## Recipe\n\n```toml", "[train]", *lines, "```"])


def _toml(value: Any) -> str:
    """Write a plain value; JSON's numbers, texts and lists are TOML's too."""
    if not isinstance(value, dict):
        return json.dumps(value)
    inside = (f"{json.dumps(name)} = {_toml(it)}" for name, it in value.items() if it is not None)
    return f"{{ {', '.join(inside)} }}"


def _use(facts: TrainedFacts) -> str:
    condition = f', condition="{facts.scorer.dimension}"' if len(facts.measured) > 1 else ""
    prompt = ', "a red fox"' if facts.scorer.reads_prompts else ""
    return (
        "```python\nfrom palate import load\n\n"
        f'scorer = load("path/to/this/folder"{condition})\n'
        f'print(scorer.score(["one.png", "another.png"]{prompt}))\n```'
    )


def _share(found: Accuracy) -> str:
    one = found.estimate
    if math.isnan(one.low):
        return _percent(one.value)
    return f"{_percent(one.value)} ({_percent(one.low)}–{_percent(one.high)})"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
