"""The outputs of a frozen prefix in a GPU's memory: every trial computes its own, and no disk is in the way.

A GPU takes less time for a frozen forward pass than for writing its outputs to a file and reading them again. Behind
two stages of ResNet-18, six views of 1,638 images took 9 s by way of files, and training the whole model as often 2 s
(`benchmarks/gpu.py` on an H200).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from autotl.compute.ahead import ahead
from autotl.compute.device import to_device
from autotl.compute.memory import halve_until_it_fits
from autotl.compute.residence import Residence
from autotl.data.augment import Recipe
from autotl.frozen.activations import ImageLoader, batches, frozen_batch, full_batch, view_bytes
from autotl.frozen.engines import format_of, torch_forward
from autotl.models.partition import Partition

Rows = NDArray[np.int64]


class HeldView:
    """The prefix's outputs for one view of some images: bfloat16, one row an image, on a device.

    Args:
        tensor: with the channels last, as the suffix wants feature maps.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def rows(self, chosen: Rows) -> torch.Tensor:
        """The tensors in the places `chosen`, shape (len(chosen), *shape) with the channels first."""
        tensor = self._tensor[to_device(torch.from_numpy(chosen), self._tensor.device)]
        return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor


class HeldViews:
    """Views of one backbone at one freeze depth. On CPUs there are `autotl.frozen.views` in their place.

    Args:
        partition: the backbone, divided at the freeze depth, on the loader's device.
        loader: of the images.
        engine: what the images were embedded with there, see `autotl.frozen.engines`.
        residence: the room for them.
        is_late: says that the time is up; a view that is being computed is then given up.
    """

    def __init__(
        self, partition: Partition, loader: ImageLoader, engine: str, residence: Residence, is_late: Callable[[], bool]
    ) -> None:
        self._partition, self._loader = partition, loader
        self._residence, self._is_late = residence, is_late
        self._forward = torch_forward(partition.prefix, loader.device, format_of(engine))
        self._part = frozen_batch(loader.device)

    def size(self, rows: Rows) -> int:
        """Bytes of a view of `rows`."""
        return view_bytes(self._partition.shape, len(rows))

    def is_cached(self, rows: Rows, recipe: Recipe | None, number: int) -> bool:
        """Whether a view need not be computed: never before the trial has asked for it."""
        return False

    def get(self, rows: Rows, recipe: Recipe | None, number: int, wait: float) -> HeldView | None:
        """A view, computed now.

        Args:
            rows: images of the store.
            recipe: of random views; None for the evaluation view.
            number: of the random view.
            wait: plays no part: there is nobody to wait for.

        Returns:
            None if there is no room for it, or the time was up.
        """
        held = self._residence.reserve((len(rows), *_channels_last(self._partition.shape)), torch.bfloat16)
        if held is None:
            return None
        device = self._loader.device
        size = frozen_batch(device)

        def load(chosen: Rows) -> torch.Tensor:
            return self._loader.batch(full_batch(chosen, device), recipe, number)

        self._loader.expect(rows)
        for place, images in enumerate(ahead(load, batches(rows, size), device)):
            if self._is_late():
                return None
            part = held[place * size : (place + 1) * size]
            outputs = self._outputs(images)[: len(part)]
            part.copy_(outputs.permute(0, 2, 3, 1) if outputs.ndim == 4 else outputs)
        return HeldView(held)

    def _outputs(self, images: torch.Tensor) -> torch.Tensor:
        def in_parts(part: int) -> torch.Tensor:
            return torch.cat([self._forward(some) for some in torch.split(images, part)])

        outputs, self._part = halve_until_it_fits(self._part, in_parts)
        return outputs


def _channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[1], shape[2], shape[0]) if len(shape) == 3 else shape
