"""Embeddings in the cache: who fits the same images again, or goes on with a run, does not wait for them again."""

from __future__ import annotations

import json
import os
import platform
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotl.models.backbone import Preprocessing
from autotl.storage.cache import DiskCache, made_with
from autotl.storage.rundir import fingerprint

HEADER_BYTES = 4096
"""Of an array in the file, and for what is said of it, at most."""
SMALLEST = 64
"""Images; fewer are embedded while one would look for them."""


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """What came of embedding images, see `autotl.frozen.prepare.PreparedBackbone`.

    Attributes:
        engine, engines: how, and what was tried.
        converted: whether the model was converted for that, and is in the cache, too.
        seconds: it took.
        embeddings: float32, shape (images, dimensions).
        stage_features: float32, shape (images, channels), by freeze depth.
    """

    engine: str
    engines: dict[str, tuple[float, float]]
    converted: bool
    seconds: float
    embeddings: NDArray[np.float32]
    stage_features: dict[int, NDArray[np.float32]]


def embeddings_key(
    timm_name: str,
    weights_sha256: str,
    data_fingerprint: str,
    preprocessing: Preprocessing,
    precision: str,
    workers: int,
    passes: int,
    rows: NDArray[np.int64],
    stage_rows: NDArray[np.int64],
) -> dict[str, Any]:
    """The whole of what they depend on: their time on the machine and its cores, the way to them on how often it is
    going to be used."""
    return {
        "kind": "embeddings",
        "backbone": timm_name,
        "weights": weights_sha256,
        "data": data_fingerprint,
        "rows": fingerprint([rows.tolist(), stage_rows.tolist()]),
        "preprocessing": preprocessing.to_json(),
        "precision": precision,
        "machine": [platform.node(), workers],
        "passes": passes,
        **made_with("timm", "torch", "pillow"),
    }


def find_embedded(cache: DiskCache, key: dict[str, Any]) -> Embedded | None:
    """What an earlier call left; None where there is nothing, or it cannot be read."""
    path = cache.get(key)
    if path is None:
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            said = json.loads(str(arrays["said"]))
            stages = {int(name.removeprefix("stage-")): arrays[name] for name in arrays if name.startswith("stage-")}
            engines = {name: (float(speed), float(error)) for name, (speed, error) in said.pop("engines").items()}
            return Embedded(**said, engines=engines, embeddings=arrays["embeddings"], stage_features=stages)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def keep_embedded(cache: DiskCache, key: dict[str, Any], embedded: Embedded) -> None:
    """Keep it for a later call; where there is no room, not."""
    arrays: dict[str, Any] = {"embeddings": embedded.embeddings}
    arrays |= {f"stage-{depth}": features for depth, features in embedded.stage_features.items()}
    plain = {name: getattr(embedded, name) for name in ("engine", "engines", "converted", "seconds")}

    def build(path: Path) -> bool:
        with open(path, "wb") as file:
            np.savez(file, said=np.array(json.dumps(plain)), **arrays)
            file.flush()
            os.fsync(file.fileno())
        return True

    size = sum(array.nbytes + HEADER_BYTES for array in arrays.values()) + HEADER_BYTES
    cache.get_or_build(key, size, build)
