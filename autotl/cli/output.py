"""What commands print: text and JSON for other programs, and errors. The console comes in when there is something."""

from __future__ import annotations

from typing import Any

from autotl.records import json_text


def print_text(text: str) -> None:
    """Text for another program; never coloured or wrapped."""
    from autotl.console import print_plain

    print_plain(text)


def print_json(value: Any) -> None:
    """JSON for another program; see `json_text`."""
    print_text(json_text(value, indent=2))


def print_failure(text: str) -> None:
    """What went wrong, on standard error."""
    from autotl.console import print_error

    print_error(f"autotl: {text}")
