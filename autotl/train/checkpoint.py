"""What a trial's training needs to go on in another process: what it trained, its optimiser, and a few numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

MODEL, OPTIMIZER, RANDOM = "model/", "optimizer/", "random"
"""Beginnings of the names of tensors: of the model, of the optimiser (its parameter's number, then what it is), and the
state of torch's random numbers on the CPU, which dropout draws from."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A trial between two epochs.

    Attributes:
        epoch: epochs trained.
        training: plain data of `FineTuning`.
        tensors: by name, on the CPU or the trial's device.
    """

    epoch: int
    training: dict[str, Any]
    tensors: dict[str, torch.Tensor]


def tensors_of(trained: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint.

    Args:
        trained: those of the model that have changed, by name.
        optimizer: of them, with a state of tensors.
    """
    named = {f"{MODEL}{name}": tensor for name, tensor in trained.items()}
    for number, state in optimizer.state_dict()["state"].items():
        named |= {f"{OPTIMIZER}{number}/{name}": torch.as_tensor(value) for name, value in state.items()}
    return named | {RANDOM: torch.get_rng_state()}


def restore(
    tensors: Mapping[str, torch.Tensor], model: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """Put the tensors of a checkpoint in place.

    Args:
        tensors: of `tensors_of`.
        model: the tensors of the model that they go into, by name.
        optimizer: of the same parameters in the same order; its rates stay.

    Raises:
        KeyError, RuntimeError, ValueError: if they are of another model.
    """
    with torch.no_grad():
        for name, tensor in model.items():
            tensor.copy_(tensors[f"{MODEL}{name}"])
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(OPTIMIZER):
            number, key = name.removeprefix(OPTIMIZER).split("/")
            state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    torch.set_rng_state(tensors[RANDOM])
