"""A GPU's work recorded once and replayed: small kernels take longer to launch one by one than to run.

See "CUDA Graphs" in torch's notes on CUDA semantics. What is recorded does the same to the same memory in every call:
no value may decide what runs, and sizes must not change.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

WARM_UP = 3
"""Calls before the recording, in which libraries choose their kernels and an optimiser makes its state."""

Function = Callable[..., torch.Tensor]


def new_pool(device: torch.device) -> Any:
    """Memory for recordings on a GPU; None for a CPU."""
    return torch.cuda.graph_pool_handle() if device.type == "cuda" else None


class Replayed:
    """A function of tensors that is recorded after some calls on a GPU, and from then on replayed.

    Args:
        function: gives a tensor. What it does depends on its arguments and on tensors that stay where they are alone.
        device: on a CPU it is always called.
        before: what is called until the recording, if not the same function.
        pool: memory for the recording, from `new_pool`. Several may share it, if none replays while another does.
    """

    def __init__(
        self, function: Function, device: torch.device, before: Function | None = None, pool: Any = None
    ) -> None:
        self._function, self._before = function, before or function
        self._device, self._pool = device, pool
        self._calls = 0
        self._recording: _Recording | None = None

    @property
    def is_recorded(self) -> bool:
        """Whether calls with these shapes are replayed from now on."""
        return self._recording is not None

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """What the function gives for tensors on the device. Those of other shapes than were recorded are no error."""
        if self._device.type != "cuda":
            return self._before(*inputs)
        if self._recording is not None and self._recording.fits(inputs):
            return self._recording(*inputs)
        with _beside(self._device):
            output = self._before(*inputs)
        self._calls += 1
        if self._calls == WARM_UP:
            self._recording = _record(self._function, inputs, self._pool)
        return output


@contextmanager
def _beside(device: torch.device) -> Iterator[None]:
    """Run what is inside in a stream of its own, after and before all else, as calls before a recording have to."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)


class _Recording:
    """The kernels of a function, recorded in the constructor; a call replays them on other values.

    Raises:
        RuntimeError: if something in it cannot be recorded, or memory runs out.
    """

    def __init__(self, function: Function, inputs: tuple[torch.Tensor, ...], pool: Any) -> None:
        self._inputs = tuple(tensor.clone() for tensor in inputs)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may go on allocating pinned memory.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._output = function(*self._inputs)

    def fits(self, inputs: tuple[torch.Tensor, ...]) -> bool:
        """Whether inputs have the shapes of those recorded."""
        return [tensor.shape for tensor in inputs] == [tensor.shape for tensor in self._inputs]

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """What the function gives for `inputs`, which have to fit."""
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._output.clone()


def _record(function: Function, inputs: tuple[torch.Tensor, ...], pool: Any) -> _Recording | None:
    """A recording, or None where the function cannot be recorded: it is called as before."""
    try:
        return _Recording(function, inputs, pool)
    except RuntimeError as error:
        warnings.warn(f"a GPU's kernels are launched one by one: {error}", stacklevel=3)
        return None
