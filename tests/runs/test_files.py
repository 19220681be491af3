from __future__ import annotations

import errno
import hashlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.errors import DataError, RunError
from palate.runs import atomic_path, hash_file, hash_path, hash_text, seed_for, write_atomic


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_is_written_in_whole(tmp_path):
    write_atomic(tmp_path / "new" / "a.txt", "grün")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "grün".encode()
    write_atomic(tmp_path / "new" / "a.txt", b"\x00")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"\x00"
    assert names(tmp_path / "new") == ["a.txt"]


def test_the_temporary_name_ends_like_the_final_one(tmp_path):
    with atomic_path(tmp_path / "a.parquet") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".parquet"
        temporary.write_bytes(b"1")
    assert names(tmp_path) == ["a.parquet"]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_takes_the_place_of_a_folder(tmp_path):
    for content in ("one", "two"):
        with atomic_path(tmp_path / "model") as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["two"]


def test_half_a_folder_is_removed(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "model") as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text("half")
        _ = 1 / 0
    assert names(tmp_path) == []


def test_a_full_disk_is_one_sentence(tmp_path):
    path = tmp_path / "scores.parquet"
    with pytest.raises(RunError) as refused, atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(refused.value) == f"{path}: could not be written: No space left on device"
    assert names(tmp_path) == []


def test_a_full_disk_told_by_another_library_is_the_same_sentence(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(RunError, match="could not be written: No space left"), atomic_path(path):
        raise RuntimeError("I/O error: No space left on device (os error 28)")


def test_arrow_tells_of_a_full_device(tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    with pytest.raises(RunError, match="could not be written: No space left"):  # noqa: SIM117
        with atomic_path(tmp_path / "a.parquet") as temporary:
            temporary.symlink_to("/dev/full")
            parquet.write_table(pa.table({"a": list(range(100_000))}), temporary)
    assert names(tmp_path) == []


LIMITED = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
from palate.errors import RunError
from palate.runs import write_atomic
try:
    write_atomic(Path(sys.argv[1]), b"x" * 5000)
except RunError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit on files here")
def test_a_write_that_the_system_stops_leaves_nothing(tmp_path):
    said = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "a.bin")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == f"{tmp_path / 'a.bin'}: could not be written: File too large\n"
    assert names(tmp_path) == []


def test_an_error_of_the_body_stays_itself(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        (tmp_path / "an input that is missing").read_text()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not be written: "):
        write_atomic(tmp_path / "file" / "a.txt", "a")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="could not be written: Is a directory"):
        write_atomic(tmp_path / "folder", "a")
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="could not be written: Permission denied"):
        write_atomic(tmp_path / "a.txt", "a")


def test_the_hash_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert hash_file(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()
    with pytest.raises(DataError, match="b: could not be read: No such file or directory"):
        hash_file(tmp_path / "b")


def test_the_hash_of_a_folder_follows_names_and_contents(tmp_path):
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a").write_text("1")
    first = hash_path(folder)
    (folder / "run.json").write_text("{}")
    (folder / ".hidden").write_text("2")
    assert hash_path(folder) == first
    (folder / "deep" / "a").rename(folder / "deep" / "b")
    second = hash_path(folder)
    (folder / "deep" / "b").write_text("2")
    assert len({first, second, hash_path(folder)}) == 3


parts = st.lists(st.text() | st.integers(), max_size=4)


@given(parts, parts)
def test_addresses_differ_as_their_seeds_do(one, two):
    assert 0 <= seed_for(*one) < 2**63
    assert (seed_for(*one) == seed_for(*two)) == (one == two)


def test_seeds_never_change():
    # Written down: another value would make other images from the same run, prompt and index.
    assert seed_for() == 8238016292129134938
    assert seed_for("run", "a red ball", 3) == 5158113510558853630


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_texts_differ_as_their_hashes_do(one, two):
    assert (hash_text(*one) == hash_text(*two)) == (one == two)


def test_a_file_that_only_its_owner_may_read_gets_the_usual_rights(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    with atomic_path(tmp_path / "w.bin") as temporary:
        temporary.touch(mode=0o600)
    assert (tmp_path / "w.bin").stat().st_mode == plain.stat().st_mode
