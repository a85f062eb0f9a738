"""The nearest mixture: optimality, closed forms, bias, and the coverage of the bootstrap's intervals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.optimize import minimize

from autotl.advice.distances import rbf
from autotl.advice.mixture import bootstrap_distances, distance_to, mixture_mmd, nearest_mixture, optimism
from autotl.train.probe import unit


def directions(n: int, dimensions: int, seed: int, around: float = 0.0) -> np.ndarray:
    """Random rows of length 1, all near the first axis where `around` is large."""
    rows = np.random.default_rng(seed).normal(size=(n, dimensions))
    rows[:, 0] += around
    return unit(rows.astype(np.float32))


def test_mmd_of_copies_of_one_photograph_is_zero() -> None:
    z = directions(10, 5, 0)
    assert mixture_mmd(np.tile(z[3], (6, 1)), z, 1.0) == pytest.approx(0, abs=1e-6)


def test_mmd_of_identical_pairs_is_zero() -> None:
    pair = np.eye(2, dtype=np.float32)
    # Kernel k between the two: k (unbiased) - 2 (1 + k) / 2 + (1 + k) / 2 is (k - 1) / 2, which is all optimism.
    assert mixture_mmd(pair, pair, 2.0) == pytest.approx(0, abs=1e-6)


def test_mmd_of_a_set_to_itself_is_near_zero() -> None:
    x = directions(60, 8, 0)
    kernel = rbf(x, x, 1.0)
    biased_by = kernel.mean() - (kernel.sum() - 60) / (60 * 59)
    assert abs(mixture_mmd(x, x, 1.0)) < 0.1 * biased_by


def test_mmd_to_one_other_image_has_its_closed_form() -> None:
    x, z = np.tile(np.float32([[1, 0]]), (3, 1)), np.float32([[0, 1]])
    assert mixture_mmd(x, z, 2.0) == pytest.approx(2 - 2 * np.exp(-1), rel=1e-5)


def test_mmd_is_one_sided() -> None:
    narrow, wide = directions(80, 8, 0, around=4), directions(400, 8, 1, around=1)
    assert mixture_mmd(narrow, wide, 0.5) < 0.01
    assert mixture_mmd(wide, narrow, 0.5) > 0.05


def test_mmd_of_samples_of_one_distribution_is_near_zero() -> None:
    assert abs(mixture_mmd(directions(200, 8, 0, 2), directions(400, 8, 1, 2), 1.0)) < 0.01


def test_mmd_bears_repeated_photographs() -> None:
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


def test_weights_of_several_targets_are_those_of_each() -> None:
    z = directions(30, 4, 0)
    kernel = rbf(z, z, 0.5)
    targets = np.stack([rbf(directions(20, 4, seed, around=2), z, 0.5).mean(0) for seed in (1, 2, 3)], axis=1)
    together = nearest_mixture(kernel, targets)
    assert together.shape == (30, 3)
    for place in range(3):
        np.testing.assert_allclose(together[:, place], nearest_mixture(kernel, targets[:, place]), atol=1e-3)


def test_photographs_that_are_all_the_same_have_a_mixture() -> None:
    weights = nearest_mixture(np.ones((4, 4)), np.full(4, 0.3))
    assert weights.sum() == pytest.approx(1)


class Truth:
    """A population of which the distance to the reference set is known: samples are drawn from it with replacement."""

    def __init__(self, around: float) -> None:
        self.z = directions(40, 6, 0, around=1)
        self.x = directions(1500, 6, 1, around=around)
        self.kernel = rbf(self.z, self.z, 0.7)
        self.own, self.cross = rbf(self.x, self.x, 0.7), rbf(self.x, self.z, 0.7)
        target = self.cross.mean(0)
        weights = nearest_mixture(self.kernel, target)
        self.distance = self.own.mean() - 2 * weights @ target + weights @ self.kernel @ weights

    def samples(self, n: int, repeats: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Weights, own and cross kernel of samples of `n` images."""
        generator = np.random.default_rng(2)
        for _ in range(repeats):
            rows = generator.integers(0, len(self.x), n)
            cross = self.cross[rows]
            yield nearest_mixture(self.kernel, cross.mean(0)), self.own[np.ix_(rows, rows)], cross


