"""Distances between embeddings: closed forms, optimality, and the shipped yardstick."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.optimize import minimize

from autotl.advice.reference import Yardstick, load_yardstick, make_yardstick
from autotl.advice.similarity import (
    FAR,
    MAX_IMAGES,
    frechet_distance,
    measure_similarity,
    mixture_mmd,
    nearest_mixture,
    rbf,
    to_similarity,
)
from autotl.train.probe import unit


def directions(n: int, dimensions: int, seed: int, around: float = 0.0) -> np.ndarray:
    """Random rows of length 1, all near the first axis where `around` is large."""
    rows = np.random.default_rng(seed).normal(size=(n, dimensions))
    rows[:, 0] += around
    return unit(rows.astype(np.float32))


@pytest.fixture(scope="module")
def shipped() -> Yardstick:
    return load_yardstick()


@pytest.fixture(scope="module")
def thinned(shipped: Yardstick) -> Yardstick:
    """Every fourth photograph, for speed."""
    return dataclasses.replace(shipped, embeddings=shipped.embeddings[::4])


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
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
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


def test_mmd_of_copies_of_one_source_image_is_zero() -> None:
    z = directions(10, 5, 0)
    assert mixture_mmd(np.tile(z[3], (6, 1)), z, 1.0) == pytest.approx(0, abs=1e-6)


def test_mmd_of_identical_pairs_has_its_closed_form() -> None:
    pair = np.eye(2, dtype=np.float32)
    # Kernel k between the two: k (unbiased) - 2 (1 + k) / 2 + (1 + k) / 2.
    assert mixture_mmd(pair, pair, 2.0) == pytest.approx((np.exp(-1) - 1) / 2, rel=1e-5)


def test_mmd_of_identical_sets_is_only_below_zero_by_its_unbiased_term() -> None:
    x = directions(60, 8, 0)
    kernel = rbf(x, x, 1.0)
    uniform = (kernel.sum() - 60) / (60 * 59) - kernel.mean()
    assert uniform - 1e-3 < mixture_mmd(x, x, 1.0) <= uniform + 1e-6 < 0


def test_mmd_to_one_other_image_has_its_closed_form() -> None:
    x, z = np.tile(np.float32([[1, 0]]), (3, 1)), np.float32([[0, 1]])
    assert mixture_mmd(x, z, 2.0) == pytest.approx(2 - 2 * np.exp(-1), rel=1e-5)


def test_mmd_is_one_sided() -> None:
    narrow, wide = directions(80, 8, 0, around=4), directions(400, 8, 1, around=1)
    assert mixture_mmd(narrow, wide, 0.5) < 0.01
    assert mixture_mmd(wide, narrow, 0.5) > 0.05


def test_mmd_of_samples_of_one_distribution_is_near_zero() -> None:
    assert abs(mixture_mmd(directions(200, 8, 0, 2), directions(400, 8, 1, 2), 1.0)) < 0.01


def test_mmd_bears_repeated_source_images() -> None:
    z = directions(40, 8, 0)
    x = directions(30, 8, 1)
    assert mixture_mmd(x, np.concatenate([z, z, z]), 1.0) == pytest.approx(mixture_mmd(x, z, 1.0), abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_nearest_mixture_lies_on_the_simplex_and_is_optimal(seed: int) -> None:
    z, x = directions(7, 3, seed), directions(20, 3, seed + 10, around=1.5)
    kernel, target = rbf(z, z, 0.5), rbf(x, z, 0.5).mean(0)

    def objective(w: np.ndarray) -> float:
        return float(w @ kernel @ w - 2 * w @ target)

    found = nearest_mixture(kernel, target)
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1)
    wanted = minimize(
        objective,
        np.full(7, 1 / 7),
        jac=lambda w: 2 * (kernel @ w - target),
        bounds=[(0, 1)] * 7,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    np.testing.assert_allclose(found, wanted.x, atol=1e-3)
    assert objective(found) <= wanted.fun + 1e-6


def test_nearest_mixture_of_independent_images_is_the_projection_on_the_simplex() -> None:
    # With K = 1 it is the Euclidean projection of the target: here (0.7, 0.3, 0), both moved by the same 0.1.
    np.testing.assert_allclose(nearest_mixture(np.eye(3), np.array([0.8, 0.4, -0.5])), [0.7, 0.3, 0], atol=1e-5)


def test_similarity_is_half_at_the_threshold_and_falls_with_distance() -> None:
    assert to_similarity(0.0) == 1.0
    assert to_similarity(FAR) == pytest.approx(0.5)
    values = [to_similarity(distance) for distance in np.linspace(0, 0.5, 50)]
    assert all(after < before for before, after in pairwise(values))
    assert 0 < values[-1] < 0.05


def test_a_distance_below_zero_is_as_similar_as_can_be() -> None:
    assert to_similarity(-0.01) == 1.0


def test_photographs_of_the_yardstick_are_near(shipped: Yardstick) -> None:
    found = measure_similarity(shipped.embeddings[::4], shipped)
    assert found.similar
    assert found.distance < 0.01
    assert found.similarity > 0.95
    assert (found.source, found.backbone) == (shipped.source, shipped.backbone)


def test_photographs_of_a_few_other_classes_are_near(shipped: Yardstick) -> None:
    nearest = np.argsort(-shipped.embeddings @ shipped.embeddings[0])[:20]
    others = np.delete(shipped.embeddings, nearest, axis=0)[::2]
    narrow = measure_similarity(shipped.embeddings[nearest], dataclasses.replace(shipped, embeddings=others))
    assert narrow.similar


@pytest.mark.parametrize("n_directions", [1, 5])
def test_clouds_around_random_directions_are_far(thinned: Yardstick, n_directions: int) -> None:
    dimensions = thinned.embeddings.shape[1]
    centres, noise = directions(n_directions, dimensions, 0), directions(200, dimensions, 1)
    found = measure_similarity(centres[np.arange(200) % n_directions] + 0.6 * noise, thinned)
    assert not found.similar
    assert found.similarity < 0.4


@pytest.mark.xfail(reason="squared MMD at the median bandwidth does not see where a set lies that is widely spread")
def test_photographs_turned_into_unrelated_directions_are_far(thinned: Yardstick) -> None:
    shuffled = np.random.default_rng(0).permutation(thinned.embeddings.shape[1])
    assert not measure_similarity(thinned.embeddings[:, shuffled], thinned).similar


def test_frechet_distance_tells_photographs_from_unrelated_directions(thinned: Yardstick) -> None:
    shuffled = np.random.default_rng(0).permutation(thinned.embeddings.shape[1])
    own = frechet_distance(thinned.embeddings[::2], thinned.embeddings)
    assert frechet_distance(thinned.embeddings[::2, shuffled], thinned.embeddings) > 2 * own


def test_length_of_embeddings_does_not_count() -> None:
    yardstick = make_yardstick("source", "backbone", directions(50, 8, 0), tuple("x" * 50))
    rows = directions(20, 8, 1)
    one, other = measure_similarity(rows, yardstick), measure_similarity(rows * 17, yardstick)
    assert other.distance == pytest.approx(one.distance, abs=1e-5)
    assert other.frechet == pytest.approx(one.frechet, abs=1e-5)


def test_large_sets_are_sampled_with_the_seed() -> None:
    yardstick = make_yardstick("source", "backbone", directions(50, 8, 0), tuple("x" * 50))
    rows = directions(MAX_IMAGES + 500, 8, 1)
    found = measure_similarity(rows, yardstick, seed=3)
    assert found.n_images == MAX_IMAGES
    assert measure_similarity(rows, yardstick, seed=3) == found
    assert measure_similarity(rows, yardstick, seed=4) != found
    assert measure_similarity(rows[:MAX_IMAGES], yardstick).n_images == MAX_IMAGES


@pytest.mark.parametrize("shape", [(1, 8), (0, 8), (20, 7)])
def test_too_few_images_or_other_dimensions_are_refused(shape: tuple[int, int]) -> None:
    yardstick = make_yardstick("source", "backbone", directions(5, 8, 0), tuple("x" * 5))
    with pytest.raises(ValueError, match="8 dimensions"):
        measure_similarity(np.ones(shape, dtype=np.float32), yardstick)
