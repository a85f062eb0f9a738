"""Features of many images: embeddings, and the outputs of a frozen prefix, computed once and kept in a file."""

from __future__ import annotations

import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from autotl.compute.ahead import ahead
from autotl.compute.device import to_device
from autotl.compute.memory import halve_until_it_fits
from autotl.compute.residence import Residence, rows_on
from autotl.data.augment import Recipe, eval_view, random_view
from autotl.data.file_pixels import FilePixels
from autotl.data.pixels import Pixels
from autotl.frozen.stages import WHOLE, StagedForward, StageFeatures
from autotl.models.backbone import Preprocessing
from autotl.storage.cache import hold

BATCH = 8
"""Images that go through frozen stages at once on a core: more are no faster on CPUs, and take memory in proportion."""
GPU_BATCH = 128

Forward = Callable[[torch.Tensor], torch.Tensor]
_BatchOutputs = tuple[NDArray[np.int64], NDArray[np.float32], dict[int, NDArray[np.float32]], torch.Tensor | None]
"""Rows, outputs, averages by freeze depth, and the boundary tensors as they are, where these are given."""


def seed_of(*parts: int | str) -> int:
    """A seed that depends on all parts and is the same in every process (Python's own hash is not)."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "little")


def _all_are_there(rows: NDArray[np.int64]) -> None:
    """Nothing to wait for."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageLoader:
    """Decoded images and how a backbone wants them.

    Attributes:
        pixels: uint8, shape (images, side, side, 3), see `autotl.data.pixels.Pixels`.
        preprocessing: of the backbone.
        device: where batches go.
        seed: of random views.
        resident: all of `pixels` on the device, where they have been put there.
        wait: returns when the images in some rows are decoded, see `autotl.data.pixels.Decoding`.
    """

    pixels: Pixels
    preprocessing: Preprocessing
    device: torch.device
    seed: int
    wait: Callable[[NDArray[np.int64]], None] = _all_are_there
    resident: torch.Tensor | None = None

    def staying(self, residence: Residence) -> ImageLoader:
        """The same loader with its pixels on the device, where there is room; all have to be decoded."""
        if not isinstance(self.pixels, np.ndarray):
            return self
        return replace(self, resident=residence.take(self.pixels))

    def expect(self, rows: NDArray[np.int64]) -> None:
        """What batches are going to ask for, in this order: images that are not decoded yet are decoded ahead."""
        if isinstance(self.pixels, FilePixels):
            self.pixels.expect(rows)

    def batch(self, rows: NDArray[np.int64], recipe: Recipe | None, view: int) -> torch.Tensor:
        """Normalised images in channels_last, shape (n, 3, size, size).

        `recipe` None gives the evaluation view. The same rows, recipe and view give the same images.

        Raises:
            BaseException: what `wait` raises.
        """
        images = self._stored(rows)
        size = self.preprocessing.input_size
        if recipe is None or recipe.name == "none":
            views = eval_view(images, size, self.preprocessing.crop)
        else:
            generator = torch.Generator().manual_seed(seed_of(self.seed, recipe.name, view, int(rows[0]), len(rows)))
            views = random_view(images, size, recipe, generator)
        return self.preprocessing.normalise(views).contiguous(memory_format=torch.channels_last)

    def _stored(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Images as they are stored, on the device."""
        self.wait(rows)
        if self.resident is not None:
            return self.resident[to_device(torch.from_numpy(rows), self.device)]
        if isinstance(self.pixels, np.ndarray):
            return rows_on(self.pixels, rows, self.device)
        return to_device(torch.from_numpy(self.pixels[rows]), self.device)


def frozen_batch(device: torch.device) -> int:
    """Images that go through frozen stages at once."""
    return BATCH if device.type == "cpu" else GPU_BATCH


def full_batch(rows: NDArray[np.int64], device: torch.device) -> NDArray[np.int64]:
    """On a GPU as many rows as a whole batch has, the last one repeated; on a CPU the same.

    For every number of images a GPU's libraries choose their kernels anew, which takes longer than a hundred batches.
    """
    missing = frozen_batch(device) - len(rows)
    return rows if device.type == "cpu" or missing <= 0 else np.concatenate([rows, np.repeat(rows[-1:], missing)])


def batches(rows: NDArray[np.int64], size: int = BATCH) -> Iterator[NDArray[np.int64]]:
    """Consecutive pieces of `rows`."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def embed(
    forward: Forward,
    loader: ImageLoader,
    rows: NDArray[np.int64],
    on_progress: Callable[[int], None] = lambda done: None,
    workers: int = 1,
) -> NDArray[np.float32]:
    """The outputs of `forward` on the evaluation views of `rows`, flattened: shape (len(rows), dimensions).

    `forward` is one of `autotl.frozen.engines`. On CPUs `workers` threads take a batch each and compute on one core
    each: unlike threads that share a batch they never wait for one another, which matters while Ray starts beside them.
    """

    def staged(batch: torch.Tensor) -> tuple[torch.Tensor, StageFeatures]:
        return forward(batch), {}

    return embed_stages(staged, loader, rows, rows[:0], on_progress, workers)[0]


