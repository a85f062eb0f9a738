"""Transferability scores from the literature: LogME and the H-score, for comparison beside probes and neighbours.

They are shown, not used: plain nearest neighbours rank backbones better (arXiv 2503.18528).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh, solve

Matrix = NDArray[np.float64]
MAX_ITERATIONS = 100
RATIO_LIMITS = (1e-12, 1e12)
"""Of alpha / beta: where classes are separated without error, or features say nothing, it has no finite optimum."""


def logme(features: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Log maximum evidence a sample of linear regressions of the one-hot labels, the mean over classes.

    The weights have the prior N(0, 1/alpha), the labels noise of variance 1/beta; alpha and beta maximise the evidence
    by fixed-point iteration (You et al., arXiv 2102.11005, and its journal version, JMLR 23). Larger is better.

    Args:
        features: shape (n, dimensions), as the backbone gives them: neither centred nor scaled.
        labels: shape (n,); classes that do not occur do not count.

    Raises:
        ValueError: if there are no images.
    """
    if not len(labels):
        raise ValueError("LogME needs at least one image")
    matrix = np.asarray(features, dtype=np.float64)
    targets = np.equal(labels[:, None], np.unique(labels)).astype(np.float64)
    spectrum, projected = _spectrum(matrix, targets)
    rest = np.maximum((targets**2).sum(0) - projected.sum(0), 0.0)
    return float(np.mean([_evidence(spectrum, projected[:, c], rest[c], len(labels)) for c in range(len(rest))]))


def _spectrum(matrix: Matrix, targets: Matrix) -> tuple[Matrix, Matrix]:
    """Squared singular values, shape (rank,), and squares of the targets on the left singular vectors.

    From the smaller of the two Gram matrices, which takes a fraction of a singular value decomposition.
    """
    wide = matrix.shape[1] > len(matrix)
    values, vectors = eigh(matrix @ matrix.T if wide else matrix.T @ matrix)
    kept = values > values[-1] * max(matrix.shape) * np.finfo(np.float64).eps
    values, vectors = values[kept], vectors[:, kept]
    if wide:
        return values, (vectors.T @ targets) ** 2
    return values, (vectors.T @ (matrix.T @ targets)) ** 2 / values[:, None]


def _evidence(spectrum: Matrix, squares: Matrix, rest: float, n: int) -> float:
    """Log evidence a sample, where `squares` of the target lie in the features' span and `rest` outside."""
    ratio = 1.0  # alpha / beta
    for _ in range(MAX_ITERATIONS):
        alpha, beta, _, _ = _alpha_beta(spectrum, squares, rest, n, ratio)
        before, ratio = ratio, float(np.clip(alpha / beta, *RATIO_LIMITS))
        if abs(ratio - before) <= 1e-6 * before:
            break
    alpha, beta, length, residual = _alpha_beta(spectrum, squares, rest, n, ratio)
    log_determinant = np.log(alpha + beta * spectrum).sum() - len(spectrum) * np.log(alpha)
    fit = n * np.log(beta / (2 * np.pi)) - beta * residual - alpha * length
    return float(fit - log_determinant) / (2 * n)


def _alpha_beta(
    spectrum: Matrix, squares: Matrix, rest: float, n: int, ratio: float
) -> tuple[float, float, float, float]:
    """New alpha and beta, the squared length of the mean weights, and the squared residual, at alpha / beta."""
    shrunk = spectrum + ratio
    effective = float((spectrum / shrunk).sum())
    length = float((spectrum * squares / shrunk**2).sum())
    residual = float((squares * (ratio / shrunk) ** 2).sum()) + rest
    tiny = 1e-12
    return effective / max(length, tiny) + tiny, (n - effective) / max(residual, tiny) + tiny, length, residual


def h_score(features: NDArray[np.floating], labels: NDArray[np.int64], *, shrinkage: float | None = None) -> float:
    """The H-score, trace(cov(f)^-1 cov(E[f|y])) (Bao et al. 2019, doi:10.1109/ICIP.2019.8803726); larger is better.

    With fewer images than dimensions the covariance is singular and the plain score is the number of classes less one
    for any features. Shrunk towards a multiple of the identity it still tells backbones apart (arXiv 2110.06893).

    Args:
        features: shape (n, dimensions).
        labels: shape (n,).
        shrinkage: weight of the identity in 0..1; 0 is the plain score (with a pseudo-inverse), None asks
            `ledoit_wolf`.
    """
    centred = np.asarray(features, dtype=np.float64) - np.mean(features, axis=0, dtype=np.float64)
    classes, counts = np.unique(labels, return_counts=True)
    means = np.stack([centred[labels == label].mean(0) for label in classes])
    weighted = means * np.sqrt(counts / len(labels))[:, None]  # weighted.T @ weighted is cov(E[f|y])
    covariance = centred.T @ centred / len(centred)
    weight = ledoit_wolf(centred, covariance) if shrinkage is None else shrinkage
    if weight <= 0:
        return float(np.einsum("cd,de,ce->", weighted, np.linalg.pinv(covariance, hermitian=True), weighted))
    diagonal = np.trace(covariance) / len(covariance)
    if diagonal <= 0:
        return 0.0  # all images have the same features
    shrunk = (1 - weight) * covariance
    np.fill_diagonal(shrunk, shrunk.diagonal() + weight * diagonal)
    return (1 - weight) * float((weighted * solve(shrunk, weighted.T, assume_a="pos").T).sum())


def ledoit_wolf(centred: Matrix, covariance: Matrix) -> float:
    """Ledoit and Wolf's shrinkage of a covariance towards a multiple of the identity.

    doi:10.1016/S0047-259X(03)00096-4.

    Args:
        centred: shape (n, dimensions), of mean 0.
        covariance: centred.T @ centred / n.

    Returns:
        The weight of the identity, in 0..1; 0 where the covariance is such a multiple already.
    """
    n, dimensions = centred.shape
    squared = float((covariance**2).sum())
    distance = squared - float(np.trace(covariance)) ** 2 / dimensions
    noise = (float(((centred**2).sum(1) ** 2).sum()) / n - squared) / n
    return float(np.clip(noise / distance, 0.0, 1.0)) if distance > 1e-12 * squared else 0.0
