"""Fast depthwise convolutions have the gradients of the native ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from autotl.compute.depthwise import FastDepthwise, input_gradient, weight_gradient

DETOUR = "_DepthwiseBackward"


def tensors(kernel: tuple[int, int], size: tuple[int, int] = (13, 12)) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(3, 8, *size), torch.randn(8, 1, *kernel) / 5


def gradients(x: torch.Tensor, weight: torch.Tensor, fast: bool, **geometry: Any) -> tuple[torch.Tensor, ...]:
    """Output and gradients of input and weight, in float32, for a loss whose gradient is a fixed pattern."""
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    if fast:
        with FastDepthwise():
            output = F.conv2d(x, weight, groups=len(weight), **geometry)
        assert type(output.grad_fn).__name__ == DETOUR
    else:
        output = F.conv2d(x, weight, groups=len(weight), **geometry)
    pattern = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output.dtype)
    output.backward(pattern)
    return output.detach().float(), x.grad.float(), weight.grad.float()


GEOMETRIES = [
    ((5, 5), 1, 2),
    ((5, 5), 2, 2),
    ((7, 7), 1, 3),
    ((7, 7), 2, 3),
    ((4, 4), 1, 0),
    ((5, 7), (2, 1), (2, 3)),
    ((9, 9), 2, 4),
    ((3, 5), (1, 3), (2, 0)),
    ((5, 8), (3, 1), (0, 7)),
]


@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
@pytest.mark.parametrize("size", [(13, 12), (16, 17)])
def test_gradients_are_the_native_float32_ones(
    kernel: tuple[int, int], stride: Any, padding: Any, size: tuple[int, int]
) -> None:
    x, weight = (tensor.requires_grad_() for tensor in tensors(kernel, size))
    output = F.conv2d(x, weight, None, stride, padding, 1, len(weight))
    gradient = torch.randn_like(output)
    output.backward(gradient)
    pair = [(value, value) if isinstance(value, int) else value for value in (stride, padding)]
    with torch.no_grad():
        into_weight = weight_gradient(gradient, x, weight, *pair)
        into_input = input_gradient(gradient, weight, x.shape, *pair)
    torch.testing.assert_close(into_weight, weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(into_input, x.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [*GEOMETRIES, ((3, 3), 2, 1), ((5, 3), 2, (2, 1))])
def test_bfloat16_gradients_are_close_to_the_native_ones(kernel: tuple[int, int], stride: Any, padding: Any) -> None:
    x, weight = (tensor.bfloat16() for tensor in tensors(kernel))
    geometry = {"stride": stride, "padding": padding}
    fast = gradients(x, weight, True, **geometry)
    native = gradients(x, weight, False, **geometry)
    exact = gradients(x.float(), weight.float(), False, **geometry)
    for found, rounded, wanted in zip(fast, native, exact, strict=True):
        torch.testing.assert_close(found, rounded, rtol=2e-2, atol=2e-2 * float(wanted.abs().max()))
        # Nothing but rounding separates it from float32: 8 bits of mantissa.
        assert float((found - wanted).norm() / wanted.norm()) < 2**-7


def test_channels_last_inputs_have_the_same_gradients() -> None:
    x, weight = (tensor.bfloat16() for tensor in tensors((5, 5)))
    plain = gradients(x, weight, True, padding=2)
    last = gradients(x.to(memory_format=torch.channels_last), weight, True, padding=2)
    for found, wanted in zip(last, plain, strict=True):
        torch.testing.assert_close(found, wanted, rtol=2e-2, atol=2e-2 * float(wanted.abs().max()))


def test_layers_under_autocast_take_the_detour_and_train_float32_weights() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(8, 8, 5, padding=2, groups=8)
    x = torch.randn(2, 8, 9, 9)
    found = {}
    for fast in (True, False):
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            if fast:
                with FastDepthwise():
                    output = layer(x)
            else:
                output = layer(x)
        output.float().square().sum().backward()
        found[fast] = output.float().detach(), layer.weight.grad.clone(), layer.bias.grad.clone()
    assert layer.weight.grad.dtype == torch.float32
    for fast, exact in zip(found[True], found[False], strict=True):
        assert float((fast - exact).norm() / exact.norm()) < 2e-2


def test_an_input_that_needs_no_gradient_gets_none() -> None:
    x, weight = (tensor.bfloat16() for tensor in tensors((5, 5)))
    weight.requires_grad_()
    with FastDepthwise():
        F.conv2d(x, weight, padding=2, groups=8).sum().backward()
    assert x.grad is None
    assert weight.grad is not None


def test_a_frozen_weight_gets_no_gradient() -> None:
    x, weight = (tensor.bfloat16() for tensor in tensors((3, 3)))
    x.requires_grad_()
    with FastDepthwise():
        F.conv2d(x, weight, stride=2, padding=1, groups=8).sum().backward()
    assert weight.grad is None
    assert x.grad is not None


@pytest.mark.parametrize(
    ("dtype", "kernel", "geometry"),
    [
        (torch.float32, 5, {"groups": 8, "padding": 2}),
        (torch.bfloat16, 3, {"groups": 8, "padding": 1}),
        (torch.bfloat16, 5, {"groups": 8, "dilation": 2}),
        (torch.bfloat16, 5, {"groups": 8, "padding": "same"}),
        (torch.bfloat16, 5, {"groups": 8, "stride": 2, "padding": 5}),
    ],
)
def test_other_depthwise_convolutions_are_untouched(dtype: torch.dtype, kernel: int, geometry: dict[str, Any]) -> None:
    x, weight = (tensor.to(dtype).requires_grad_() for tensor in tensors((kernel, kernel)))
    with FastDepthwise():
        output = F.conv2d(x, weight, **geometry)
    assert type(output.grad_fn).__name__ != DETOUR
    torch.testing.assert_close(output, F.conv2d(x, weight, **geometry))


def test_dense_convolutions_are_untouched() -> None:
    x = torch.randn(2, 8, 9, 9, dtype=torch.bfloat16)
    layer = torch.nn.Conv2d(8, 8, 5, stride=2).bfloat16()
    with FastDepthwise():
        output = layer(x)
    assert type(output.grad_fn).__name__ != DETOUR
    torch.testing.assert_close(output, layer(x))


def test_evaluation_is_untouched() -> None:
    x, weight = (tensor.bfloat16() for tensor in tensors((5, 5)))
    weight.requires_grad_()
    with FastDepthwise(), torch.no_grad():
        output = F.conv2d(x, weight, padding=2, groups=8)
    assert output.grad_fn is None
    torch.testing.assert_close(output, F.conv2d(x, weight, padding=2, groups=8).detach())


def test_outside_the_mode_nothing_changes() -> None:
    x, weight = (tensor.bfloat16().requires_grad_() for tensor in tensors((5, 5)))
    with FastDepthwise():
        pass
    assert type(F.conv2d(x, weight, padding=2, groups=8).grad_fn).__name__ != DETOUR
