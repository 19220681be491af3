"""It fits: modules to about 400 lines, functions to about 60, nine in ten under 35."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).parents[2] / "src" / "palate").rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> list[tuple[str, int]]:
    """Name and length of every function: its code, without its docstring.

    A command's signature is the list of its options, each with its help, and does not count either.
    """
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, Function)]
    is_command = "cli" in path.parts
    return [(node.name, length(node, is_command=is_command)) for node in nodes]


def length(node: Function, *, is_command: bool) -> int:
    first = node.body[0]
    start = first.lineno if is_command else node.lineno
    lines = (node.end_lineno or start) - start + 1
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return lines - ((first.end_lineno or 0) - first.lineno + 1 if is_text else 0)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(path.parts[-2:]))
def test_a_module_and_its_functions_fit(path):
    assert len(path.read_text().splitlines()) <= 400
    assert [(name, lines) for name, lines in functions(path) if lines > 60] == []


def test_nine_functions_in_ten_are_short():
    lengths = [lines for path in SOURCES for _, lines in functions(path)]
    assert len(lengths) > 50
    assert sum(lines < 35 for lines in lengths) / len(lengths) >= 0.9
