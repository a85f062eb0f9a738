"""What a trial will take: the stages of a backbone timed once on the user's machine, and arithmetic from there.

One training step under observation gives the time to every stage's boundary, forwards and backwards. A trial at
freeze depth d pays for the stages from d on in every epoch, and for those below it once a cached view.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from autotl.compute.device import Precision, compute, pick_device
from autotl.compute.recording import WARM_UP, Replayed
from autotl.models.backbone import Backbone, create
from autotl.train.optim import make_optimizer, parameter_groups

ROUNDS = 2
MEASURED_IMAGES, MEASURED_ON_GPU = 8, 32
"""Of one training step; a GPU takes about as long for eight images as for the whole batch of a trial."""
START_SECONDS = 0.7
"""Making a model, loading its weights, dividing it."""
IMAGE_SECONDS, GPU_IMAGE_SECONDS = 0.0004, 0.00003
"""Making an augmented view of one image, of 224 pixels, on one core (or one GPU)."""


@dataclass(frozen=True, slots=True)
class StageSeconds:
    """Seconds an image on one core (or one GPU), in the precision that trials use.

    Attributes:
        forward: until the boundary of every depth 0..n_stages is reached, and to the output; length n_stages + 2.
        backward: from the loss back to the boundary of every depth 0..n_stages; length n_stages + 1.
        numbers: in what passes the boundary of every depth 0..n_stages, an image; 0 where nothing does.
        first: seconds, once a process, in which a GPU's libraries choose their kernels.
    """

    forward: tuple[float, ...]
    backward: tuple[float, ...]
    numbers: tuple[int, ...]
    first: float = 0.0

    def train(self, depth: int) -> float:
        """A training step above freeze depth `depth`, an image."""
        return self.evaluate(depth) + self.backward[depth]

    def evaluate(self, depth: int) -> float:
        """A forward pass above freeze depth `depth`, an image."""
        return self.forward[-1] - self.forward[depth]

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> StageSeconds:
        """What `dataclasses.asdict` made of it."""
        return cls(tuple(plain["forward"]), tuple(plain["backward"]), tuple(plain["numbers"]), plain["first"])

    def share_below(self, depth: int) -> float:
        """The share of a whole forward pass that lies below freeze depth `depth`."""
        return self.forward[depth] / self.forward[-1]


NOT_MEASURED = StageSeconds((), (), ())


@dataclass(frozen=True, slots=True)
class TrialSize:
    """What the time of a trial depends on, besides its backbone and depth.

    Attributes:
        n_train, n_val: images.
        epochs, n_views: of the trial, and augmented views that are cached.
        speed: how many times as fast as one core the trial's cores train; 1 on a GPU.
        decode_seconds: of one image on one core, where it is decoded whenever it is needed; else 0.
        image_seconds: of making an augmented view of one image.
    """

    n_train: int
    n_val: int
    epochs: int
    n_views: int
    speed: float
    decode_seconds: float = 0.0
    image_seconds: float = IMAGE_SECONDS


def epoch_seconds(stages: StageSeconds, depth: int, size: TrialSize) -> float:
    """An epoch from cached views (or of the whole model at depth 0), with its validation."""
    decoding = size.decode_seconds if depth == 0 else 0.0
    train = stages.train(depth) + decoding + (size.image_seconds if depth == 0 else 0.0)
    return (size.n_train * train + size.n_val * (stages.evaluate(depth) + decoding)) / size.speed


def trial_seconds(
    stages: StageSeconds, depth: int, size: TrialSize, frozen_seconds_per_image: float, views_from: int = 0
) -> float:
    """A whole trial.

    Args:
        stages: of its backbone.
        depth: its freeze depth.
        size: of the trial.
        frozen_seconds_per_image: a whole frozen forward pass on one core.
        views_from: the depth at which its views are cached: `depth` if they need not be computed, 0 if from the images.
    """
    epochs = size.epochs * epoch_seconds(stages, depth, size)
    images = min(size.n_views, size.epochs) * size.n_train + size.n_val
    share = stages.share_below(depth) - stages.share_below(views_from)
    an_image = frozen_seconds_per_image * share
    an_image += size.image_seconds + size.decode_seconds if views_from == 0 < depth else 0.0
    return START_SECONDS + images * an_image / size.speed + epochs


def base_depth(stages: StageSeconds, lowest: int, images: int, limit: int) -> int:
    """The shallowest depth from `lowest` on whose views of `images` images (over all views) take `limit` bytes at most.

    0 if there is none. Views of deeper depths are then computed from those, see `autotl.frozen.views`.
    """
    depths = range(max(1, lowest), len(stages.numbers))
    fits = (depth for depth in depths if 0 < 2 * stages.numbers[depth] * images <= limit)
    return next(fits, 0)


def measure_backbones(
    backbones: Mapping[str, tuple[str, Path]], n_classes: int, precision: Precision
) -> dict[str, StageSeconds]:
    """Time a training step of each backbone, one after the other: a whole model's step takes much memory.

    Args:
        backbones: timm's full name and the weights, written by `autotl.models.weights.save_state`, by name.
        n_classes: outputs of the classifier.
        precision: what trials compute in.
    """
    device = pick_device()
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if device.type == "cpu" else threads)
    measured = {}
    try:
        for name, (timm_name, state) in backbones.items():
            backbone = create(timm_name, n_classes, state)
            backbone.model.to(device, memory_format=torch.channels_last)
            side = backbone.preprocessing.input_size
            n_images = MEASURED_IMAGES if device.type == "cpu" else MEASURED_ON_GPU
            images = torch.rand(n_images, 3, side, side, device=device)
            batch = images.contiguous(memory_format=torch.channels_last)
            measure = measure_stages if device.type == "cpu" else _measure_on_gpu
            measured[name] = measure(backbone, batch, precision)
    finally:
        torch.set_num_threads(threads)
    return measured


def speed_of(threads: int, measured: tuple[int, float]) -> float:
    """How many times as fast as one core so many train, from one measurement: a power law between and beyond.

    Args:
        threads: 1 or more.
        measured: threads, and how many times as fast as one they were.
    """
    most, speed = measured
    return 1.0 if most == 1 else float(threads ** (math.log(speed) / math.log(most)))


def measure_speed(timm_name: str, state: Path, n_classes: int, precision: Precision, stages: StageSeconds) -> float:
    """How many times as fast as one core all of torch's threads train; 1 on a GPU.

    Args:
        timm_name, state: of the backbone.
        n_classes: outputs of the classifier.
        precision: what trials compute in.
        stages: what `measure_backbones` measured of it on one core.
    """
    device, threads = pick_device(), torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        return 1.0
    backbone = create(timm_name, n_classes, state)
    backbone.model.to(memory_format=torch.channels_last)
    side = backbone.preprocessing.input_size
    batch = torch.rand(2 * MEASURED_IMAGES, 3, side, side).contiguous(memory_format=torch.channels_last)
    backbone.freeze(0)
    backbone.train_mode(keep_statistics=True)
    seconds = math.inf
    for _ in range(ROUNDS):  # wall time: threads that wait for one another count
        begun = time.perf_counter()
        with compute(device, precision):
            output = backbone.model(batch).flatten(1).float()
            loss = F.mse_loss(output, torch.zeros_like(output))
        loss.backward()  # type: ignore[no-untyped-call]
        seconds = min(seconds, time.perf_counter() - begun)
    return float(min(max(1.0, stages.train(0) * len(batch) / seconds), threads))


def measure_stages(backbone: Backbone, batch: torch.Tensor, precision: Precision, rounds: int = ROUNDS) -> StageSeconds:
    """Time one training step of the whole model, the best of some.

    On a CPU in the time of the calling thread, which other programs do not change; torch has to be set to one thread.

    Args:
        backbone: on its device; all of it is left trainable, in training mode.
        batch: normalised images on the same device, shape (n, 3, size, size).
        precision: what trials compute in.
        rounds: steps to choose from.
    """
    backbone.freeze(0)
    backbone.train_mode(keep_statistics=True)
    steps = [_Step(backbone, batch.device, precision).run(batch) for _ in range(rounds)]
    best = min(steps, key=lambda stages: stages.train(0))
    return replace(
        best,
        forward=tuple(t / len(batch) for t in best.forward),
        backward=tuple(t / len(batch) for t in best.backward),
    )


def _measure_on_gpu(backbone: Backbone, batch: torch.Tensor, precision: Precision) -> StageSeconds:
    """As trials compute there: the parts of a step in proportion, and the whole as it is replayed."""
    begun = time.perf_counter()
    measure_stages(backbone, batch, precision, rounds=1)
    first = time.perf_counter() - begun
    stages = measure_stages(backbone, batch, precision)
    whole = _replayed_seconds(backbone, batch, precision) / len(batch)
    factor = whole / stages.train(0)
    return replace(
        stages,
        forward=tuple(factor * seconds for seconds in stages.forward),
        backward=tuple(factor * seconds for seconds in stages.backward),
        first=max(0.0, first - whole * len(batch)),
    )


def _replayed_seconds(backbone: Backbone, batch: torch.Tensor, precision: Precision) -> float:
    """A step of the whole model with its optimiser, the fastest of some."""
    optimizer = make_optimizer(parameter_groups(backbone, 0.0, 0.0, 1.0, 0.0))

    def step(images: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with compute(images.device, precision):
            loss: torch.Tensor = backbone.model(images).float().square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    replayed = Replayed(step, batch.device)
    best = math.inf
    for call in range(WARM_UP + 1 + ROUNDS):
        begun = time.perf_counter()
        replayed(batch)
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begun) if call > WARM_UP else best
    return best


class _CpuClock:
    """The time of the calling thread, in which the backward pass runs, too; what else the machine does is left out."""

    def mark(self) -> Any:
        """Now."""
        return time.thread_time()

    def seconds(self, begun: Any, ended: Any) -> float:
        """From one mark to another."""
        return float(ended - begun)


class _CudaClock:
    """Events in the GPU's stream: it is not waited for at every mark, which would take longer than what is measured."""

    def mark(self) -> Any:
        """When the GPU has done all that it was given until now."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds(self, begun: Any, ended: Any) -> float:
        """From one mark to another."""
        torch.cuda.synchronize()
        return float(begun.elapsed_time(ended)) / 1000


class _Step:
    """One training step with a note of the time at every boundary."""

    def __init__(self, backbone: Backbone, device: torch.device, precision: Precision) -> None:
        self._backbone = backbone
        self._device = device
        self._precision = precision
        self._clock = _CudaClock() if device.type == "cuda" else _CpuClock()
        self._forward: list[Any] = [None] * (backbone.n_stages + 1)
        self._backward: list[Any] = [None] * (backbone.n_stages + 1)
        self._numbers = [0] * (backbone.n_stages + 1)
        self._reached = -1

    def run(self, batch: torch.Tensor) -> StageSeconds:
        handles = [
            module.register_forward_pre_hook(self._hook(stage)) for module, stage in _leaves_with_stages(self._backbone)
        ]
        mark = self._clock.mark
        try:
            with compute(self._device, self._precision):
                begun = mark()
                output = self._backbone.model(batch).flatten(1).float()
                reached = mark()
                loss = F.mse_loss(output, torch.zeros_like(output))
            turned = mark()
            loss.backward()  # type: ignore[no-untyped-call]
            ended = mark()
        finally:
            for handle in handles:
                handle.remove()
        forward, backward = self._clock.seconds(begun, reached), self._clock.seconds(turned, ended)
        # Boundaries that nothing passes (a classifier without weights, stages without modules of their own) cost
        # what those around them cost.
        ahead = _filled([0.0, *self._since(begun, self._forward[1:])], last=forward)
        back = _filled([backward, *self._since(turned, self._backward[1:])], last=0.0)
        return StageSeconds((*ahead, forward), tuple(back), tuple(self._numbers))

    def _since(self, begun: Any, marks: list[Any]) -> list[float]:
        """Seconds until each mark, NaN for those that were not reached."""
        return [math.nan if mark is None else self._clock.seconds(begun, mark) for mark in marks]

    def _hook(self, stage: int) -> Callable[[Any, tuple[Any, ...]], None]:
        def note(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
            if stage <= self._reached:
                return
            now = self._clock.mark()
            for depth in range(self._reached + 1, stage + 1):
                self._forward[depth] = now
                if args and isinstance(args[0], torch.Tensor):
                    self._numbers[depth] = args[0][0].numel()
                if args and isinstance(args[0], torch.Tensor) and args[0].requires_grad:
                    args[0].register_hook(self._note_backward(depth))  # type: ignore[no-untyped-call]
            self._reached = stage

        return note

    def _note_backward(self, depth: int) -> Callable[[torch.Tensor], None]:
        def note(gradient: torch.Tensor) -> None:
            self._backward[depth] = self._clock.mark()

        return note


def _leaves_with_stages(backbone: Backbone) -> list[tuple[torch.nn.Module, int]]:
    """Every module that owns parameters, with the lowest of their stages; the classifier counts as the last."""
    found = []
    for name, module in backbone.model.named_modules():
        own = [backbone.stage_of[f"{name}.{p}" if name else p] for p, _ in module.named_parameters(recurse=False)]
        if own and name:
            found.append((module, min(backbone.n_stages if stage is None else stage for stage in own)))
    return found


def _filled(times: list[float], last: float) -> list[float]:
    """`times` with every NaN replaced by the value after it, in the end by `last`."""
    filled, after = [], last
    for value in reversed(times):
        after = after if math.isnan(value) else value
        filled.append(after)
    return filled[::-1]
