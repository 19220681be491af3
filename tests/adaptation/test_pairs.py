from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.adaptation.pairs import pair_up
from palate.errors import DataError


def row(image, role, group, score=None, caption=None):
    return {
        "image": image,
        "role": role,
        "group": group,
        "score": score,
        "caption": caption or group,
    }


rows = st.lists(
    st.tuples(
        st.sampled_from(["preferred", "rejected"]), st.sampled_from("abc"), st.integers(0, 2)
    ),
    max_size=14,
)


@given(rows)
def test_every_preferred_image_meets_every_rejected_one_of_its_group_but_ties(drawn):
    labels = [
        row(str(n), role, group, float(score)) for n, (role, group, score) in enumerate(drawn)
    ]
    wanted = [
        (one["image"], two["image"])
        for one in labels
        for two in labels
        if (one["role"], two["role"]) == ("preferred", "rejected")
        and one["group"] == two["group"]
        and one["score"] != two["score"]
    ]
    possible = sum(
        count * Counter((r["role"], r["group"]) for r in labels)["rejected", group]
        for (role, group), count in Counter((r["role"], r["group"]) for r in labels).items()
        if role == "preferred"
    )
    if not wanted:
        with pytest.raises(DataError, match="no pair among"):
            pair_up(labels)
        return
    kept, found = pair_up(labels)
    pairs = [(kept[better]["image"], kept[other]["image"]) for better, other in found.pairs]
    assert sorted(pairs) == sorted(wanted)
    assert found.ties == possible - len(wanted)
    assert found.alone == len(labels) - len(kept)
    assert {image for pair in pairs for image in pair} == {one["image"] for one in kept}


def test_images_without_a_score_are_no_tie():
    _, found = pair_up([row("a", "preferred", "g"), row("b", "rejected", "g")])
    assert (found.pairs, found.ties) == ([(0, 1)], 0)


def test_two_captions_in_a_pair_are_refused():
    labels = [
        row("a", "preferred", "g", caption="a ball"),
        row("b", "rejected", "g", caption="a box"),
    ]
    with pytest.raises(DataError, match="group 'g' has the captions 'a ball' and 'a box'"):
        pair_up(labels)
