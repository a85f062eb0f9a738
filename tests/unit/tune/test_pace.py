"""How long trials are expected to take, and how that follows what they took."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotl.data.pixels import PixelStore, write_shape
from autotl.train.cost import StageSeconds, TrialSize, trial_seconds
from autotl.train.task import BackboneFiles, TrainingTask, save_manifest
from autotl.tune.pace import Pace, predictor

CONFIG = {"backbone": "net", "freeze_depth": 2, "augmentation": "light"}
OTHER = CONFIG | {"freeze_depth": 1}


def predict(config: dict[str, Any], epochs: int, views_from: int) -> float:
    return epochs + 2.5 * (config["freeze_depth"] - views_from)


def test_a_trial_pays_for_its_views_only_the_first_time() -> None:
    pace = Pace(predict, max_t=4)
    assert pace.expect(CONFIG) == 9.0
    pace.begin("t0", CONFIG)
    assert pace.expect(CONFIG) == 4.0
    assert pace.expect(CONFIG, 2) == 2.0
    assert pace.expect(OTHER) == 4.0 + 2.5
    assert pace.expect(CONFIG | {"augmentation": "strong"}) == 9.0
    assert pace.expect(CONFIG | {"freeze_depth": 3}) == 4.0 + 2.5  # from those at depth 2


def test_a_deep_trial_leaves_the_views_of_the_base_depth_behind() -> None:
    pace = Pace(predict, max_t=4, base_depths={"net": 1})
    pace.begin("t0", CONFIG | {"freeze_depth": 3})
    assert pace.expect(CONFIG | {"freeze_depth": 3}) == 4.0
    assert pace.expect(CONFIG) == 4.0 + 2.5
    assert pace.expect(OTHER) == 4.0


def test_evaluation_views_are_there_from_the_beginning_for_trials_that_augment_nothing() -> None:
    pace = Pace(predict, max_t=4, evaluation_depths={"net": 1})
    plain = CONFIG | {"augmentation": "none"}
    assert pace.expect(plain) == 4.0 + 2.5
    assert pace.expect(plain | {"freeze_depth": 1}) == 4.0
    assert pace.expect(plain | {"backbone": "other"}) == 9.0
    assert pace.expect(CONFIG) == 9.0
    pace.begin("t0", plain)
    assert pace.expect(plain) == 4.0


def test_the_first_trial_of_a_backbone_takes_longer_in_every_slot() -> None:
    pace = Pace(predict, max_t=4, first_seconds={"net": 6.0}, slots=2)
    assert pace.expect(CONFIG) == 9.0 + 6.0
    assert pace.expect(CONFIG | {"backbone": "other"}) == 9.0
    pace.begin("t0", CONFIG)
    assert pace.expect(CONFIG) == 4.0 + 6.0  # in the other slot
    pace.begin("t1", CONFIG)
    assert pace.expect(CONFIG) == 4.0
    pace.note("t0", 4, 6.0 + 18.0)
    assert pace.factor == 2.0  # those seconds say nothing about the others
    assert pace.expect(CONFIG) == 8.0


def test_expectations_follow_the_median_of_what_trials_took() -> None:
    pace = Pace(predict, max_t=4)
    for place, slower in enumerate((1.0, 2.0, 30.0)):
        config = CONFIG | {"augmentation": str(place)}
        pace.begin(f"t{place}", config)
        pace.note(f"t{place}", 3, slower * 8.0)
    assert pace.factor == 2.0
    assert pace.expect(CONFIG) == 18.0


def test_the_last_word_of_a_trial_counts() -> None:
    pace = Pace(predict, max_t=4)
    pace.begin("t0", CONFIG)
    pace.note("t0", 1, 60.0)
    pace.note("t0", 4, 18.0)
    assert pace.factor == 2.0


@pytest.mark.parametrize(("trial", "epoch", "elapsed"), [("t0", 0, 3.0), ("t0", 1, math.nan), ("nobody", 1, 3.0)])
def test_what_says_nothing_about_speed_is_left_out(trial: str, epoch: int, elapsed: float) -> None:
    pace = Pace(predict, max_t=4)
    pace.begin("t0", CONFIG)
    pace.note(trial, epoch, elapsed)
    assert pace.factor == 1.0


@pytest.mark.parametrize("decode_seconds", [0.0, 0.25])
def test_the_predictor_counts_the_images_of_the_task(tmp_path: Path, decode_seconds: float) -> None:
    store = PixelStore(tmp_path / "pixels.u8", 10, 16, tmp_path if decode_seconds else None, decode_seconds)
    write_shape(store)
    manifest = tmp_path / "manifest.npz"
    save_manifest(manifest, np.zeros(10, dtype=np.int64), np.array(["train"] * 6 + ["val"] * 3 + ["test"]))
    stages = StageSeconds(forward=(0.0, 1.0, 2.0, 4.0, 4.0), backward=(8.0, 6.0, 2.0, 0.5), numbers=(9, 9, 9, 9))
    files = BackboneFiles("", "", "", "", 0.1, 3, 2.0, "a", stages)
    task = TrainingTask(
        run_dir="",
        store=str(store.path),
        manifest=str(manifest),
        classes=("a",),
        metric="accuracy",
        balanced=False,
        backbones={"net": files},
        precision="fp32",
        max_t=4,
        n_views=3,
        cache_dir="",
        cache_limit=0,
        data_fingerprint="",
        seed=0,
        deadline=0.0,
        threads=2,
        speed=1.5,
        provenance={},
    )
    assert TrainingTask.from_plain(task.to_plain()) == task
    size = TrialSize(n_train=6, n_val=3, epochs=4, n_views=3, speed=1.5, decode_seconds=decode_seconds)
    assert predictor(task)(CONFIG, 4, 0) == trial_seconds(stages, 2, size, 2.0)
    assert predictor(task)(CONFIG, 4, 2) == trial_seconds(stages, 2, size, 2.0, views_from=2)
    plain = TrialSize(n_train=6, n_val=3, epochs=4, n_views=1, speed=1.5, decode_seconds=decode_seconds)
    assert predictor(task)(CONFIG | {"augmentation": "none"}, 4, 0) == trial_seconds(stages, 2, plain, 2.0)


@pytest.mark.parametrize(("seconds", "epochs"), [(9.9, 0), (10.0, 1), (39.9, 3), (40.0, 4), (1e9, 4)])
def test_as_many_epochs_fit_as_there_is_time_for_but_no_more_than_a_full_trial_has(seconds: float, epochs: int) -> None:
    pace = Pace(lambda config, epochs, views_from: 10.0 * epochs, max_t=4)
    assert pace.fitting_epochs({"backbone": "net", "augmentation": "none", "freeze_depth": 3}, seconds) == epochs
