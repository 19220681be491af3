"""The curves of a training: as plain numbers, and what in them should worry a user."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from palate.adaptation.methods import Method

Point = dict[str, float | None]


def plain_points(points: Sequence[Mapping[str, float]]) -> list[Point]:
    """Give points that JSON can hold: None where a batch had no image of a role."""
    return [
        {name: None if math.isnan(value) else value for name, value in point.items()}
        for point in points
    ]


def change_of(points: Sequence[Point], name: str) -> float | None:
    """Give the mean of the last fifth of a curve minus that of the first; None for less than two points."""
    values = [value for point in points if (value := point.get(name)) is not None]
    part = max(1, len(values) // 5)
    if len(values) < 2:
        return None
    return sum(values[-part:]) / part - sum(values[:part]) / part


def worries(method: Method, points: Sequence[Point]) -> list[str]:
    """Say what in the curves speaks against the adapter, in sentences; an empty list if nothing does."""
    found = []
    reward, watch = change_of(points, "reward"), change_of(points, "watch")
    if reward is not None and watch is not None and reward > 0 > watch:
        found.append(
            f"the reward rose by {reward:.3g} while the scorer that watched fell by {-watch:.3g}: "
            "the images may please the one scorer and nobody else"
        )
    last = points[-max(1, len(points) // 5) :]
    changes = [
        [value for point in last if (value := point.get(f"{role}_change")) is not None]
        for role in ("preferred", "rejected")
    ]
    if method.paired and all(changes) and all(sum(side) > 0 for side in changes):
        found.append(
            "the denoiser became worse at preferred and at rejected images: the loss falls because the rejected "
            "ones suffer more; a larger beta or a lower learning_rate keeps it nearer to the base"
        )
    return found
