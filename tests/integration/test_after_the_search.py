"""A real fit in which everything that comes after the search fails: the model and the result are there."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autotl


def fail(*arguments: Any, **options: Any) -> Any:
    raise RuntimeError("expected all tensors to be on the same device")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> tuple[autotl.FitResult, str]:
    """The result, and what was printed."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        for name in (
            "search.average_winner",
            "fit.measure_benefit",
            "finish._predict_rows",
            "finish.leave_reference_set",
        ):
            patch.setattr(f"autotl.pipeline.{name}", fail)
        patch.setattr("autotl.data.splits.Dataset.indices", _with_test_images)
        result = autotl.fit(
            shapes,
            backbones="tf_efficientnet_lite0.in1k",
            search_space="quick",
            n_trials=1,
            timeout="10m",
            val_fraction=0.25,
            measure_benefit=True,
            output_dir=tmp_path_factory.mktemp("after") / "run",
        )
    return result, " ".join(printed.getvalue().split())


def _with_test_images(dataset: Any, *names: str) -> Any:
    """Validation images stand for test images, which the shapes do not have."""
    return np.flatnonzero(np.isin(dataset.split, ["val" if name == "test" else name for name in names]))


def test_each_failure_is_told(fitted: tuple[autotl.FitResult, str]) -> None:
    _, printed = fitted
    for consequence in (
        "the best models were not averaged",
        "the benefit of pretraining was not measured",
        "the model was not tested on the test images",
        "later runs cannot reuse this one's model",
    ):
        assert f"{consequence} (RuntimeError: expected all tensors to be on the same device)" in printed


def test_the_model_and_the_result_are_there(fitted: tuple[autotl.FitResult, str], shapes: Path) -> None:
    result, _ = fitted
    assert (result.test, result.test_metrics, result.benefit) == (None, {}, None)
    assert json.loads((result.run_dir / "result.json").read_text("utf-8"))["test"] is None
    assert len(autotl.load(result.run_dir, device="cpu").predict(shapes)) == 36
    with pytest.raises(autotl.InputError, match="sees no GPU"):
        autotl.load(result.run_dir, device="cuda")
