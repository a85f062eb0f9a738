"""The distance of a set to the nearest mixture of a reference set's rows: one-sided, unbiased, with a bootstrap.

It is the squared maximum mean discrepancy (MMD, Gretton et al. 2012, jmlr.org/papers/v13/gretton12a)

    min over w >= 0, sum(w) = 1 of  mean_{i != j} k(x_i, x_j) - 2 sum_j w_j mean_i k(x_i, z_j) + w' K w,   K = k(z, z).

Here `own` is k(x, x), shape (n, n); `cross` is k(x, z), shape (n, m); `kernel` is K, shape (m, m).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve

from autotl.advice.distances import Matrix, Rows, mean_of_pairs, rbf

Vector = NDArray[np.float64]
GAP = 1e-7
"""Weights are found so well that the squared MMD is at most this much above its minimum."""
MAX_STEPS = 3000
CHECK_EVERY = 10
JITTER = 1e-8
"""Added to the diagonal: photographs may be repeated."""


def nearest_mixture(kernel: Matrix, targets: Matrix) -> Matrix:
    """Weights on the simplex that minimise w' K w - 2 w' t, for each column t of `targets`.

    Accelerated projected gradient descent with restarts (arXiv 1204.3982). K is centred first, which changes the
    objective by a constant: it is then well conditioned, and 50 steps do. They end when the duality gap, an upper
    bound of what is still to be gained, is below `GAP`. All columns share the products with K, so that the weights of
    many subsamples cost little more than those of one set.

    Args:
        kernel: shape (m, m).
        targets: shape (m,) or (m, number of targets).

    Returns:
        The shape of `targets`; many weights are exactly 0.
    """
    mean = kernel.mean(axis=0)
    centred = kernel - mean - mean[:, None] + mean.mean()
    goal = targets.reshape(len(kernel), -1) - mean[:, None]
    rate = 1.0 / _largest_eigenvalue(centred)
    weights = np.full(goal.shape, 1.0 / len(kernel))
    ahead, momentum = weights, 1.0
    for step in range(MAX_STEPS):
        after = _onto_simplex(ahead - rate * (centred @ ahead - goal))
        if step % CHECK_EVERY == 0:
            slope = centred @ after - goal
            if 2.0 * ((slope * after).sum(axis=0) - slope.min(axis=0)).max() <= GAP:
                weights = after
                break
        following = (1.0 + np.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        overshot = ((ahead - after) * (after - weights)).sum(axis=0) > 0
        ahead = after + np.where(overshot, 0.0, (momentum - 1.0) / following) * (after - weights)
        weights, momentum = after, following
    return weights.reshape(targets.shape)


def _largest_eigenvalue(matrix: Matrix) -> float:
    """A little more than the largest eigenvalue of a positive semi-definite matrix, by power iteration."""
    vector = np.random.default_rng(0).normal(size=len(matrix))
    length = 1.0
    for _ in range(30):
        vector = matrix @ (vector / max(length, 1e-12))
        length = float(np.linalg.norm(vector))
    return max(1.1 * length, 1e-12)


def _onto_simplex(columns: Matrix) -> Matrix:
    """The Euclidean projection of each column (Held, Wolfe and Crowder 1974)."""
    falling = -np.sort(-columns, axis=0)
    excess = np.cumsum(falling, axis=0) - 1.0
    places = np.arange(1, len(columns) + 1)[:, None]
    last = (falling * places > excess).sum(axis=0)
    cut = excess[last - 1, np.arange(columns.shape[1])] / last
    result: Matrix = np.maximum(columns - cut, 0.0)
    return result


def mixture_mmd(x: Rows, z: Rows, squared_bandwidth: float) -> float:
    """Squared MMD between `x` and the nearest mixture of the rows of `z`, with the RBF kernel.

    Unbiased to first order, see `distance_to`; may fall slightly below 0.

    Args:
        x: the set, shape (n, dimensions), n >= 2.
        z: the reference set, shape (m, dimensions).
        squared_bandwidth: of the kernel.
    """
    own, cross = rbf(x, x, squared_bandwidth), rbf(x, z, squared_bandwidth)
    kernel = rbf(z, z, squared_bandwidth)
    return distance_to(nearest_mixture(kernel, cross.mean(axis=0)), own, cross, kernel)


def distance_to(weights: Vector, own: Matrix, cross: Matrix, kernel: Matrix) -> float:
    """Squared MMD to the mixture with the `weights` that were fitted to this very set, freed of their optimism."""
    own_term = mean_of_pairs(own)
    return (
        own_term - 2.0 * float(weights @ cross.mean(axis=0)) + _norm(weights, kernel) + optimism(weights, cross, kernel)
    )


def optimism(weights: Vector, cross: Matrix, kernel: Matrix) -> float:
    """By how much the minimum over the weights is too low because they are fitted to a sample: tr(P S) / n.

    On the face of the simplex where the weights are positive, the objective is quadratic, and its minimum falls by
    e' P e for an error e of the target, with P = K^-1 - K^-1 1 1' K^-1 / (1' K^-1 1). S, the covariance of the rows
    of `cross`, over n is the covariance of e. For 30 photographs it is 0.003 to 0.005, more than an independent
    sample's distance.
    """
    active = weights > 0.0
    inside = cross[:, active]
    inverse_times = solve(
        kernel[np.ix_(active, active)] + JITTER * np.eye(int(active.sum())),
        np.column_stack([np.cov(inside, rowvar=False, ddof=1).reshape(inside.shape[1], -1), np.ones(inside.shape[1])]),
        assume_a="pos",
    )
    of_covariance, of_ones = inverse_times[:, :-1], inverse_times[:, -1]
    trace = np.trace(of_covariance) - of_covariance.sum(axis=0) @ of_ones / of_ones.sum()
    return float(trace) / len(cross)


def bootstrap_distances(
    weights: Vector, own: Matrix, cross: Matrix, kernel: Matrix, counts: NDArray[np.int64]
) -> Vector:
    """`distance_to` for resampled sets.

    A set in which an image stands twice looks narrower than it is: the kernel of an image with itself is 1. Pairs of
    equal images are left out, not only those of equal places, so that the mean over all draws is the distance itself.
    The weights stay those of the whole set: at the minimum, the distance does not change with them to first order.

    Args:
        counts: how often each image is drawn, shape (draws, n); every row sums to n and has 2 images or more.
    """
    often = counts.astype(np.float64)
    n = len(own)
    pairs = ((often @ own) * often).sum(axis=1) - (often**2) @ np.diag(own)
    own_terms = pairs / (n * n - (often**2).sum(axis=1))
    constant = _norm(weights, kernel) + optimism(weights, cross, kernel)
    distances: Vector = own_terms - 2.0 * (often @ (cross @ weights)) / n + constant
    return distances


def _norm(weights: Vector, kernel: Matrix) -> float:
    return float(weights @ kernel @ weights)
