"""Every recipe is read by the verbs that it names, and prints what was published."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import palate
from palate.evaluation.board import BoardSettings
from palate.evaluation.contrasts import CorrelationSettings
from palate.evaluation.image_sets import DistributionSettings
from palate.evaluation.published import published_values
from palate.settings import read_settings

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
TABLES = [path for path in RECIPES if "-table-" in path.name]
# Facts about the result, beside the tables of the verbs.
NO_VERB = {"result"}
# What is not among the names of the package.
ELSEWHERE = {
    "board": BoardSettings,
    "correlation": CorrelationSettings,
    "distribution": DistributionSettings,
}
PRINTED = re.compile(
    r"# Published, (\S+), (\S+), (.+), grade ([A-D]):\n((?:#   .+\n)+)# (Source: [\s\S]+?)\.\n#(?:\n|$)"
)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_a_recipe_is_read_without_complaint(recipe):
    tables = tomllib.loads(recipe.read_text()).keys() - NO_VERB
    assert tables
    for verb in tables:
        settings = ELSEWHERE.get(verb) or getattr(palate, f"{verb.title()}Settings")
        assert read_settings(settings, recipe, section=verb) is not None


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_a_recipe_says_what_it_should_give(recipe):
    assert re.search("expected|should give", recipe.read_text(), re.IGNORECASE)


@pytest.mark.parametrize("recipe", TABLES, ids=lambda path: path.name)
def test_a_recipe_of_a_table_prints_what_was_published(recipe):
    text = recipe.read_text()
    found = PRINTED.findall(text)
    assert len(found) == text.count("# Published")
    assert found
    for benchmark, protocol, unit, grade, lines, source in found:
        rows = [line.removeprefix("#   ") for line in lines.splitlines()]
        told = " ".join(source.replace("\n#", " ").split()).removeprefix("Source: ")
        values = [
            one
            for one in published_values(benchmark, protocol=protocol, superseded=True)
            if told in {one.source, f"{one.source}; {one.note}"}
        ]
        assert {(one.unit, one.grade) for one in values} == {(unit, grade)}, told
        for row in rows:
            name, *numbers = re.split(r"\s{2,}", row)
            own = [one for one in values if one.name == name]
            if not name:
                parts = [one.part for one in values if one.name == values[0].name]
                assert numbers == [f"({', '.join(parts)})"]
            else:
                assert numbers == [one.printed() for one in own], row


def test_every_recipe_is_in_the_list_of_the_docs():
    listed = (ROOT / "docs" / "recipes.md").read_text()
    missing = [path.name for path in RECIPES if f"(../recipes/{path.name})" not in listed]
    assert missing == []


def test_the_list_of_the_docs_repeats_the_numbers_of_the_recipes():
    for line in (ROOT / "docs" / "recipes.md").read_text().splitlines():
        named = re.match(r"\| \[[\w-]+-table-[\w-]+\]\(\.\./(\S+)\) \|", line)
        if named is None:
            continue
        head = (ROOT / named.group(1)).read_text()
        told = re.findall(r"\d+\.\d+", line.split("|")[3])
        assert len(told) >= 3, line
        missing = [number for number in told if not re.search(rf"\s{number}\b", head)]
        assert missing == [], line
