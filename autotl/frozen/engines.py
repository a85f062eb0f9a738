"""The frozen forward pass: several ways to run a model that does not train, and the choice of the fastest exact one.

Nothing is assumed about the machine: every way is timed on the user's own images and compared with float32 on torch.
One whose outputs differ by more than `TOLERANCE` is not used, however fast (bfloat16 is off by 3 to 4% on
EfficientNet-Lite0's embeddings). OpenVINO is an optional package (`pip install autotl[cpu]`); converting a model takes
seconds, so it is done only where the images to come are worth it, and kept in the cache.
"""

from __future__ import annotations

import time
import warnings
import zipfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch

from autotl.compute.device import Precision, compute
from autotl.compute.memory import give_back_memory
from autotl.frozen.openvino import OpenVinoModel, conversion_key, convert, has_openvino
from autotl.frozen.stages import StagedForward, StageTaps, output_alone
from autotl.models.backbone import Backbone
from autotl.models.partition import Partition, boundaries
from autotl.storage.cache import DiskCache

Forward = Callable[[torch.Tensor], torch.Tensor]
Clock = Callable[[], float]
Out = TypeVar("Out")

TOLERANCE = 0.01
"""Largest relative difference to float32 on torch, in the Euclidean norm."""
CONVERSION_SECONDS = 4.0
"""What converting a small backbone takes; it has to save more than that."""
EXPECTED_GAIN = 1.4
"""How many times OpenVINO is faster than float32 on torch; only to decide whether converting is worth a try."""
COMPILE_SECONDS = 40.0
"""What torch.compile takes for a backbone, also only to decide whether it is worth a try."""
COMPILER: str | Callable[..., Any] = "inductor"
ROUNDS = 3

Format = Literal["fp32", "fp16", "bf16"]


@dataclass(frozen=True, slots=True)
class Measured:
    """One way to run a frozen model.

    Attributes:
        name: such as "torch-fp32", "torch-fp16-compiled" or "openvino-fp32".
        forward: takes normalised images in channels_last, gives what the model gives. May be called from several
            threads at once.
        images_per_second: one batch at a time.
        error: relative difference to "torch-fp32".
        workers: calls to make at once, each on a core of its own; a single one takes all cores.
    """

    name: str
    forward: Forward
    images_per_second: float
    error: float
    workers: int = 1


def choose(
    candidates: Sequence[tuple[str, Forward]],
    batch: torch.Tensor,
    clock: Clock = time.perf_counter,
    rounds: int = ROUNDS,
) -> tuple[Measured, tuple[Measured, ...]]:
    """Time every candidate on a batch and take the fastest of those that are exact enough.

    Args:
        candidates: names and functions; the first is the reference.
        batch: normalised images, shape (n, 3, size, size).
        clock: what they are timed by.
        rounds: how often each is timed; the best counts.

    Returns:
        The chosen one, and all that were measured.
    """
    outputs: dict[str, torch.Tensor] = {}
    best: dict[str, float] = {}
    for _ in range(rounds):  # in turn: images that are decoded beside it, or the start of Ray, slow all of them alike
        for name, forward in candidates:
            outputs[name], seconds = _timed(forward, batch, clock)
            best[name] = min(best.get(name, seconds), seconds)
    reference = outputs[candidates[0][0]]
    norm = reference.norm().clamp_min(1e-12)
    measured = tuple(
        Measured(name, forward, len(batch) / best[name], float((outputs[name] - reference).norm() / norm))
        for name, forward in candidates
    )
    exact = [engine for engine in measured if engine.error <= TOLERANCE]
    return max(exact, key=lambda engine: engine.images_per_second), measured


def _timed(forward: Forward, batch: torch.Tensor, clock: Clock) -> tuple[torch.Tensor, float]:
    begun = clock()
    output = forward(batch).float().cpu()
    return output, clock() - begun


