"""Tensors that are computed once: in memory where they are small, else in a file beside the run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from palate.errors import DataError, RunError
from palate.runs import track
from palate.training.processes import Processes

CHUNK = 128
_IN_MEMORY = 1 << 30
_IN_CACHE = 1 << 21  # numbers


class Shelf:
    """A place for the tensors of one data set of one run.

    Tensors above 1 GB, and all tensors that several processes share, lie in files under ``folder``, which
    are mapped and not read: the machine's memory then holds what is in use. :meth:`clear` removes them.
    """

    def __init__(self, folder: Path, processes: Processes | None = None) -> None:
        """Name a folder; nothing is written yet."""
        self.folder, self.processes = folder, processes or Processes()

    def fill(
        self,
        name: str,
        count: int,
        compute: Callable[[slice], Tensor],
        *,
        chunk: int = CHUNK,
        label: str = "",
    ) -> Tensor:
        """Compute a tensor of ``count`` rows, ``chunk`` at a time, so that a restart gives the same.

        One process of each machine computes, the others wait and share. Raises DataError for no rows, and
        RunError where the disk has no room.
        """
        if count == 0:
            raise DataError("there is nothing to train on")
        cuts = [slice(start, min(start + chunk, count)) for start in range(0, count, chunk)]
        first = compute(cuts[0]).detach().cpu()
        shape = (count, *first.shape[1:])
        shared = self.processes.count > 1
        if not shared and prod(shape) * first.element_size() <= _IN_MEMORY:
            return self._into(torch.empty(shape, dtype=first.dtype), cuts, first, compute, label)
        file = self.folder / f"{name}-{self.processes.machine}.bin"
        if self.processes.first_of_machine:
            self._reserve(file, prod(shape) * first.element_size())
            self._into(self._map(file, shape, first.dtype), cuts, first, compute, label)
        self.processes.wait()
        return self._map(file, shape, first.dtype)

    def clear(self) -> None:
        """Remove the files."""
        self.processes.wait()
        if self.processes.first_of_machine and self.folder.is_dir():
            for file in self.folder.glob(f"*-{self.processes.machine}.bin"):
                file.unlink()
            if not any(self.folder.iterdir()):
                self.folder.rmdir()

    def _reserve(self, file: Path, size: int) -> None:
        """Take the room on the disk at once: a full disk would otherwise kill the process later."""
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with file.open("wb") as opened:
                os.posix_fallocate(opened.fileno(), 0, size)
        except OSError as error:
            file.unlink(missing_ok=True)
            raise RunError(
                f"{file}: {size / 1e9:.1f} GB of images or states could not be written: "
                f"{error.strerror}"
            ) from error

    @staticmethod
    def _map(file: Path, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.from_file(str(file), shared=True, size=prod(shape), dtype=dtype).view(*shape)

    @staticmethod
    def _into(
        room: Tensor,
        cuts: Sequence[slice],
        first: Tensor,
        compute: Callable[[slice], Tensor],
        label: str,
    ) -> Tensor:
        for cut in track(cuts, label) if label else cuts:
            room[cut] = first if cut.start == 0 else compute(cut).detach().cpu()
        return room


def chunk_for(row: Tensor) -> int:
    """Say how many rows like this one are best computed together.

    A processor is faster where what the blocks pass on stays in its cache, a GPU with many rows.
    """
    if row.device.type != "cpu":
        return CHUNK
    return max(1, min(CHUNK, _IN_CACHE // row.numel()))
