"""Embeddings of many images: in the order of their rows, whoever computes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autotl.models.backbone import Preprocessing
from autotl.train.activations import BATCH, ImageSource, embed

SIDE = 8
SOURCE_SIZE = 3 * BATCH + 5


@pytest.fixture(scope="module")
def source() -> ImageSource:
    """Gray images whose level is their number."""
    pixels = np.broadcast_to(np.arange(SOURCE_SIZE, dtype=np.uint8)[:, None, None, None], (SOURCE_SIZE, SIDE, SIDE, 3))
    preprocessing = Preprocessing(SIDE, 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), SIDE)
    return ImageSource(np.ascontiguousarray(pixels), preprocessing, torch.device("cpu"), seed=0)


def level(images: torch.Tensor) -> torch.Tensor:
    """255 times the mean, and its double."""
    mean = 255 * images.mean(dim=(1, 2, 3))
    return torch.stack([mean, 2 * mean], dim=1)


@pytest.mark.parametrize("workers", [1, 3])
def test_embeddings_stand_in_the_order_of_their_rows(source: ImageSource, workers: int) -> None:
    rows = np.arange(SOURCE_SIZE)[::-1].copy()
    done: list[int] = []
    embeddings = embed(level, source, rows, done.append, workers)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, np.stack([rows, 2 * rows], axis=1), atol=1e-3)
    assert done == [BATCH, 2 * BATCH, 3 * BATCH, SOURCE_SIZE]


def test_maps_are_flattened(source: ImageSource) -> None:
    embeddings = embed(lambda images: images[:, :, :2, :2], source, np.array([7]))
    np.testing.assert_allclose(255 * embeddings, np.full((1, 12), 7.0), atol=1e-3)
