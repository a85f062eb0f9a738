"""What training needs to go on: the optimiser's state, and random numbers from where they were."""

from __future__ import annotations

import pytest
import torch

from autotl.train.checkpoint import restore, tensors_of


def make() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Dropout(0.5), torch.nn.Linear(5, 2))
    return model, torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.full((3, 4), 1.0 + step)).square().sum().backward()
        optimizer.step()


def test_another_process_goes_on_bit_by_bit() -> None:
    model, optimizer = make()
    train(model, optimizer, 3)
    kept = {name: tensor.clone() for name, tensor in tensors_of(dict(model.named_parameters()), optimizer).items()}
    train(model, optimizer, 4)
    again, its_optimizer = make()
    torch.manual_seed(99)
    for group in its_optimizer.param_groups:
        group["lr"] = 0.01
    restore(kept, dict(again.named_parameters()), its_optimizer)
    train(again, its_optimizer, 4)
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_tensors_of_another_model_are_refused() -> None:
    model, optimizer = make()
    train(model, optimizer, 1)
    kept = tensors_of(dict(model.named_parameters()), optimizer)
    other = torch.nn.Linear(7, 2)
    with pytest.raises(KeyError):
        restore(kept, dict(other.named_parameters()), torch.optim.AdamW(other.parameters()))
    wider = {name: torch.zeros(9, 9) for name, _ in model.named_parameters()}
    with pytest.raises(RuntimeError):
        restore(kept, wider, optimizer)
