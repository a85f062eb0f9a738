"""A stand-in for functions of `autotl.api`, and the heads of printed problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Capture = pytest.CaptureFixture[str]


class StandIn:
    """Stands in for a function: keeps the arguments and returns or raises `outcome`."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome
        self.given: tuple[Any, ...] = ()
        self.options: dict[str, Any] = {}

    def __call__(self, *given: Any, **options: Any) -> Any:
        self.given, self.options = given, options
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], StandIn]:
    """A function that replaces one of `autotl.api` by a `StandIn`, which it returns."""

    def replace(name: str, outcome: Any) -> StandIn:
        made = StandIn(outcome)
        monkeypatch.setattr(f"autotl.api.{name}", made)
        return made

    return replace


@pytest.fixture
def heads(capsys: Capture) -> Callable[[], list[str]]:
    """A function that gives the first line of each problem that was printed since the last call."""
    return lambda: [line for line in capsys.readouterr().err.splitlines() if line.startswith("  - ")]
