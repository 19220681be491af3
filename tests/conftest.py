"""What every test has: quiet, offline, reproducible, and the way to the shared files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# Set before any test imports a library that reads them. Sub-processes inherit them.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    # on some processors MKL's last bits depend on where a matrix lies in memory; not in this mode
    "MKL_CBWR": "AVX2",
    "MPLBACKEND": "Agg",
    "PALATE_QUIET": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

# The same examples in every run; HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("same", deadline=None, derandomize=True, database=None)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the features of a test session out of the user's cache."""
    os.environ["PALATE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and official outputs, which is no part of the repository."""
    named = os.environ.get("PALATE_SHARED")
    places = [Path(named)] if named else [ROOT / "shared", ROOT.parent / "shared"]
    for place in places:
        if (place / "parity").is_dir():
            return place
    pytest.skip("needs the shared folder: beside the repository, or named by PALATE_SHARED")
