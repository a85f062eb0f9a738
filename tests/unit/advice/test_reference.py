"""The yardstick: made, written, read back, and the one that is shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from autotl.advice.reference import load_yardstick, make_yardstick, save_yardstick
from autotl.models.catalog import find_entry


def test_a_yardstick_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    names = tuple(f"Klasse {place} ü" for place in range(12))
    made = make_yardstick("ImageNet-1k", "resnet18.a1_in1k", raw, names)
    save_yardstick(made, tmp_path / "one.npz")
    read = load_yardstick(tmp_path / "one.npz")
    assert (read.source, read.backbone, read.names) == ("ImageNet-1k", "resnet18.a1_in1k", names)
    assert read.squared_bandwidth == made.squared_bandwidth
    assert read.embeddings.dtype == np.float32
    np.testing.assert_array_equal(read.embeddings, made.embeddings)


def test_rows_are_scaled_to_length_one() -> None:
    made = make_yardstick("a", "b", np.array([[3.0, 4.0], [0.0, 0.1]], dtype=np.float32), ("x", "y"))
    np.testing.assert_allclose(made.embeddings, [[0.6, 0.8], [0.0, 1.0]], atol=1e-3)


def test_bandwidth_is_the_median_squared_distance() -> None:
    # Squared distances between the corners of a square on the circle: 2 four times, 4 twice.
    corners = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=np.float32)
    assert make_yardstick("a", "b", corners, tuple("wxyz")).squared_bandwidth == pytest.approx(2.0)
    # One more copy of the first corner: 0 once, 2 six times, 4 three times.
    assert make_yardstick("a", "b", corners[[0, 2]], tuple("xy")).squared_bandwidth == pytest.approx(4.0)


def test_the_shipped_yardstick_is_sound() -> None:
    shipped = load_yardstick()
    assert shipped.source == "ImageNet-1k"
    assert len(shipped.names) == len(shipped.embeddings) > 100
    np.testing.assert_allclose(np.linalg.norm(shipped.embeddings, axis=1), 1, atol=2e-3)
    pairs = pdist(shipped.embeddings, "sqeuclidean")
    assert shipped.squared_bandwidth == pytest.approx(float(np.median(pairs)), rel=1e-3)


def test_the_shipped_yardstick_was_made_by_a_backbone_that_is_bundled() -> None:
    assert find_entry(load_yardstick().backbone).weights == "bundled"


def test_a_missing_yardstick_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_yardstick(tmp_path / "none.npz")
