"""Evaluation views kept from the embedding: the same that a trial would compute, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from autotl.frozen import evaluation_views
from autotl.frozen.activations import CachedView
from autotl.frozen.evaluation_views import EvaluationViews, ViewKeeper, kept_depth
from autotl.frozen.views import evaluation_key
from autotl.models.backbone import Preprocessing
from autotl.storage import cache
from autotl.storage.cache import DiskCache

PREPROCESSING = Preprocessing(8, 1.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 8)
TRAIN, VAL = np.array([0, 2, 3, 5]), np.array([1, 4])
MAPS = torch.arange(6 * 2 * 3 * 3).reshape(6, 2, 3, 3).to(torch.bfloat16)


@pytest.fixture
def views(tmp_path: Path) -> EvaluationViews:
    return EvaluationViews(DiskCache(tmp_path / "cache"), tmp_path / "made", "data", (TRAIN, VAL))


def keeper_of(views: EvaluationViews) -> ViewKeeper:
    return ViewKeeper(views, "net", "sha", PREPROCESSING, 5)


def cached(views: EvaluationViews, rows: np.ndarray, tensors: torch.Tensor = MAPS) -> CachedView | None:
    path = views.cache.get(evaluation_key("net", "sha", 5, "data", rows, PREPROCESSING))
    return None if path is None else CachedView(path, tuple(tensors.shape[1:]))


@pytest.mark.parametrize("tensors", [MAPS, MAPS.flatten(2).permute(0, 2, 1).contiguous(), MAPS.flatten(1)])
def test_each_part_is_a_view_of_its_own_rows(views: EvaluationViews, tensors: torch.Tensor) -> None:
    with keeper_of(views) as keeper:
        for rows in (np.array([0, 1, 2]), np.array([3]), np.array([4, 5])):
            keeper.add(rows, tensors[rows])
    for part in (TRAIN, VAL):
        view = cached(views, part, tensors)
        assert view is not None
        torch.testing.assert_close(view.rows(np.arange(len(part))), tensors[part])
    assert list(views.folder.iterdir()) == []


def test_rows_of_no_part_are_left_out(views: EvaluationViews) -> None:
    with keeper_of(views) as keeper:
        keeper.add(np.arange(8), torch.cat([MAPS, MAPS[:2]]))
    view = cached(views, VAL)
    assert view is not None
    torch.testing.assert_close(view.rows(np.arange(2)), MAPS[VAL])


def test_a_part_that_is_not_whole_is_not_kept(views: EvaluationViews) -> None:
    with keeper_of(views) as keeper:
        keeper.add(np.array([0, 1, 2, 3, 4]), MAPS[:5])
    assert cached(views, TRAIN) is None
    assert cached(views, VAL) is not None


def test_what_an_exception_ended_is_not_kept(views: EvaluationViews) -> None:
    def fail() -> None:
        with keeper_of(views) as keeper:
            keeper.add(np.arange(6), MAPS)
            raise RuntimeError("a damaged file")

    with pytest.raises(RuntimeError):
        fail()
    assert cached(views, TRAIN) is None
    assert list(views.folder.iterdir()) == []


def test_nothing_is_kept_of_too_many_images(views: EvaluationViews, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_views, "KEPT_BYTES", 2 * MAPS.numel() - 1)
    with keeper_of(views) as keeper:
        keeper.add(np.arange(6), MAPS)
    assert cached(views, TRAIN) is None
    assert not views.folder.exists()


def test_without_tensors_there_is_nothing_to_keep(views: EvaluationViews) -> None:
    with keeper_of(views):
        pass
    assert cached(views, TRAIN) is None


@pytest.mark.parametrize(("n_stages", "depth"), [(8, 5), (13, 8), (5, 3), (1, 1)])
def test_most_of_the_stages_lie_below_what_is_kept(n_stages: int, depth: int) -> None:
    assert kept_depth(n_stages) == depth


@pytest.mark.parametrize("package", ["pillow", "timm"])
def test_another_version_of_what_made_a_view_is_another_view(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.arange(3)
    before = evaluation_key("net", "sha", 5, "data", rows, PREPROCESSING)
    assert evaluation_key("net", "sha", 5, "data", rows, PREPROCESSING) == before
    monkeypatch.setattr(cache, "version", lambda name: "0.1" if name == package else "1")
    assert evaluation_key("net", "sha", 5, "data", rows, PREPROCESSING) != before


def test_another_generation_of_views_is_another_view(monkeypatch: pytest.MonkeyPatch) -> None:
    before = evaluation_key("net", "sha", 5, "data", np.arange(3), PREPROCESSING)
    monkeypatch.setattr(cache, "GENERATION", cache.GENERATION + 1)
    assert evaluation_key("net", "sha", 5, "data", np.arange(3), PREPROCESSING) != before
