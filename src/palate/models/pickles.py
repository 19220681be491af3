"""Pickles as data: tensors are described, objects become inert records, and nothing is called.

PyTorch saves weights as a pickle, a small program that Python's own reader executes. The reader here
follows the same instructions over a stack of its own, and knows only those that torch.save writes.
A name in a pickle stays a name: it is looked up in a list, never imported.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from palate.errors import CheckpointError
from palate.models.pickle_names import DTYPES, REBUILDERS, STORAGES, WRAPPERS, Name

# The official MPS file takes about a fifth of this; all of it takes about a second.
_MOST_STEPS = 500_000
_LONGEST_KEY = 1000


@dataclass(frozen=True)
class Storage:
    """The bytes behind tensors, by the key under which the file holds them."""

    key: str
    dtype: torch.dtype
    count: int

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.count * self.dtype.itemsize


@dataclass(frozen=True)
class TensorPlan:
    """Where the values of a tensor lie in a storage; offset and strides count values."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def view(self, stored: Tensor) -> Tensor:
        """Show the bytes of the storage as this tensor."""
        whole = len(stored) // self.dtype.itemsize * self.dtype.itemsize
        return stored[:whole].view(self.dtype).as_strided(self.shape, self.strides, self.offset)


@dataclass(eq=False, slots=True)
class Record:
    """An object of a pickle: the name of its class and its attributes, as plain entries."""

    of: Name
    state: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pickled:
    """What a pickle describes, and every storage that it refers to."""

    content: Any
    storages: dict[str, Storage]


def read_pickle(stream: io.BytesIO, where: Path) -> Pickled:
    """Read one pickle from a stream as plain containers, tensor plans and inert records.

    Follows pickle protocols 2 to 5 as far as ``torch.save`` uses them, and calls nothing. Raises
    CheckpointError for a name that is not in the list, and for a damaged or oversized pickle.
    """
    return _Reader(where).read(stream)


def damaged(where: Path, reason: str) -> CheckpointError:
    """Say in one sentence that a file cannot be read, and why."""
    reason = shown(reason.splitlines()[0])
    return CheckpointError(f"{where}: not a readable PyTorch checkpoint ({reason})")


def shown(text: str) -> str:
    """Show text from a file on one line of bearable length."""
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= 120 else f"{text[:120]}…"


class _FaultError(Exception):
    """A pickle does what no file of torch.save does; the message says what."""


