"""The public names are one list, and each is there."""

from __future__ import annotations

import ast
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import palate
from palate import errors


def test_the_lists_agree():
    assert set(palate.__all__) == {*palate._HOMES, "__version__"}
    assert dir(palate) == sorted(palate.__all__)


def test_types_are_read_from_the_same_modules():
    tree = ast.parse(Path(palate.__file__).read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        alias.name: node.module
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == palate._HOMES


@pytest.mark.parametrize("name", palate.__all__)
def test_a_public_name_is_there_and_documented(name):
    thing = getattr(palate, name)
    assert name == "__version__" or thing.__doc__
    home = palate._HOMES.get(name)
    assert home is None or thing is getattr(import_module(home), name)


def test_another_name_is_not():
    with pytest.raises(AttributeError, match="module 'palate' has no attribute 'zzz'"):
        palate.zzz  # noqa: B018


def test_a_name_whose_library_is_missing_names_the_extra(monkeypatch):
    def missing(home):
        if home == "palate.scoring.catalog":
            raise ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")
        return import_module(home)

    monkeypatch.setattr(palate, "import_module", missing)
    monkeypatch.delitem(vars(palate), "load", raising=False)
    with pytest.raises(errors.MissingExtraError) as refused:
        palate.load  # noqa: B018
    assert str(refused.value) == (
        "palate.load needs the extra 'models': pip install 'palate[models]'"
    )


def test_every_extra_brings_what_it_should(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    brought = {
        line.split(">=")[0].partition("[")[0]: extra
        for extra in ("models", "adapt", "report", "openvino", "ray", "s3", "sheets")
        for line in extras[extra]
        if not line.startswith("palate")
    }
    assert brought == palate.EXTRAS


def test_the_tree_of_errors_is_drawn_as_it_is():
    drawn = [line for line in (errors.__doc__ or "").splitlines() if "Error" in line]
    depth = {}
    for line in drawn:
        name = next(word for word in line.split() if word.endswith("Error"))
        depth[name] = line.index(name)
    classes = {
        name: thing
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, Exception)
    }
    assert depth.keys() == classes.keys()
    ranks = sorted(set(depth.values()))
    for name, thing in classes.items():
        assert ranks.index(depth[name]) == thing.__mro__.index(Exception) - 1, name
