"""Where and in which number format models run: measured on the machine, not guessed."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from autotl.compute.depthwise import FastDepthwise
from autotl.threads import local_cpus

Precision = Literal["bf16", "fp16", "fp32"]
"""What trials compute in: bfloat16 where it is fast, float16 with scaled gradients on GPUs that do not have it."""
TENSOR_CORES = (7, 0)
"""CUDA's compute capability from which float16 is several times as fast as float32."""
ROUNDS = 6
IMAGES, CHANNELS, SIDE, WIDER = 8, 96, 28, 4
"""Of the inverted bottleneck that is timed: images, channels, side in pixels, and how much wider its middle is."""
MULTIPLICATIONS = IMAGES * SIDE**2 * WIDER * CHANNELS * (2 * CHANNELS + 9)
GAIN_NEEDED = 1.15
"""bfloat16 has to be so many times faster than float32 to be worth its rounding."""


_only_cpus = False
"""Whether this process leaves GPUs alone, see `use_device` and `use_gpus`."""


def pick_device() -> torch.device:
    """A GPU where this process sees one and may use it, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() and not _only_cpus else "cpu")


def use_device(name: str) -> None:
    """Compute on a device from now on.

    Args:
        name: one of `autotl.settings.DEVICES`. That "cuda" is here has been checked.
    """
    global _only_cpus
    _only_cpus = name == "cpu"


def use_gpus(gpus: float) -> None:
    """Make sure that this process computes where it was planned to.

    Args:
        gpus: that were planned; with 0 those that there are, are left alone.

    Raises:
        RuntimeError: if a GPU was planned and there is none to be seen: on its CPUs a trial would take hours.
    """
    global _only_cpus
    _only_cpus = not gpus
    if gpus and not torch.cuda.is_available():
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        raise RuntimeError(f"this worker was promised a GPU and sees none (CUDA_VISIBLE_DEVICES: {seen})")


def use_allowed_cores() -> None:
    """Let torch compute with no more threads than this process may use cores; by itself it takes all of the machine."""
    torch.set_num_threads(min(torch.get_num_threads(), local_cpus()))


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on a device; to a GPU by way of pinned memory, so that the copy runs beside the computation."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@contextmanager
def compute(device: torch.device, precision: Precision) -> Iterator[None]:
    """Run what is inside in `precision`, on CPUs with fast depthwise convolutions."""
    with ExitStack() as stack:
        if precision != "fp32":
            number_format = torch.bfloat16 if precision == "bf16" else torch.float16
            stack.enter_context(torch.autocast(device.type, dtype=number_format))
        if precision == "bf16" and device.type == "cpu":
            stack.enter_context(FastDepthwise())
        yield


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a device computes.

    Attributes:
        precision: the fastest number format that trains well.
        multiplications: a second on one core, in float32; infinite on a GPU, which nothing here has to wait for.
    """

    precision: Precision
    multiplications: float


def measure_device(device: torch.device) -> Speed:
    """Whether bfloat16 is faster than float32 here, and how fast that is, by timing convolutions for half a second."""
    if device.type == "cuda":
        return Speed(_gpu_precision(), math.inf)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for one another measure what else the machine is doing
    try:
        seconds = _best_seconds()
    finally:
        torch.set_num_threads(threads)
    faster: Precision = "bf16" if seconds["bf16"] * GAIN_NEEDED < seconds["fp32"] else "fp32"
    return Speed(faster, MULTIPLICATIONS / seconds["fp32"])


def precision_here(planned: Precision) -> Precision:
    """What a worker computes in: its GPU need not be that of the driver, which may have none.

    Args:
        planned: by the driver, for its own device.
    """
    if pick_device().type == "cuda":
        return _gpu_precision()
    return "fp32" if planned == "fp16" else planned


def _gpu_precision() -> Precision:
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    return "fp16" if torch.cuda.get_device_capability() >= TENSOR_CORES else "fp32"


def _best_seconds() -> dict[Precision, float]:
    """The fastest of several passes through an inverted bottleneck in each format, taken in turn."""
    x = torch.randn(IMAGES, CHANNELS, SIDE, SIDE).to(memory_format=torch.channels_last)
    wide = WIDER * CHANNELS
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(CHANNELS, wide, 1),
        torch.nn.Conv2d(wide, wide, 3, padding=1, groups=wide),
        torch.nn.Conv2d(wide, CHANNELS, 1),
    ).to(memory_format=torch.channels_last)
    best: dict[Precision, float] = {"bf16": math.inf, "fp32": math.inf}
    for _ in range(ROUNDS):
        for precision in best:
            with torch.inference_mode(), compute(x.device, precision):
                start = time.thread_time()  # not wall time: other programs are not measured
                layers(x)
                best[precision] = min(best[precision], time.thread_time() - start)
    return best
