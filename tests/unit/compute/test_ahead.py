"""Batches are loaded ahead of a GPU, in order."""

from __future__ import annotations

import threading

import pytest
import torch

from autotl.compute.ahead import IN_FLIGHT, ahead

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_parts_come_in_their_order(device: torch.device) -> None:
    assert list(ahead(lambda part: 10 * part, range(20), device)) == [10 * part for part in range(20)]
    assert list(ahead(lambda part: part, [], device)) == []


def test_a_cpu_loads_in_its_own_thread_and_not_before_it_is_asked() -> None:
    loaded: list[tuple[int, str]] = []
    batches = ahead(lambda part: loaded.append((part, threading.current_thread().name)), range(5), CPU)
    next(batches)
    assert loaded == [(0, threading.current_thread().name)]


def test_for_a_gpu_another_thread_is_a_few_parts_ahead() -> None:
    loaded = [threading.Event() for _ in range(10)]
    threads: set[str] = set()

    def load(part: int) -> int:
        threads.add(threading.current_thread().name)
        loaded[part].set()
        return part

    batches = ahead(load, range(10), CUDA)
    assert next(batches) == 0
    assert all(loaded[part].wait(timeout=5) for part in range(IN_FLIGHT + 1))
    assert not any(loaded[part].is_set() for part in range(IN_FLIGHT + 2, 10))
    batches.close()  # type: ignore[attr-defined]
    assert threading.current_thread().name not in threads


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_an_error_comes_when_its_part_is_asked_for(device: torch.device) -> None:
    def load(part: int) -> int:
        if part == 3:
            raise ValueError("the fourth is broken")
        return part

    batches = ahead(load, range(10), device)
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the fourth"):
        next(batches)
