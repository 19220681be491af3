"""What is written down: no path or host of one machine, no link that leads nowhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
# In two parts, so that this file does not name them.
MACHINE = ["/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/", "/opt/wh" + "eels", "/Us" + "ers/"]
HOSTS = ["py" + "pi.org", "pythonhost" + "ed.org", "download.pyto" + "rch.org", "npmj" + "s.org"]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def tracked() -> list[Path]:
    """Every file that git knows; without git, every file but caches."""
    git = ["git", "-C", str(ROOT), "ls-files", "-z"]
    run = subprocess.run(git, capture_output=True, text=True, check=False)
    if run.returncode == 0 and run.stdout:
        paths = [ROOT / name for name in run.stdout.split("\0") if name]
    else:
        places = [ROOT / name for name in ("src", "tests", "docs", "decisions", "recipes")]
        paths = [path for place in places for path in place.rglob("*")] + list(ROOT.iterdir())
    return [path for path in paths if path.is_file() and "__pycache__" not in path.parts]


def text_of(path: Path) -> str:
    data = path.read_bytes()
    return "" if b"\0" in data[:8192] else data.decode("utf-8", "replace")


def test_no_file_names_a_place_on_one_machine():
    files = tracked()
    assert len(files) > 30
    named = {
        f"{path.relative_to(ROOT)}: {word}"
        for path in files
        for word in MACHINE + HOSTS
        if word in text_of(path)
    }
    assert named == set()


def pages() -> list[Path]:
    places = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("decisions/*.md")]
    return sorted(places)


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page):
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    dead = [
        link
        for link in links
        if not link.startswith(("#", "mailto:"))
        and not (page.parent / unquote(link.split("#")[0])).exists()
    ]
    assert dead == []


def test_every_decision_is_listed_and_says_why():
    records = sorted((ROOT / "decisions").glob("[0-9]*.md"))
    index = (ROOT / "decisions" / "README.md").read_text()
    assert [path.name[:4] for path in records] == [f"{n:04}" for n in range(1, len(records) + 1)]
    for path in records:
        assert f"({path.name})" in index
        assert re.search(r"^(## Why|\*\*Why)", path.read_text(), re.MULTILINE), path.name
