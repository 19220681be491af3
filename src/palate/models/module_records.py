"""Modules as records: the tensors that a pickled or a scripted module holds, by name."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeGuard

from palate.errors import CheckpointError
from palate.models.pickles import Record, TensorPlan, shown

# Far above any official module: MPS has some thousand entries.
_MOST_ENTRIES = 100_000
_LONGEST_NAME = 1000

# The tensors of one module and the modules within it, by name; None stands for what is passed over.
_Parts = tuple[list[tuple[str, Any]], list[tuple[str, Any]]]


def module_tensors(module: Record, where: Path) -> dict[str, TensorPlan]:
    """Name the tensors of a pickled ``torch.nn.Module`` as its ``state_dict()`` would.

    Parameters come before buffers and both before the submodules, each in its order; buffers that
    are not persistent are left out. Raises CheckpointError for an object that is no module, and for
    modules that hold one another in a circle.
    """
    return _walk(module, _pickled_parts, where)


def scripted_tensors(program: Any, where: Path) -> dict[str, TensorPlan]:
    """Name the tensors of what ``torch.jit.save`` wrote as ``torch.jit.load(path).state_dict()`` would.

    A buffer that was not persistent is one here, as TorchScript does not keep the difference. A
    submodule with a ``__getstate__`` of its own is passed over, as only its program knows its
    tensors. Raises CheckpointError where there is no module with tensors, or an endless one.
    """
    if not _is_scripted_module(program):
        raise CheckpointError(
            f"{where}: found a TorchScript program that is no module with tensors"
        )
    if not (plans := _walk(program, _scripted_parts, where)):
        raise CheckpointError(f"{where}: found a TorchScript module without tensors")
    return plans


def _walk(
    module: Record, parts_of: Callable[[Any, Path], _Parts], where: Path
) -> dict[str, TensorPlan]:
    """Name the tensors of a module, then those of the modules within it."""
    plans: dict[str, TensorPlan] = {}
    waiting: list[tuple[str, Any]] = [("", module)]
    entries = 0
    while waiting:
        prefix, current = waiting.pop()
        tensors, children = parts_of(current, where)
        # one module may stand in many places, but a few bytes could put it into endlessly many
        entries += 1 + len(tensors) + len(children)
        if len(prefix) > _LONGEST_NAME or entries > _MOST_ENTRIES:
            raise CheckpointError(f"{where}: modules within modules without end")
        for name, plan in tensors:
            if plan is None:
                continue
            if not isinstance(plan, TensorPlan) or prefix + name in plans:
                raise CheckpointError(
                    f"{where}: entry '{shown(prefix + name)}' is no tensor, or twice there"
                )
            plans[prefix + name] = plan
        waiting += [
            (f"{prefix}{name}.", child) for name, child in reversed(children) if child is not None
        ]
    return plans


def _pickled_parts(module: Any, where: Path) -> _Parts:
    """Give the parts of a pickled module, which keeps each kind in a dictionary."""
    parameters, buffers, children = (
        _entries(module, kind, where) for kind in ("_parameters", "_buffers", "_modules")
    )
    passing = module.state.get("_non_persistent_buffers_set")
    if isinstance(passing, set):
        buffers = {name: None if name in passing else value for name, value in buffers.items()}
    return [*parameters.items(), *buffers.items()], list(children.items())


def _entries(module: Any, kind: str, where: Path) -> dict[str, Any]:
    """Give one of the dictionaries in which a module keeps its parts."""
    entries = module.state.get(kind) if isinstance(module, Record) else None
    if not isinstance(entries, dict):
        found = module.of.name if isinstance(module, Record) else type(module).__name__
        raise CheckpointError(f"{where}: found a {found}, expected a module")
    _check_names(entries, where)
    return entries


def _scripted_parts(module: Record, where: Path) -> _Parts:
    """Give the parts of a scripted module, which keeps them as attributes.

    ``torch.jit`` writes the parameters and the buffers, then ``training`` and the other attributes,
    among which a tensor is part of the program, and then the submodules.
    """
    state = module.state
    _check_names(state, where)
    kept = takewhile(lambda entry: entry[0] != "training", state.items())
    return (
        [(name, value if isinstance(value, TensorPlan) else None) for name, value in kept],
        [(name, value if _is_scripted_module(value) else None) for name, value in state.items()],
    )


def _is_scripted_module(value: Any) -> TypeGuard[Record]:
    """Tell a scripted module from other objects of a program: each says whether it is in training."""
    return isinstance(value, Record) and value.of.scripted and "training" in value.state


def _check_names(entries: dict[Any, Any], where: Path) -> None:
    """Refuse a name with a dot in it, which could stand for a part of another module."""
    for name in entries:
        if not isinstance(name, str) or not name or "." in name:
            raise CheckpointError(f"{where}: '{shown(str(name))}' is no name of a tensor or module")
