"""Distances between two sets: closed forms, and no bias."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from autotl.advice.distances import energy_distance, frechet_distance, kernel_distance, rbf


def normal(n: int, dimensions: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Standard normal rows, moved along the first axis."""
    rows = np.random.default_rng(seed).normal(size=(n, dimensions))
    rows[:, 0] += shift
    return rows.astype(np.float32)


@pytest.mark.parametrize(("n", "m"), [(60, 80), (4, 50), (5, 3)])
def test_frechet_distance_is_the_formula_with_the_root_of_a_matrix(n: int, m: int) -> None:
    generator = np.random.default_rng(0)
    x = (generator.normal(size=(n, 6)) @ generator.normal(size=(6, 6))).astype(np.float32)
    y = (generator.normal(size=(m, 6)) @ generator.normal(size=(6, 6)) + 0.5).astype(np.float32)
    a, b = x.astype(np.float64), y.astype(np.float64)
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # The root of s^(1/2) t s^(1/2) has the same trace as that of s t and is symmetric.
    root = np.real(sqrtm(s))
    shift = ((a.mean(0) - b.mean(0)) ** 2).sum()
    expected = shift + np.trace(s) + np.trace(t) - 2 * np.real(np.trace(sqrtm(root @ t @ root)))
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_of_a_shifted_copy_is_the_squared_shift() -> None:
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, x + np.float32(2)) == pytest.approx(16, rel=1e-5)


def test_frechet_distance_of_a_stretched_copy_has_its_closed_form() -> None:
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    x -= x.mean(0)
    # tr(S) + tr(9 S) - 2 tr(3 S) = 4 tr(S)
    assert frechet_distance(x, 3 * x) == pytest.approx(4 * np.trace(np.cov(x, rowvar=False)), rel=1e-4)


def test_kernel_has_known_values() -> None:
    a = np.array([[1.0, 0.0]], dtype=np.float32)
    b = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(rbf(a, b, 2.0), [[1.0, np.exp(-1), np.exp(-2)]], rtol=1e-6)


def test_kernel_distance_of_two_pairs_has_its_closed_form() -> None:
    x = np.array([[1, 1], [1, -1]], dtype=np.float32)
    y = np.array([[-1, -1], [-1, 1]], dtype=np.float32)
    # (x'y / 2 + 1)^3 is 1 within each pair; between them it is 0, 1, 1 and 0.
    assert kernel_distance(x, y) == pytest.approx(1 + 1 - 2 * 0.5)


def test_kernel_distance_of_a_shift_has_its_expectation() -> None:
    # In one dimension, with x ~ N(0, 1), y ~ N(1, 1): the kernel is that of moments 1 to 3, with weights 3, 3 and 1.
    # Squared differences of the moments E x^k: 1, (2 - 1)^2 and (4 - 0)^2.
    expected = 3 * 1 + 3 * 1 + 16
    found = [kernel_distance(normal(400, 1, seed), normal(400, 1, seed + 100, 1.0)) for seed in range(20)]
    assert np.mean(found) == pytest.approx(expected, rel=0.1)


def test_energy_distance_of_points_has_its_closed_form() -> None:
    zeros, ones = np.zeros((4, 3), dtype=np.float32), np.ones((5, 3), dtype=np.float32)
    assert energy_distance(zeros, ones) == pytest.approx(2 * np.sqrt(3), rel=1e-6)
    pair, other = np.float32([[0], [2]]), np.float32([[1], [5]])
    # Between: 1, 5, 1, 3; within: 2 and 4.
    assert energy_distance(pair, other) == pytest.approx(2 * 2.5 - 2 - 4)


def test_energy_distance_of_a_shift_has_its_expectation() -> None:
    # |X - Y| for N(0, 1) and N(m, 1) is folded normal with variance 2.
    m = 1.5
    between = 2 / np.sqrt(np.pi) * np.exp(-(m**2) / 4) + m * (1 - 2 * 0.14442)  # Phi(-1.5 / sqrt 2) = 0.14442
    expected = 2 * between - 2 * 2 / np.sqrt(np.pi)
    found = [energy_distance(normal(200, 1, seed), normal(200, 1, seed + 100, m)) for seed in range(30)]
    assert np.mean(found) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("distance", [kernel_distance, energy_distance])
def test_samples_of_one_distribution_have_distance_zero_on_average(distance: object) -> None:
    found = np.array([distance(normal(30, 5, seed), normal(40, 5, seed + 1000)) for seed in range(200)])  # type: ignore[operator]
    assert abs(found.mean()) < 3 * found.std() / np.sqrt(len(found))
    assert (found < 0).any()
