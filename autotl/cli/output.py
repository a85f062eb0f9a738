"""What commands print: text and JSON for other programs, and errors. The console comes in when there is something."""

from __future__ import annotations

import json
import math
from typing import Any


def print_text(text: str) -> None:
    """Text for another program; never coloured or wrapped."""
    from autotl.console import print_plain

    print_plain(text)


def print_json(value: Any) -> None:
    """JSON that every reader accepts: a number that is not finite (a metric without a value) is null."""
    print_text(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def print_failure(text: str) -> None:
    """What went wrong, on standard error."""
    from autotl.console import print_error

    print_error(f"autotl: {text}")
