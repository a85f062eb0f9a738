"""The loss of a batch: label smoothing, and classes that count inversely to their frequency."""

from __future__ import annotations

import math

import pytest
import torch

from autotl.train.loss import summed_loss


def weights_of(majority: int) -> torch.Tensor:
    """Class weights of two classes, one of which has `majority` times as many images as the other."""
    counts = torch.tensor([float(majority), 1.0])
    return counts.sum() / (2 * counts)


@pytest.mark.parametrize("majority", [1, 9, 19, 99])
@pytest.mark.parametrize("target", [0, 1])
def test_smoothing_asks_for_the_same_probability_of_rare_and_frequent_classes(majority: int, target: int) -> None:
    wanted = torch.full((2,), 0.05)
    wanted[target] = 0.95  # one minus the smoothing, and its share of the smoothing
    logits = wanted.log().unsqueeze(0).requires_grad_()
    summed_loss(logits, torch.tensor([target]), weights_of(majority), 0.1).backward()
    assert logits.grad is not None
    assert torch.allclose(logits.grad, torch.zeros_like(logits), atol=1e-6)


def test_an_image_counts_with_the_weight_of_its_own_class() -> None:
    logits, weights = torch.zeros(3, 2), torch.tensor([0.5, 4.0])
    loss = summed_loss(logits, torch.tensor([0, 0, 1]), weights, 0.3)
    assert loss.item() == pytest.approx((0.5 + 0.5 + 4.0) * math.log(2))


def test_without_weights_it_is_the_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(5, 3, generator=generator), torch.tensor([0, 1, 2, 1, 0])
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=0.1)
    assert summed_loss(logits, targets, None, 0.1).item() == pytest.approx(expected.item())
