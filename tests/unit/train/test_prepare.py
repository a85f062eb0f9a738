"""What is kept of a prepared backbone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autotl.models.catalog import load_catalog
from autotl.train.prepare import Prepared

ROWS = np.array([1, 3, 4, 8])
EMBEDDINGS = np.arange(8, dtype=np.float32).reshape(4, 2)


@pytest.fixture
def prepared() -> Prepared:
    """Embeddings of four rows."""
    paths = {"state": Path("state"), "converted": None}
    told = {"weights_sha256": "", "engine": "", "engines": {}, "seconds": 2.0, "n_stages": 1, "preprocessing": {}}
    return Prepared(
        entry=load_catalog()[0],
        rows=ROWS,
        embeddings=EMBEDDINGS,
        stage_rows=ROWS[:0],
        stage_features={},
        **paths,
        **told,
    )  # type: ignore[arg-type]


def test_embeddings_of_some_rows(prepared: Prepared) -> None:
    np.testing.assert_array_equal(prepared.of(np.array([3, 8])), EMBEDDINGS[[1, 3]])
    np.testing.assert_array_equal(prepared.of(np.array([8, 1, 1])), EMBEDDINGS[[3, 0, 0]])


def test_embeddings_of_all_rows_are_no_copy(prepared: Prepared) -> None:
    assert prepared.of(ROWS.copy()) is EMBEDDINGS
    np.testing.assert_array_equal(prepared.of(ROWS[::-1]), EMBEDDINGS[::-1])


def test_images_per_second(prepared: Prepared) -> None:
    assert prepared.images_per_second == 2.0
