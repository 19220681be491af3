"""Imports point down, the light parts stay light, and what is imported is declared."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "palate"
HEAVY = ["torch", "transformers", "diffusers", "peft", "accelerate", "safetensors", "matplotlib"]

TIMED = """
import sys, time
start = time.perf_counter()
import palate
print(time.perf_counter() - start, *sys.modules)
"""

WITHOUT_TORCH = """
import importlib, json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {heavy}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
for name in {modules}:
    importlib.import_module(name)
print(json.dumps(sorted({{name.split(".")[0] for name in sys.modules}} & set({heavy}))))
"""


def python(code: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def modules_of(*packages: str) -> list[str]:
    paths = [path for package in packages for path in (SOURCE / package).rglob("*.py")]
    dotted = (".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in paths)
    return sorted(name.removesuffix(".__init__") for name in dotted)


def test_import_palate_is_quick_and_loads_nothing():
    runs = [python(TIMED).split() for _ in range(5)]
    assert min(float(seconds) for seconds, *_ in runs) < 0.3
    assert not set(runs[0]) & {*HEAVY, "numpy", "pyarrow", "pydantic", "scipy", "typer", "rich"}


@pytest.mark.parametrize("package", ["data", "stats", "study", "runs"])
def test_no_torch_for_collecting_and_analysing(package):
    modules = modules_of(package)
    assert modules
    assert json.loads(python(WITHOUT_TORCH.format(heavy=HEAVY, modules=modules))) == []


def test_no_torch_for_the_commands_that_need_none():
    modules = ["palate.settings", "palate.cli.main", "palate.cli.data", "palate.cli.study"]
    assert json.loads(python(WITHOUT_TORCH.format(heavy=HEAVY, modules=modules))) == []


def test_help_imports_no_verb():
    said = python(
        "import sys; from palate.cli.main import main; main(['--help']);"
        "print(*[name for name in sys.modules if name.startswith('palate')])"
    )
    assert set(said.splitlines()[-1].split()) == {
        "palate",
        "palate.cli",
        "palate.cli.main",
        "palate.errors",
    }


def test_imports_point_down(root):
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"[1-9]\d* kept, 0 broken", run.stdout)


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {"palate"}


def test_what_is_imported_is_declared(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"]]
    for extra, wanted in project["optional-dependencies"].items():
        lines += wanted if extra != "dev" else []
    declared = {re.split(r"[\[><=]", line)[0] for line in lines} | {"PIL", "pydantic_core"}
    undeclared = {
        path.relative_to(SOURCE).as_posix(): sorted(imported(path) - declared)
        for path in SOURCE.rglob("*.py")
        if imported(path) - declared
    }
    assert undeclared == {}
