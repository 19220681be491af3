from __future__ import annotations

import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from palate.errors import DataError, SettingsError
from palate.scoring import cache
from palate.scoring.cache import DEFAULT_LIMIT, FeatureCache, default_folder, default_limit
from palate.scoring.cache_file import DTYPES, decode, encode

MEGABYTE = 2**20


def value(seed: int, *shape: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape or (768,)).astype(np.float32),)


def equal(one, other) -> bool:
    return len(one) == len(other) and all(
        a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(one, other, strict=True)
    )


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def make(tmp_path, said):
    """Caches in one folder, as several processes would open them."""
    opened = []

    def one(limit: int = 100 * MEGABYTE, folder: Path = tmp_path / "cache") -> FeatureCache:
        opened.append(FeatureCache(folder, limit, said.append))
        return opened[-1]

    yield one
    for each in opened:
        each.close()


def alter(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(statement, values)


# ------------------------------------------------------------------------------ what comes back


ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda kind: arrays_of.arrays(kind, arrays_of.array_shapes(min_dims=0, min_side=0, max_side=4))
)


@given(st.lists(ARRAYS, max_size=3).map(tuple))
def test_every_kind_of_array_comes_back_as_it_was(given_arrays):
    found = decode("s", "k", encode("s", "k", given_arrays))
    assert found is not None
    assert [a.dtype for a in found] == [a.dtype for a in given_arrays]
    assert [a.shape for a in found] == [a.shape for a in given_arrays]
    assert [a.tobytes() for a in found] == [a.tobytes() for a in given_arrays]
    assert all(a.flags.writeable and a.flags.aligned for a in found)


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_one_altered_byte_is_found_out(place, change):
    stored = bytearray(encode("s", "k", value(0, 5)))
    stored[place % len(stored)] ^= change
    assert decode("s", "k", bytes(stored)) is None


def test_a_value_in_another_place_or_cut_short_is_none():
    stored = encode("s", "k", value(0, 5))
    assert decode("s", "other", stored) is None
    assert decode("other", "k", stored) is None
    assert all(decode("s", "k", stored[:end]) is None for end in range(len(stored)))
    assert decode("s", "k", None) is None


def test_other_kinds_are_refused(make):
    with pytest.raises(DataError, match="cannot cache an array of float64, expected float32, fl"):
        make().put("s", {"k": (np.zeros(2),)})


def test_values_are_found_again_in_order_by_another_process(make):
    items = {f"k{n}": value(n) for n in range(1200)}
    with make() as first:
        first.put("s", items)
        first.put("t", {"k0": (np.array([True]), np.float16([[1, 2]]))})
    second = make()
    asked = ["no", "k7", "k0", "k7", *items]
    found = second.get("s", asked)
    assert found[0] is None
    assert all(equal(f, items[key]) for f, key in zip(found[1:], asked[1:], strict=True))
    assert (second.hits, second.misses) == (1203, 1)
    assert equal(second.get("t", ["k0"])[0], (np.array([True]), np.float16([[1, 2]])))
    assert second.get("u", ["k0"]) == [None]
    assert second.get("s", []) == []


def test_the_last_value_of_a_key_stays(make):
    one = make()
    one.put("s", {"k": value(1)})
    one.put("s", {"k": value(2, 3, 4), "l": ()})
    assert equal(one.get("s", ["k"])[0], value(2, 3, 4))
    assert one.get("s", ["l"]) == [()]
    assert one.describe()["entries"] == 2


def test_it_tells_what_it_holds(make, tmp_path):
    one = make()
    one.put("vit-l float32", {str(n): value(n) for n in range(10)})
    one.put("vit-h float32", {"0": value(0, 1024)})
    told = one.describe()
    assert told["file"] == str(tmp_path / "cache" / "features-1.sqlite")
    assert told["entries"] == 11
    assert {name: space["entries"] for name, space in told["spaces"].items()} == {
        "vit-l float32": 10,
        "vit-h float32": 1,
    }
    assert 30_000 < told["spaces"]["vit-l float32"]["bytes"] < 35_000
    assert 0 < told["size"] == one.size() <= told["on_disk"]


# ----------------------------------------------------------------------------------- the limit


def on_disk(one: FeatureCache) -> int:
    return one.path.stat().st_size