class _Reader:
    """Follows the instructions of one pickle."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self.steps = 0

    def read(self, stream: io.BytesIO) -> Pickled:
        """Follow the instructions to the end, or refuse the first that is not known."""
        try:
            for code, argument, _ in pickletools.genops(stream):
                self.follow(code.name, argument)
            return Pickled(self.stack.pop(), self.storages)
        except _FaultError as error:
            raise damaged(self.where, str(error)) from error
        except (ValueError, IndexError, KeyError, struct.error) as error:
            raise damaged(self.where, f"a broken pickle: {error}") from error

    def follow(self, instruction: str, argument: Any) -> None:
        """Follow one instruction."""
        self.spend(1)
        if instruction not in _INSTRUCTIONS:
            raise _FaultError(f"a pickle with the instruction {instruction}")
        _INSTRUCTIONS[instruction](self, argument)

    def spend(self, steps: int) -> None:
        """Count work, since a few bytes can ask for much of it."""
        self.steps += steps
        if self.steps > _MOST_STEPS:
            raise _FaultError(f"a pickle of more than {_MOST_STEPS} steps")

    def push(self, value: Any) -> None:
        """Put a plain value on the stack."""
        self.stack.append(value)

    def pop_marked(self) -> list[Any]:
        """Take from the stack what came since the last mark."""
        mark = self.marks.pop()
        taken = self.stack[mark:]
        del self.stack[mark:]
        return taken

    def pop_last(self, count: int) -> list[Any]:
        """Take the last values from the stack."""
        if len(self.stack) < count:
            raise _FaultError("a broken pickle")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def add(self, values: list[Any]) -> None:
        """Add values to the list, set or dictionary below them."""
        self.spend(len(values))
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, set):
            target.update(map(_key, values))
        elif isinstance(target, dict) and len(values) % 2 == 0:
            for key, value in zip(values[::2], values[1::2], strict=True):
                target[_key(key)] = value
        else:
            raise _FaultError(f"entries for a {_kind(target)}")

    def add_pairs(self, pairs: list[Any]) -> None:
        """Add the entries that Python 2 wrote as pairs."""
        self.spend(len(pairs))
        if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
            raise _FaultError("entries that are no pairs")
        self.add([value for pair in pairs for value in pair])

    def refuse(self, name: str) -> None:
        """Refuse the file for something that it names."""
        raise CheckpointError(
            f"{self.where}: refused, since reading it would run code ({shown(name)}); "
            "expected a file of plain tensors"
        )

    def name(self, module: Any, name: Any) -> None:
        """Put a listed name on the stack, and refuse any other."""
        words = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else ""
        if not all(map(str.isidentifier, words.split("."))):
            raise _FaultError("a broken pickle")
        module = "builtins" if module == "__builtin__" else module
        found = Name(module, name)
        if not found.known:
            self.refuse(f"{module}.{name}")
        self.stack.append(found)

    def storage(self) -> None:
        """Describe a storage from the tuple that torch.save writes for it."""
        match self.stack.pop():
            case ("storage", Name() as kind, str(key), str(), int(count), *_) if (
                kind.name in STORAGES and count >= 0 and len(key) <= _LONGEST_KEY
            ):
                found = Storage(key, STORAGES[kind.name], count)
            case ("module", Name() as kind, *_):
                # before PyTorch 1.6, the source text of a class came with its name
                return self.push(kind)
            case _:
                raise _FaultError("a storage that is not described as torch.save does")
        if self.storages.setdefault(key, found) != found:
            raise _FaultError(f"two sizes for the storage '{key}'")
        return self.push(found)

    def call(self) -> None:
        """Do what calling a listed name amounts to, without calling it."""
        arguments, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, Name) or not isinstance(arguments, tuple):
            raise _FaultError(f"a call of a {_kind(called)}")
        # first, since a program may give its own classes any name
        if called.inert:
            self.new(called)
        elif called.name in REBUILDERS:
            self.stack.append(_plan(arguments))
        elif called.name in WRAPPERS and arguments and isinstance(arguments[0], TensorPlan):
            self.stack.append(arguments[0])
        elif called.name in {"OrderedDict", "set"}:
            self.stack.append({} if called.name == "OrderedDict" else set())
            match arguments:
                case ():
                    pass
                case (list(values),) if called.name == "set":
                    self.add(values)
                case (list(pairs),):
                    self.add_pairs(pairs)
                case _:
                    raise _FaultError(f"odd arguments for {called.name}")
        else:
            self.new(called)

    def create(self) -> None:
        """Make a record in place of a new object, whatever its arguments."""
        self.stack.pop()
        self.new(self.stack.pop())

    def new(self, of: Any) -> None:
        """Put an empty record of a listed class on the stack."""
        if not isinstance(of, Name) or not of.inert:
            raise _FaultError(f"an object of {_kind(of)}")
        self.stack.append(Record(of))

    def build(self) -> None:
        """Note the attributes of a record; a dictionary has none that matter."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Record):
            if isinstance(state, dict):
                self.spend(len(state))
                target.state.update(state)
        elif not isinstance(target, dict):
            raise _FaultError(f"attributes for a {_kind(target)}")


def _kind(value: Any) -> str:
    """Name what stands on the stack."""
    return f"{value.module}.{value.name}" if isinstance(value, Name) else type(value).__name__


def _key(value: Any) -> str | int:
    """Accept short text and small integers: others can be made to take forever as keys."""
    if isinstance(value, str) and len(value) <= _LONGEST_KEY:
        return value
    if isinstance(value, int) and abs(value) < 2**31:
        return value
    raise _FaultError(f"a {type(value).__name__} as a key")


