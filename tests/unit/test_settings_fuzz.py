"""Durations of any kind, and settings whatever they are: numbers, or problems that say where."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotl.arguments import KINDS, check_types
from autotl.errors import InputError, SettingsError
from autotl.pipeline.resume import settings_from_json
from autotl.settings import (
    MAXIMUM_TIMEOUT,
    MINIMUM_TIMEOUT,
    Budget,
    FitSettings,
    Resources,
    check_settings,
    parse_duration,
)

SETTINGS = FitSettings(dataset_dir=Path("data"), budget=Budget(60.0))
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=4)
    | st.lists(st.integers() | st.text(max_size=3), max_size=3)
    | st.just(Path("p"))
    | st.just(object())
)


@given(st.text(max_size=12) | st.text("0123456789.smhd -+e", max_size=10))
def test_a_text_is_a_duration_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_duration(text) >= 0


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_hours_minutes_and_seconds_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m {seconds}s") == 3600 * hours + 60 * minutes + seconds


@given(st.dictionaries(st.sampled_from(sorted(name for name in KINDS if "." not in name)), VALUES, max_size=5))
def test_arguments_of_any_type_pass_or_are_refused_by_name(given_: dict[str, Any]) -> None:
    wrong = {name for name, value in given_.items() if not KINDS[name][0](value)}
    if not wrong:
        check_types(given_)
        return
    with pytest.raises(SettingsError) as caught:
        check_types(given_)
    assert {problem.where for problem in caught.value.problems} == wrong


@given(
    st.floats() | st.integers(),
    st.none() | st.integers(),
    st.integers(),
    st.floats(),
    st.builds(
        Resources,
        slots=st.none() | st.integers(),
        cpus_per_trial=st.none() | st.integers(),
        gpus_per_trial=st.none() | st.floats(),
    ),
)
def test_settings_of_any_size_have_problems_or_none(
    timeout: float, n_trials: int | None, seed: int, share: float, resources: Resources
) -> None:
    settings = replace(SETTINGS, budget=Budget(timeout, n_trials), seed=seed, val_fraction=share, resources=resources)
    places = {problem.where for problem in check_settings(settings)}
    assert ("timeout" in places) == (not MINIMUM_TIMEOUT <= timeout <= MAXIMUM_TIMEOUT)
    assert ("n_trials" in places) == (n_trials is not None and n_trials < 1)
    assert ("seed" in places) == (not 0 <= seed < 2**32)
    assert ("val_fraction" in places) == (not 0.05 <= share <= 0.5)


@given(st.recursive(VALUES, lambda inner: st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=5))
def test_settings_of_a_run_are_read_or_refused(value: Any) -> None:
    plain = SETTINGS.to_json()
    assert settings_from_json(plain) == SETTINGS
    for name in FitSettings.__slots__:
        try:
            settings_from_json(plain | {name: value})
        except (KeyError, TypeError, ValueError, InputError):
            continue