def test_the_file_stays_within_its_limit_and_keeps_the_newest(make):
    one = make(4 * MEGABYTE)
    for n in range(100):
        one.put("s", {f"{n} {m}": value(n, 4096) for m in range(8)})
        assert one.size() <= 4 * MEGABYTE
    one.close()
    assert on_disk(one) <= 4 * MEGABYTE
    assert one.size() > 0.85 * 4 * MEGABYTE
    assert None not in one.get("s", [f"99 {m}" for m in range(8)])
    assert one.get("s", ["0 0"]) == [None]


def test_what_was_used_longest_ago_goes_first(make, monkeypatch):
    hour = [100]
    monkeypatch.setattr(cache, "_hour", lambda: hour[0])
    one = make(4 * MEGABYTE)
    one.put("s", {f"old {n}": value(n, 16384) for n in range(40)})
    hour[0] += 1
    assert None not in one.get("s", [f"old {n}" for n in range(0, 40, 2)])
    one.put("s", {f"new {n}": value(n, 16384) for n in range(30)})
    kept = [one.get("s", [f"old {n}"]) != [None] for n in range(40)]
    assert all(kept[0::2])
    assert not all(kept[1::2])
    assert None not in one.get("s", [f"new {n}" for n in range(30)])


def test_reading_writes_nothing_until_the_end_and_nothing_twice_an_hour(make, monkeypatch):
    monkeypatch.setattr(cache, "_hour", lambda: 100)
    one, other = make(), make()
    one.put("s", {"k": value(0)})
    before = one._open().total_changes
    one.get("s", ["k"])
    assert one._used == set()
    monkeypatch.setattr(cache, "_hour", lambda: 101)
    one.get("s", ["k"])
    assert one._open().total_changes == before
    one.close()
    assert other._open().execute("SELECT used FROM entries").fetchall() == [(101,)]


def test_many_uses_are_written_down_while_reading(make, monkeypatch):
    one = make()
    one.put("s", {str(n): () for n in range(20)})
    monkeypatch.setattr(cache, "_hour", lambda: 10**6)
    monkeypatch.setattr(cache, "_REMEMBERED_USES", 10)
    one.get("s", [str(n) for n in range(20)])
    assert make()._open().execute("SELECT DISTINCT used FROM entries").fetchall() == [(10**6,)]


def test_a_lower_limit_gives_space_back_to_the_disk(make):
    with make() as large:
        large.put("s", {str(n): value(n, 16384) for n in range(200)})
    assert on_disk(large) > 12 * MEGABYTE
    with make(2 * MEGABYTE) as small:
        small.put("s", {"k": value(0)})
        assert small.get("s", ["k"]) != [None]
    assert on_disk(small) <= 2 * MEGABYTE


def test_more_than_the_cache_holds_is_not_kept(make, said):
    one = make(MEGABYTE)
    one.put("s", {"small": value(0)})
    one.put("s", {"large": value(0, MEGABYTE)})
    assert one.get("s", ["small", "large"])[1] is None
    assert one.get("s", ["small"]) != [None]
    assert said == []


# ----------------------------------------------------------------- several threads and processes


def test_threads_share_one_object(make):
    one = make()

    def work(thread: int) -> bool:
        for n in range(30):
            one.put("s", {f"{thread} {n}": value(n)})
            if not equal(one.get("s", [f"{thread} {n}"])[0], value(n)):
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert (one.hits, one.misses) == (240, 0)


def test_a_pickled_one_opens_the_file_anew(make):
    one = make()
    one.put("s", {"k": value(0)})
    with pickle.loads(pickle.dumps(one)) as other:
        assert (other.folder, other.limit, other.hits) == (one.folder, one.limit, 0)
        assert equal(other.get("s", ["k"])[0], value(0))


def test_a_forked_process_leaves_its_parent_alone(make, tmp_path):
    one = make()
    one.put("s", {"k": value(0)})
    script = """
import os, sys, pathlib
from palate.scoring.cache import FeatureCache
one = FeatureCache(pathlib.Path(sys.argv[1]), 10**8)
assert one.get("s", ["k"]) != [None]
with one._lock:  # as another thread of the parent may have it
    child = os.fork()
    if child == 0:
        found = one.get("s", ["k"]) != [None]
        one.put("s", {"child": ()})
        one.close()
        os._exit(0 if found else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert one.get("s", ["k", "child"])[1] == ()
"""
    subprocess.run([sys.executable, "-c", script, tmp_path / "cache"], check=True, timeout=60)
    assert one.get("s", ["child"]) == [()]