def embed_stages(
    forward: StagedForward,
    loader: ImageLoader,
    rows: NDArray[np.int64],
    stage_rows: NDArray[np.int64],
    on_progress: Callable[[int], None] = lambda done: None,
    workers: int = 1,
    on_whole: Callable[[NDArray[np.int64], torch.Tensor], None] = lambda rows, tensor: None,
) -> tuple[NDArray[np.float32], dict[int, NDArray[np.float32]]]:
    """As `embed`, in the same pass with the averages at the stages' boundaries for `stage_rows`, some of `rows`.

    `on_whole` gets the boundary tensors that `forward` gives as they are, batch by batch in the order of `rows`.

    Returns:
        The outputs, shape (len(rows), dimensions), and by freeze depth the averages, shape (len(stage_rows), channels),
        both in the order of `rows`. Averages of other rows are dropped at once.
    """

    size = frozen_batch(loader.device)

    def load(chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], torch.Tensor]:
        return chosen, loader.batch(full_batch(chosen, loader.device), None, 0)

    def outputs_of(chosen: NDArray[np.int64], images: torch.Tensor) -> _BatchOutputs:
        nonlocal size

        def in_parts(part: int) -> tuple[torch.Tensor, StageFeatures]:
            return _joined([forward(some) for some in torch.split(images, part)])

        (output, stages), size = halve_until_it_fits(size, in_parts)
        count = len(chosen)
        whole = stages.pop(WHOLE)[:count] if WHOLE in stages else None
        wanted = np.isin(chosen, stage_rows)
        kept = {depth: _plain(tensor[:count])[wanted] for depth, tensor in stages.items()} if wanted.any() else {}
        return chosen, _plain(output[:count]), kept, whole

    loader.expect(rows)
    outputs: NDArray[np.float32] | None = None
    averages: dict[int, list[NDArray[np.float32]]] = {}
    done = 0
    parts = batches(rows, frozen_batch(loader.device))
    with _each_batch(load, outputs_of, parts, loader.device, workers) as found:
        for chosen, output, kept, whole in found:
            if whole is not None:
                on_whole(chosen, whole)
            if outputs is None:  # in place: parts that are joined at the end take the memory twice
                outputs = np.empty((len(rows), output.shape[1]), dtype=np.float32)
            outputs[done : done + len(output)] = output
            for depth, features in kept.items():
                averages.setdefault(depth, []).append(features)
            done += len(output)
            on_progress(done)
    assert outputs is not None, "there is nothing to embed"
    return outputs, {depth: np.concatenate(parts) for depth, parts in averages.items()}


