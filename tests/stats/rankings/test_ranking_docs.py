"""docs/statistics/ranking.md says what is so: its example runs, its figures and names are real."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import re
from pathlib import Path

from palate.data.duels import duels
from palate.stats.rankings.bradley_terry import DuelSettings, bradley_terry
from palate.stats.rankings.from_choices import rank_choices
from palate.stats.rankings.plackett_luce import plackett_luce
from palate.stats.rankings.separation import separate


def page(root: Path) -> str:
    return (root / "docs" / "statistics" / "ranking.md").read_text("utf-8")


def test_the_example_prints_what_the_page_says(root: Path) -> None:
    found = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", page(root), re.DOTALL)
    assert found
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(found[1], {})
    assert said.getvalue() == found[2]


def test_every_function_that_the_page_names_exists(root: Path) -> None:
    names = re.findall(r"`(palate\.stats\.[a-z_0-9.]+)\.([a-z_0-9]+)`", page(root))
    assert len(names) == 7
    for module, name in names:
        assert callable(getattr(importlib.import_module(module), name))


def neighbour(name: str):
    """A test module beside this one: tests are no package, so it is read from its file."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_strengths_from_picks_are_those_of_the_page(root: Path) -> None:
    data = neighbour("test_ranking_choices")
    table, names = data.picks()
    every = duels(table)
    sides = [[names[key] for key in side.to_pylist()] for side in (every.first_image, every.second_image)]  # fmt: skip
    wrong = bradley_terry(*sides, every.outcome, settings=DuelSettings(ties="davidson"))
    right = rank_choices(table, names).strengths
    for verb, found in (("`picks` finds", right), ("model would find", wrong)):
        told = ", ".join(f"{strength:.2f}" for strength in found.strengths)
        assert f"{verb} {told}" in page(root)


def test_the_orders_of_avt_are_those_of_the_page(root: Path, shared: Path) -> None:
    text = page(root)
    data = neighbour("test_ranking_data")
    columns = data.avt_rankings(shared)
    first, second, outcome, prompts, people = data.as_duels(*columns)
    for told, errors in (("the model", "model"), ("prompts and people", "two-way")):
        settings = DuelSettings(errors=errors)
        fit = bradley_terry(first, second, outcome, None, prompts, people, settings=settings)
        assert f"| {told} | {separate(fit).sentence()} |" in text
    items, ranks, offsets, prompts, people = columns
    fit = plackett_luce(items, ranks, offsets, None, prompts, people)
    assert f"side by side: {separate(fit).sentence()}." in text
