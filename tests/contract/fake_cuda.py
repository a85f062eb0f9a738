"""A GPU that is not there: tensors on "cuda" have shapes and no values, and torch refuses to mix devices as ever."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from autotl.compute import ahead, device, recording, residence
from autotl.frozen import activations
from autotl.models import weights
from autotl.storage import saved_model

FILES = (weights, "load_file"), (weights, "save_file"), (saved_model, "load"), (saved_model, "save")


def _numpy(tensor: torch.Tensor, *arguments: Any, **options: Any) -> np.ndarray:
    """Zeros in the place of values; a tensor on a GPU has no array, as ever."""
    if tensor.device.type != "cpu":
        raise TypeError(f"can't convert {tensor.device} device type tensor to numpy")
    return np.zeros(tuple(tensor.shape), dtype=torch.empty(0, dtype=tensor.dtype, device="meta").dtype.__str__()[6:])


def _moved(module: torch.nn.Module, *arguments: Any, **options: Any) -> torch.nn.Module:
    """Modules cannot swap their parameters for fake ones: they get new ones."""
    target = next((one for one in (*arguments, *options.values()) if isinstance(one, str | torch.device)), None)
    if target is None:
        return module
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                moved = torch.empty(parameter.shape, dtype=parameter.dtype, device=target)
                part._parameters[name] = torch.nn.Parameter(moved, requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=target)
    return module


def _for_real(function: Callable[..., Any]) -> Callable[..., Any]:
    """Files hold values: what reads them makes real tensors, on the CPU, and what writes them writes zeros."""

    def outside(tensors: Any, *arguments: Any) -> Any:
        with unset_fake_temporarily():
            if isinstance(tensors, dict):
                tensors = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in tensors.items()}
            return function(tensors, *arguments)

    return outside


class _Here:
    """An executor whose work is done at once, in this thread: the mode is one thread's."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def map(self, function: Callable[..., Any], parts: Iterable[Any]) -> Iterator[Any]:
        return map(function, parts)

    def submit(self, function: Callable[..., Any], part: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(function(part))
        return done


@contextmanager
def fake_cuda(*modules: Any, room: int = 2**30) -> Iterator[None]:
    """Everything inside runs on a GPU without values.

    Args:
        room: bytes of arrays that may stay there.
        modules: those that imported `pick_device` by name.
    """
    cuda = torch.device("cuda")
    with ExitStack() as stack:
        for module in (device, *modules):
            stack.enter_context(mock.patch.object(module, "pick_device", return_value=cuda))
        stack.enter_context(mock.patch.object(torch.Tensor, "numpy", _numpy))
        stack.enter_context(mock.patch.object(torch.Tensor, "pin_memory", lambda tensor: tensor))
        for name, value in (("__float__", 0.0), ("__int__", 0), ("__bool__", False), ("item", 0.0)):
            stack.enter_context(mock.patch.object(torch.Tensor, name, lambda tensor, value=value: value))
        stack.enter_context(mock.patch.object(torch.nn.Module, "to", _moved))
        for module, name in FILES:
            stack.enter_context(mock.patch.object(module, name, _for_real(getattr(module, name))))
        stack.enter_context(mock.patch.object(activations, "ThreadPoolExecutor", _Here))
        stack.enter_context(mock.patch.object(ahead, "ThreadPoolExecutor", _Here))
        stack.enter_context(mock.patch.object(residence, "room_on", return_value=room))
        stack.enter_context(
            mock.patch.object(residence, "_pinned", lambda shape, dtype: torch.empty(shape, dtype=dtype))
        )
        stack.enter_context(mock.patch.object(recording, "_beside", return_value=nullcontext()))
        stack.enter_context(mock.patch.object(recording, "_record", return_value=None))
        stack.enter_context(mock.patch.object(torch.cuda, "graph_pool_handle"))
        stack.enter_context(mock.patch.object(torch.cuda, "synchronize"))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield
