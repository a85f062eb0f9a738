"""Durations, and everything that can be wrong with the settings."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

from autotl.settings import (
    METRICS,
    Budget,
    FitSettings,
    Resources,
    as_names,
    as_paths,
    as_seconds,
    as_space,
    check_settings,
    parse_duration,
)
from autotl.space.files import load_space

FINE = FitSettings(Path("photos"), Budget(600.0))


def problem_of(settings: FitSettings) -> tuple[str, str, str]:
    """Where, found and allowed of the only problem."""
    (problem,) = check_settings(settings)
    assert problem.area == "settings"
    return problem.where, problem.found, problem.allowed


def test_a_duration_without_unit_is_seconds() -> None:
    assert parse_duration("90") == 90.0
    assert parse_duration("90.5") == 90.5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1.5h", 5400),
        ("2d", 172800),
        ("1h30m", 5400),
        ("1d1h1m1s", 90061),
        ("1h 30m", 5400),
        (" 10M ", 600),
        ("0.5m", 30),
        ("0", 0),
    ],
)
def test_units_of_a_duration_add_up(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "m", "ten", "10x", "-5m", "1h30", "10min", "1:30", "1e3", ".5h", "nan", "5.m"]
)
def test_what_is_no_duration_is_refused_with_its_own_words(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_duration(text)
    assert str(caught.value) == f"{text!r} is not a duration such as 90s, 10m, 1.5h or 1h30m"


def test_a_timeout_may_be_a_number_or_a_text() -> None:
    assert as_seconds(90) == 90.0
    assert isinstance(as_seconds(90), float)
    assert as_seconds("1.5h") == 5400.0


def test_one_path_is_a_tuple_of_one() -> None:
    assert as_paths("run") == as_paths(Path("run")) == (Path("run"),)
    assert as_paths(["run", Path("other")]) == (Path("run"), Path("other"))
    assert as_paths(()) == ()


def test_one_name_is_a_tuple_of_one() -> None:
    assert as_names("resnet18") == ("resnet18",)
    assert as_names(["resnet18", "resnet50"]) == ("resnet18", "resnet50")
    assert as_names([]) == ()


def test_the_defaults_have_no_problem() -> None:
    assert check_settings(FINE) == []


def test_gpus_for_trials_and_none_for_the_call_are_a_contradiction() -> None:
    asked = replace(FINE, device="cpu", resources=Resources(gpus_per_trial=1))
    assert problem_of(asked)[:2] == ("gpus_per_trial", "1, and device cpu")
    assert check_settings(replace(asked, resources=Resources(gpus_per_trial=0))) == []


@pytest.mark.parametrize(
    "settings",
    [
        replace(FINE, budget=Budget(20.0, 1)),
        replace(FINE, seed=0),
        replace(FINE, seed=2**32 - 1),
        replace(FINE, val_fraction=0.05),
        replace(FINE, val_fraction=0.5),
        replace(FINE, resources=Resources(slots=1, cpus_per_trial=1, gpus_per_trial=0)),
        replace(FINE, resources=Resources(gpus_per_trial=0.25)),
        replace(FINE, resources=Resources(gpus_per_trial=2)),
        *(replace(FINE, metric=metric) for metric in METRICS),
    ],
)
def test_values_at_the_edge_of_what_is_allowed_are_fine(settings: FitSettings) -> None:
    assert check_settings(settings) == []


TIMEOUT = "at least 20 seconds and at most a year, as a number or as 90s, 10m, 1.5h"
TRIALS = "a whole number from 1, or None for as many as the time allows"
GPUS = "0 to 1, or a whole number above it"
METRIC = "auto, accuracy, balanced_accuracy, f1_macro, log_loss, roc_auc"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"budget": Budget(19.9)}, ("timeout", "19.9 seconds", TIMEOUT)),
        ({"budget": Budget(-5.0)}, ("timeout", "-5 seconds", TIMEOUT)),
        ({"budget": Budget(math.inf)}, ("timeout", "inf seconds", TIMEOUT)),
        ({"budget": Budget(367 * 86400.0)}, ("timeout", "3.17088e+07 seconds", TIMEOUT)),
        ({"budget": Budget(60.0, 0)}, ("n_trials", "0", TRIALS)),
        ({"metric": "acc"}, ("metric", "'acc'", METRIC)),
        ({"seed": -1}, ("seed", "-1", "a whole number from 0 to 4294967295")),
        ({"seed": 2**32}, ("seed", "4294967296", "a whole number from 0 to 4294967295")),
        ({"val_fraction": 0.04}, ("val_fraction", "0.04", "0.05 to 0.5")),
        ({"val_fraction": 0.51}, ("val_fraction", "0.51", "0.05 to 0.5")),
        ({"val_fraction": math.nan}, ("val_fraction", "nan", "0.05 to 0.5")),
        ({"backbones": ()}, ("backbones", "an empty list", "auto, or one name or more")),
        ({"resources": Resources(slots=0)}, ("slots", "0", "from 1")),
        ({"resources": Resources(cpus_per_trial=0)}, ("cpus_per_trial", "0", "from 1")),
        ({"resources": Resources(gpus_per_trial=-0.5)}, ("gpus_per_trial", "-0.5", GPUS)),
        ({"resources": Resources(gpus_per_trial=1.5)}, ("gpus_per_trial", "1.5", GPUS)),
        ({"resources": Resources(gpus_per_trial=math.nan)}, ("gpus_per_trial", "nan", GPUS)),
        ({"resources": Resources(gpus_per_trial=math.inf)}, ("gpus_per_trial", "inf", GPUS)),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(change: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert problem_of(replace(FINE, **change)) == expected


def test_all_problems_are_reported_at_once() -> None:
    settings = FitSettings(
        Path("photos"),
        Budget(1.0, 0),
        metric="acc",
        backbones=(),
        seed=-1,
        val_fraction=2.0,
        resources=Resources(slots=0, cpus_per_trial=0, gpus_per_trial=-1),
    )
    assert [problem.where for problem in check_settings(settings)] == [
        "timeout",
        "n_trials",
        "metric",
        "seed",
        "val_fraction",
        "backbones",
        "slots",
        "cpus_per_trial",
        "gpus_per_trial",
    ]


def test_settings_become_json() -> None:
    settings = FitSettings(
        Path("photos"), Budget(60.0, 5), output_dir=Path("run"), backbones=("a", "b"), reuse=(Path("old"),)
    )
    assert json.loads(json.dumps(settings.to_json())) == {
        "dataset_dir": "photos",
        "budget": {"timeout": 60.0, "n_trials": 5},
        "metric": "auto",
        "search_space": "auto",
        "backbones": ["a", "b"],
        "reuse": ["old"],
        "output_dir": "run",
        "seed": 0,
        "val_fraction": 0.2,
        "skip_unreadable": False,
        "allow_download": False,
        "resources": {"address": None, "slots": None, "cpus_per_trial": None, "gpus_per_trial": None},
        "reference": None,
        "measure_benefit": False,
        "device": "auto",
    }
    assert FINE.to_json()["output_dir"] is None


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        FINE.seed = 1  # type: ignore[misc]


def test_a_space_becomes_json_as_in_its_file() -> None:
    space = load_space("quick")
    assert FitSettings(Path("photos"), Budget(60.0), search_space=space).to_json()["search_space"] == space.to_plain()


def test_a_path_of_a_space_becomes_text_and_a_space_stays_what_it_is() -> None:
    space = load_space("quick")
    assert as_space(Path("my") / "space.toml") == str(Path("my") / "space.toml")
    assert as_space("quick") == "quick"
    assert as_space(space) is space
