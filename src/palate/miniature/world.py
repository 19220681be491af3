"""A simulated world of flat shapes: what people ask for, and pictures of it with known defects.

Everything here is **simulated**. A scene is one or two coloured shapes on a plain ground, with a spatial
relation. The renderer draws it on 32 × 32 pixels, well or with defects of known kinds; `judge.py` says how
good any picture of a scene is, whoever made it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

SIZE = 32
SHAPES = ("circle", "square", "triangle", "cross", "ring")
COLOURS = ("red", "yellow", "green", "cyan", "blue", "purple")
GROUNDS = ("white", "grey", "black")
RELATIONS = ("above", "below", "left of", "right of")
DEFECTS = ("spots", "pale", "cut", "wrong colour", "wrong shape", "missing", "swapped")
DEFECT_RATES = (0.24, 0.20, 0.20, 0.12, 0.10, 0.09, 0.05)
CLEAN_SHARE = 0.35
SECOND_DEFECT_SHARE = 0.25
SPOTS = 4

PALETTE: NDArray[np.float32] = np.array(
    [
        (0.88, 0.14, 0.14),
        (0.95, 0.86, 0.10),
        (0.10, 0.66, 0.20),
        (0.10, 0.80, 0.86),
        (0.15, 0.28, 0.90),
        (0.74, 0.15, 0.76),
    ],
    dtype=np.float32,
)
GROUND_VALUES: NDArray[np.float32] = np.array(
    [[0.96] * 3, [0.50] * 3, [0.05] * 3], dtype=np.float32
)

Pool = Literal["choices", "labels", "spare", "evaluation"]
POOL_SHARES: dict[Pool, float] = {
    "choices": 0.35,
    "labels": 0.30,
    "spare": 0.15,
    "evaluation": 0.20,
}


@dataclass(frozen=True, slots=True)
class Scene:
    """One thing that somebody may ask for: one object, or two and how they lie to each other.

    `objects` are (colour, shape) as indices into `COLOURS` and `SHAPES`; `relation` is an index into
    `RELATIONS` and −1 for a single object.
    """

    objects: tuple[tuple[int, int], ...]
    relation: int
    ground: int

    @property
    def text(self) -> str:
        """The prompt: `a red circle above a blue square on white`."""
        names = [f"a {COLOURS[colour]} {SHAPES[shape]}" for colour, shape in self.objects]
        middle = f" {RELATIONS[self.relation]} ".join(names) if len(names) == 2 else names[0]
        return f"{middle} on {GROUNDS[self.ground]}"

    @property
    def canonical(self) -> Scene:
        """The same scene in the one spelling that splits go by: A below B is B above A."""
        if self.relation in (1, 3):
            return Scene(self.objects[::-1], self.relation - 1, self.ground)
        return self

    @property
    def pool(self) -> Pool:
        """The part of the world that this scene belongs to; both spellings of a scene share one.

        Evaluation scenes are drawn by nobody before evaluation: neither for pre-training nor for choices or labels.
        """
        digest = hashlib.blake2b(self.canonical.text.encode(), digest_size=8).digest()
        place = int.from_bytes(digest, "big") / 2**64
        for pool, share in POOL_SHARES.items():
            if place < share:
                return pool
            place -= share
        return "evaluation"


def parse_scene(prompt: str) -> Scene | None:
    """Read a prompt of this world; None if it is not one.

    >>> parse_scene("a red circle above a blue square on white").objects
    ((0, 0), (4, 1))
    >>> parse_scene("a horse") is None
    True
    """
    body, on, ground = prompt.strip().rpartition(" on ")
    if not on or ground not in GROUNDS:
        return None
    relation = next((i for i, name in enumerate(RELATIONS) if f" {name} " in body), -1)
    parts = body.split(f" {RELATIONS[relation]} ") if relation >= 0 else [body]
    objects = []
    for part in parts:
        words = part.split()
        if len(words) != 3 or words[0] != "a" or words[1] not in COLOURS or words[2] not in SHAPES:
            return None
        objects.append((COLOURS.index(words[1]), SHAPES.index(words[2])))
    return Scene(tuple(objects), relation, GROUNDS.index(ground))


def all_scenes() -> list[Scene]:
    """Every scene in canonical spelling, in a fixed order: 90 with one object, 5,220 with two."""
    things = [(colour, shape) for colour in range(len(COLOURS)) for shape in range(len(SHAPES))]
    grounds = range(len(GROUNDS))
    single = [Scene((thing,), -1, ground) for thing in things for ground in grounds]
    double = [
        Scene((first, second), relation, ground)
        for first in things
        for second in things
        if first != second
        for relation in (0, 2)
        for ground in grounds
    ]
    return single + double


def scenes_of(pools: Iterable[Pool], rng: np.random.Generator) -> list[Scene]:
    """The scenes of some pools in random order, each in one of its two spellings."""
    wanted = set(pools)
    scenes = [scene for scene in all_scenes() if scene.pool in wanted]
    order = rng.permutation(len(scenes))
    flips = rng.random(len(scenes)) < 0.5
    return [
        _respell(scenes[i]) if flips[i] and len(scenes[i].objects) == 2 else scenes[i]
        for i in order
    ]


def _respell(scene: Scene) -> Scene:
    return Scene(scene.objects[::-1], scene.relation + 1, scene.ground)


@dataclass(frozen=True)
class Drawing:
    """How many pictures are to be drawn, as columns; every array's first axis is the picture.

    Objects have a colour, a shape, a centre and a radius in pixels, an `opacity` (pale objects have less), a
    `cut` (a direction in radians, NaN where nothing is cut) and are `present` or not. Spots are small stray discs.
    """

    ground: Int[Array, "pictures"]
    present: Float[Array, "pictures 2"]
    colour: Int[Array, "pictures 2"]
    shape: Int[Array, "pictures 2"]
    x: Float[Array, "pictures 2"]
    y: Float[Array, "pictures 2"]
    radius: Float[Array, "pictures 2"]
    opacity: Float[Array, "pictures 2"]
    cut: Float[Array, "pictures 2"]
    spots: Float[Array, "pictures spots 4"]  # x, y, radius, colour; radius 0: no spot


def compose(scenes: Sequence[Scene], rng: np.random.Generator) -> Drawing:
    """Lay each scene out without any defect, at random places and sizes."""
    n = len(scenes)
    double = np.array([len(scene.objects) == 2 for scene in scenes])
    things = np.array([[*scene.objects, scene.objects[0]][:2] for scene in scenes])
    relation = np.array([scene.relation for scene in scenes])
    sign = np.where(
        np.isin(relation, (0, 2)), -1.0, 1.0
    )  # above and left of: the first has the smaller coordinate
    vertical = np.isin(relation, (0, 1))
    gap, side = rng.uniform(7.0, 8.0, n), rng.uniform(-2.0, 2.0, (n, 2))
    along = np.stack([sign * gap, -sign * gap], axis=1) + rng.uniform(-0.5, 0.5, (n, 1))
    middle = (SIZE - 1) / 2
    x = middle + np.where(
        double[:, None], np.where(vertical[:, None], side, along), rng.uniform(-5, 5, (n, 2))
    )
    y = middle + np.where(
        double[:, None], np.where(vertical[:, None], along, side), rng.uniform(-5, 5, (n, 2))
    )
    radius = np.where(double[:, None], rng.uniform(4.6, 6.2, (n, 2)), rng.uniform(6.0, 9.0, (n, 2)))
    present = np.stack([np.ones(n), double.astype(float)], axis=1)
    return Drawing(
        ground=np.array([scene.ground for scene in scenes]),
        present=present,
        colour=things[:, :, 0],
        shape=things[:, :, 1],
        x=x,
        y=y,
        radius=radius,
        opacity=np.ones((n, 2)),
        cut=np.full((n, 2), np.nan),
        spots=np.zeros((n, SPOTS, 4)),
    )


def draw_defects(n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which pictures have which defects (pictures × `DEFECTS`): none, one, or sometimes two."""
    rates = np.array(DEFECT_RATES) / sum(DEFECT_RATES)
    chosen = np.zeros((n, len(DEFECTS)), dtype=bool)
    rows = np.arange(n)
    chosen[rows, rng.choice(len(DEFECTS), n, p=rates)] = True
    second = rng.random(n) < SECOND_DEFECT_SHARE
    chosen[rows[second], rng.choice(len(DEFECTS), int(second.sum()), p=rates)] = True
    chosen[rng.random(n) < CLEAN_SHARE] = False
    return chosen


