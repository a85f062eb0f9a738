"""Depthwise convolutions that train fast in bfloat16 on CPUs.

oneDNN's bfloat16 backward passes of depthwise convolutions fall back to reference code in two cases, which then
take most of a training step: the weight gradient of kernels more than 3 wide, and the input gradient at stride 2.
(32 images of 672 x 14 x 14, kernel 5, one core of a CPU with AVX-512 BF16: forward and backward pass take 126 ms, at
stride 2 291 ms.) Both have a cheap detour: the weight gradient is put together from kernels 3 wide, and the input
gradient is a forward pass (17 ms and 12 ms in all). `benchmarks/throughput.py depthwise` measures it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

PIECE = 3
"""Width of the kernels whose weight gradient is fast; they may be of any height."""


def weight_gradient(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: Sequence[int], padding: Sequence[int]
) -> torch.Tensor:
    """Gradient of a depthwise convolution's weight, from pieces at most 3 wide.

    Args:
        gradient: of the output, shape (n, channels, rows, columns).
        x: the input, shape (n, channels, height, width).
        weight: shape (channels, 1, k, l).
        stride, padding: of the convolution, for rows and columns.

    Returns:
        Shape and type of `weight`.
    """
    channels, _, height, width = weight.shape
    if width <= PIECE:
        return _native_weight_gradient(gradient, x, weight, stride, padding)
    padded = F.pad(x, (padding[1], padding[1])) if padding[1] else x
    result = torch.empty_like(weight)
    for left in range(0, width, PIECE):
        piece = weight.new_empty((channels, 1, height, min(PIECE, width - left)))
        right = left + (gradient.shape[3] - 1) * stride[1] + piece.shape[3]
        window = padded[:, :, :, left:right].contiguous(memory_format=torch.channels_last)
        result[:, :, :, left : left + piece.shape[3]] = _native_weight_gradient(
            gradient, window, piece, stride, [padding[0], 0]
        )
    return result


def _native_weight_gradient(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: Sequence[int], padding: Sequence[int]
) -> torch.Tensor:
    result: torch.Tensor = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, [1, 1], False, [0, 0], len(weight), [False, True, False]
    )[1]
    return result


def input_gradient(
    gradient: torch.Tensor, weight: torch.Tensor, shape: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> torch.Tensor:
    """Gradient of a depthwise convolution's input: what the mirrored kernel makes of the gradient, spread with zeros.

    Args:
        gradient: of the output, shape (n, channels, rows, columns).
        weight: shape (channels, 1, k, l).
        shape: of the input, (n, channels, height, width).
        stride, padding: of the convolution, for rows and columns; no padding as large as the kernel.

    Returns:
        Shape `shape`, type of `gradient`.
    """
    channels, _, *kernel = weight.shape
    n, _, *size = shape
    margin = [kernel[axis] - 1 - padding[axis] for axis in (0, 1)]
    spread = [size[axis] + 2 * padding[axis] - kernel[axis] + 1 for axis in (0, 1)]
    if list(gradient.shape[2:]) != spread:
        zeros = gradient.new_zeros((n, *spread, channels)).permute(0, 3, 1, 2)
        zeros[:, :, :: stride[0], :: stride[1]][:, :, : gradient.shape[2], : gradient.shape[3]] = gradient
        gradient = zeros
    return F.conv2d(gradient, weight.flip(2, 3), None, 1, margin, 1, channels)


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
        if ctx.needs_input_grad[0]:
            into_input = input_gradient(gradient, weight, x.shape, stride, padding)
        if ctx.needs_input_grad[1]:
            into_weight = weight_gradient(gradient, x, weight, stride, padding)
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
    detour = max(strides) > 1 or weight.shape[3] > PIECE
    trained = input.requires_grad or weight.requires_grad
    # No model pads by a whole kernel: the rims of its output would see nothing but padding.
    fits = all(pad < side for pad, side in zip(paddings, weight.shape[2:], strict=True))
    if dtype != torch.bfloat16 or _pair(dilation) != (1, 1) or not (detour and trained and fits):
        return None
    return input.to(dtype), weight.to(dtype), bias, strides, paddings


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
