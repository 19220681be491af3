"""Runs a script in several processes that find one another, as `accelerate launch` does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"


def run_together(script, words, folder, *, count=2):
    """Run a script, given as text, with these words; it is kept in the folder, and must succeed."""
    file = folder / "script.py"
    file.write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    command += ["--master-port", str(29500 + os.getpid() % 4000), str(file), *map(str, words)]
    found = subprocess.run(
        command,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE), "ACCELERATE_USE_CPU": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-3000:]
