"""What makes a command start and end sooner."""

from __future__ import annotations

import sys


def spare_pandas() -> None:
    """Keep pyarrow from importing pandas, which takes half a second where it is installed.

    With its first array pyarrow imports pandas to ask whether a list is a series. It asks once: a command that meets no
    data frame answers no for it. Not for a process that others share, since pyarrow could then make no data frame.
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    sys.meta_path.insert(0, _NoPandas)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(_NoPandas)


def keep_pages() -> None:
    """Let pyarrow take memory from where NumPy does.

    Its own pool gives pages back at once and takes new ones, which costs a command on a million rows a tenth of its time.
    """
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())


class _NoPandas:
    """A finder that finds no pandas."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Refuse pandas; leave all other names to the next finder."""
        del path, target
        if name == "pandas":
            raise ModuleNotFoundError("not looked for", name=name)
