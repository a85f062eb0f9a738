"""Contract of stores of images: decoded once into a file, or decoded whenever they are needed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotl.data.on_demand import OnDemand
from autotl.data.pixels import PixelStore, build_store, open_store
from autotl.train.loop import FineTuning

from .conftest import LITE0, ToyRun

SIZE = 64


@pytest.fixture(scope="module")
def paths(shapes: Path) -> list[str]:
    return sorted(path.relative_to(shapes).as_posix() for path in shapes.rglob("*.png"))


class StoreContract:
    """What loaders rely on. A subclass makes the store."""

    def make(self, root: Path, paths: list[str], target: Path) -> PixelStore:
        raise NotImplementedError

    @pytest.fixture
    def store(self, shapes: Path, paths: list[str], tmp_path: Path) -> PixelStore:
        return self.make(shapes, paths, tmp_path / "pixels.u8")

    def test_it_is_found_by_its_path(self, store: PixelStore) -> None:
        assert open_store(store.path) == store

    @pytest.mark.parametrize("workers", [1, 2])
    def test_it_gives_the_images_in_the_places_asked_for(
        self, store: PixelStore, shapes: Path, paths: list[str], tmp_path: Path, workers: int
    ) -> None:
        expected, _ = build_store(shapes, paths, SIZE, tmp_path / "expected.u8", 1)
        pixels = store.open(workers)
        assert pixels.shape == (len(paths), SIZE, SIZE, 3)
        for places in ([], [5], [3, 3, 0], range(len(paths))):
            found = pixels[np.array(places, dtype=np.int64)]
            assert found.dtype == np.uint8
            np.testing.assert_array_equal(found, expected.open()[np.array(places, dtype=np.int64)])


class TestDecodedOnce(StoreContract):
    def make(self, root: Path, paths: list[str], target: Path) -> PixelStore:
        return build_store(root, paths, SIZE, target, 2)[0]


class TestDecodedWheneverNeeded(StoreContract):
    def make(self, root: Path, paths: list[str], target: Path) -> PixelStore:
        with OnDemand(root, paths, SIZE, target, 2) as images:
            return images.finish()[0]


@pytest.mark.parametrize("depth", [0, 8])
def test_a_trial_is_the_same_from_either(
    toy_run: ToyRun, paths: list[str], shapes: Path, tmp_path: Path, depth: int
) -> None:
    config: dict[str, Any] = {
        "backbone": LITE0,
        "initial_weights": "pretrained",
        "freeze_depth": depth,
        "learning_rate_factor": 0.1,
        "head_learning_rate_factor": 0.5,
        "layer_decay": 0.8,
        "weight_decay": 0.01,
        "augmentation": "light",
        "label_smoothing": 0.0,
        "batch_size": 9,
    }
    reports = []
    for name in ("decoded", "on demand"):
        task = dataclasses.replace(toy_run.task, max_t=1, threads=2, cache_dir=str(tmp_path / name))
        if name == "on demand":
            size = open_store(Path(task.store)).size
            with OnDemand(shapes, paths, size, tmp_path / "pixels.u8", 2) as images:
                task = dataclasses.replace(task, store=str(images.finish()[0].path))
        report = FineTuning(task, config).train_epoch()
        reports.append((report.score, report.train_loss, report.metrics))
    assert reports[0] == reports[1]
