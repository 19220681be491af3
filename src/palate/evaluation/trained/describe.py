"""A finished training's folder becomes one that others can use: numbers, pictures and a model card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palate.data.audit.audit import audit_dataset
from palate.data.tables import Dataset
from palate.evaluation.report import plot_curves
from palate.evaluation.trained.card import TrainedFacts, write_trained_card
from palate.evaluation.trained.measure import Measured, measure_trained, trained_scorers
from palate.models.clip_files import CARD, pretty_json
from palate.runs import RECORD, write_atomic
from palate.training.train import CURVES

DATA_AUDIT, MEASURED, MODEL_CARD = "data-audit.json", "measured.json", "README.md"


def describe_trained(
    run: Path,
    dataset: Dataset,
    validation: Dataset | None,
    *,
    base: str,
    licence: str | None = None,
) -> list[str]:
    """Measure the scorer in the folder of a finished training, and write its model card.

    The folder is loaded and scores the images of ``validation`` as ``palate score`` does. Written are
    ``README.md``, pictures of the curves where matplotlib is installed, ``data-audit.json``,
    ``measured.json`` (accuracy, calibration, what the scorer goes by), and into ``palate.json`` the
    temperature. ``base`` says what the training started from, ``licence`` what the weights may be used for.
    Gives the names of the files.
    """
    record = json.loads((run / RECORD).read_text("utf-8"))
    audit = audit_dataset(dataset, against=[] if validation is None else [validation])
    written = {DATA_AUDIT: json.dumps(audit.to_dict(), indent=1) + "\n", **_pictures(run)}
    learnt, measured = trained_scorers(run, record["settings"]), []
    if validation is not None:
        measured = [measure_trained(one, validation, on) for one, on in learnt]
        written[MEASURED] = json.dumps([one.to_dict() for one in measured], indent=1) + "\n"
        written[CARD] = pretty_json(
            json.loads((run / CARD).read_text("utf-8")) | {"calibration": _temperatures(measured)}
        )
    pictures = [name for name in written if name.endswith(".svg")]
    facts = TrainedFacts(learnt[0][0], record, audit, measured, base, licence, pictures)
    written[MODEL_CARD] = write_trained_card(facts)
    for name, text in written.items():
        write_atomic(run / name, text)
    return list(written)


def _temperatures(measured: Sequence[Measured]) -> dict[str, Any]:
    """Say what the scores of each dimension mean as chances of being chosen."""
    return {
        one.dimension: {
            "temperature": one.calibration.fit.temperature,
            "answers": one.calibration.answers,
            "prompts": one.calibration.prompts,
        }
        for one in measured
        if not isinstance(one.calibration, str)
    }


def _pictures(run: Path) -> dict[str, str]:
    """Draw loss and accuracy over the steps; nothing without matplotlib."""
    curves = json.loads((run / CURVES).read_text("utf-8"))
    seen = [{"step": 0.0, **curves["before"]}, *curves["validation"]]
    lines = {"training": [(point["step"], point["loss"]) for point in curves["train"]]}
    if curves["validation"]:
        lines["validation"] = [(point["step"], point["loss"]) for point in seen]
    try:
        drawn = {"loss.svg": plot_curves(lines, across="step", up="loss, nats per choice")}
        if curves["validation"]:
            names = [name for name in seen[-1] if name.startswith("accuracy")]
            parts = {
                name.removeprefix("accuracy/"): [(point["step"], point[name]) for point in seen]
                for name in names
            }
            drawn["accuracy.svg"] = plot_curves(parts, across="step", up="validation accuracy")
    except ModuleNotFoundError:
        return {}
    return drawn
