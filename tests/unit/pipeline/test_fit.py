"""Where Ray is not up before the time is, the fit ends with what it has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from autotl import clock
from autotl.errors import SearchError
from autotl.pipeline.fit import _choices
from autotl.tune.session import Slots


class Ray:
    """One that comes up, or does not."""

    def __init__(self, deadline: float, error: str = "") -> None:
        self.deadline, self._error = deadline, error

    def choices(self) -> tuple[Slots, ...]:
        if self._error:
            raise SearchError(self._error)
        return (Slots(1, 2, 0.0),)


def choices(ray: Any) -> tuple[Any, list[str]]:
    said: list[str] = []
    context: Any = SimpleNamespace(console=SimpleNamespace(line=lambda text, style: said.append(text)))
    return _choices(context, ray), said


def test_a_ray_that_is_up_is_divided() -> None:
    assert choices(Ray(clock.now() + 60)) == ((Slots(1, 2, 0.0),), [])


def test_one_that_comes_too_late_is_told_and_there_is_no_search() -> None:
    found, (said,) = choices(Ray(clock.now() - 1, "it has not come up"))
    assert found == ()
    assert said == "  it has not come up; the time is up without a search"


def test_one_that_cannot_be_started_is_an_error() -> None:
    with pytest.raises(SearchError, match="no room"):
        choices(Ray(clock.now() + 60, "no room"))
