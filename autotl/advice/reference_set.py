"""The reference set: embeddings of the photographs that data is measured against. One ships with the package."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autotl.advice.distances import squared_distances
from autotl.errors import Problem, SettingsError
from autotl.storage.rundir import write_atomically

SHIPPED = "imagenet1k-lite0.npz"
KEYS = ("name", "backbone", "embeddings", "class_names", "squared_bandwidth")
MIN_PHOTOGRAPHS = 20
"""Fewer photographs do not make a reference set."""
SAME = 2.0**-20
"""Squared distance of rows that are the same: half precision moves a row of length 1 by up to 2^-11, two by 2^-10."""


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceSet:
    """What similarity is measured against.

    Attributes:
        name: of the data it stands for, such as "ImageNet-1k".
        backbone: timm's name of the model that made the embeddings; NAME=PATH if its weights came from a local file.
        embeddings: rows of length 1, float32, shape (photographs, dimensions).
        class_names: of the photographs, one for each row.
        squared_bandwidth: of the RBF kernel: the median squared distance between two of the rows.
        weights_sha256: of the run's model that made the embeddings; "" where pretrained weights did.
        file_sha256: of the file of weights in `backbone`; "" without one.
    """

    name: str
    backbone: str
    embeddings: NDArray[np.float32]
    class_names: tuple[str, ...]
    squared_bandwidth: float
    weights_sha256: str = ""
    file_sha256: str = ""


def make_reference_set(
    name: str, backbone: str, embeddings: NDArray[np.float32], class_names: tuple[str, ...]
) -> ReferenceSet:
    """A reference set from raw embeddings, shape (photographs, dimensions); rows are scaled to length 1.

    Raises:
        ValueError: if half of the pairs of rows are the same, or more: nothing can be measured with that.
    """
    rows = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    rows = rows.astype(np.float16).astype(np.float32)
    median = _median_squared_distance(rows)
    if not median > SAME:  # or NaN
        raise ValueError("half of the pairs of images, or more, look the same to the model")
    return ReferenceSet(name, backbone, rows, class_names, median)


def _median_squared_distance(rows: NDArray[np.float32]) -> float:
    """Between two of the rows."""
    # Not 2 - 2 rows @ rows.T: rounded rows are not quite of length 1, and copies would seem to lie apart.
    return float(np.median(squared_distances(rows, rows)[np.triu_indices(len(rows), k=1)]))


def save_reference_set(reference: ReferenceSet, path: Path) -> None:
    """Write a reference set as npz without pickles, whole or not at all; embeddings in half precision."""
    content = io.BytesIO()
    np.savez_compressed(
        content,
        name=np.array(reference.name),
        backbone=np.array(reference.backbone),
        embeddings=reference.embeddings.astype(np.float16),
        class_names=np.array(reference.class_names),
        squared_bandwidth=np.array(reference.squared_bandwidth),
        weights_sha256=np.array(reference.weights_sha256),
        file_sha256=np.array(reference.file_sha256),
    )
    write_atomically(path, content.getvalue())


def load_reference_set(path: Path | None = None) -> ReferenceSet:
    """The reference set at `path`, or the one shipped with the package.

    Raises:
        SettingsError: if the file is missing, damaged, or no reference set, or if its backbone's file of weights has
            changed.
    """
    path = path or Path(__file__).with_name(SHIPPED)
    if not path.is_file():
        raise SettingsError([_problem(path, "no such file")])
    try:
        with np.load(path, allow_pickle=False) as arrays:
            # A file that holds one array alone is returned as that array, which has no keys.
            read = {key: arrays[key] for key in KEYS}
            checksums = {key: str(arrays[key]) for key in ("weights_sha256", "file_sha256") if key in arrays}
    except (OSError, EOFError, KeyError, ValueError, TypeError, IndexError, zipfile.BadZipFile, zlib.error) as error:
        raise SettingsError([_problem(path, f"cannot be read ({type(error).__name__}: {error})")]) from error
    found = _what_is_wrong(read)
    if found:
        raise SettingsError([_problem(path, found)])
    reference = ReferenceSet(
        name=str(read["name"]),
        backbone=str(read["backbone"]),
        embeddings=read["embeddings"].astype(np.float32),
        class_names=tuple(str(name) for name in read["class_names"]),
        squared_bandwidth=float(read["squared_bandwidth"]),
        **checksums,
    )
    _check_weights(reference, path)
    return reference


def _check_weights(reference: ReferenceSet, path: Path) -> None:
    """Whether the file of weights is the one that made the embeddings; with others they measure nothing.

    Raises:
        SettingsError: if it is another one.
    """
    if not reference.file_sha256:
        return
    from autotl.models.weights import file_sha256

    weights = reference.backbone.partition("=")[2]
    try:
        if file_sha256(Path(weights)) == reference.file_sha256:
            return
    except OSError:
        return  # reported where the backbone is looked up
    found = f"{weights} holds other weights now than those that made it"
    remedy = "put those weights back, or build the reference set again"
    raise SettingsError([Problem("settings", f"reference {path}", found, remedy=remedy)])


def _problem(path: Path, found: str) -> Problem:
    return Problem("settings", f"reference {path}", found, "a file written by `autotl reference build`")


def _what_is_wrong(read: dict[str, NDArray[np.generic]]) -> str:
    """With the arrays of a file; "" when nothing is."""
    embeddings, names, bandwidth = read["embeddings"], read["class_names"], read["squared_bandwidth"]
    if embeddings.ndim != 2 or embeddings.dtype.kind != "f" or bandwidth.ndim or bandwidth.dtype.kind != "f":
        return "holds no table of embeddings with a bandwidth"
    if len(embeddings) < MIN_PHOTOGRAPHS or names.shape != embeddings.shape[:1]:
        return f"holds {len(embeddings)} photographs, {names.size} names; as many of each, {MIN_PHOTOGRAPHS} or more"
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    if not (np.abs(lengths - 1.0) < 0.01).all() or not 0.0 < float(bandwidth) < np.inf:
        return "holds embeddings that are not of length 1, or no bandwidth above 0"
    if not _median_squared_distance(embeddings.astype(np.float32)) > SAME:
        return "holds embeddings of which half of the pairs, or more, are the same"
    return ""
