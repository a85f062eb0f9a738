"""Arrays stay on a device as far as there is room."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autotl.compute import residence
from autotl.compute.residence import SHARE, Residence, room_on, rows_on

CPU = torch.device("cpu")
ARRAY = np.arange(60, dtype=np.int16).reshape(10, 2, 3)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for two arrays and a half, in the place of a GPU's memory."""
    monkeypatch.setattr(residence, "room_on", lambda device, share: int(2.5 * ARRAY.nbytes))


def test_a_cpu_holds_nothing_twice() -> None:
    assert room_on(CPU, 1.0) == 0
    assert Residence(CPU, 1.0).take(ARRAY) is None


@pytest.mark.parametrize(("free", "share", "expected"), [(500, 1.0, 500), (900, 0.5, 500), (2000, 1.0, 1000)])
def test_a_gpu_gives_a_share_of_what_is_free_and_of_the_trials_part(
    monkeypatch: pytest.MonkeyPatch, free: int, share: float, expected: int
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 1000))
    assert room_on(torch.device("cuda"), share) == int(SHARE * expected)


@pytest.mark.usefixtures("room")
@pytest.mark.parametrize("piece", [1, 30, 10**6])
def test_an_array_is_copied_whole(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(residence, "PIECE_BYTES", piece)
    tensor = Residence(CPU, 1.0).take(ARRAY)
    assert tensor is not None
    np.testing.assert_array_equal(tensor.numpy(), ARRAY)


@pytest.mark.usefixtures("room")
def test_what_does_not_fit_stays_away() -> None:
    there = Residence(CPU, 1.0)
    assert [there.take(ARRAY) is not None for _ in range(3)] == [True, True, False]
    assert there.reserve((10, 3), torch.int16) is not None  # half as large
    assert there.reserve((0, 3), torch.int16) is None


@pytest.mark.usefixtures("room")
def test_where_memory_runs_out_nothing_more_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    there, tried = Residence(CPU, 1.0), []

    def full(*arguments: object, **options: object) -> torch.Tensor:
        tried.append(arguments)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "empty", full)
    assert [there.reserve((10, 3), torch.int16) for _ in range(2)] == [None, None]
    assert len(tried) == 1


def test_rows_come_in_the_order_asked_for() -> None:
    np.testing.assert_array_equal(rows_on(ARRAY, np.array([3, 0, 3]), CPU).numpy(), ARRAY[[3, 0, 3]])
