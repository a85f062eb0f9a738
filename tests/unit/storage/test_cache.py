"""The disk cache: one build a key, least recently used entries go first, never more than there is room for."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

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
