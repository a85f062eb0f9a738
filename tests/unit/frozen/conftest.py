"""A small backbone with random weights, and images for it."""

from __future__ import annotations

import pytest
import torch

from autotl.models.backbone import Backbone, create


@pytest.fixture(scope="module")
def small() -> Backbone:
    torch.manual_seed(0)
    backbone = create("resnet10t", 0, None)
    backbone.model.eval()
    return backbone


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, 64, 64, generator=generator).contiguous(memory_format=torch.channels_last)
