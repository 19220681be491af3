"""Where an image stands among those of its prompt: laws, and a slow twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.records import Score
from palate.data.tables import to_table
from palate.errors import DataError
from palate.scoring.output import (
    read_first,
    read_scores,
    rows_with_standing,
    write_parts,
    write_scores,
)
from palate.scoring.standing import stand, standing


def table(values, prompts=None, unit="hps", scorer="s"):
    return to_table(
        [
            Score(
                image=f"{place}.png",
                prompt=prompts[place] if prompts else "p",
                scorer=scorer,
                dimension="overall",
                value=value,
                unit=unit,
                fingerprint="f",
                tokens_given=9,
                tokens_kept=7,
                area_kept=0.5,
                error="broken" if value is None else None,
            )
            for place, value in enumerate(values)
        ],
        "scores",
    )


numbers = st.lists(st.none() | st.integers(-4, 4).map(float), min_size=1, max_size=12)


@given(values=numbers, split=st.lists(st.sampled_from("abc"), min_size=12, max_size=12))
def test_the_slow_twin_agrees(values, split):
    found = standing(table(values, split))
    for place, value in enumerate(values):
        if value is None:
            assert found.rank[place] == 0
            assert np.isnan(found.share[place])
            continue
        others = [
            other
            for where, other in enumerate(values)
            if split[where] == split[place] and where != place and other is not None
        ]
        assert found.images[place] == len(others) + 1
        assert found.rank[place] == 1 + sum(other > value for other in others)
        below = sum((other < value) + (other == value) / 2 for other in others)
        if others:
            assert found.percentile[place] == pytest.approx(100 * below / len(others))
        else:
            assert np.isnan(found.percentile[place])
        total = sum(np.exp(other - value) for other in [*others, value])
        assert found.share[place] == pytest.approx(1 / total)


def test_whole_groups_at_a_time_give_what_all_at_once_gives(monkeypatch):
    random = np.random.default_rng(0)
    groups, units = random.integers(0, 30, 500).astype(np.uint64), np.zeros(500, dtype=np.uint8)
    groups[:200] = 7  # one group is longer than what is gone through at a time
    values = random.integers(0, 9, 500).astype(np.float64)
    values[::17] = np.nan
    whole = stand(groups, values, units, [1.0])
    monkeypatch.setattr("palate.scoring.standing._AT_ONCE", 16)
    parts = stand(groups, values, units, [1.0])
    for name in ("images", "rank", "percentile", "share"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name), equal_nan=True)


@given(values=st.lists(st.floats(-50, 50), min_size=1, max_size=9), shift=st.floats(-100, 100))
def test_shares_add_up_and_ignore_a_shift(values, shift):
    shares = standing(table(values)).share
    assert shares.sum() == pytest.approx(1)
    moved = standing(table([value + shift for value in values])).share
    assert moved == pytest.approx(shares, abs=1e-9)


def test_the_share_of_a_cosine_is_that_of_100_times_it():
    cosines = [0.2, 0.21, 0.25]
    assert standing(table(cosines, unit="cosine")).share == pytest.approx(
        standing(table([100 * value for value in cosines])).share
    )
    for unit in ("rating", "clipscore", "clipscore-100"):
        assert np.isnan(standing(table([5.0, 6.0], unit=unit)).share).all()


def test_the_share_of_a_reward_is_that_of_the_raw_reward():
    raw = np.array([0.3, -1.2, 2.0])
    scores = (raw - 0.16717362830052426) / 1.0333394966054072
    powers = np.exp(raw)
    found = standing(table(scores.tolist(), unit="reward")).share
    assert found == pytest.approx(powers / powers.sum())


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_table_comes_back_from_every_format(tmp_path, ending):
    scores = table([1.5, None, -2.25], ['a "quoted", prompt', "", "ligne\ndeux 🦊"])
    path = tmp_path / f"s.{ending}"
    write_scores(scores, path)
    assert read_scores(path).equals(scores)


def test_the_first_rows_stand_among_all():
    assert [row["rank"] for row in rows_with_standing(table([1.0, 3.0, 2.0]), 1)] == [3]


def test_rows_for_people_have_their_place():
    rows = rows_with_standing(table([1.0, 3.0, None]))
    assert [row["rank"] for row in rows] == [2, 1, None]
    assert [row["percentile"] for row in rows] == [0.0, 100.0, None]
    assert rows[0]["share"] + rows[1]["share"] == pytest.approx(1)


def test_other_formats_and_broken_files_are_told(tmp_path):
    with pytest.raises(DataError, match=r"written as \.parquet, \.csv or \.jsonl"):
        write_scores(table([1.0]), tmp_path / "s.txt")
    with pytest.raises(DataError, match=r"read from \.parquet, \.csv or \.jsonl"):
        read_scores(tmp_path / "s.txt")
    (tmp_path / "s.csv").write_text("image,prompt,value\na,p,much\n")
    with pytest.raises(DataError, match=r"s\.csv, line 2: no row of scores"):
        read_scores(tmp_path / "s.csv")


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_parts_give_the_file_of_the_whole(tmp_path, ending, monkeypatch):
    monkeypatch.setattr("palate.scoring.output._ROW_GROUP", 7)
    random = np.random.default_rng(0)
    values = [None if value < 0 else float(value) for value in random.integers(-2, 9, 40)]
    whole = table(values, [str(prompt) for prompt in random.integers(0, 6, 40)])
    write_scores(whole, tmp_path / f"whole.{ending}")
    for size in (1, 6, 7, 15):
        parts = [whole.slice(start, size) for start in range(0, 40, size)]
        write_parts(lambda parts=parts: parts, tmp_path / f"parts.{ending}")
        assert (tmp_path / f"parts.{ending}").read_bytes() == (
            tmp_path / f"whole.{ending}"
        ).read_bytes()
    first = read_first(tmp_path / f"whole.{ending}", 3)
    assert [row["image"] for row in first] == ["0.png", "1.png", "2.png"]
    if ending != "parquet":
        told = rows_with_standing(whole)
        assert [str(row["rank"] or "") for row in told[:3]] == [
            str(row["rank"] or "") for row in first
        ]


def test_no_rows_give_an_empty_file(tmp_path):
    for ending in ("parquet", "csv", "jsonl"):
        write_parts(list, tmp_path / f"none.{ending}")
        assert len(read_scores(tmp_path / f"none.{ending}")) == 0
