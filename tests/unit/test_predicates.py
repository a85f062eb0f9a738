"""What a value from outside is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from autotl.predicates import is_number, is_whole, or_none, shown


@pytest.mark.parametrize("value", [0, -3, 10**400, np.int64(5)])
def test_whole_numbers_of_any_kind(value: Any) -> None:
    assert is_whole(value)


@pytest.mark.parametrize("value", [True, 1.0, "1", None, [1], np.float32(1)])
def test_no_whole_numbers(value: Any) -> None:
    assert not is_whole(value)


@pytest.mark.parametrize("value", [0, 1.5, -2, np.float32(0.5), np.int8(3)])
def test_finite_numbers_of_any_kind(value: Any) -> None:
    assert is_number(value)


@pytest.mark.parametrize("value", [False, "1.5", None, math.nan, math.inf, 10**400, [1.0], 1j])
def test_no_finite_numbers(value: Any) -> None:
    assert not is_number(value)


def test_none_or_what_fits() -> None:
    assert [or_none(is_whole)(value) for value in (None, 1, "1")] == [True, True, False]


def test_a_value_is_shown_as_python_writes_it_and_cut_where_it_is_long() -> None:
    assert shown("café", 60) == "'café'"
    assert shown(list(range(1000)), 9) == "[0, 1, 2,… (list)"
