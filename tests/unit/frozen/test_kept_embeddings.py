"""Embeddings come back from the cache as they were, and only for what they were made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotl.frozen.kept_embeddings import Embedded, embeddings_key, find_embedded, keep_embedded
from autotl.models.backbone import Preprocessing
from autotl.storage.cache import DiskCache

PREPROCESSING = Preprocessing(input_size=64, crop=0.9, mean=(0.5,) * 3, std=(0.5,) * 3, store_size=72)
GIVEN: dict[str, Any] = {
    "timm_name": "net",
    "weights_sha256": "00",
    "data_fingerprint": "photos",
    "preprocessing": PREPROCESSING,
    "precision": "fp32",
    "workers": 2,
    "passes": 4,
    "rows": np.arange(5),
    "stage_rows": np.array([1, 3]),
}
EMBEDDED = Embedded(
    engine="openvino-fp32",
    engines={"torch-fp32": (20.0, 0.0), "openvino-fp32": (50.0, 1e-6)},
    converted=True,
    seconds=1.5,
    embeddings=np.arange(15, dtype=np.float32).reshape(5, 3),
    stage_features={1: np.ones((2, 4), np.float32), 12: np.zeros((2, 6), np.float32)},
)


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    assert find_embedded(cache, embeddings_key(**GIVEN)) is None
    keep_embedded(cache, embeddings_key(**GIVEN), EMBEDDED)
    found = find_embedded(cache, embeddings_key(**GIVEN))
    assert found is not None
    assert (found.engine, found.engines, found.converted, found.seconds) == (
        EMBEDDED.engine,
        EMBEDDED.engines,
        True,
        1.5,
    )
    assert np.array_equal(found.embeddings, EMBEDDED.embeddings)
    assert found.stage_features.keys() == {1, 12}
    assert all(np.array_equal(found.stage_features[depth], EMBEDDED.stage_features[depth]) for depth in (1, 12))


@pytest.mark.parametrize(
    "change",
    [
        {"timm_name": "other"},
        {"weights_sha256": "01"},
        {"data_fingerprint": "changed"},
        {"preprocessing": replace(PREPROCESSING, crop=1.0)},
        {"precision": "bf16"},
        {"workers": 4},
        {"passes": 1},
        {"rows": np.arange(6)},
        {"stage_rows": np.array([1, 2])},
    ],
    ids=lambda change: next(iter(change)),
)
def test_anything_else_has_none(tmp_path: Path, change: dict[str, Any]) -> None:
    keep_embedded(DiskCache(tmp_path), embeddings_key(**GIVEN), EMBEDDED)
    assert find_embedded(DiskCache(tmp_path), embeddings_key(**(GIVEN | change))) is None


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive of arrays"])
def test_a_damaged_entry_is_none(tmp_path: Path, content: bytes) -> None:
    cache, key = DiskCache(tmp_path), embeddings_key(**GIVEN)
    keep_embedded(cache, key, EMBEDDED)
    cache.path(key).write_bytes(content)
    assert find_embedded(cache, key) is None


def test_where_there_is_no_room_nothing_is_kept(tmp_path: Path) -> None:
    cache, key = DiskCache(tmp_path, limit=10), embeddings_key(**GIVEN)
    keep_embedded(cache, key, EMBEDDED)
    assert find_embedded(cache, key) is None
