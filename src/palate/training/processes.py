"""One process or many: what a training asks of accelerate, and nothing when it runs alone."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from palate.errors import SettingsError
from palate.runs import Run, start_run

T = TypeVar("T")

LOGS = "logs"
_PATIENCE = timedelta(hours=12)


class Processes:
    """The processes of one training; by default this one alone.

    :func:`start_processes` finds those that `accelerate launch` or `torchrun` started.
    """

    def __init__(self, accelerator: Any = None) -> None:
        """Take an ``accelerate.Accelerator``, or none for a single process."""
        self.accelerator = accelerator
        self.count: int = 1 if accelerator is None else accelerator.num_processes
        self.number: int = 0 if accelerator is None else accelerator.process_index
        self.first = self.number == 0
        alone = accelerator is None or accelerator.is_local_main_process
        self.first_of_machine: bool = alone
        self.machine = platform.node() or "machine"

    def wrap(self, module: nn.Module) -> nn.Module:
        """Give a module whose gradients are the mean over all processes."""
        if self.count == 1:
            return module
        wrapped: nn.Module = self.accelerator.prepare(module)
        return wrapped

    def backward(self, loss: Tensor) -> None:
        """Differentiate a loss."""
        if self.accelerator is None:
            loss.backward()
        else:
            self.accelerator.backward(loss)

    def hold(self, module: nn.Module, *, on: bool) -> AbstractContextManager[Any]:
        """Within it, gradients are summed here and not yet exchanged."""
        if self.count == 1 or not on:
            return nullcontext()
        held: AbstractContextManager[Any] = self.accelerator.no_sync(module)
        return held

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            self.accelerator.wait_for_everyone()

    def gather(self, rows: Tensor) -> Tensor:
        """Give the rows of all processes, one process after another; each must have as many."""
        if self.count == 1:
            return rows
        found: Tensor = self.accelerator.gather(rows.to(self.accelerator.device))
        return found.to(rows.device)

    def same(self, value: T) -> T:
        """Give all processes what the first one has."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        found: T = broadcast_object_list([value])[0]
        return found

    def follow(self, trackers: Sequence[str], settings: Mapping[str, Any]) -> None:
        """Begin to log to accelerate's trackers, such as TensorBoard."""
        if self.accelerator is None or not trackers or not self.first:
            return
        plain = {
            name: value if isinstance(value, int | float | str | bool) else str(value)
            for name, value in settings.items()
        }
        self.accelerator.init_trackers("train", config=plain)

    def log(self, numbers: Mapping[str, float], step: int, *, group: str) -> None:
        """Log numbers of a step."""
        if self.accelerator is not None:
            told = {f"{group}/{name}": value for name, value in numbers.items() if name != "step"}
            self.accelerator.log(told, step=step)

    def end(self) -> None:
        """Close the trackers."""
        if self.accelerator is not None:
            self.accelerator.end_training()


def start_processes(device: str, folder: Path, trackers: Sequence[str] = ()) -> Processes:
    """Find the processes of this training and join them, on ``cpu`` (gloo) or ``cuda`` (NCCL).

    Raises SettingsError for a tracker that accelerate does not know or that is not installed.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if not launched and not trackers:
        return Processes()
    from accelerate import Accelerator
    from accelerate.tracking import get_available_trackers
    from accelerate.utils import (
        DistributedDataParallelKwargs,
        InitProcessGroupKwargs,
        ProjectConfiguration,
    )

    there = [str(getattr(one, "value", one)) for one in get_available_trackers()]
    for name in trackers:
        if name not in there:
            raise SettingsError(
                f"no tracker '{name}', expected one of {', '.join(there) or 'none: none is installed'}"
            )
    where = ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder / LOGS))
    # buffers are equal everywhere, and processes may make different numbers of forwards in a step
    sharing = DistributedDataParallelKwargs(broadcast_buffers=False)
    # one process may measure or write for long while the others wait
    joining = InitProcessGroupKwargs(timeout=_PATIENCE)
    return Processes(
        Accelerator(
            cpu=device == "cpu",
            log_with=list(trackers) or None,
            project_config=where,
            kwargs_handlers=[sharing, joining],
        )
    )


@contextmanager
def start_shared_run(
    processes: Processes,
    verb: str,
    out: Path,
    settings: Any,
    inputs: Mapping[str, str],
    *,
    overwrite: bool,
) -> Iterator[Run | None]:
    """Open the run in the first process, see ``palate.runs.start_run``; the others have none."""
    if not processes.first:
        yield None
        return
    with start_run(verb, out, settings, inputs, overwrite=overwrite) as run:
        yield run


def device_of(processes: Processes, device: str) -> torch.device:
    """Give the device of this process."""
    if processes.accelerator is not None and device != "cpu":
        found: torch.device = processes.accelerator.device
        return found
    return torch.device(device)
