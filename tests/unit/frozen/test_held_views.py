"""Views in a device's memory are those that files hold."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autotl.compute import residence
from autotl.compute.residence import Residence
from autotl.data.augment import recipe_named
from autotl.frozen.activations import ImageLoader
from autotl.frozen.held_views import HeldViews
from autotl.frozen.views import Views, ViewSettings
from autotl.models.backbone import Backbone, Preprocessing, create
from autotl.models.partition import divide
from autotl.storage.cache import DiskCache

CPU = torch.device("cpu")
ROWS = np.array([0, 2, 3, 4, 5, 6, 7, 8, 9, 11])


@pytest.fixture(scope="module", params=["test_resnet.r160_in1k", "test_vit.r160_in1k"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    torch.manual_seed(0)
    return create(request.param, 2, None)


@pytest.fixture(scope="module")
def loader(backbone: Backbone) -> ImageLoader:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 160, 160, 3), dtype=np.uint8)
    preprocessing = Preprocessing.from_json(backbone.preprocessing.to_json() | {"store_size": 160, "input_size": 160})
    return ImageLoader(pixels, preprocessing, CPU, seed=0)


def held(backbone: Backbone, loader: ImageLoader, room: int, **options: Any) -> HeldViews:
    partition = divide(backbone, 2, loader.batch(np.arange(2), None, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(residence, "room_on", lambda device, share: room)
        there = Residence(CPU, 1.0)
    return HeldViews(partition, loader, "", there, options.get("is_late", lambda: False))


@pytest.mark.parametrize("recipe", [None, recipe_named("medium")])
def test_they_hold_what_files_hold(backbone: Backbone, loader: ImageLoader, recipe: Any, tmp_path: Path) -> None:
    views = held(backbone, loader, sys.maxsize)
    view = views.get(ROWS, recipe, 1, 0.0)
    partition = divide(backbone, 2, loader.batch(np.arange(2), None, 0))
    settings = ViewSettings(DiskCache(tmp_path, 2**30), "data", "weights", 0, None, "fp32", 1)
    filed = Views(settings, backbone, partition, loader, lambda: False).get(ROWS, recipe, 1, 0.0)
    assert view is not None
    assert filed is not None
    places = np.array([9, 0, 4])
    torch.testing.assert_close(view.rows(places), filed.rows(places))
    assert view.rows(places).shape == (3, *partition.shape)
    assert views.size(ROWS) == view.rows(np.arange(10)).numel() * 2
    assert not views.is_cached(ROWS, recipe, 1)


def test_without_room_there_is_none(backbone: Backbone, loader: ImageLoader) -> None:
    size = held(backbone, loader, 0).size(ROWS)
    views = held(backbone, loader, size)
    assert views.get(ROWS, None, 0, 0.0) is not None
    assert views.get(ROWS, None, 0, 0.0) is None


def test_a_late_view_is_given_up(backbone: Backbone, loader: ImageLoader) -> None:
    late = iter([False, True])
    assert held(backbone, loader, sys.maxsize, is_late=lambda: next(late)).get(ROWS, None, 0, 0.0) is None


def test_a_batch_that_does_not_fit_goes_through_in_parts(backbone: Backbone, loader: ImageLoader) -> None:
    views, sizes = held(backbone, loader, sys.maxsize), []
    forward = views._forward

    def with_little_room(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(images)

    views._forward = with_little_room
    small = views.get(ROWS, None, 0, 0.0)
    whole = held(backbone, loader, sys.maxsize).get(ROWS, None, 0, 0.0)
    assert small is not None
    assert whole is not None
    assert sizes == [8, 4, 4, 2]
    torch.testing.assert_close(small.rows(np.arange(10)), whole.rows(np.arange(10)), rtol=0.02, atol=0.02)
