"""Device and number format are chosen from what the machine shows."""

from __future__ import annotations

import math

import pytest
import torch

from autotl.compute import device
from autotl.compute.device import (
    GAIN_NEEDED,
    Speed,
    compute,
    measure_device,
    pick_device,
    precision_here,
    use_allowed_cores,
    use_device,
    use_gpus,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(("available", "kind"), [(True, "cuda"), (False, "cpu")])
def test_a_gpu_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch, available: bool, kind: str) -> None:
    monkeypatch.setattr(device, "_only_cpus", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert pick_device().type == kind


def test_a_worker_that_was_promised_a_gpu_and_sees_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_only_cpus", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(RuntimeError, match=r"promised a GPU and sees none \(CUDA_VISIBLE_DEVICES: 3\)"):
        use_gpus(0.5)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    use_gpus(0.5)


def test_without_a_planned_gpu_none_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_only_cpus", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    use_gpus(0.0)
    assert pick_device().type == "cpu"
    use_gpus(1.0)
    assert pick_device().type == "cuda"


@pytest.mark.parametrize(("name", "kind"), [("auto", "cuda"), ("cpu", "cpu"), ("cuda", "cuda")])
def test_models_run_where_it_was_asked_for(monkeypatch: pytest.MonkeyPatch, name: str, kind: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device, "_only_cpus", name != "cpu")
    use_device(name)
    assert pick_device().type == kind


@pytest.mark.parametrize(("allowed", "threads"), [(1, 1), (64, 3)])
def test_torch_has_no_more_threads_than_there_are_allowed_cores(
    monkeypatch: pytest.MonkeyPatch, allowed: int, threads: int
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(device, "local_cpus", lambda: allowed)
    try:
        torch.set_num_threads(3)
        use_allowed_cores()
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)]
)
def test_compute_runs_in_the_precision_asked_for(precision: device.Precision, dtype: torch.dtype) -> None:
    layer, x = torch.nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8)
    with compute(CPU, precision):
        assert layer(x).dtype == dtype
    assert layer(x).dtype == torch.float32


@pytest.mark.parametrize(("precision", "fast"), [("bf16", True), ("fp32", False)])
def test_compute_trains_depthwise_convolutions_fast_in_bfloat16(precision: device.Precision, fast: bool) -> None:
    layer, x = torch.nn.Conv2d(4, 4, 5, groups=4, bias=False), torch.randn(1, 4, 8, 8)
    with compute(CPU, precision):
        output = layer(x)
    assert (type(output.grad_fn).__name__ == "_DepthwiseBackward") == fast


def test_compute_is_left_when_an_error_passes() -> None:
    with pytest.raises(RuntimeError, match="passing"), compute(CPU, "bf16"):
        raise RuntimeError("passing")
    assert not torch.is_autocast_enabled("cpu")


def test_bfloat16_has_to_be_worth_its_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"fp32": 1.0}
    monkeypatch.setattr(device, "_best_seconds", lambda: seconds)
    seconds["bf16"] = 0.99 / GAIN_NEEDED
    assert measure_device(CPU).precision == "bf16"
    seconds["bf16"] = 1.01 / GAIN_NEEDED
    assert measure_device(CPU).precision == "fp32"


def test_precision_of_this_machine_is_one_of_two() -> None:
    assert measure_device(CPU).precision in ("bf16", "fp32")


@pytest.mark.parametrize(
    ("supported", "capability", "precision"),
    [(True, (9, 0), "bf16"), (False, (7, 5), "fp16"), (False, (7, 0), "fp16"), (False, (6, 1), "fp32")],
)
def test_a_gpu_is_asked_whether_it_has_bfloat16_or_tensor_cores(
    monkeypatch: pytest.MonkeyPatch, supported: bool, capability: tuple[int, int], precision: str
) -> None:
    def is_bf16_supported(including_emulation: bool = True) -> bool:
        return supported or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert measure_device(torch.device("cuda")) == Speed(precision, math.inf)


@pytest.mark.parametrize(
    ("kind", "planned", "precision"),
    [("cpu", "bf16", "bf16"), ("cpu", "fp32", "fp32"), ("cpu", "fp16", "fp32"), ("cuda", "fp32", "fp16")],
)
def test_a_worker_computes_in_what_its_own_device_is_fast_in(
    monkeypatch: pytest.MonkeyPatch, kind: str, planned: device.Precision, precision: str
) -> None:
    monkeypatch.setattr(device, "pick_device", lambda: torch.device(kind))
    monkeypatch.setattr(device, "_gpu_precision", lambda: "fp16")
    assert precision_here(planned) == precision


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_on_a_gpu_nothing_intercepts_torchs_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "FastDepthwise", lambda: pytest.fail("it is for CPUs"))
    with compute(torch.device("cuda"), "bf16"):
        pass
