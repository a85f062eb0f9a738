"""How far a set of images is from the source data, as distances between embedding distributions.

The main distance is one-sided: a set of only ants and bees is narrow, but ImageNet covers it. It is the squared
maximum mean discrepancy (MMD, Gretton et al. 2012, jmlr.org/papers/v13/gretton12a) between the set and the
*nearest mixture* of the source's photographs. The two-sided Fréchet distance (Heusel et al., arXiv 1706.08500)
is reported beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular, svdvals
from scipy.optimize import nnls

from autotl.advice.reference import Yardstick
from autotl.train.probe import unit

FAR = 0.075
"""Distance from which data counts as dissimilar: between cats and dogs (0.05) and satellite tiles (0.10)."""
MAX_IMAGES = 1000
"""More images than this are sampled: the distance no longer changes."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Similarity:
    """The distances and what they mean.

    Attributes:
        distance: squared MMD to the nearest mixture; about 0 for the source's own data, at most about 0.4.
        similarity: `distance` on a scale from 0 to 1; 0.5 at `threshold`.
        threshold: from this distance on the data counts as dissimilar.
        frechet: Fréchet distance of the embeddings scaled to length 1.
        n_images: of the set that were used.
        source, backbone: of the yardstick.
    """

    distance: float
    similarity: float
    threshold: float
    frechet: float
    n_images: int
    source: str
    backbone: str

    @property
    def similar(self) -> bool:
        """Whether the data counts as similar to the source."""
        return self.distance < self.threshold


def measure_similarity(embeddings: NDArray[np.float32], yardstick: Yardstick, seed: int = 0) -> Similarity:
    """Distances between a set and a yardstick.

    Args:
        embeddings: of the set by the yardstick's backbone, shape (images, dimensions), at least 2 images.
        yardstick: the source.
        seed: of the sample that is taken of more than `MAX_IMAGES` images.

    Raises:
        ValueError: if there are fewer than 2 images or the dimensions differ.
    """
    if len(embeddings) < 2 or embeddings.shape[1] != yardstick.embeddings.shape[1]:
        raise ValueError(f"need 2 images or more of {yardstick.embeddings.shape[1]} dimensions, not {embeddings.shape}")
    if len(embeddings) > MAX_IMAGES:
        chosen = np.random.default_rng(seed).choice(len(embeddings), MAX_IMAGES, replace=False)
        embeddings = embeddings[chosen]
    rows = unit(embeddings)
    distance = mixture_mmd(rows, yardstick.embeddings, yardstick.squared_bandwidth)
    return Similarity(
        distance=distance,
        similarity=to_similarity(distance),
        threshold=FAR,
        frechet=frechet_distance(rows, yardstick.embeddings),
        n_images=len(rows),
        source=yardstick.source,
        backbone=yardstick.backbone,
    )


def to_similarity(distance: float) -> float:
    """1 / (1 + (distance / FAR)^2): 1 at distance 0, 0.5 at the threshold, about 0.06 for handwritten digits."""
    return 1.0 / (1.0 + (max(distance, 0.0) / FAR) ** 2)


def rbf(a: NDArray[np.float32], b: NDArray[np.float32], squared_bandwidth: float) -> Matrix:
    """exp(-|a_i - b_j|^2 / squared_bandwidth), shape (len(a), len(b))."""
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2.0 * (a @ b.T)
    kernel: Matrix = np.exp(-np.maximum(squared, 0.0).astype(np.float64) / squared_bandwidth)
    return kernel


def mixture_mmd(x: NDArray[np.float32], z: NDArray[np.float32], squared_bandwidth: float) -> float:
    """Squared MMD between `x` and the nearest mixture of the rows of `z`.

    min over w >= 0, sum(w) = 1 of  mean_{i != j} k(x_i, x_j) - 2 sum_j w_j mean_i k(x_i, z_j) + w' K_zz w.
    The first term is unbiased, so the value may fall slightly below 0.

    Args:
        x: the set, rows of length 1, shape (n, dimensions), n >= 2.
        z: the source, rows of length 1, shape (m, dimensions).
        squared_bandwidth: of the RBF kernel.
    """
    n = len(x)
    own = (rbf(x, x, squared_bandwidth).sum() - n) / (n * (n - 1))
    to_source = rbf(x, z, squared_bandwidth).mean(axis=0)
    kernel = rbf(z, z, squared_bandwidth)
    weights = nearest_mixture(kernel, to_source)
    return float(own - 2.0 * weights @ to_source + weights @ kernel @ weights)


def nearest_mixture(kernel: Matrix, target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights on the simplex that minimise w' K w - 2 w' target, by non-negative least squares.

    With K = L L', the objective is |L' w - L^-1 target|^2 up to a constant; a heavily weighted extra row asks for
    sum(w) = 1.
    """
    lower = cholesky(kernel + 1e-8 * np.eye(len(kernel)), lower=True)
    heavy = 1e3
    matrix = np.vstack([lower.T, np.full((1, len(kernel)), heavy)])
    right = np.append(solve_triangular(lower, target, lower=True), heavy)
    weights, _ = nnls(matrix, right, maxiter=10 * len(kernel))
    result: NDArray[np.float64] = weights / weights.sum()
    return result


def frechet_distance(x: NDArray[np.float32], y: NDArray[np.float32]) -> float:
    """|mean_x - mean_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)), with the covariances S of the rows.

    The trace of the root is the sum of the singular values of A B', for the centred rows A and B divided by
    sqrt(n - 1): exact, and cheap where there are fewer images than dimensions.
    """
    a, b = x.astype(np.float64), y.astype(np.float64)
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    a, b = (a - mean_a) / np.sqrt(len(a) - 1), (b - mean_b) / np.sqrt(len(b) - 1)
    root = float(svdvals(a @ b.T).sum())
    return float(((mean_a - mean_b) ** 2).sum() + (a * a).sum() + (b * b).sum() - 2.0 * root)