def fastest_embedding(
    backbone: Backbone,
    batch: torch.Tensor,
    precision: Precision,
    *,
    weights_sha256: str,
    n_images: int,
    workers: int,
    cache: DiskCache,
    whole: int | None = None,
) -> tuple[Measured, tuple[Measured, ...], Path | None, StagedForward]:
    """The fastest exact way from images to embeddings on this machine.

    Every way is timed as it will be used, with the averages at the stages' boundaries (2% of the time on
    EfficientNet-Lite0). Exactness is that of the embeddings.

    Args:
        backbone: without a classifier, on its device.
        batch: normalised images of the user's, shape (n, 3, size, size).
        precision: what trials compute in; the reference is float32 whatever it is.
        weights_sha256: stands for its weights.
        n_images: that will be embedded; decides whether a conversion is worth its time.
        workers: batches that will be embedded at once, on one core each.
        cache: where a converted model is kept.
        whole: the freeze depth whose boundary tensors are also wanted as they are; None for none.

    Returns:
        The chosen one, all that were measured, the converted model where there is one, and the chosen one as a
        function that also gives the stages' features.
    """
    taps = StageTaps(backbone.model, boundaries(backbone, batch[:2]), whole)
    staged: dict[str, StagedForward] = dict(_torch_candidates(taps, batch.device, precision))
    # On one core torch computes in this thread, whose time decoding does not change; OpenVINO has threads of its own.
    alone = batch.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    key = conversion_key(backbone.name, weights_sha256, batch.shape[-1]) if has_openvino() else None
    # Where OpenVINO may take over, torch is timed only to see whether that pays, and once is enough.
    rounds = 1 if key is not None and batch.device.type == "cpu" else ROUNDS
    candidates = [(name, output_alone(forward)) for name, forward in staged.items()]
    chosen, measured = choose(candidates, batch, clock, rounds)
    if batch.device.type == "cuda":
        if worth_converting(n_images, chosen.images_per_second, COMPILE_SECONDS):
            chosen, measured = _try_compiled(taps, chosen, measured, batch, staged)
        return chosen, measured, None, staged[chosen.name]
    if key is None or batch.device.type != "cpu":
        return chosen, measured, None, staged[chosen.name]
    if cache.get(key) is None and not worth_converting(n_images, chosen.images_per_second * workers):
        return chosen, measured, None, staged[chosen.name]
    give_back_memory()  # of measuring: converting takes as much once more
    path = convert(backbone, batch, cache, key)
    if path is None:
        return chosen, measured, None, staged[chosen.name]
    converted = OpenVinoModel(path, "output", stages=True, whole=whole, calls=workers, threads=workers)
    staged["openvino-fp32"] = converted.with_stages
    candidates = [(name, output_alone(staged[name])) for name in (chosen.name, "openvino-fp32")]
    chosen, again = choose(candidates, batch)
    return chosen, (*measured, again[-1]), path, staged[chosen.name]


def _try_compiled(
    taps: StageTaps,
    chosen: Measured,
    measured: tuple[Measured, ...],
    batch: torch.Tensor,
    staged: dict[str, StagedForward],
) -> tuple[Measured, tuple[Measured, ...]]:
    """The chosen format against itself after torch.compile; where that fails nothing changes."""
    name = f"{chosen.name}-compiled"
    number_format: Any = chosen.name.removeprefix("torch-")
    staged[name] = torch_forward(torch.compile(taps, dynamic=True, backend=COMPILER), batch.device, number_format)
    try:
        faster, again = choose([(tried, output_alone(staged[tried])) for tried in (chosen.name, name)], batch)
    except Exception as error:  # a compiler that is missing, or does not know an operation
        warnings.warn(f"torch.compile does not take this backbone: {error}", stacklevel=2)
        return chosen, measured
    return faster, (*measured, again[-1])


def fastest_prefix(
    partition: Partition, batch: torch.Tensor, precision: Precision, converted: Path | None, threads: int
) -> Measured:
    """The fastest exact way from images to the boundary of a partition, on so many threads.

    OpenVINO takes a batch a core: calls that share a batch wait for one another, and are half as fast on two cores.
    """
    chosen, _ = choose(_torch_candidates(partition.prefix, batch.device, precision), batch)
    if converted is None or batch.device.type != "cpu" or not has_openvino():
        return chosen
    # Not every depth has a boundary there, and the cache may have let the file go.
    with suppress(KeyError, OSError, zipfile.BadZipFile):
        model = OpenVinoModel(converted, f"depth-{partition.depth}", calls=threads, threads=threads)
        reference = ("torch-fp32", torch_forward(partition.prefix, batch.device, "fp32"))
        _, (_, alone) = choose([reference, ("openvino-fp32", model)], batch)
        if alone.error <= TOLERANCE and alone.images_per_second * threads > chosen.images_per_second:
            return replace(alone, workers=threads)
    return chosen


def fastest_between(partition: Partition, deeper: Partition, tensors: torch.Tensor, precision: Precision) -> Measured:
    """The fastest exact way from one boundary to a deeper one."""
    return choose(_torch_candidates(partial(partition.between, deeper), tensors.device, precision), tensors)[0]


def _torch_candidates(
    function: Callable[[torch.Tensor], Out], device: torch.device, precision: Precision
) -> list[tuple[str, Callable[[torch.Tensor], Out]]]:
    formats: list[Format] = ["fp32"]
    if device.type == "cuda":
        formats.append("fp16")  # as fast as bfloat16 there, and eight times as exact
    elif precision == "bf16":
        formats.append("bf16")
    return [(f"torch-{number}", torch_forward(function, device, number)) for number in formats]


def torch_forward(
    function: Callable[[torch.Tensor], Out], device: torch.device, number_format: Format
) -> Callable[[torch.Tensor], Out]:
    """`function` without gradients in a number format, safe to call from several threads."""

    def forward(batch: torch.Tensor) -> Out:
        with torch.inference_mode(), _computing(device, number_format):
            return function(batch)

    return forward


def _computing(device: torch.device, number_format: Format) -> AbstractContextManager[Any]:
    if number_format == "fp16":
        return torch.autocast(device.type, dtype=torch.float16)
    return compute(device, number_format)


def format_of(engine: str) -> Format:
    """The number format of an engine of torch by its name; float32 for ""."""
    return cast(Format, engine.removeprefix("torch-").removesuffix("-compiled") or "fp32")


def worth_converting(n_images: int, torch_images_per_second: float, seconds: float = CONVERSION_SECONDS) -> bool:
    """Whether the time that a converted model is expected to save on `n_images` is more than the conversion's."""
    return n_images / torch_images_per_second * (1 - 1 / EXPECTED_GAIN) > seconds
