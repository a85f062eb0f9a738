"""A batch on a CPU goes through training in parts: how many images a part holds."""

from __future__ import annotations

from collections.abc import Callable

import torch

PART = 16
"""Images of a part at most: more take memory in proportion and are no faster."""
PART_BYTES = 256 * 2**20
"""What the activations of a part may take. Halving a part costs a twentieth of the speed."""


def choose_part(loss: Callable[[int], torch.Tensor]) -> int:
    """The images of a part: the largest power of two up to `PART` whose activations stay within `PART_BYTES`.

    Args:
        loss: of so many images; asked for one and for two, so that what does not depend on their number drops out.
    """
    per_image = max(1, saved_bytes(lambda: loss(2)) - saved_bytes(lambda: loss(1)))
    part = PART
    while part > 1 and part * per_image > PART_BYTES:
        part //= 2
    return part


def saved_bytes(forward: Callable[[], torch.Tensor]) -> int:
    """Bytes that `forward` keeps for its backward pass, weights included; each block of memory counts once."""
    blocks: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        blocks[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result  # kept until here: a freed block could be given to the next tensor and count once for both
    return sum(blocks.values())
