"""Arrays on a device: rows copied to it batch by batch or, where it has the room, the whole array once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autotl.compute.memory import is_out_of_memory

SHARE = 0.4
"""Of a trial's share of a GPU's memory, and of what is free there: the rest is for training."""
PIECE_BYTES = 64 * 2**20

Rows = NDArray[np.int64]


def room_on(device: torch.device, share: float) -> int:
    """Bytes of arrays that may stay on a device.

    Args:
        device: 0 for a CPU, whose memory holds them already.
        share: of the device that the caller may use, at most 1.
    """
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    return int(SHARE * min(free, share * total))


def rows_on(array: NDArray[Any], rows: Rows, device: torch.device) -> torch.Tensor:
    """Some rows of an array on a device; to a GPU by way of pinned memory, so that the copy runs beside other work."""
    if device.type != "cuda":
        return torch.from_numpy(array[rows])
    pinned = _pinned((len(rows), *array.shape[1:]), torch.from_numpy(np.empty(0, array.dtype)).dtype)
    np.take(array, rows, axis=0, out=pinned.numpy(), mode="clip")  # other modes make a copy on the way
    return pinned.to(device, non_blocking=True)


def _pinned(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, pin_memory=True)


class Residence:
    """Room on a device for arrays whose rows are needed again and again.

    Args:
        device: where they stay; on a CPU nothing does.
        share: of the device that may be used, see `room_on`.
    """

    def __init__(self, device: torch.device, share: float) -> None:
        self._device = device
        self._left = room_on(device, share)

    def take(self, array: NDArray[Any]) -> torch.Tensor | None:
        """A copy of the array on the device; None where there is no room for it."""
        tensor = self.reserve(array.shape, torch.from_numpy(np.empty(0, array.dtype)).dtype)
        if tensor is None:
            return None
        step = max(1, PIECE_BYTES * len(array) // array.nbytes)
        for start in range(0, len(array), step):  # a whole one would be in the host's memory a second time
            rows = np.arange(start, min(start + step, len(array)))
            tensor[start : start + step] = rows_on(array, rows, self._device)
        return tensor

    def reserve(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor | None:
        """A tensor without values on the device; None where there is no room for it."""
        n_bytes = math.prod(shape) * dtype.itemsize
        if not 0 < n_bytes <= self._left:
            return None
        try:
            tensor = torch.empty(shape, dtype=dtype, device=self._device)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self._left = 0
            return None
        self._left -= n_bytes
        return tensor
