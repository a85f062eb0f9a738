"""Freed memory is kept, and handed back, only where the C library offers that."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

import pytest
import torch

from autotl.compute.memory import give_back_memory, halve_until_it_fits, is_out_of_memory, keep_freed_memory

both = pytest.mark.parametrize("function", [keep_freed_memory, give_back_memory])


class Libc:
    """Stands for the C library and writes down how it is set and what it trims."""

    def __init__(self) -> None:
        self.options: dict[int, int] = {}
        self.trimmed: list[int] = []

    def mallopt(self, name: int, value: int) -> int:
        self.options[name] = value
        return 1

    def malloc_trim(self, pad: int) -> int:
        self.trimmed.append(pad)
        return 1


@pytest.fixture
def libc(monkeypatch: pytest.MonkeyPatch) -> Libc:
    """The C library of a Linux machine."""
    fake = Libc()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: fake)
    return fake


def test_glibc_is_made_to_keep_large_blocks(libc: Libc) -> None:
    keep_freed_memory()
    # M_MMAP_THRESHOLD is -3, M_TRIM_THRESHOLD -1 and M_ARENA_MAX -8 in malloc.h; mallopt takes an int.
    assert libc.options.pop(-8) == 1
    assert set(libc.options) == {-3, -1}
    assert all(2**25 < value < 2**31 for value in libc.options.values())
    assert libc.trimmed == []


def test_glibc_is_made_to_hand_back_all_that_is_free(libc: Libc) -> None:
    give_back_memory()
    assert libc.trimmed == [0]  # nothing is kept in reserve
    assert libc.options == {}


@both
def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch, function: Callable[[], None]) -> None:
    def missing(name: str) -> object:
        raise OSError(f"{name}: not found")

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", missing)
    function()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    function()


@both
def test_another_system_is_left_alone(monkeypatch: pytest.MonkeyPatch, function: Callable[[], None]) -> None:
    asked: list[str] = []
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", asked.append)
    function()
    assert asked == []


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
]


class Device:
    """Has room for batches of so many images."""

    def __init__(self, room: int, error: BaseException) -> None:
        self.room, self.error = room, error
        self.tried: list[int] = []

    def __call__(self, size: int) -> str:
        self.tried.append(size)
        if size > self.room:
            raise self.error
        return f"batches of {size}"


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_where_memory_runs_out_batches_are_halved(error: BaseException) -> None:
    device = Device(3, error)
    assert halve_until_it_fits(16, device) == ("batches of 2", 2)
    assert device.tried == [16, 8, 4, 2]


def test_a_batch_of_the_least_size_that_does_not_fit_is_an_error() -> None:
    device = Device(0, OUT_OF_MEMORY[0])
    with pytest.raises(torch.OutOfMemoryError):
        halve_until_it_fits(8, device, least=3)
    assert device.tried == [8, 4, 3]


def test_another_error_is_not_tried_again() -> None:
    device = Device(1, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        halve_until_it_fits(8, device)
    assert device.tried == [8]


def test_this_machine_says_so_in_these_words() -> None:
    with pytest.raises(RuntimeError) as found:
        torch.empty(10**15)
    assert is_out_of_memory(found.value)
