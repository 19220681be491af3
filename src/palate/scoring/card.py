"""The card of a scorer: which function it is, in plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import palate
from palate.models.pixels import Preparation, preparation_dict
from palate.scoring.units import describe_unit


class Card(dict[str, Any]):
    """A dictionary of plain values that prints as lines for people."""

    def __str__(self) -> str:
        """Write one line per entry."""
        width = max(map(len, self))
        return "\n".join(f"{name:<{width}}  {_text(value)}" for name, value in self.items())

    @property
    def line(self) -> str:
        """Name, profile, dimension, unit and fingerprint in one line, to paste beside a number."""
        profile = f"@{self['profile']}" if "profile" in self else ""
        return (
            f"{self['name']}{profile} {self['dimension']} [{self['unit']}] {self['fingerprint']}, "
            f"palate {self['palate']}"
        )


def make_card(
    name: str, dimension: str, unit: str, fingerprint: str, facts: Mapping[str, Any]
) -> Card:
    """Put a card together; a preparation becomes plain values."""
    shown = {
        key: preparation_dict(value) if isinstance(value, Preparation) else value
        for key, value in facts.items()
        if value is not None
    }
    return Card(
        {
            "name": name,
            "dimension": dimension,
            "unit": unit,
            "scale": describe_unit(unit),
            "direction": "higher is better",
            **shown,
            "fingerprint": fingerprint,
            "palate": palate.__version__,
        }
    )


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return str(value)
