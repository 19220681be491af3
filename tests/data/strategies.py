"""Records of all four tables, made by hypothesis."""

from __future__ import annotations

import json
import random

from hypothesis import strategies as st

from palate.data.records import ROLES, Choice, Image, Label, Score

texts = st.text(max_size=12)
names = st.text(min_size=1, max_size=8)
objects = st.dictionaries(texts, st.integers() | texts, max_size=3).map(json.dumps)
finite = st.floats(allow_nan=False, allow_infinity=False)
sizes = st.integers(1, 2**31 - 1)
tokens = st.none() | st.integers(0, 2**31 - 1)

images = st.builds(
    Image,
    image=names,
    prompt=texts,
    path=st.none() | texts,
    sha256=st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex),
    width=st.none() | sizes,
    height=st.none() | sizes,
    generator=st.none() | texts,
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    settings=st.none() | objects,
    details=st.none() | objects,
)


@st.composite
def choices(draw: st.DrawFn, max_images: int = 6, rank: int = 32_767) -> Choice:
    shown = draw(st.lists(names, min_size=2, max_size=max_images, unique=True))
    ranks = draw(st.lists(st.integers(1, rank), min_size=len(shown), max_size=len(shown)))
    columns = {
        "choice": draw(names),
        "prompt": draw(texts),
        "images": tuple(shown),
        "ranks": tuple(ranks),
        "dimension": draw(names),
        "annotator": draw(st.none() | texts),
        "source": draw(texts),
        "details": draw(st.none() | objects),
    }
    # beartype looks at a random item of a tuple, and hypothesis guards the state of `random`
    state = random.getstate()
    choice = Choice(**columns)
    random.setstate(state)
    return choice


@st.composite
def scores(draw: st.DrawFn) -> Score:
    failed = draw(st.booleans())
    return Score(
        image=draw(names),
        prompt=draw(texts),
        scorer=draw(names),
        dimension=draw(names),
        value=None if failed else draw(finite),
        unit=draw(texts),
        fingerprint=draw(texts),
        tokens_given=draw(tokens),
        tokens_kept=draw(tokens),
        area_kept=draw(st.none() | st.floats(0, 1)),
        error=draw(texts) if failed else None,
    )


labels = st.builds(
    Label,
    image=names,
    role=st.sampled_from(ROLES),
    caption=texts,
    group=texts,
    score=st.none() | finite,
    weight=st.floats(0, 1e6),
)

records = {"images": images, "choices": choices(), "scores": scores(), "labels": labels}
keys = {
    "images": lambda row: row.image,
    "choices": lambda row: row.choice,
    "scores": lambda row: (row.image, row.prompt, row.scorer, row.dimension, row.fingerprint),
    "labels": lambda row: (row.image, row.role),
}


def tables(kind: str) -> st.SearchStrategy[list[object]]:
    return st.lists(records[kind], max_size=8, unique_by=keys[kind])
