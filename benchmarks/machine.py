"""Say in plain words what a figure was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")
_LIBRARIES = ("palate", "torch", "openvino", "transformers", "pillow", "numpy", "pyarrow", "ray")


def machine() -> dict[str, Any]:
    """Give processor, its matrix instructions, cores, and the versions of the libraries."""
    return {
        "processor": _processor(),
        "instructions": [flag for flag in _FLAGS if flag in _cpu_info().split()],
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: found for name in _LIBRARIES if (found := _version(name))},
    }


def _cpu_info() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text("utf-8") if path.exists() else ""


def _processor() -> str:
    names = [
        line.split(":", 1)[1].strip() for line in _cpu_info().splitlines() if "model name" in line
    ]
    return names[0] if names else platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
