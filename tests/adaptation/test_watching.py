"""Looking while it is trained: grids at fixed seeds and held-out errors, which change nothing of what is learnt."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
from tests.adaptation.conftest import QUICK

from palate.adaptation.adapt import adapt
from palate.adaptation.watching import draw_grid
from palate.generation.adapters import FILE_NAME


@pytest.fixture(scope="module")
def watched(base, labels, files, tmp_path_factory):
    out = tmp_path_factory.mktemp("watched") / "out"
    settings = replace(
        QUICK, hold_out=2, validate_every=2, grid_prompts=("a tree", "a ball"), grid_steps=2
    )
    adapt(labels, files, base, out, settings)
    return out


def test_looking_changes_nothing_of_what_is_learnt(watched, base, labels, files, tmp_path):
    adapt(labels, files, base, tmp_path / "out", replace(QUICK, hold_out=2))
    assert (tmp_path / "out" / FILE_NAME).read_bytes() == (watched / FILE_NAME).read_bytes()


def columns(path):
    with PIL.Image.open(path) as grid:
        pixels = np.asarray(grid)
    cells = np.array_split(pixels[50:], 6, axis=1)
    return cells[:3], cells[3:]


def test_grids_show_the_same_base_at_every_step_and_another_adapter(watched):
    grids = sorted((watched / "grids").glob("*.png"))
    assert [path.stem for path in grids] == ["step-000002", "step-000004", "step-000006"]
    base, adapted = zip(*map(columns, grids), strict=True)
    for step in (1, 2):
        for one, two in zip(base[0], base[step], strict=True):
            assert np.array_equal(one, two)
        assert not np.array_equal(adapted[0][0], adapted[step][0])
    record = json.loads((watched / "run.json").read_text())
    assert "grids/step-000006.png" in json.dumps(record)


def test_the_curves_hold_what_was_measured_on_the_way(watched):
    points = json.loads((watched / "curves.json").read_text())["validation"]
    assert [point["step"] for point in points] == [2.0, 4.0, 6.0]
    wanted = {f"{what}/{role}" for what in ("error", "gap") for role in ("preferred", "rejected")}
    assert all(wanted == set(point) - {"step"} for point in points)
    result = json.loads((watched / "run.json").read_text())["result"]
    last = result["identifier_gap"]["after"]["rejected"]["gap"]
    assert last == pytest.approx(points[-1]["gap/rejected"])


def test_a_grid_has_each_image_under_its_name():
    plain = [np.full((2, 32, 16, 3), value, dtype=np.uint8) for value in (10, 200)]
    grid = np.asarray(draw_grid(plain, ["a long name that does not fit", "b"], ["p" * 90, "q"]))
    for value in (10, 200):
        # 32 pixels are drawn six times as large
        assert (grid == value).all(axis=2).sum() >= 2 * 32 * 16 * 36
