"""Palate turns human choices between generated images into a preference score.

The score then makes better images. Every name below is imported on first use, so that
``import palate`` is quick and loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from palate.adaptation.adapt import adapt
    from palate.adaptation.labelling.label import LabelSettings, label
    from palate.adaptation.settings import AdaptSettings
    from palate.data.duels import Duels, duels
    from palate.data.images import hash_image, open_image
    from palate.data.records import Choice, Image, Label, Score
    from palate.data.splits import SplitSettings, split_dataset
    from palate.data.tables import (
        Dataset,
        load_dataset,
        read_table,
        save_dataset,
        to_rows,
        to_table,
        write_table,
    )
    from palate.errors import (
        CheckpointError,
        DataError,
        ImageError,
        MissingExtraError,
        PalateError,
        RunError,
        SettingsError,
    )
    from palate.evaluation.compare import CompareSettings, compare_scores
    from palate.evaluation.evaluate import EvaluateSettings, evaluate_choices
    from palate.generation.best import BestOf
    from palate.generation.generate import GenerateSettings, generate
    from palate.generation.generator import load_generator
    from palate.models.clip_files import load_clip, save_clip
    from palate.runs import hash_file, seed_for, start_run
    from palate.scoring.catalog import load
    from palate.scoring.promises import check_scorer
    from palate.scoring.score import ScoreSettings, score_table
    from palate.scoring.scorer import Scorer
    from palate.settings import read_settings, settings_dict
    from palate.training.settings import TrainSettings
    from palate.training.train import train

__version__ = "0.1.0"

# public name -> the module that holds it
_HOMES = {
    "AdaptSettings": "palate.adaptation.settings",
    "BestOf": "palate.generation.best",
    "CheckpointError": "palate.errors",
    "Choice": "palate.data.records",
    "CompareSettings": "palate.evaluation.compare",
    "DataError": "palate.errors",
    "Dataset": "palate.data.tables",
    "Duels": "palate.data.duels",
    "EvaluateSettings": "palate.evaluation.evaluate",
    "GenerateSettings": "palate.generation.generate",
    "Image": "palate.data.records",
    "ImageError": "palate.errors",
    "Label": "palate.data.records",
    "LabelSettings": "palate.adaptation.labelling.label",
    "MissingExtraError": "palate.errors",
    "PalateError": "palate.errors",
    "RunError": "palate.errors",
    "Score": "palate.data.records",
    "ScoreSettings": "palate.scoring.score",
    "Scorer": "palate.scoring.scorer",
    "SettingsError": "palate.errors",
    "SplitSettings": "palate.data.splits",
    "TrainSettings": "palate.training.settings",
    "adapt": "palate.adaptation.adapt",
    "check_scorer": "palate.scoring.promises",
    "compare_scores": "palate.evaluation.compare",
    "duels": "palate.data.duels",
    "evaluate_choices": "palate.evaluation.evaluate",
    "generate": "palate.generation.generate",
    "hash_file": "palate.runs",
    "hash_image": "palate.data.images",
    "label": "palate.adaptation.labelling.label",
    "load": "palate.scoring.catalog",
    "load_clip": "palate.models.clip_files",
    "load_dataset": "palate.data.tables",
    "load_generator": "palate.generation.generator",
    "open_image": "palate.data.images",
    "read_settings": "palate.settings",
    "read_table": "palate.data.tables",
    "save_clip": "palate.models.clip_files",
    "save_dataset": "palate.data.tables",
    "score_table": "palate.scoring.score",
    "seed_for": "palate.runs",
    "settings_dict": "palate.settings",
    "split_dataset": "palate.data.splits",
    "start_run": "palate.runs",
    "to_rows": "palate.data.tables",
    "to_table": "palate.data.tables",
    "train": "palate.training.train",
    "write_table": "palate.data.tables",
}

__all__ = [
    "AdaptSettings",
    "BestOf",
    "CheckpointError",
    "Choice",
    "CompareSettings",
    "DataError",
    "Dataset",
    "Duels",
    "EvaluateSettings",
    "GenerateSettings",
    "Image",
    "ImageError",
    "Label",
    "LabelSettings",
    "MissingExtraError",
    "PalateError",
    "RunError",
    "Score",
    "ScoreSettings",
    "Scorer",
    "SettingsError",
    "SplitSettings",
    "TrainSettings",
    "__version__",
    "adapt",
    "check_scorer",
    "compare_scores",
    "duels",
    "evaluate_choices",
    "generate",
    "hash_file",
    "hash_image",
    "label",
    "load",
    "load_clip",
    "load_dataset",
    "load_generator",
    "open_image",
    "read_settings",
    "read_table",
    "save_clip",
    "save_dataset",
    "score_table",
    "seed_for",
    "settings_dict",
    "split_dataset",
    "start_run",
    "to_rows",
    "to_table",
    "train",
    "write_table",
]

# a library that is no part of the core -> the extra that brings it
EXTRAS = {
    "accelerate": "models",
    "fsspec": "models",
    "ftfy": "models",
    "huggingface_hub": "models",
    "regex": "models",
    "safetensors": "models",
    "tensorboardX": "models",
    "tokenizers": "models",
    "torch": "models",
    "transformers": "models",
    "diffusers": "adapt",
    "peft": "adapt",
    "jinja2": "report",
    "matplotlib": "report",
    "openvino": "openvino",
    "ray": "ray",
    "s3fs": "s3",
    "openpyxl": "sheets",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'palate' has no attribute {name!r}")
    try:
        value: object = getattr(import_module(home), name)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        raise import_module("palate.errors").MissingExtraError(f"palate.{name}", extra) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
