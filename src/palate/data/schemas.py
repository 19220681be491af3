"""The four tables as documented Arrow schemas.

Every field says what it means in its own metadata, so that a Parquet file explains itself.
The columns are the fields of the records in `palate.data.records`, in the same order.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import pyarrow as pa

from palate.data.records import Choice, Image, Label, Record, Score
from palate.errors import DataError

Kind = Literal["images", "choices", "scores", "labels"]


def _field(name: str, kind: Any, doc: str, *, null: bool = False) -> Any:
    return pa.field(name, kind, nullable=null, metadata={"doc": doc})


def _list_of(kind: Any) -> Any:
    return pa.list_(pa.field("item", kind, nullable=False))


IMAGES: Final = pa.schema(
    [
        _field("image", pa.string(), "Key of the image, unique in the table."),
        _field("prompt", pa.string(), "The text the image was made for."),
        _field(
            "path",
            pa.string(),
            "The file: relative to the table's folder if inside it, else absolute; "
            "null where there is no file.",
            null=True,
        ),
        _field("sha256", pa.string(), "SHA-256 of the file's bytes, in hex.", null=True),
        _field("width", pa.int32(), "Width in pixels, as stored in the file.", null=True),
        _field("height", pa.int32(), "Height in pixels, as stored in the file.", null=True),
        _field("generator", pa.string(), "The model or camera that made the image.", null=True),
        _field("seed", pa.int64(), "Seed of the image's own noise.", null=True),
        _field("settings", pa.string(), "How it was generated, a JSON object.", null=True),
        _field("details", pa.string(), "What the source also said, a JSON object.", null=True),
    ],
    metadata={"palate": "images"},
)

CHOICES: Final = pa.schema(
    [
        _field("choice", pa.string(), "Key of the answer, unique in the table."),
        _field("prompt", pa.string(), "The text shown with the images."),
        _field("images", _list_of(pa.string()), "Keys of the images in the order shown."),
        _field(
            "ranks",
            _list_of(pa.int16()),
            "Rank of each image as listed: the lowest is the best, equal is a tie.",
        ),
        _field("dimension", pa.string(), "What was judged, such as overall or alignment."),
        _field("annotator", pa.string(), "Who answered; null where unknown.", null=True),
        _field("source", pa.string(), "Where the answer came from."),
        _field("details", pa.string(), "What the source also said, a JSON object.", null=True),
    ],
    metadata={"palate": "choices"},
)

SCORES: Final = pa.schema(
    [
        _field("image", pa.string(), "Key of the scored image."),
        _field("prompt", pa.string(), "The text it was scored with."),
        _field("scorer", pa.string(), "Name of the scorer."),
        _field("dimension", pa.string(), "What the score judges."),
        _field(
            "value", pa.float64(), "The score, higher is better; null after an error.", null=True
        ),
        _field(
            "unit", pa.string(), "Unit of the value, such as cosine, hps (100 cosine) or logit."
        ),
        _field("fingerprint", pa.string(), "Hash of weights, preparation and precision."),
        _field("tokens_given", pa.int32(), "Tokens of the whole prompt.", null=True),
        _field("tokens_kept", pa.int32(), "Tokens the scorer read.", null=True),
        _field(
            "area_kept",
            pa.float64(),
            "Share of the image's area that the scorer saw; less than 1 after a crop.",
            null=True,
        ),
        _field("error", pa.string(), "Why there is no value.", null=True),
    ],
    metadata={"palate": "scores"},
)

LABELS: Final = pa.schema(
    [
        _field("image", pa.string(), "Key of the labelled image."),
        _field("role", pa.string(), "preferred, rejected or regularisation."),
        _field("caption", pa.string(), "The text the image is trained with."),
        _field("group", pa.string(), "The group of images it was compared in."),
        _field("score", pa.float64(), "The score that decided, higher is better.", null=True),
        _field("weight", pa.float64(), "Weight in the training loss, 1 is normal."),
    ],
    metadata={"palate": "labels"},
)

SCHEMAS: Final[dict[Kind, Any]] = {
    "images": IMAGES,
    "choices": CHOICES,
    "scores": SCORES,
    "labels": LABELS,
}
RECORDS: Final[dict[Kind, type[Record]]] = {
    "images": Image,
    "choices": Choice,
    "scores": Score,
    "labels": Label,
}
KEYS: Final[dict[Kind, tuple[str, ...]]] = {
    "images": ("image",),
    "choices": ("choice",),
    "scores": ("image", "prompt", "scorer", "dimension", "fingerprint"),
    "labels": ("image", "role"),
}


def kind_of(what: Any) -> Kind:
    """Name the kind of a table, schema, record class or kind, by its columns.

    Raises `DataError` where the columns are those of no table.
    """
    if isinstance(what, str):
        if what in SCHEMAS:
            return what
        raise DataError(f"no table is called {what!r}; there are {', '.join(SCHEMAS)}")
    for kind, record in RECORDS.items():
        if what is record:
            return kind
    names = what.names if isinstance(what, pa.Schema) else what.schema.names
    for kind, schema in SCHEMAS.items():
        if set(schema.names) == set(names):
            return kind
    raise DataError(f"the columns {', '.join(names)} are those of no table of Palate")
