"""What trials cost: the arithmetic, and the time of a real network's stages."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autotl.models.backbone import create
from autotl.models.weights import save_state
from autotl.train import cost
from autotl.train.cost import (
    IMAGE_SECONDS,
    START_SECONDS,
    StageSeconds,
    TrialSize,
    _filled,
    _measure_on_gpu,
    _replayed_seconds,
    base_depth,
    epoch_seconds,
    measure_backbones,
    measure_speed,
    measure_stages,
    speed_of,
    trial_seconds,
)

STAGES = StageSeconds(forward=(0.0, 1.0, 2.0, 4.0, 4.0), backward=(8.0, 6.0, 2.0, 0.5), numbers=(9, 40, 0, 8))
SIZE = TrialSize(n_train=10, n_val=5, epochs=4, n_views=3, speed=2.0)


def test_only_what_lies_above_the_depth_is_paid_in_every_epoch() -> None:
    assert STAGES.evaluate(2) == 2.0
    assert STAGES.train(2) == 4.0
    assert STAGES.train(0) == 12.0
    assert STAGES.share_below(2) == 0.5
    assert epoch_seconds(STAGES, 2, SIZE) == (10 * 4.0 + 5 * 2.0) / 2


def test_a_trial_pays_for_views_once_and_for_epochs_each() -> None:
    frozen = (3 * 10 + 5) * (0.5 * 3.0 + IMAGE_SECONDS) / 2
    assert trial_seconds(STAGES, 2, SIZE, 3.0) == pytest.approx(START_SECONDS + frozen + 4 * 25.0)
    assert trial_seconds(STAGES, 2, SIZE, 3.0, views_from=2) == pytest.approx(START_SECONDS + 4 * 25.0)
    from_depth_1 = (3 * 10 + 5) * 0.25 * 3.0 / 2
    assert trial_seconds(STAGES, 2, SIZE, 3.0, views_from=1) == pytest.approx(START_SECONDS + from_depth_1 + 4 * 25.0)


def test_a_trial_of_one_epoch_needs_one_view() -> None:
    short = TrialSize(n_train=10, n_val=5, epochs=1, n_views=3, speed=1.0)
    frozen = (10 + 5) * (0.5 * 3.0 + IMAGE_SECONDS)
    assert trial_seconds(STAGES, 2, short, 3.0) == pytest.approx(START_SECONDS + frozen + 50.0)


def test_full_fine_tuning_has_no_views_to_compute_but_images_to_prepare() -> None:
    expected = START_SECONDS + 4 * (10 * (12.0 + IMAGE_SECONDS) + 5 * 4.0) / 2
    assert trial_seconds(STAGES, 0, SIZE, 3.0) == pytest.approx(expected)


@pytest.mark.parametrize(("lowest", "limit", "depth"), [(0, 8000, 1), (0, 7999, 3), (2, 10**6, 3), (0, 100, 0)])
def test_the_base_depth_is_the_shallowest_whose_views_fit(lowest: int, limit: int, depth: int) -> None:
    assert base_depth(STAGES, lowest, images=100, limit=limit) == depth


def test_missing_times_are_those_of_what_follows() -> None:
    assert _filled([0.0, math.nan, 2.0, math.nan], last=5.0) == [0.0, 2.0, 2.0, 5.0]


@pytest.mark.parametrize("name", ["resnet10t", "test_vit"])
def test_a_real_network_is_slower_the_less_of_it_is_frozen(name: str) -> None:
    backbone = create(name, 3, None)
    side = backbone.preprocessing.input_size
    stages = measure_stages(backbone, torch.rand(2, 3, side, side), "fp32")
    depths = range(backbone.n_stages + 1)
    assert len(stages.forward) == len(stages.backward) + 1 == backbone.n_stages + 2
    forward = [stages.forward[depth] for depth in depths]
    train = [stages.train(depth) for depth in depths]
    assert forward == sorted(forward)
    assert train == sorted(train, reverse=True)
    assert train[0] > 3 * train[-1] > 0
    assert stages.share_below(0) == 0.0
    assert stages.numbers[0] == 3 * side * side
    assert all(stages.numbers)


def test_training_costs_more_than_evaluating() -> None:
    backbone = create("resnet10t", 3, None)
    stages = measure_stages(backbone, torch.rand(2, 3, 96, 96), "fp32")
    assert stages.train(0) > 1.5 * stages.evaluate(0)
    assert backbone.model.fc.weight.grad is not None  # it really trained


def test_backbones_are_measured_by_the_name_that_the_search_uses(tmp_path: Path) -> None:
    timm_name = "test_resnet.r160_in1k"
    backbone = create(timm_name, 0, None)
    save_state(backbone.model, tmp_path / "state.safetensors")
    pair = (timm_name, tmp_path / "state.safetensors")
    found = measure_backbones({timm_name: pair, f"birds/{timm_name}": pair}, 2, "fp32")
    assert list(found) == [timm_name, f"birds/{timm_name}"]
    assert all(len(stages.forward) == backbone.n_stages + 2 and stages.train(0) > 0 for stages in found.values())


def test_on_a_gpu_the_parts_of_a_step_are_scaled_to_the_whole_as_it_is_replayed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cost, "measure_stages", lambda *arguments, **options: STAGES)
    monkeypatch.setattr(cost, "_replayed_seconds", lambda *arguments: 2 * STAGES.train(0) / 4)
    found = _measure_on_gpu(create("resnet10t", 3, None), torch.zeros(2, 3, 8, 8), "fp32")
    assert found.train(0) == pytest.approx(STAGES.train(0) / 4)
    assert found.share_below(2) == pytest.approx(STAGES.share_below(2))
    assert found.numbers == STAGES.numbers
    assert found.first == 0.0


def test_a_step_is_timed_with_its_optimiser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    backbone = create("test_resnet.r160_in1k", 3, None)
    backbone.freeze(0)
    assert 0 < _replayed_seconds(backbone, torch.rand(2, 3, 64, 64), "fp32") < 60


@pytest.mark.parametrize(
    ("threads", "measured", "speed"),
    [(1, (8, 4.0), 1.0), (8, (8, 4.0), 4.0), (4, (16, 4.0), 2.0), (2, (2, 2.0), 2.0), (1, (1, 1.0), 1.0)],
)
def test_speed_grows_as_a_power_of_the_threads(threads: int, measured: tuple[int, float], speed: float) -> None:
    assert speed_of(threads, measured) == pytest.approx(speed)


def test_all_cores_are_no_slower_than_one_and_no_faster_than_all_together(tmp_path: Path) -> None:
    timm_name = "test_resnet.r160_in1k"
    backbone = create(timm_name, 0, None)
    save_state(backbone.model, tmp_path / "state.safetensors")
    stages = measure_backbones({timm_name: (timm_name, tmp_path / "state.safetensors")}, 2, "fp32")[timm_name]
    torch.set_num_threads(2)
    try:
        speed = measure_speed(timm_name, tmp_path / "state.safetensors", 2, "fp32", stages)
    finally:
        torch.set_num_threads(1)
    assert 1.0 <= speed <= 2.0


def test_one_core_is_as_fast_as_one_core(tmp_path: Path) -> None:
    assert measure_speed("never.made", tmp_path / "state.safetensors", 2, "fp32", STAGES) == 1.0


def test_images_that_are_decoded_whenever_they_are_needed_take_that_time_as_well() -> None:
    slow = replace(SIZE, decode_seconds=0.5)
    images = SIZE.n_train * SIZE.n_views + SIZE.n_val
    assert trial_seconds(STAGES, 1, slow, 2.0) - trial_seconds(STAGES, 1, SIZE, 2.0) == pytest.approx(
        0.5 * images / SIZE.speed
    )
    assert trial_seconds(STAGES, 1, slow, 2.0, views_from=1) == trial_seconds(STAGES, 1, SIZE, 2.0, views_from=1)
    every_epoch = SIZE.epochs * (SIZE.n_train + SIZE.n_val)
    assert trial_seconds(STAGES, 0, slow, 2.0) - trial_seconds(STAGES, 0, SIZE, 2.0) == pytest.approx(
        0.5 * every_epoch / SIZE.speed
    )
