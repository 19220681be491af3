"""Every recipe is read by the verbs that it names."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import palate
from palate.settings import read_settings

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
# Facts about the result, beside the tables of the verbs.
NO_VERB = {"result"}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_a_recipe_is_read_without_complaint(recipe):
    tables = tomllib.loads(recipe.read_text()).keys() - NO_VERB
    assert tables
    for verb in tables:
        settings = getattr(palate, f"{verb.title()}Settings")
        assert read_settings(settings, recipe, section=verb) is not None


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_a_recipe_says_what_it_should_give(recipe):
    assert re.search("expected|should give", recipe.read_text(), re.IGNORECASE)
