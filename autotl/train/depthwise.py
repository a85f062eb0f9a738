"""Depthwise convolutions that train fast in bfloat16 on CPUs.

oneDNN's bfloat16 backward passes of depthwise convolutions fall back to reference code in two cases, which then
take most of a training step: the weight gradient of kernels larger than 3 x 3, and the input gradient at stride 2.
(32 images of 672 x 14 x 14, kernel 5, one core of a CPU with AVX-512 BF16: 138 ms and 225 ms, where the forward
pass takes 2.) Both have a cheap detour: a 5 x 5 weight gradient is put together from four 3 x 3 ones on shifted
inputs (18 ms), and the strided input gradient is taken in float32 (4 ms). `benchmarks/throughput.py` measures it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

PIECE = 3
"""Side of the kernels whose weight gradient is fast."""


def weight_gradient(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: Sequence[int], padding: Sequence[int]
) -> torch.Tensor:
    """Gradient of a depthwise convolution's weight, from pieces of 3 x 3.

    Args:
        gradient: of the output, shape (n, channels, rows, columns).
        x: the input, shape (n, channels, height, width).
        weight: shape (channels, 1, k, k) with k >= 3.
        stride, padding: of the convolution, for rows and columns.

    Returns:
        Shape and type of `weight`.
    """
    channels, _, *kernel = weight.shape
    rows, columns = gradient.shape[2:]
    padded = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    piece = weight.new_empty((channels, 1, PIECE, PIECE))
    result = torch.empty_like(weight)
    for top in _starts(kernel[0]):
        for left in _starts(kernel[1]):
            bottom, right = top + (rows - 1) * stride[0] + PIECE, left + (columns - 1) * stride[1] + PIECE
            window = padded[:, :, top:bottom, left:right].contiguous(memory_format=torch.channels_last)
            result[:, :, top : top + PIECE, left : left + PIECE] = torch.ops.aten.convolution_backward(
                gradient, window, piece, None, stride, [0, 0], [1, 1], False, [0, 0], channels, [False, True, False]
            )[1]
    return result


def _starts(side: int) -> list[int]:
    """Where pieces start so that they cover `side`; the last one may overlap the one before."""
    return sorted({min(start, side - PIECE) for start in range(0, side, PIECE)})


def _native_gradients(
    gradient: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    needed: list[bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    into_input, into_weight, _ = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, [1, 1], False, [0, 0], len(weight), [*needed, False]
    )
    return into_input, into_weight


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, stride: tuple[int, int], padding: tuple[int, int]
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = stride, padding
        return F.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        stride, padding = ctx.geometry
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        into_input = into_weight = None
        if ctx.needs_input_grad[0] and max(stride) > 1:
            single = gradient.float(), x.float(), weight.float()
            wide, _ = _native_gradients(*single, stride, padding, [True, False])
            into_input = None if wide is None else wide.to(x.dtype)
        elif ctx.needs_input_grad[0]:
            into_input, _ = _native_gradients(gradient, x, weight, stride, padding, [True, False])
        if ctx.needs_input_grad[1] and min(weight.shape[2:]) > PIECE:
            into_weight = weight_gradient(gradient, x, weight, stride, padding)
        elif ctx.needs_input_grad[1]:
            _, into_weight = _native_gradients(gradient, x, weight, stride, padding, [False, True])
        return into_input, into_weight, None, None


class FastDepthwise(TorchFunctionMode):
    """While active, slow bfloat16 depthwise convolutions on the CPU take the detours; all else is untouched."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d or func is F.conv2d:
            call = _slow_call(*args, **kwargs)
            if call is not None:
                x, weight, bias, stride, padding = call
                output = _Depthwise.apply(x, weight, stride, padding)
                return output if bias is None else output + bias.to(output.dtype).view(1, -1, 1, 1)
        return func(*args, **kwargs)


_Call = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, tuple[int, int], tuple[int, int]]


def _slow_call(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> _Call | None:
    """The arguments of a convolution that is slow to train here, in the type it would be computed in, or None."""
    depthwise = groups > 1 and groups == input.shape[1] == weight.shape[0] and weight.shape[1] == 1
    if not depthwise or isinstance(padding, str) or input.device.type != "cpu" or not torch.is_grad_enabled():
        return None
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
    strides, paddings = _pair(stride), _pair(padding)
    detour = max(strides) > 1 or min(weight.shape[2:]) > PIECE
    trained = input.requires_grad or weight.requires_grad
    if dtype != torch.bfloat16 or _pair(dilation) != (1, 1) or not detour or not trained:
        return None
    return input.to(dtype), weight.to(dtype), bias, strides, paddings


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
