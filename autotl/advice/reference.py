"""The yardstick: embeddings of photographs of the source data, in a file; one ships with the package."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autotl.errors import Problem, SettingsError
from autotl.rundir import write_atomically

SHIPPED = "imagenet1k-lite0.npz"
KEYS = ("source", "backbone", "embeddings", "names", "squared_bandwidth")
MIN_PHOTOGRAPHS = 20
"""Fewer photographs do not make a source."""


@dataclass(frozen=True, slots=True, eq=False)
class Yardstick:
    """What similarity is measured against.

    Attributes:
        source: the data it stands for, such as "ImageNet-1k".
        backbone: timm's name of the model that made the embeddings.
        embeddings: rows of length 1, float32, shape (photographs, dimensions).
        names: of the photographs' classes, one a row.
        squared_bandwidth: of the RBF kernel: the median squared distance between two of the rows.
        weights_sha256: of the run's model that made the embeddings; "" where pretrained weights did.
    """

    source: str
    backbone: str
    embeddings: NDArray[np.float32]
    names: tuple[str, ...]
    squared_bandwidth: float
    weights_sha256: str = ""


def make_yardstick(source: str, backbone: str, embeddings: NDArray[np.float32], names: tuple[str, ...]) -> Yardstick:
    """A yardstick from raw embeddings, shape (photographs, dimensions); rows are scaled to length 1."""
    rows = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    rows = rows.astype(np.float16).astype(np.float32)
    squared = 2.0 - 2.0 * (rows @ rows.T)
    median = float(np.median(squared[np.triu_indices(len(rows), k=1)]))
    return Yardstick(source, backbone, rows, names, median)


def save_yardstick(yardstick: Yardstick, path: Path) -> None:
    """Write a yardstick as npz without pickles, whole or not at all; embeddings in half precision."""
    content = io.BytesIO()
    np.savez_compressed(
        content,
        source=np.array(yardstick.source),
        backbone=np.array(yardstick.backbone),
        embeddings=yardstick.embeddings.astype(np.float16),
        names=np.array(yardstick.names),
        squared_bandwidth=np.array(yardstick.squared_bandwidth),
        weights_sha256=np.array(yardstick.weights_sha256),
    )
    write_atomically(path, content.getvalue())


def load_yardstick(path: Path | None = None) -> Yardstick:
    """The yardstick at `path`, or the one shipped with the package.

    Raises:
        SettingsError: if the file is missing, damaged, or no yardstick.
    """
    path = path or Path(__file__).with_name(SHIPPED)
    if not path.is_file():
        raise SettingsError([_problem(path, "no such file")])
    try:
        with np.load(path, allow_pickle=False) as arrays:
            # A file that holds one array alone is returned as that array, which has no keys.
            read = {key: arrays[key] for key in KEYS}
            weights_sha256 = str(arrays["weights_sha256"]) if "weights_sha256" in arrays else ""
    except (OSError, EOFError, KeyError, ValueError, TypeError, IndexError, zipfile.BadZipFile, zlib.error) as error:
        raise SettingsError([_problem(path, f"cannot be read ({type(error).__name__}: {error})")]) from error
    found = _what_is_wrong(read)
    if found:
        raise SettingsError([_problem(path, found)])
    return Yardstick(
        source=str(read["source"]),
        backbone=str(read["backbone"]),
        embeddings=read["embeddings"].astype(np.float32),
        names=tuple(str(name) for name in read["names"]),
        squared_bandwidth=float(read["squared_bandwidth"]),
        weights_sha256=weights_sha256,
    )


def _problem(path: Path, found: str) -> Problem:
    return Problem("settings", f"yardstick {path}", found, "a file written by `autotl yardstick build`")


def _what_is_wrong(read: dict[str, NDArray[np.generic]]) -> str:
    """With the arrays of a file; "" when nothing is."""
    embeddings, names, bandwidth = read["embeddings"], read["names"], read["squared_bandwidth"]
    if embeddings.ndim != 2 or embeddings.dtype.kind != "f" or bandwidth.ndim or bandwidth.dtype.kind != "f":
        return "holds no table of embeddings with a bandwidth"
    if len(embeddings) < MIN_PHOTOGRAPHS or names.shape != embeddings.shape[:1]:
        return f"holds {len(embeddings)} photographs, {names.size} names; as many of each, {MIN_PHOTOGRAPHS} or more"
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    if not (np.abs(lengths - 1.0) < 0.01).all() or not 0.0 < float(bandwidth) < np.inf:
        return "holds embeddings that are not of length 1, or no bandwidth above 0"
    return ""
