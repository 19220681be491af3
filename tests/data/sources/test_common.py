"""A name that a source gives stays inside the folder, or is refused."""

from __future__ import annotations

from itertools import product
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from palate.data.sources.common import inside
from palate.errors import DataError


def plainly(folder: Path, name: str) -> Path | None:
    """The same by the paths of the standard library."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    windows = PureWindowsPath(name)
    if not parts or "\0" in name or ".." in parts or windows.root or windows.drive:
        return None
    return folder.joinpath(*parts)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4])
def test_every_short_name_is_judged_as_the_standard_library_does(length: int) -> None:
    folder = Path("folder")
    for letters in product("ab./\\:\0", repeat=length):
        name = "".join(letters)
        expected = plainly(folder, name)
        if expected is None:
            with pytest.raises(DataError, match="does not stay inside"):
                inside(folder, name)
        else:
            assert inside(folder, name) == expected