WRITER = """
import sys, pathlib
import numpy as np
from palate.scoring.cache import FeatureCache
folder, name, rounds, limit = pathlib.Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:5])
one = FeatureCache(folder, limit)
print("ready", flush=True)
sys.stdin.readline()
n = 0
while n < rounds:
    items = {f"{n} {m}": (np.full(1000, n + m, np.float32),) for m in range(8)}
    one.put("s", items)
    for key, found in zip(items, one.get("s", list(items))):
        assert found is None or np.array_equal(found[0], items[key][0])
    print(n, flush=True)
    n += 1
print("hits", one.hits, flush=True)
"""


def start(folder: Path, name: str, rounds: int = 60, limit: int = 10**8) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), name, str(rounds), str(limit)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate("\n", timeout=120)
    assert (process.returncode, err) == (0, "")
    return out


@pytest.mark.parametrize("limit", [10**8, MEGABYTE])
def test_processes_put_and_get_at_once(make, limit):
    folder = make().folder
    several = [start(folder, str(n), limit=limit) for n in range(3)]
    for process in several:
        assert process.stdout.readline() == "ready\n"
    for process in several:  # all begin together, with no file there yet
        process.stdin.write("\n")
        process.stdin.flush()
    told = [finish(process) for process in several]
    if limit == 10**8:
        assert all("hits 480" in out for out in told)
        assert make().describe()["entries"] == 480
    one = make(limit)
    assert one.size() <= limit
    assert one._open().execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert [path.name for path in folder.glob("set-aside*")] == []


def test_a_killed_process_leaves_whole_batches(make, said):
    folder = make().folder
    process = start(folder, "a", rounds=10**6)
    process.stdin.write("\n")
    process.stdin.flush()
    done = [process.stdout.readline() for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    last = [*done, *process.communicate()[0].splitlines()][-1]
    one = make()
    for n in range(int(last) + 3):
        found = one.get("s", [f"{n} {m}" for m in range(8)])
        assert len({item is None for item in found}) == 1, "all of a batch or none"
        assert found[0] is not None or n > int(last)
    assert one._open().execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert said == []


# ------------------------------------------------------------------------------ what goes wrong


def test_an_altered_value_is_a_miss_and_removed(make):
    one = make()
    one.put("s", {"k": value(0), "l": value(1)})
    one.close()
    alter(one.path, "UPDATE data SET value = zeroblob(3000) WHERE id = 1")
    found = one.get("s", ["k", "l"])
    assert found[0] is None
    assert equal(found[1], value(1))
    assert (one.hits, one.misses) == (1, 1)
    assert one.describe()["entries"] == 1
    one.put("s", {"k": value(0)})
    assert equal(one.get("s", ["k"])[0], value(0))


@pytest.mark.parametrize(
    "content", [b"no database at all " * 100, b"SQLite format 3\0" + b"x" * 99]
)
def test_a_file_that_is_no_database_is_set_aside(make, said, content):
    one = make()
    one.folder.mkdir()
    one.path.write_bytes(content)
    assert one.get("s", ["k"]) == [None]
    one.put("s", {"k": value(0)})
    assert one.get("s", ["k"]) != [None]
    assert (one.folder / "set-aside-1-features-1.sqlite").read_bytes() == content
    aside = "it is now set-aside-1-features-1.sqlite, and a new cache begins"
    assert said == [f"{one.path}: file is not a database; {aside}"]


def test_the_database_of_another_program_is_set_aside(make, said):
    one = make()
    one.folder.mkdir()
    alter(one.path, "CREATE TABLE theirs (x)")
    one.put("s", {"k": value(0)})
    assert one.get("s", ["k"]) != [None]
    assert "not a cache of Palate; it is now set-aside-1" in said[0]
    with closing(sqlite3.connect(one.folder / "set-aside-1-features-1.sqlite")) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]


def test_damage_in_the_middle_never_gives_a_wrong_number(make, said):
    one = make()
    items = {f"{n}": value(n) for n in range(300)}
    one.put("s", items)
    one.close()
    data = bytearray(one.path.read_bytes())
    rng = np.random.default_rng(0)
    for start in rng.integers(16384, len(data) - 5000, 12):
        data[start : start + 5000] = rng.bytes(5000)
    one.path.write_bytes(data)
    for key, found in zip(items, one.get("s", list(items)), strict=True):
        assert found is None or equal(found, items[key])
    one.put("s", items)
    assert all(
        equal(f, items[key]) for key, f in zip(items, one.get("s", list(items)), strict=True)
    )
    assert len(said) <= 1


