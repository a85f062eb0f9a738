"""Embeddings of many images: in the order of their rows, whoever computes them."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from autotl.data import pixels
from autotl.data.pixels import Decoding
from autotl.frozen.activations import BATCH, ImageLoader, embed, in_order
from autotl.models.backbone import Preprocessing

SIDE = 8
N_IMAGES = 3 * BATCH + 5


@pytest.fixture(scope="module")
def loader() -> ImageLoader:
    """Gray images whose level is their number."""
    pixels = np.broadcast_to(np.arange(N_IMAGES, dtype=np.uint8)[:, None, None, None], (N_IMAGES, SIDE, SIDE, 3))
    preprocessing = Preprocessing(SIDE, 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), SIDE)
    return ImageLoader(np.ascontiguousarray(pixels), preprocessing, torch.device("cpu"), seed=0)


def level(images: torch.Tensor) -> torch.Tensor:
    """255 times the mean, and its double."""
    mean = 255 * images.mean(dim=(1, 2, 3))
    return torch.stack([mean, 2 * mean], dim=1)


@pytest.mark.parametrize("workers", [1, 3])
def test_embeddings_stand_in_the_order_of_their_rows(loader: ImageLoader, workers: int) -> None:
    rows = np.arange(N_IMAGES)[::-1].copy()
    done: list[int] = []
    embeddings = embed(level, loader, rows, done.append, workers)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, np.stack([rows, 2 * rows], axis=1), atol=1e-3)
    assert done == [BATCH, 2 * BATCH, 3 * BATCH, N_IMAGES]


def test_maps_are_flattened(loader: ImageLoader) -> None:
    embeddings = embed(lambda images: images[:, :, :2, :2], loader, np.array([7]))
    np.testing.assert_allclose(255 * embeddings, np.full((1, 12), 7.0), atol=1e-3)


def test_batches_wait_for_their_own_images_alone(
    loader: ImageLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last image is decoded only after the first batch is embedded."""
    embedded, order = threading.Event(), np.arange(N_IMAGES)[::-1].copy()

    def decode(path: Path, size: int) -> tuple[np.ndarray, str]:
        number = int(path.name)
        assert number != order[-1] or embedded.wait(60), "nothing was embedded before all images were decoded"
        return loader.pixels[number], ""

    def on_progress(done: int) -> None:
        embedded.set()

    monkeypatch.setattr(pixels, "decode", decode)
    names = [str(number) for number in range(N_IMAGES)]
    with Decoding(tmp_path, names, SIDE, tmp_path / "pixels.u8", 2, order) as decoding:
        waiting = replace(loader, pixels=decoding.store.open(), wait=decoding.wait)
        embeddings = embed(level, waiting, order, on_progress, workers=2)
    np.testing.assert_array_equal(embeddings, embed(level, loader, order))


def test_what_ended_the_decoding_comes_through(loader: ImageLoader) -> None:
    def wait(rows: np.ndarray) -> None:
        raise MemoryError("too large")

    with pytest.raises(MemoryError, match="too large"):
        embed(level, replace(loader, wait=wait), np.arange(N_IMAGES), workers=2)


@pytest.mark.parametrize("workers", [1, 3])
def test_parts_come_out_in_their_order(workers: int) -> None:
    parts = [np.arange(place, place + 2) for place in range(20)]
    made = list(in_order(lambda part: torch.from_numpy(2 * part), parts, workers))
    assert [tensor.tolist() for tensor in made] == [[2 * place, 2 * place + 2] for place in range(20)]


def test_whoever_stops_waits_for_the_parts_that_were_begun_alone() -> None:
    begun: list[int] = []

    def note(part: np.ndarray) -> torch.Tensor:
        begun.append(int(part[0]))
        return torch.from_numpy(part)

    made = in_order(note, (np.array([place]) for place in range(1000)), workers=2)
    assert next(made).tolist() == [0]
    made.close()
    assert len(begun) <= 5


def test_what_a_part_raises_comes_out() -> None:
    def fail(part: np.ndarray) -> torch.Tensor:
        raise ValueError("no such image")

    with pytest.raises(ValueError, match="no such image"):
        list(in_order(fail, [np.array([0])], workers=2))
