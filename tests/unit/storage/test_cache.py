"""The disk cache: one build a key, least recently used entries go first, never more than there is room for."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest
from filelock import FileLock

from autotl.storage import cache
from autotl.storage.cache import DISK_RESERVE, DiskCache, default_folder


def key(name: str) -> dict[str, str]:
    return {"kind": "test", "name": name}


def fill(target: Path, size: int) -> bool:
    target.write_bytes(b"x" * size)
    return True


def add(store: DiskCache, name: str, size: int, used: float) -> Path:
    path = store.get_or_build(key(name), size, lambda target: fill(target, size))
    assert path is not None
    os.utime(path, (used, used))
    return path


def test_an_entry_is_built_once(tmp_path: Path) -> None:
    store = DiskCache(tmp_path)
    first = store.get_or_build(key("a"), 3, lambda target: fill(target, 3))
    again = store.get_or_build(key("a"), 3, lambda target: pytest.fail("built twice"))
    assert first == again
    assert first is not None
    assert first.read_bytes() == b"xxx"


def test_the_order_of_a_key_does_not_matter(tmp_path: Path) -> None:
    store = DiskCache(tmp_path)
    assert store.path({"kind": "a", "b": 1}) == store.path({"b": 1, "kind": "a"})
    assert store.path({"kind": "a", "b": 1}) != store.path({"kind": "a", "b": 2})


def test_a_build_that_gives_up_leaves_nothing(tmp_path: Path) -> None:
    store = DiskCache(tmp_path)
    assert store.get_or_build(key("a"), 3, lambda target: fill(target, 3) and False) is None
    assert store.get(key("a")) is None
    assert not list(tmp_path.glob("*.part"))


def test_a_build_that_raises_leaves_nothing(tmp_path: Path) -> None:
    def broken(target: Path) -> bool:
        fill(target, 3)
        raise OSError("disk full")

    store = DiskCache(tmp_path)
    with pytest.raises(OSError, match="disk full"):
        store.get_or_build(key("a"), 3, broken)
    assert not list(tmp_path.glob("*.part"))
    assert store.entries() == []


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    store = DiskCache(tmp_path, limit=100)
    add(store, "old", 40, used=1)
    add(store, "older but used", 40, used=0)
    store.get(key("older but used"))
    add(store, "new", 50, used=2)
    assert store.get(key("old")) is None
    assert store.get(key("older but used")) is not None


def test_what_cannot_fit_removes_nothing(tmp_path: Path) -> None:
    store = DiskCache(tmp_path, limit=100)
    add(store, "a", 60, used=1)
    assert store.get_or_build(key("b"), 101, lambda target: pytest.fail("built without room")) is None
    assert store.get(key("a")) is not None


def test_the_disk_is_never_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, DISK_RESERVE + 50))
    store = DiskCache(tmp_path)
    assert store.make_room(50)
    assert not store.make_room(51)


def test_what_others_are_building_counts_with_the_size_it_will_have(tmp_path: Path) -> None:
    store = DiskCache(tmp_path, limit=10)

    def build(target: Path) -> bool:
        assert store.get_or_build(key("b"), 3, lambda other: pytest.fail("built without room")) is None
        assert store.get_or_build(key("c"), 2, lambda other: fill(other, 2)) is not None
        return fill(target, 8)

    assert store.get_or_build(key("a"), 8, build) is not None
    assert sum(entry.size for entry in store.entries()) == 10
    assert not list(tmp_path.glob(f"*{cache.CLAIM}"))


def test_six_builders_at_once_stay_within_the_limit(tmp_path: Path) -> None:
    store = DiskCache(tmp_path, limit=10)
    together = threading.Barrier(6)

    def build(name: str) -> None:
        together.wait()
        store.get_or_build(key(name), 4, lambda target: fill(target, 4) and bool(sizes.append(on_disk())) is False)

    def on_disk() -> int:
        with FileLock(tmp_path / "room.lock"):  # nothing is removed or changes its name while it is looked at
            return sum(path.stat().st_size for end in ("bin", "part") for path in tmp_path.glob(f"*.{end}"))

    sizes: list[int] = []
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(build, "abcdef"))
    assert sizes
    assert max(sizes) <= 10


def test_an_entry_in_use_stays_as_its_removal_would_free_nothing(tmp_path: Path) -> None:
    store = DiskCache(tmp_path, limit=100)
    path = add(store, "mapped", 60, used=0)
    add(store, "idle", 30, used=1)
    with open(path, "rb") as file:
        cache.hold(file)
        assert store.get_or_build(key("large"), 50, lambda target: pytest.fail("built without room")) is None
        add(store, "small", 35, used=2)
        assert [entry.key["name"] for entry in store.entries()] == ["mapped", "small"]
    add(store, "large", 50, used=3)
    assert [entry.key["name"] for entry in store.entries()] == ["small", "large"]


@pytest.mark.parametrize(("number", "survives"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EACCES, False)])
def test_a_disk_that_others_filled_meanwhile_is_no_room(tmp_path: Path, number: int, survives: bool) -> None:
    store = DiskCache(tmp_path)

    def build(target: Path) -> bool:
        target.write_bytes(b"x")
        raise OSError(number, os.strerror(number))

    with nullcontext() if survives else pytest.raises(PermissionError):
        assert store.get_or_build(key("a"), 3, build) is None
    assert [path.suffix for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_clearing_reports_what_was_freed(tmp_path: Path) -> None:
    store = DiskCache(tmp_path)
    add(store, "a", 60, used=1)
    add(store, "b", 5, used=2)
    assert [entry.key["name"] for entry in store.entries()] == ["a", "b"]
    assert store.clear() == 65
    assert store.entries() == []


def test_a_mapped_entry_survives_its_removal(tmp_path: Path) -> None:
    import numpy as np

    store = DiskCache(tmp_path)
    mapped = np.memmap(add(store, "a", 4, used=1), dtype=np.uint8, mode="r")
    store.clear()
    assert mapped.tolist() == [120] * 4


def test_the_folder_can_be_named_in_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv(cache.FOLDER_VARIABLE)
    assert default_folder().name == "autotl"


def test_what_a_dead_process_was_building_is_removed_when_room_is_made(tmp_path: Path) -> None:
    store = DiskCache(tmp_path)
    (tmp_path / "test-dead.part").write_bytes(b"x" * 50)
    assert store.make_room(1)
    assert not list(tmp_path.glob("*.part"))


def test_a_folder_that_cannot_be_written_is_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert DiskCache(tmp_path).get_or_build(key("a"), 3, lambda target: pytest.fail("built")) is None


def test_a_user_without_a_home_has_a_cache_for_as_long_as_the_process_lives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AUTOTL_CACHE_DIR", "")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name, appauthor: "~/.cache/autotl")  # as it then says
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first = default_folder()
    assert first.parent == tmp_path
    assert default_folder() == first


def test_a_file_in_place_of_the_folder_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert DiskCache(tmp_path / "file").get_or_build({"kind": "test"}, 10, lambda path: True) is None