def test_a_file_that_another_process_began_anew_is_not_set_aside(make, said):
    one = make()
    one.put("s", {"k": value(0)})
    one.path.replace(one.folder / "elsewhere")
    other = make()
    other.put("s", {"k": value(1)})
    with one._own_lock():
        assert one._set_aside(sqlite3.DatabaseError("damage"))
    assert equal(one.get("s", ["k"])[0], value(1))
    assert said == []


def test_damage_that_comes_again_at_once_is_left_alone(make, said, monkeypatch):
    def broken(path: Path) -> sqlite3.Connection:
        path.write_bytes(b"no database" * 99)
        raise sqlite3.NotSupportedError("not a cache of Palate")

    monkeypatch.setattr(cache, "connect", broken)
    one = make()
    assert [one.get("s", ["k"]), one.get("s", ["k"]), one.size()] == [[None], [None], 0]
    assert len(said) == 2
    assert said[1].endswith("goes on without the cache, which changes no result")


def test_a_place_that_cannot_be_written_to_is_said_once(make, said, tmp_path):
    (tmp_path / "file").write_text("")
    one = make(folder=tmp_path / "file" / "cache")
    for n in range(3):
        assert one.get("s", ["k"]) == [None]
        one.put("s", {"k": value(n)})
    assert one.describe()["entries"] == one.size() == 0
    assert (one.hits, one.misses) == (0, 3)
    assert len(said) == 1
    assert said[0].endswith("this process goes on without the cache, which changes no result")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_said_once(make, said):
    one = make()
    one.folder.mkdir(mode=0o500)
    one.put("s", {"k": value(0)})
    assert one.get("s", ["k"]) == [None]
    assert len(said) == 1


def test_a_full_disk_still_lets_read(make, said):
    one = make()
    one.put("s", {"k": value(0)})
    one._open().execute(f"PRAGMA max_page_count = {cache.bytes_in_use(one._open()) // 16384}")
    for n in range(3):
        one.put("s", {"large": value(n, 100_000), "k": value(1)})
        found = one.get("s", ["k", "large"])
        assert equal(found[0], value(0)), "nothing of the batch"
        assert found[1] is None
    how = "this process adds nothing to the cache, which changes no result"
    assert said == [f"{one.path}: database or disk is full; {how}"]


def test_a_locked_file_still_lets_read(make, said, monkeypatch):
    one = make()
    one.put("s", {"k": value(0)})
    one._open().execute("PRAGMA busy_timeout = 10")
    with closing(sqlite3.connect(one.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        one.put("s", {"l": value(1)})
        assert equal(one.get("s", ["k"])[0], value(0))
    assert len(said) == 1
    assert "database is locked; this process adds nothing to the cache" in said[0]


def test_making_a_file_waits_for_another_process_that_makes_it(make, said):
    one = make()
    one.folder.mkdir()
    other = sqlite3.connect(one.path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.2, lambda: (other.execute("ROLLBACK"), other.close()))
    timer.start()
    one.put("s", {"k": value(0)})
    timer.join()
    assert one.get("s", ["k"]) != [None]
    assert said == []


# --------------------------------------------------------------------------- where and how large


def test_the_folder_is_the_named_one_or_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PALATE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_folder() == tmp_path / ".cache" / "palate"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "xdg" / "palate"
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "mine"))
    assert default_folder() == tmp_path / "mine"


def test_the_limit_is_named_in_gigabytes(monkeypatch):
    monkeypatch.delenv("PALATE_CACHE_GB", raising=False)
    assert default_limit() == DEFAULT_LIMIT == 10**10
    monkeypatch.setenv("PALATE_CACHE_GB", "0.5")
    assert default_limit() == 5 * 10**8


@pytest.mark.parametrize("named", ["ten", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_none_is_refused(monkeypatch, named):
    monkeypatch.setenv("PALATE_CACHE_GB", named)
    with pytest.raises(SettingsError) as refused:
        default_limit()
    assert str(refused.value) == (
        f"PALATE_CACHE_GB is '{named}', expected a number of gigabytes above 0"
    )


def test_what_is_said_goes_to_stderr(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with FeatureCache(tmp_path / "file", 10**6) as one:
        assert one.get("s", ["k"]) == [None]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
