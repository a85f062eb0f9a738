"""The yardstick: embeddings of photographs of the source data, shipped with the package, and how to make one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SHIPPED = "imagenet1k-lite0.npz"


@dataclass(frozen=True, slots=True, eq=False)
class Yardstick:
    """What similarity is measured against.

    Attributes:
        source: the data it stands for, such as "ImageNet-1k".
        backbone: timm's name of the model that made the embeddings.
        embeddings: rows of length 1, float32, shape (photographs, dimensions).
        names: of the photographs' classes, one a row.
        squared_bandwidth: of the RBF kernel: the median squared distance between two of the rows.
    """

    source: str
    backbone: str
    embeddings: NDArray[np.float32]
    names: tuple[str, ...]
    squared_bandwidth: float


def make_yardstick(source: str, backbone: str, embeddings: NDArray[np.float32], names: tuple[str, ...]) -> Yardstick:
    """A yardstick from raw embeddings, shape (photographs, dimensions); rows are scaled to length 1."""
    rows = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    rows = rows.astype(np.float16).astype(np.float32)
    squared = 2.0 - 2.0 * (rows @ rows.T)
    median = float(np.median(squared[np.triu_indices(len(rows), k=1)]))
    return Yardstick(source, backbone, rows, names, median)


def save_yardstick(yardstick: Yardstick, path: Path) -> None:
    """Write a yardstick as npz without pickles; embeddings in half precision."""
    np.savez_compressed(
        path,
        source=np.array(yardstick.source),
        backbone=np.array(yardstick.backbone),
        embeddings=yardstick.embeddings.astype(np.float16),
        names=np.array(yardstick.names),
        squared_bandwidth=np.array(yardstick.squared_bandwidth),
    )


def load_yardstick(path: Path | None = None) -> Yardstick:
    """The yardstick at `path`, or the one shipped with the package."""
    with np.load(path or Path(__file__).with_name(SHIPPED), allow_pickle=False) as arrays:
        return Yardstick(
            source=str(arrays["source"]),
            backbone=str(arrays["backbone"]),
            embeddings=arrays["embeddings"].astype(np.float32),
            names=tuple(str(name) for name in arrays["names"]),
            squared_bandwidth=float(arrays["squared_bandwidth"]),
        )
