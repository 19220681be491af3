"""The columns of pairs in Pick-a-Pic's shape, and the data card that explains them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import pyarrow as pa

_IMAGE: Final = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_COLUMNS: Final[dict[str, tuple[Any, str]]] = {
    "caption": (pa.string(), "The prompt."),
    "jpg_0": (_IMAGE, "The image shown first; its file as it is, of whatever format."),
    "jpg_1": (_IMAGE, "The image shown second."),
    "label_0": (pa.float64(), "1 where the first is better, 0 where the second is, 0.5 for a tie."),
    "label_1": (pa.float64(), "1 less label_0."),
    "are_different": (pa.bool_(), "False where both images are the same file."),
    "has_label": (pa.bool_(), "Always true: only answered pairs are here."),
    "best_image_uid": (pa.string(), "Key of the better image; null for a tie."),
    "image_0_uid": (pa.string(), "Key of the first image."),
    "image_1_uid": (pa.string(), "Key of the second image."),
    "image_0_url": (pa.string(), "Null; the column is part of the shape."),
    "image_1_url": (pa.string(), "Null; the column is part of the shape."),
    "model_0": (pa.string(), "What made the first image; null where unknown."),
    "model_1": (pa.string(), "What made the second image; null where unknown."),
    "created_at": (pa.timestamp("ns"), "Null; the column is part of the shape."),
    "ranking_id": (pa.int64(), "Number of the answer in the data set; pairs of one share it."),
    "user_id": (pa.int64(), "Number of the person who answered; null where unknown."),
    "num_example_per_prompt": (pa.int64(), "How many pairs of the configuration have this prompt."),
    "choice": (pa.string(), "Key of the answer in the data set of Palate."),
    "dimension": (pa.string(), "What was judged."),
    "source": (pa.string(), "Where the answer came from."),
}


@dataclass(frozen=True)
class Config:
    """One configuration: the pairs of one dimension, and the bytes they take in memory."""

    name: str
    dimension: str
    pairs: int
    choices: int
    size: int
    files: int


def pair_schema(columns: Literal["image", "bytes"]) -> Any:
    """Return the Arrow schema of the pairs, with what the `datasets` library needs to decode images."""
    kinds = {
        name: pa.binary() if columns == "bytes" and kind == _IMAGE else kind
        for name, (kind, _) in _COLUMNS.items()
    }
    features = {name: _feature(kind) for name, kind in kinds.items()}
    told = json.dumps({"info": {"features": features}})
    fields = [
        pa.field(name, kind, metadata={"doc": _COLUMNS[name][1]}) for name, kind in kinds.items()
    ]
    return pa.schema(fields, metadata={"huggingface": told})


def _feature(kind: Any) -> dict[str, str]:
    return {"_type": "Image"} if kind == _IMAGE else {"dtype": _dtype(kind), "_type": "Value"}


def _dtype(kind: Any) -> str:
    """The library's name of a type.

    >>> _dtype(pa.float64()), _dtype(pa.timestamp("ns")), _dtype(_IMAGE)
    ('float64', 'timestamp[ns]', 'image')
    """
    if kind == _IMAGE:
        return "image"
    return {"double": "float64"}.get(str(kind), str(kind))


def card(
    configs: Sequence[Config], split: str, columns: Literal["image", "bytes"], choices: Any
) -> str:
    """Write the data card: a header for the library, then counts, columns and what is to be filled in."""
    names = [config.dimension for config in configs]
    default = names.index("overall") if "overall" in names else 0
    sources = Counter(choices.column("source").to_pylist())
    lines = ["---", *_header(configs, split, columns, configs[default].name), "---", ""]
    lines += ["# Pairs of images with human preferences", ""]
    lines += ["**Licence: unknown: fill in.** State it in the first line of the header too.", ""]
    lines += [f"Load one configuration with `load_dataset(FOLDER, {configs[default].name!r})`.", ""]
    lines += ["| configuration | dimension | answers | pairs |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {config.name} | {_cell(config.dimension)} | {config.choices:,} | {config.pairs:,} |"
        for config in configs
    ]
    lines += ["", "An answer between more than two images is all its pairs.", ""]
    lines += ["| source | answers |", "| --- | --- |"]
    lines += [f"| {_cell(name)} | {count:,} |" for name, count in sorted(sources.items())]
    lines += ["", "| column | type | meaning |", "| --- | --- | --- |"]
    schema = pair_schema(columns)
    lines += [
        f"| {field.name} | {_dtype(field.type)} | {_COLUMNS[field.name][1]} |" for field in schema
    ]
    return "\n".join([*lines, ""])


def _header(
    configs: Sequence[Config], split: str, columns: Literal["image", "bytes"], default: str
) -> list[str]:
    """The lines of YAML that the library and the Hub read. Texts are JSON texts, which YAML reads too."""
    lines = ["license: unknown # fill in", "task_categories:", "- text-to-image", "configs:"]
    for config in configs:
        lines += [f"- config_name: {json.dumps(config.name)}"]
        lines += ["  default: true"] if config.name == default else []
        lines += ["  data_files:", f"  - split: {json.dumps(split)}"]
        lines += [f"    path: {json.dumps(f'data/{config.name}/{split}-*.parquet')}"]
    lines += ["dataset_info:"]
    for config in configs:
        lines += [f"- config_name: {json.dumps(config.name)}", "  features:"]
        for field in pair_schema(columns):
            lines += [f"  - name: {field.name}", f"    dtype: {_dtype(field.type)}"]
        lines += ["  splits:", f"  - name: {json.dumps(split)}"]
        lines += [f"    num_bytes: {config.size}", f"    num_examples: {config.pairs}"]
    return lines


def _cell(text: str) -> str:
    """Text for a cell of a table: one line, no bar."""
    return " ".join(text.split()).replace("|", "\\|") or "(none)"