@contextmanager
def _each_batch(
    load: Callable[[NDArray[np.int64]], tuple[NDArray[np.int64], torch.Tensor]],
    use: Callable[[NDArray[np.int64], torch.Tensor], _BatchOutputs],
    parts: Iterable[NDArray[np.int64]],
    device: torch.device,
    workers: int,
) -> Iterator[Iterable[_BatchOutputs]]:
    """What `use` makes of what `load` gives for every part, in their order.

    On CPUs each of the workers does both. On a GPU `use` stays in the caller's thread, and `load` runs ahead of it.
    """
    if device.type != "cpu":
        yield (use(*loaded) for loaded in ahead(load, parts, device))
        return
    with _one_core_each(workers) as pool:
        yield pool.map(lambda part: use(*load(part)), parts)


def _joined(parts: list[tuple[torch.Tensor, StageFeatures]]) -> tuple[torch.Tensor, StageFeatures]:
    """The outputs of the parts of a batch as those of the whole."""
    if len(parts) == 1:
        return parts[0]
    stages = {depth: torch.cat([features[depth] for _, features in parts]) for depth in parts[0][1]}
    return torch.cat([output for output, _ in parts]), stages


def _plain(tensor: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.flatten(1).float().cpu().numpy()
    return array


@contextmanager
def _one_core_each(workers: int) -> Iterator[ThreadPoolExecutor]:
    """A pool whose threads compute on one core each; a single one on as many as torch has."""
    threads = torch.get_num_threads()
    per_worker = threads if workers == 1 else 1
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(per_worker,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)  # part of the setting is the process's, not the thread's


def in_order(
    function: Callable[[NDArray[np.int64]], torch.Tensor], parts: Iterable[NDArray[np.int64]], workers: int
) -> Iterator[torch.Tensor]:
    """What `function` makes of every part, in their order, `workers` of them at once on one core each.

    A consumer that stops waits only for the few parts that were begun.
    """
    if workers == 1:
        yield from map(function, parts)
        return
    with _one_core_each(workers) as pool:
        begun: deque[Future[torch.Tensor]] = deque()
        for part in parts:
            begun.append(pool.submit(function, part))
            if len(begun) > 2 * workers:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


class CachedView:
    """The prefix's outputs for one view of some images: bfloat16, one row an image, in a memory-mapped file.

    Feature maps are stored with the channels last, as the suffix wants them.

    Args:
        path: the file; the cache knows that it is in use.
        shape: of one image's tensor, as the model has it.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        n_rows = os.path.getsize(path) // view_bytes(shape, 1)
        self.shape = shape
        self._file = open(path, "rb")  # noqa: SIM115, for as long as this lives
        hold(self._file)
        self._stored = np.memmap(self._file, dtype=np.int16, mode="r", shape=(n_rows, *_stored_shape(shape)))

    def rows(self, chosen: NDArray[np.int64]) -> torch.Tensor:
        """The tensors in the places `chosen`, shape (len(chosen), *shape)."""
        tensor = torch.from_numpy(self._stored[chosen]).view(torch.bfloat16)
        return tensor.permute(0, 3, 1, 2) if len(self.shape) == 3 else tensor


def _stored_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[1], shape[2], shape[0]) if len(shape) == 3 else shape


def stored_form(tensor: torch.Tensor) -> NDArray[np.int16]:
    """A batch of boundary tensors in the form that `CachedView` reads, one row an image: bfloat16, channels last."""
    stored = tensor.to(torch.bfloat16)
    if stored.ndim == 4:
        stored = stored.permute(0, 2, 3, 1)
    return stored.contiguous().cpu().view(torch.int16).numpy()


def view_bytes(shape: tuple[int, ...], n_images: int) -> int:
    """Size of a cached view of `n_images`."""
    return 2 * math.prod(shape) * n_images


def write_view(path: Path, tensors: Iterable[torch.Tensor], should_stop: Callable[[], bool]) -> bool:
    """Write batches of boundary tensors in the form that `CachedView` reads.

    Returns:
        False, and the file is incomplete, if `should_stop` said so before the last batch.
    """
    with open(path, "wb") as file:
        for tensor in tensors:
            file.write(stored_form(tensor).tobytes())
            if should_stop():
                return False
    return True
