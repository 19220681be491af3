"""Make the arms of an adapter, measure them, and find what it changed; killed and called again, it goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from palate.errors import DataError
from palate.evaluation.arms.effects import (
    FEW,
    Effect,
    Reading,
    measure_effect,
    read_effects,
    verdict,
    warn,
)
from palate.evaluation.arms.measures import (
    ArmImages,
    Measure,
    measure_arm,
    picture_measures,
    read_arm,
    scorer_measures,
    watching_eye,
)
from palate.evaluation.arms.plan import (
    ORIGINAL,
    RUN,
    ArmsSettings,
    Plan,
    arm_settings,
    plan_arms,
    refuse_settings,
)
from palate.generation.adapters import Adapter, adapter_file, read_adapter
from palate.generation.generate import GenerateSettings, generate, list_requests
from palate.generation.generator import folder_fingerprint, load_generator
from palate.runs import RECORD, hash_text, start_run, write_atomic
from palate.scoring.scorer import Scorer

Array: TypeAlias = NDArray[Any]
Values: TypeAlias = dict[str, dict[str, Float[Array, "prompts _"]]]
"""By arm, then by measure."""

RESULT = "arms.json"
_EXTREMES = 6


@dataclass(frozen=True, slots=True)
class Candidate:
    """An adapter, the generator that it is for (its folder), and where and how precisely that runs."""

    adapter: Path
    base: Path
    device: str = "cpu"
    precision: str = "float32"


def compare_arms(
    candidate: Candidate,
    prompts: Sequence[str],
    out: Path,
    judges: Sequence[Scorer],
    settings: ArmsSettings | None = None,
    sampling: GenerateSettings | None = None,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Make the arms of an adapter at the same seeds, and say what changed, prompt by prompt.

    Args:
        candidate: the adapter and its generator.
        prompts: texts; best such as nothing was labelled of.
        out: gets ``arms/<name>``, a data set of images with scores for each arm, ``arms.json`` and ``run.json``. What
            is there is not made again: other scorers, strengths or intervals only add to it.
        judges: the scorer that labelled, then those that watch.
        settings: see `ArmsSettings`.
        sampling: how images are generated; the arms set its negative prompt.
        overwrite: empty the folder first if it holds a run.

    Returns:
        What ``arms.json`` holds, plain values.

    Raises:
        SettingsError: a guidance that cannot use the identifier, or a negative prompt of one's own.
        CheckpointError: the generator or the adapter is missing or does not fit.
        DataError: no prompts, a scorer that is given twice, or a score that could not be had.
        RunError: the folder holds the arms of another adapter, generator, prompts or settings of the images.
    """
    settings, sampling = settings or ArmsSettings(), sampling or GenerateSettings(run=RUN)
    scorers = scorer_measures(judges)
    if not scorers:
        raise DataError("no scorer was given, expected at least the one that labelled")
    known = read_adapter(candidate.adapter)
    named = known.identifier if settings.identifier is None else settings.identifier
    identifier = named or ""
    refuse_settings(sampling, identifier)
    plan = plan_arms(identifier, settings.strengths)
    asked = _asked(settings, scorers)
    inputs: dict[str, Path | str] = {
        "adapter": adapter_file(candidate.adapter),
        "base": folder_fingerprint(candidate.base),
        "prompts": hash_text(*dict.fromkeys(prompts)),
    }
    how = {**asdict(sampling), "identifier": identifier, "precision": candidate.precision}
    with start_run("arms", out, how, inputs, overwrite=overwrite) as run:
        if run.finished and run.result["asked"] == asked:
            kept: dict[str, Any] = json.loads((out / RESULT).read_text(encoding="utf-8"))
            return kept
        _make(plan, prompts, candidate, sampling, out / "arms")
        found = {
            "asked": asked,
            **_about(known, candidate.base, str(inputs["base"]), identifier, sampling),
            **_measure(plan, judges, scorers, settings, out),
        }
        found["cautions"] = _cautions(found, known, plan, out / "arms")
        write_atomic(out / RESULT, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        files = [f"arms/{arm.name}/images.parquet" for arm in plan.arms]
        result = {"asked": asked, "verdict": found["verdict"], "warnings": found["warnings"]}
        run.finish(result, files=[RESULT, *files])
    return found


def _asked(settings: ArmsSettings, scorers: Mapping[str, tuple[Measure, Scorer]]) -> dict[str, Any]:
    """Say what was asked of the images beside making them: by it a finished answer is known again."""
    own = {**asdict(replace(settings, identifier=None)), "strengths": sorted(settings.strengths)}
    del own["identifier"]
    return {**own, "scorers": [[name, one.fingerprint] for name, (one, _) in scorers.items()]}


def _make(
    plan: Plan, prompts: Sequence[str], own: Candidate, sampling: GenerateSettings, folder: Path
) -> None:
    """Generate every arm; one generator at a time is in memory."""
    for strength, arms in groupby(plan.arms, key=lambda arm: arm.strength):
        generator = load_generator(
            own.base,
            own.adapter if strength else None,
            strength=strength,
            device=own.device,
            precision=own.precision,
        )
        own_arms = list(arms)
        for arm in own_arms:
            # refuses, before the first image, what this generator cannot use
            list_requests((), generator, arm_settings(arm, sampling))
        for arm in own_arms:
            generate(prompts, generator, folder / arm.name, arm_settings(arm, sampling))
        del generator


def _measure(
    plan: Plan,
    judges: Sequence[Scorer],
    scorers: Mapping[str, tuple[Measure, Scorer]],
    settings: ArmsSettings,
    out: Path,
) -> dict[str, Any]:
    """Measure the images of every arm, and find what differs."""
    images = {arm.name: read_arm(out / "arms" / arm.name) for arm in plan.arms}
    _refuse_other_seeds(images)
    eye = watching_eye(judges)
    values = {
        name: measure_arm(arm, scorers, eye, out / "features") for name, arm in images.items()
    }
    original = images[ORIGINAL]
    each = len(original.rows[0])
    measures = [measure for measure, _ in scorers.values()] + picture_measures(each, eye)
    return {
        **find(plan, values, measures, settings),
        "prompts": len(original.prompts),
        "images_per_prompt": each,
        "extremes": _extremes(plan, values, measures[0].name, original.prompts),
    }


def _refuse_other_seeds(images: Mapping[str, ArmImages]) -> None:
    """Make sure that every arm has the original's prompts and seeds, in its order."""
    first = images[ORIGINAL]
    for name, arm in images.items():
        if (arm.prompts, arm.seeds) != (first.prompts, first.seeds):
            raise DataError(
                f"{arm.folder}: the arm {name} has other prompts or seeds than {ORIGINAL}"
            )


def find(
    plan: Plan, values: Values, measures: Sequence[Measure], settings: ArmsSettings
) -> dict[str, Any]:
    """Find every effect, the verdict and the warnings; `values` are by arm and measure."""
    effects: dict[tuple[str, str], list[Effect]] = {
        (a, b): [
            measure_effect(one, values[a][one.name], values[b][one.name], settings.bootstrap)
            for one in measures
        ]
        for a, b in plan.against()
    }
    readings: dict[str, Reading] = {
        arm.name: read_effects(effects[arm.name, ORIGINAL]) for arm in plan.arms if arm.strength
    }
    # the main arm is told of first
    readings = {plan.main: readings[plan.main], **readings}
    told = {arm.name: arm.told for arm in plan.arms}
    reading = readings[plan.main]
    sentence = verdict(reading, effects[plan.main, ORIGINAL][0], told[plan.main])
    return {
        "main": plan.main,
        "four": list(plan.four),
        "sweep": list(plan.sweep),
        "measures": [asdict(one) for one in measures],
        "arms": [
            {
                **asdict(arm),
                "means": {name: float(v.mean()) for name, v in values[arm.name].items()},
            }
            for arm in plan.arms
        ],
        "effects": [
            {"arm": a, "against": b, "measures": {one.measure: one.to_dict() for one in own}}
            for (a, b), own in effects.items()
        ],
        "verdict": {"arm": plan.main, "answer": reading.answer, "sentence": sentence},
        "warnings": [one.to_dict() for one in warn(readings, told)],
    }


def _about(
    adapter: Adapter, base: Path, fingerprint: str, identifier: str, sampling: GenerateSettings
) -> dict[str, Any]:
    """Say what was compared."""
    return {
        "adapter": {
            "name": adapter.name,
            "sha256": adapter.fingerprint,
            "method": adapter.method,
            "identifier": adapter.identifier,
        },
        "base": {"name": base.resolve().name, "fingerprint": fingerprint},
        "identifier": identifier,
        "sampling": asdict(sampling),
    }


def _extremes(
    plan: Plan, values: Values, measure: str, prompts: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Find the prompts on which the main arm gains and loses most by the labelling scorer."""
    gain = (values[plan.main][measure] - values[ORIGINAL][measure]).mean(axis=1)
    order = np.argsort(-gain, kind="stable")
    gains = [place for place in order[:_EXTREMES] if gain[place] > 0]
    losses = [place for place in order[::-1][:_EXTREMES] if gain[place] < 0]
    return {
        name: [{"prompt": prompts[place], "difference": float(gain[place])} for place in own]
        for name, own in (("gains", gains), ("losses", losses))
    }


def _cautions(found: Mapping[str, Any], adapter: Adapter, plan: Plan, folder: Path) -> list[str]:
    """Say why the answer may not hold, a sentence each."""
    told = []
    count, guidance = found["prompts"], found["sampling"]["guidance"]
    if count < FEW:
        told.append(
            f"{count} prompt{'s' * (count > 1)} only: below {FEW} intervals are rough, and other prompts may say the "
            "opposite"
        )
    made_for = adapter.details.get("base")
    if made_for not in {None, found["base"]["fingerprint"]}:
        told.append("the adapter was trained on another base than this one")
    hint = adapter.details.get("guidance")
    if hint not in {None, guidance}:
        told.append(f"the adapter's file suggests a guidance of {hint}, the images have {guidance}")
    if not found["identifier"]:
        told.append(
            "no identifier is named, so that there are two arms, without and with the adapter, instead of four"
        )
    results = {
        arm.name: json.loads((folder / arm.name / RECORD).read_text(encoding="utf-8"))["result"]
        for arm in plan.arms
    }
    cut = results[ORIGINAL]["truncated_prompts"]
    if cut:
        told.append(f"the generator reads {cut} of the prompts only in part")
    told += [
        f"{arm.told}: the safety checker blackened {black} images, which are counted"
        for arm in plan.arms
        if (black := results[arm.name]["flagged_images"])
    ]
    return told
