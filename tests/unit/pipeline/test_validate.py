"""What a call was given, checked as a whole. The command line's tests show every kind of problem in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autotl.errors import InputError, SettingsError, SpaceError
from autotl.pipeline.validate import validate
from autotl.settings import Budget, FitSettings
from autotl.space.files import load_space

LITE0 = "tf_efficientnet_lite0.in1k"


def settings(folder: Path, **changes: Any) -> FitSettings:
    return replace(FitSettings(folder, Budget(600.0), backbones=(LITE0,)), **changes)


def test_a_space_is_taken_as_it_is(shapes: Path) -> None:
    space = load_space("quick").narrow(freeze_depth=(2, 3))
    assert validate(settings(shapes, search_space=space)).space == space


def test_the_backbones_of_a_space_are_those_that_are_searched(shapes: Path) -> None:
    space = load_space("quick").narrow(backbone=(LITE0,))
    inputs = validate(settings(shapes, search_space=space, backbones=("auto",)))
    assert [entry.name for entry in inputs.entries] == [LITE0]


def test_a_space_of_the_callers_is_checked_like_a_file(shapes: Path) -> None:
    wrong = load_space("quick").narrow(batch_size=(32, 1), freeze_depth=("all", 0))
    with pytest.raises(SpaceError) as caught:
        validate(settings(shapes, search_space=wrong))
    assert [problem.where for problem in caught.value.problems] == [
        "search_space quick: [freeze_depth]",
        "search_space quick: [batch_size] choices",
    ]


def test_a_callback_without_all_methods_is_a_problem_beside_the_others(shapes: Path) -> None:
    half: Any = SimpleNamespace(on_trial=print)
    whole: Any = SimpleNamespace(on_advice=print, on_trial=print, on_end=print)
    with pytest.raises(SettingsError) as caught:
        validate(settings(shapes, seed=-1), (whole, half))
    assert [(problem.where, problem.found) for problem in caught.value.problems] == [
        ("seed", "-1"),
        ("callbacks[1]", "SimpleNamespace has no method on_advice, on_end"),
    ]


def test_a_gpu_that_is_not_there_is_a_problem(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError) as caught:
        validate(settings(shapes, device="cuda"))
    (problem,) = caught.value.problems
    assert problem.where == "device"
    assert problem.found.startswith("cuda, and torch")
    assert problem.remedy.startswith("use auto or cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert validate(settings(shapes, device="cuda")).entries


def test_problems_of_all_kinds_come_at_once(tmp_path: Path) -> None:
    asked = settings(tmp_path / "gone", seed=-1, search_space="fast", reuse=(tmp_path / "old",))
    with pytest.raises(InputError) as caught:
        validate(asked)
    assert {problem.area for problem in caught.value.problems} == {"settings", "space", "run folder", "dataset"}
