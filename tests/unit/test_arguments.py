"""What is no number, no path or no duration is told by name, before anything is made of it."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autotl
from autotl.arguments import KINDS, check_types
from autotl.errors import SettingsError
from autotl.settings import Resources


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset_dir", "photos"),
        ("dataset_dir", Path("photos")),
        ("timeout", 90),
        ("timeout", "1h30m"),
        ("timeout", np.float32(90)),
        ("n_trials", None),
        ("n_trials", np.int64(3)),
        ("seed", np.int32(3)),
        ("backbones", ["a", "b"]),
        ("reuse", ()),
        ("resources", Resources(slots=2, gpus_per_trial=0.5)),
    ],
)
def test_what_is_meant_passes(name: str, value: Any) -> None:
    check_types({name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset_dir", ""),
        ("dataset_dir", 3),
        ("dataset_dir", None),
        ("dataset_dir", "a\0b"),
        ("output_dir", ""),
        ("timeout", "soon"),
        ("timeout", True),
        ("timeout", math.nan),
        ("timeout", math.inf),
        ("timeout", None),
        ("n_trials", 1.5),
        ("n_trials", "3"),
        ("seed", 0.5),
        ("seed", None),
        ("seed", True),
        ("backbones", 3),
        ("backbones", [""]),
        ("backbones", {"a": 1}),
        ("reuse", [3]),
        ("val_fraction", "0.2"),
        ("quiet", "yes"),
        ("callbacks", "log"),
        ("resources", {"slots": 2}),
        ("resources", Resources(slots=1.5)),  # type: ignore[arg-type]
        ("search_space", ""),
        ("device", ""),
    ],
)
def test_what_is_not_is_told_by_name_with_what_was_given(name: str, value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        check_types({name: value})
    (problem,) = caught.value.problems
    assert problem.where.startswith(name)
    assert problem.allowed


def test_all_are_told_at_once_and_long_ones_are_cut() -> None:
    with pytest.raises(SettingsError) as caught:
        check_types({"dataset_dir": "", "seed": "a" * 1000, "quiet": 3})
    assert [problem.where for problem in caught.value.problems] == ["dataset_dir", "seed", "quiet"]
    assert len(caught.value.problems[1].found) < 120


@pytest.mark.parametrize("name", ["fit", "advise", "load", "evaluate", "build_reference_set"])
def test_every_argument_of_the_public_functions_has_a_kind(name: str) -> None:
    assert set(inspect.signature(getattr(autotl, name)).parameters) <= set(KINDS)


@pytest.mark.parametrize(
    "call",
    [
        lambda: autotl.fit(3, seed="x"),  # type: ignore[arg-type]
        lambda: autotl.advise("photos", timeout="soon"),
        lambda: autotl.load(None),  # type: ignore[arg-type]
        lambda: autotl.evaluate("run", 3),  # type: ignore[arg-type]
        lambda: autotl.build_reference_set("photos", "", "out.npz"),
    ],
)
def test_every_public_function_checks_them(call: Any) -> None:
    with pytest.raises(SettingsError):
        call()
