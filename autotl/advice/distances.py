"""Distances between two sets of embeddings: pure functions of the rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigvalsh

Rows = NDArray[np.float32]
Matrix = NDArray[np.float64]


def squared_distances(a: Rows, b: Rows) -> Matrix:
    """|a_i - b_j|^2, shape (len(a), len(b))."""
    # In float64: to a fine-tuned model, images of a class are nearly the same, and in float32 the differences drown.
    c, d = a.astype(np.float64), b.astype(np.float64)
    squared = (c * c).sum(1)[:, None] + (d * d).sum(1)[None, :] - 2.0 * (c @ d.T)
    result: Matrix = np.maximum(squared, 0.0)
    return result


def rbf(a: Rows, b: Rows, squared_bandwidth: float) -> Matrix:
    """exp(-|a_i - b_j|^2 / squared_bandwidth), shape (len(a), len(b))."""
    kernel: Matrix = np.exp(-squared_distances(a, b) / squared_bandwidth)
    return kernel


def mean_of_pairs(kernel: Matrix) -> float:
    """The mean of k(x_i, x_j) over i != j, from the kernel of a set with itself, shape (n, n), n >= 2."""
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))


def frechet_distance(x: Rows, y: Rows) -> float:
    """|mean_x - mean_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)), with the covariances S of the rows.

    Heusel et al., arXiv 1706.08500. The trace of the root is the sum of the singular values of A B', for the centred
    rows A and B divided by sqrt(n - 1): there may be fewer images than dimensions. They are roots of eigenvalues of
    A B' B A', which takes half the time of a singular value decomposition and leaves an error of about 1e-6.
    Small sets come out too far, more so in many dimensions: compare only sets of about the same size.
    """
    a, b = x.astype(np.float64), y.astype(np.float64)
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    a, b = (a - mean_a) / np.sqrt(len(a) - 1), (b - mean_b) / np.sqrt(len(b) - 1)
    small, large = sorted((a, b), key=len)
    product = small @ large.T
    root = float(np.sqrt(np.maximum(eigvalsh(product @ product.T), 0.0)).sum())
    return float(((mean_a - mean_b) ** 2).sum() + (a * a).sum() + (b * b).sum() - 2.0 * root)


def kernel_distance(x: Rows, y: Rows) -> float:
    """Kernel Inception distance: unbiased squared MMD with the kernel (x'y / dimensions + 1)^3.

    Bińkowski et al., arXiv 1801.01401. May fall slightly below 0.
    """

    def kernel(a: Rows, b: Rows) -> Matrix:
        cubed: Matrix = ((a @ b.T).astype(np.float64) / a.shape[1] + 1.0) ** 3
        return cubed

    return mean_of_pairs(kernel(x, x)) + mean_of_pairs(kernel(y, y)) - 2.0 * float(kernel(x, y).mean())


def energy_distance(x: Rows, y: Rows) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, unbiased (Székely and Rizzo 2013, doi 10.1016/j.jspi.2013.03.018).

    May fall slightly below 0.
    """
    between = float(np.sqrt(squared_distances(x, y)).mean())
    within = [mean_of_pairs(np.sqrt(squared_distances(rows, rows))) for rows in (x, y)]
    return 2.0 * between - sum(within)
