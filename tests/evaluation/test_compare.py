"""Two generators on the same prompts, paired."""

from __future__ import annotations

import json

import numpy as np
import pytest

from palate.data.records import Score
from palate.data.tables import to_table
from palate.errors import DataError
from palate.evaluation.evaluate import CompareSettings, compare_scores


def table(values: dict[str, list[float | None]], prefix: str = "", **fields):
    base = {"scorer": "s", "dimension": "overall", "unit": "hps", "fingerprint": "f"}
    return to_table(
        [
            Score(
                image=f"{prefix}{prompt}-{k}",
                prompt=prompt,
                value=value,
                error="no file" if value is None else None,
                **(base | fields),
            )
            for prompt, own in values.items()
            for k, value in enumerate(own)
        ],
        "scores",
    )


A = {"p": [2.0, 4.0], "q": [1.0, 1.0], "r": [5.0, 5.0]}
B = {"r": [5.0, 5.0], "p": [1.0, 3.0], "q": [2.0, 3.0]}


def run(a, b, **settings):
    return compare_scores(a, b, CompareSettings(resamples=200, **settings))


def test_prompts_are_compared_by_their_mean() -> None:
    found = run(table(A), table(B, "other/"))
    assert (found.prompts, found.pairs) == (3, 3)
    assert found.difference.estimate.value == pytest.approx((1 - 1.5 + 0) / 3)
    assert found.win_rate.to_dict()["rate"]["value"] == 0.5
    assert (found.win_rate.wins, found.win_rate.ties, found.win_rate.losses) == (1, 1, 1)
    assert json.loads(json.dumps(found.to_dict()))["unit"] == "hps"


def test_order_and_key_pair_single_images_and_keep_prompts_as_clusters() -> None:
    for pair, prefix in (("order", "other/"), ("image", "")):
        found = run(table(A), table(B, prefix), pair=pair)
        assert (found.prompts, found.pairs) == (3, 6)
        assert found.difference.estimate.clusters == 3
        assert found.difference.estimate.value == pytest.approx((1 + 1 - 1 - 2) / 6)


def test_a_clear_difference_excludes_zero() -> None:
    rng = np.random.default_rng(0)
    base = {f"p{k}": float(value) for k, value in enumerate(rng.normal(size=60) * 10)}
    a = table({name: [value + 0.3 + rng.normal() * 0.1] for name, value in base.items()})
    b = table({name: [value] for name, value in base.items()})
    found = run(a, b)
    assert found.difference.estimate.low > 0
    assert found.win_rate.estimate.low > 0.9


@pytest.mark.parametrize(
    ("b", "settings", "message"),
    [
        (table({"p": [1.0, 1.0]}), {}, "2 prompts are in the first table of scores only, .* 'q'"),
        (table(B | {"z": [1.0]}), {}, "1 prompts are in the second table of scores only"),
        (table(B | {"p": [1.0]}), {"pair": "order"}, "1 places .* image 2 of prompt 'p'"),
        (table(B, "x/"), {"pair": "image"}, "6 images are in the first .* 'p-0' of prompt 'p'"),
        (table(B | {"p": [1.0, None]}), {}, "1 pairs have an image that could not be scored"),
        (table(B, unit="cosine"), {}, "unit 'hps' cannot be compared with 'cosine'"),
        (table(B, fingerprint="g"), {}, "fingerprint 'f' cannot be compared with 'g'"),
        (table({"z": [1.0]}), {"missing": "leave-out"}, "share no prompt with values"),
        (table(B), {"dimension": "detail"}, "no scores on 'detail'; there are scores on overall"),
    ],
)
def test_what_does_not_match_is_refused_in_one_sentence(b, settings, message) -> None:
    with pytest.raises(DataError, match=message):
        run(table(A), b, **settings)


def test_unpaired_prompts_can_be_left_out_and_are_counted() -> None:
    other = {"p": [1.0, None], "q": [2.0, 3.0], "z": [1.0]}
    found = run(table(A), table(other), missing="leave-out")
    assert (found.pairs, found.left_out) == (1, 3)
