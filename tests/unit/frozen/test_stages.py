"""Averages at the stages' boundaries, in the pass that gives the output."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from autotl.frozen.activations import ImageLoader, embed, embed_stages
from autotl.frozen.stages import WHOLE, StageTaps, output_alone, pooled
from autotl.models.backbone import Backbone, Preprocessing, create
from autotl.models.partition import boundaries, divide


@pytest.fixture(scope="module")
def taps(small: Backbone) -> StageTaps:
    return StageTaps(small.model, boundaries(small, torch.randn(2, 3, 64, 64)))


def images(seed: int, n: int = 3) -> torch.Tensor:
    return torch.randn(n, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((2, 5, 7, 7), (2, 3)), ((2, 7, 7, 5), (1, 2)), ((2, 7, 7, 7), (2, 3)), ((2, 9, 4), (1,)), ((2, 6), ())],
)
def test_the_mean_is_over_places(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    tensor = torch.randn(shape)
    expected = tensor.mean(axes) if axes else tensor
    torch.testing.assert_close(pooled(tensor), expected)


def test_taps_give_the_output_and_what_arrives_at_the_boundaries(small: Backbone, taps: StageTaps) -> None:
    batch = images(1)
    with torch.no_grad():
        output, stages = taps(batch)
        torch.testing.assert_close(output, small.model(batch))
        assert sorted(stages) == list(range(1, small.n_stages))
        for depth, features in stages.items():
            expected = divide(small, depth, images(2)).prefix(batch).mean((2, 3))
            torch.testing.assert_close(features, expected)
        torch.testing.assert_close(output_alone(taps)(batch), output)


def test_threads_do_not_see_each_others_stages(taps: StageTaps) -> None:
    with torch.no_grad():
        alone = [taps(images(seed))[1] for seed in range(8)]

    def run(seed: int) -> dict[int, torch.Tensor]:
        with torch.no_grad():
            return taps(images(seed))[1]

    with ThreadPoolExecutor(4) as pool:
        for expected, found in zip(alone, pool.map(run, range(8)), strict=True):
            torch.testing.assert_close(found, expected)


def test_a_boundary_that_takes_more_than_a_tensor_is_absent() -> None:
    torch.manual_seed(0)
    # HRNet's stages pass lists of maps on.
    backbone = create("hrnet_w18_small", 0, None)
    found = boundaries(backbone, torch.randn(1, 3, 64, 64))
    assert set(found) < set(range(1, backbone.n_stages))


def test_only_the_stages_of_the_rows_asked_for_are_kept(taps: StageTaps) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (70, 64, 64, 3), dtype=np.uint8)
    loader = ImageLoader(
        pixels, Preprocessing(64, 1.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 64), torch.device("cpu"), seed=0
    )
    rows = np.arange(2, 70)

    def forward(batch: torch.Tensor) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        with torch.no_grad():
            return taps(batch)

    everything, all_stages = embed_stages(forward, loader, rows, rows)
    some = np.array([3, 40, 69])
    outputs, stages = embed_stages(forward, loader, rows, some, workers=2)
    np.testing.assert_allclose(outputs, everything, rtol=1e-4, atol=1e-5)
    assert sorted(stages) == sorted(all_stages)
    for depth, features in stages.items():
        np.testing.assert_allclose(features, all_stages[depth][some - 2], rtol=1e-4, atol=1e-5)
    assert embed_stages(forward, loader, rows[:4], rows[:0])[1] == {}
    np.testing.assert_allclose(embed(output_alone(forward), loader, rows[:4]), everything[:4], rtol=1e-4, atol=1e-5)


def test_one_boundary_is_also_given_as_it_is(small: Backbone) -> None:
    batch = images(2)
    taps = StageTaps(small.model, boundaries(small, batch[:2]), whole=3)
    with torch.no_grad():
        _, stages = taps(batch)
        whole = divide(small, 3, batch[:2]).prefix(batch)
    torch.testing.assert_close(stages[WHOLE], whole.to(torch.bfloat16))
    torch.testing.assert_close(stages[3], pooled(whole))