def spoil(drawing: Drawing, defects: NDArray[np.bool_], rng: np.random.Generator) -> Drawing:
    """Give each picture the defects that `defects` (pictures × `DEFECTS`) names.

    A single object cannot lose its partner or its place: there `missing` and `swapped` become a wrong colour.
    """
    n = len(drawing.ground)
    has = {name: defects[:, i].copy() for i, name in enumerate(DEFECTS)}
    single = drawing.present[:, 1] == 0
    has["wrong colour"] |= single & (has["missing"] | has["swapped"])
    for name in ("missing", "swapped"):
        has[name] &= ~single
    which = np.where(single, 0, rng.integers(0, 2, n))
    rows = np.arange(n)

    def one(name: str) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        return rows[has[name]], which[has[name]]

    colour, shape, present = drawing.colour.copy(), drawing.shape.copy(), drawing.present.copy()
    colour[one("wrong colour")] += rng.integers(1, len(COLOURS), int(has["wrong colour"].sum()))
    shape[one("wrong shape")] += rng.integers(1, len(SHAPES), int(has["wrong shape"].sum()))
    present[one("missing")] = 0.0
    swap = has["swapped"][:, None]
    opacity = np.where(has["pale"][:, None], rng.uniform(0.28, 0.5, (n, 1)), drawing.opacity)
    cut = drawing.cut.copy()
    cut[one("cut")] = rng.uniform(0, 2 * np.pi, int(has["cut"].sum()))
    return replace(
        drawing,
        colour=colour % len(COLOURS),
        shape=shape % len(SHAPES),
        present=present,
        x=np.where(swap, drawing.x[:, ::-1], drawing.x),
        y=np.where(swap, drawing.y[:, ::-1], drawing.y),
        opacity=opacity,
        cut=cut,
        spots=_spots(has["spots"], rng),
    )