def _plan(arguments: tuple[Any, ...]) -> TensorPlan:
    """Describe a tensor, and refuse one that does not lie within its storage."""
    match arguments:
        case (Storage() as storage, int(offset), tuple(shape), tuple(strides), *rest):
            pass
        case _:
            raise _FaultError("a tensor that is not described as torch.save does")
    named = rest[2].name if len(rest) > 2 and isinstance(rest[2], Name) else ""
    dtype = DTYPES.get(named, storage.dtype)
    numbers = (offset, *shape[:64], *strides[:64])
    if not len(shape) == len(strides) <= 64 or not all(type(n) is int for n in numbers):
        raise _FaultError("a tensor that is not described as torch.save does")
    count = math.prod(shape)
    room = storage.size // dtype.itemsize
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    # values shown twice would let a small file fill the memory
    if min(numbers) < 0 or max(numbers) >= 2**63 or (count and (last >= room or count > room)):
        raise _FaultError(f"a tensor of shape {shape} beyond its storage of {room} values")
    return TensorPlan(storage, dtype, offset, shape, strides)


_INSTRUCTIONS: dict[str, Callable[[_Reader, Any], None]] = {
    "FRAME": lambda _reader, _size: None,
    "PROTO": lambda _reader, _version: None,
    "STOP": lambda _reader, _: None,
    "NONE": lambda reader, _: reader.push(None),
    "NEWTRUE": lambda reader, _: reader.push(True),  # noqa: FBT003
    "NEWFALSE": lambda reader, _: reader.push(False),  # noqa: FBT003
    "EMPTY_TUPLE": lambda reader, _: reader.push(()),
    "EMPTY_LIST": lambda reader, _: reader.push([]),
    "EMPTY_DICT": lambda reader, _: reader.push({}),
    "EMPTY_SET": lambda reader, _: reader.push(set()),
    "MARK": lambda reader, _: reader.marks.append(len(reader.stack)),
    "TUPLE": lambda reader, _: reader.push(tuple(reader.pop_marked())),
    "TUPLE1": lambda reader, _: reader.push(tuple(reader.pop_last(1))),
    "TUPLE2": lambda reader, _: reader.push(tuple(reader.pop_last(2))),
    "TUPLE3": lambda reader, _: reader.push(tuple(reader.pop_last(3))),
    "APPEND": lambda reader, _: reader.add(reader.pop_last(1)),
    "SETITEM": lambda reader, _: reader.add(reader.pop_last(2)),
    "APPENDS": lambda reader, _: reader.add(reader.pop_marked()),
    "SETITEMS": lambda reader, _: reader.add(reader.pop_marked()),
    "ADDITEMS": lambda reader, _: reader.add(reader.pop_marked()),
    "MEMOIZE": lambda reader, _: reader.memo.update({len(reader.memo): reader.stack[-1]}),
    "GLOBAL": lambda reader, words: reader.name(*words.split(" ", 1)),
    "INST": lambda reader, words: reader.refuse(words.replace(" ", ".", 1)),
    "STACK_GLOBAL": lambda reader, _: reader.name(*reader.pop_last(2)),
    "BINPERSID": lambda reader, _: reader.storage(),
    "REDUCE": lambda reader, _: reader.call(),
    "NEWOBJ": lambda reader, _: reader.create(),
    "BUILD": lambda reader, _: reader.build(),
}
_INSTRUCTIONS |= dict.fromkeys(
    ("BINPUT", "LONG_BINPUT"), lambda reader, at: reader.memo.update({at: reader.stack[-1]})
)
_INSTRUCTIONS |= dict.fromkeys(
    ("BINGET", "LONG_BINGET"), lambda reader, at: reader.push(reader.memo[at])
)
_INSTRUCTIONS |= dict.fromkeys(
    (
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
    ),
    _Reader.push,
)
