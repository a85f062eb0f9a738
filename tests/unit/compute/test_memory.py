"""Freed memory is kept only where the C library can be told to."""

from __future__ import annotations

import ctypes
import sys

import pytest

from autotl.compute.memory import keep_freed_memory


class Libc:
    """Stands for the C library and writes down what it is told."""

    def __init__(self) -> None:
        self.told: dict[int, int] = {}

    def mallopt(self, name: int, value: int) -> int:
        self.told[name] = value
        return 1


def test_glibc_is_told_to_keep_large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    libc = Libc()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: libc)
    keep_freed_memory()
    # M_MMAP_THRESHOLD is -3, M_TRIM_THRESHOLD -1 and M_ARENA_MAX -8 in malloc.h; mallopt takes an int.
    assert libc.told.pop(-8) == 1
    assert set(libc.told) == {-3, -1}
    assert all(2**25 < value < 2**31 for value in libc.told.values())


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise OSError(f"{name}: not found")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    keep_freed_memory()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    keep_freed_memory()


def test_another_system_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", asked.append)
    keep_freed_memory()
    assert asked == []