def _spots(spotted: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float64]:
    n = len(spotted)
    place = rng.uniform(2, SIZE - 3, (n, SPOTS, 2))
    radius = rng.uniform(1.4, 2.6, (n, SPOTS, 1))
    number = rng.integers(2, SPOTS + 1, n)
    there = (np.arange(SPOTS) < number[:, None]) & spotted[:, None]
    colour = rng.integers(0, len(COLOURS), (n, SPOTS, 1))
    return np.concatenate([place, radius * there[..., None], colour], axis=2)


def coverage(
    shape: Int[Array, "..."],
    x: Float[Array, "..."],
    y: Float[Array, "..."],
    radius: Float[Array, "..."],
) -> Float[Array, "... size size"]:
    """How much of each pixel a shape covers (0 to 1), by its signed distance: smooth edges without supersampling."""
    grid = np.arange(SIZE, dtype=np.float32)
    dx = np.abs(grid - x[..., None, None].astype(np.float32))
    dy = grid[:, None] - y[..., None, None].astype(np.float32)
    r = radius[..., None, None].astype(np.float32)
    ady, kind = np.abs(dy), np.asarray(shape)[..., None, None]
    round_ = np.sqrt(dx * dx + ady * ady)
    distance = np.select(
        [kind == 0, kind == 1, kind == 2, kind == 3],
        [
            round_ - r,
            np.maximum(dx, ady) - 0.88 * r,
            np.maximum(0.866 * dx - 0.5 * dy - 0.5 * r, dy - 0.72 * r),
            np.minimum(np.maximum(dx - 0.33 * r, ady - r), np.maximum(dx - r, ady - 0.33 * r)),
        ],
        default=np.abs(round_ - 0.74 * r) - 0.27 * r,
    )
    return np.asarray(np.clip(0.5 - distance, 0.0, 1.0))


def render(drawing: Drawing) -> NDArray[np.uint8]:
    """Draw every picture: pictures × 32 × 32 × 3, 8 bits."""
    ground = GROUND_VALUES[drawing.ground][:, None, None, :]
    image = np.broadcast_to(ground, (len(ground), SIZE, SIZE, 3)).astype(np.float32)
    grid = np.arange(SIZE, dtype=np.float32)
    for i in range(2):
        x, y, radius = drawing.x[:, i], drawing.y[:, i], drawing.radius[:, i]
        covered = coverage(drawing.shape[:, i], x, y, radius)
        angle = np.nan_to_num(drawing.cut[:, i])[:, None, None]
        beyond = np.cos(angle) * (grid - x[:, None, None]) + np.sin(angle) * (
            grid[:, None] - y[:, None, None]
        )
        kept = np.clip(0.5 - beyond, 0.0, 1.0)
        covered = np.where(np.isnan(drawing.cut[:, i])[:, None, None], covered, covered * kept)
        alpha = (covered * (drawing.opacity[:, i] * drawing.present[:, i])[:, None, None])[
            ..., None
        ]
        image = image * (1 - alpha) + PALETTE[drawing.colour[:, i]][:, None, None, :] * alpha
    for k in range(SPOTS):
        x, y, radius, colour = drawing.spots[:, k].T
        if radius.any():
            alpha = (
                coverage(np.zeros(len(x), dtype=int), x, y, radius) * (radius > 0)[:, None, None]
            )[..., None]
            image = image * (1 - alpha) + PALETTE[colour.astype(int)][:, None, None, :] * alpha
    return np.round(image * 255).astype(np.uint8)


def pictures(
    scenes: Sequence[Scene], rng: np.random.Generator, *, clean: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw the scenes, clean or with the world's usual mixture of defects.

    Returns:
        pictures × 32 × 32 × 3 in 8 bits, and which defects each has (pictures × `DEFECTS`).
    """
    drawing = compose(scenes, rng)
    defects = (
        np.zeros((len(scenes), len(DEFECTS)), dtype=bool)
        if clean
        else draw_defects(len(scenes), rng)
    )
    return render(spoil(drawing, defects, rng)), defects