@pytest.fixture(scope="module", params=[1.0, 3.0, -1.0], ids=["the reference set's own", "narrow", "elsewhere"])
def truth(request: pytest.FixtureRequest) -> Truth:
    return Truth(request.param)


def test_distance_of_a_small_sample_is_not_biased(truth: Truth) -> None:
    samples = list(truth.samples(20, 150))
    found = np.array([distance_to(weights, own, cross, truth.kernel) for weights, own, cross in samples])
    error = found.std() / np.sqrt(len(found))
    plain = np.mean(
        [value - optimism(w, cross, truth.kernel) for value, (w, _, cross) in zip(found, samples, strict=True)]
    )
    # What is left is of second order: a small part of what was corrected.
    assert abs(found.mean() - truth.distance) < 3 * error + 0.25 * (found.mean() - plain)
    assert truth.distance - plain > 3 * error


def test_intervals_of_the_bootstrap_hold_the_true_distance(truth: Truth) -> None:
    n, draws = 60, 200
    counts = np.random.default_rng(3).multinomial(n, np.full(n, 1 / n), size=draws)
    held, widths, centres = [], [], []
    for weights, own, cross in truth.samples(n, 100):
        distances = bootstrap_distances(weights, own, cross, truth.kernel, counts)
        low, high = np.quantile(distances, [0.025, 0.975])
        held.append(low <= truth.distance <= high)
        widths.append(high - low)
        centres.append(distance_to(weights, own, cross, truth.kernel))
    assert 0.88 <= np.mean(held) <= 1
    # They are not held by being wide: four standard deviations of the distance make an interval of 95%.
    assert np.mean(widths) < 1.5 * 4 * np.std(centres)


def test_resampled_sets_are_not_narrower_for_holding_images_twice(truth: Truth) -> None:
    n = 40
    weights, own, cross = next(truth.samples(n, 1))
    counts = np.random.default_rng(4).multinomial(n, np.full(n, 1 / n), size=2000)
    distances = bootstrap_distances(weights, own, cross, truth.kernel, counts)
    found = distance_to(weights, own, cross, truth.kernel)
    error = distances.std() / np.sqrt(len(distances))
    assert abs(distances.mean() - found) < 4 * error
    # A bootstrap that leaves out only pairs of equal places counts k(x, x) = 1 for about one pair in n.
    pairs = ((counts @ own) * counts).sum(axis=1)
    by_place = ((pairs - n) / (n * (n - 1))).mean() - (own.sum() - n) / (n * (n - 1))
    assert by_place == pytest.approx((1 - own.mean()) / n, rel=0.2)


def test_a_set_drawn_once_each_is_the_set_itself(truth: Truth) -> None:
    weights, own, cross = next(truth.samples(30, 1))
    (found,) = bootstrap_distances(weights, own, cross, truth.kernel, np.ones((1, 30), dtype=np.int64))
    assert found == pytest.approx(distance_to(weights, own, cross, truth.kernel))


def test_optimism_of_two_images_has_its_closed_form() -> None:
    # With x = z = two images with kernel k, P = (1, -1)'(1, -1) / (2 (1 - k)) and S = (1 - k)^2 / 2 (1, -1)'(1, -1).
    k = np.exp(-1)
    kernel = np.array([[1, k], [k, 1]])
    assert optimism(np.array([0.5, 0.5]), kernel, kernel) == pytest.approx((1 - k) / 2, rel=1e-6)
    # One photograph leaves nothing to fit.
    assert optimism(np.array([1.0, 0.0]), kernel, kernel) == pytest.approx(0)
