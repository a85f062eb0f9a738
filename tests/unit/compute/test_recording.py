"""What runs on a GPU is recorded after some calls, and replayed where it fits. The recording itself needs a GPU."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from autotl.compute import recording
from autotl.compute.recording import WARM_UP, Replayed, new_pool

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def twice(tensor: torch.Tensor) -> torch.Tensor:
    return 2 * tensor


class FakeRecording:
    """Replays what was recorded for tensors of one shape, and marks it with a sign."""

    def __init__(self, function: recording.Function, inputs: tuple[torch.Tensor, ...], pool: Any) -> None:
        self.function, self.shape, self.pool = function, inputs[0].shape, pool

    def fits(self, inputs: tuple[torch.Tensor, ...]) -> bool:
        return inputs[0].shape == self.shape

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        return -self.function(tensor)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recordings are fake."""
    monkeypatch.setattr(recording, "_beside", lambda device: nullcontext())
    monkeypatch.setattr(recording, "_Recording", FakeRecording)


def test_on_a_cpu_a_function_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_record", lambda *arguments: pytest.fail("there is nothing to record"))
    replayed = Replayed(twice, CPU, before=lambda tensor: 3 * tensor)
    assert [replayed(torch.tensor([1.0])).item() for _ in range(WARM_UP + 2)] == [3.0] * (WARM_UP + 2)
    assert not replayed.is_recorded
    assert new_pool(CPU) is None


@pytest.mark.usefixtures("gpu")
def test_on_a_gpu_it_is_replayed_after_the_warm_up() -> None:
    replayed = Replayed(twice, CUDA, before=lambda tensor: 3 * tensor)
    values = [replayed(torch.tensor([float(call)])).item() for call in range(WARM_UP + 2)]
    assert values == [0.0, 3.0, 6.0, -6.0, -8.0]
    assert replayed.is_recorded


@pytest.mark.usefixtures("gpu")
def test_other_shapes_than_were_recorded_are_computed_as_before() -> None:
    replayed = Replayed(twice, CUDA)
    for _ in range(WARM_UP):
        replayed(torch.ones(1))
    assert replayed(torch.ones(2)).tolist() == [2.0, 2.0]
    assert replayed(torch.ones(1)).tolist() == [-2.0]


@pytest.mark.usefixtures("gpu")
def test_what_cannot_be_recorded_is_called_as_before_and_that_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(recording, "_Recording", refuse)
    replayed = Replayed(twice, CUDA)
    with pytest.warns(UserWarning, match="launched one by one: operation not permitted") as said:
        values = [replayed(torch.ones(1)).item() for _ in range(WARM_UP + 3)]
    assert values == [2.0] * (WARM_UP + 3)
    assert len(said) == 1
    assert not replayed.is_recorded
