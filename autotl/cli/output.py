"""What commands print: text and JSON for other programs, and errors. The console comes in when there is something."""

from __future__ import annotations

import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from autotl.errors import SHOWN_PROBLEMS, InputError
from autotl.records import json_text
from autotl.streams import encodable, encoding_of, write_output


def print_text(text: str) -> None:
    """Text for another program; see `write_output`."""
    write_output(text if text.endswith("\n") else text + "\n")


def print_json(value: Any) -> None:
    """JSON for another program; see `json_text`. Escaped where standard output does not have all of its characters."""
    text = json_text(value, indent=2)
    print_text(
        text if encodable(text, encoding_of(sys.stdout)) == text else json_text(value, indent=2, ascii_only=True)
    )


def print_failure(error: BaseException, *, as_json: bool) -> None:
    """What went wrong, on standard error; and as JSON on standard output where that was asked for.

    The problems of an input, where they are many, are written into a file, which the message names.
    """
    from autotl.console import print_error

    text, file = str(error), ""
    if isinstance(error, InputError) and len(error.problems) > SHOWN_PROBLEMS:
        file = _written(error)
        text += f"\n    all of them: {file}"
    print_error("\n".join([f"autotl: {text}", *getattr(error, "__notes__", ())]))
    if as_json:
        with suppress(OSError):
            print_json({"error": _plain(error) | ({"all_problems": file} if file else {})})


def _plain(error: BaseException) -> dict[str, Any]:
    problems = error.problems[:SHOWN_PROBLEMS] if isinstance(error, InputError) else ()
    return {
        "kind": type(error).__name__,
        "message": str(error),
        "problems": [asdict(problem) for problem in problems],
        "notes": list(getattr(error, "__notes__", ())),
    }


def _written(error: InputError) -> str:
    """The path of a new file with all problems, a line each."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="autotl-problems-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        file.writelines(f"{problem.where}: {problem.found}\n" for problem in error.problems)
    return file.name
