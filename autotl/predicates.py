"""What a value from outside is: an argument of a call, or plain data of a file that may come from anybody."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from contextlib import suppress
from typing import Any

Predicate = Callable[[Any], bool]


def is_whole(value: Any) -> bool:
    """A whole number of any kind, NumPy's too; no bool."""
    if isinstance(value, bool):
        return False
    with suppress(TypeError):
        operator.index(value)
        return True
    return False


def is_number(value: Any) -> bool:
    """A finite number of any kind; no bool, and no text of one."""
    with suppress(OverflowError):  # a whole number that no float holds
        return not isinstance(value, bool | str) and hasattr(value, "__float__") and math.isfinite(value)
    return False


def or_none(fits: Predicate) -> Predicate:
    """None, or what fits."""
    return lambda value: value is None or fits(value)


def shown(value: Any, length: int) -> str:
    """The value as Python writes it, cut where it is long, and then with its type."""
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}… ({type(value).__name__})"
