"""Output that never ends a fit, and output for other programs that is whole or an error."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from autotl.console import Console
from autotl.streams import SteadyStream, encodable, write_output


def stream(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)


def written(to: io.TextIOWrapper) -> bytes:
    buffer = to.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue()


class Full(io.StringIO):
    """As /dev/full."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


class Gone(io.StringIO):
    """A pipe that nobody reads any more."""

    def flush(self) -> None:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("0.9 ± 0.1 → ×2 …", "utf-8", "0.9 ± 0.1 → ×2 …"),
        ("0.9 ± 0.1 → ×2 …", "ascii", "0.9 +- 0.1 -> x2 ..."),
        ("0.9 ± 0.1 → ×2", "cp1252", "0.9 +- 0.1 -> x2"),  # it lacks the arrow
        ("±", "cp1252", "±"),
        ("▁▅█", "ascii", ".+#"),
        ("café", "ascii", "caf\\xe9"),
        ("caf\udce9", "utf-8", "caf\\udce9"),  # a file name that is no UTF-8
    ],
)
def test_what_an_encoding_lacks_is_replaced(text: str, encoding: str, expected: str) -> None:
    assert encodable(text, encoding) == expected


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_a_console_prints_in_any_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    output = stream(encoding)
    monkeypatch.setattr(sys, "stdout", output)
    Console().line("similarity 0.03 ± 0.01 → café ▁█")
    assert b"similarity 0.03" in written(output)


@pytest.mark.parametrize("broken", [Full, Gone])
def test_a_console_whose_output_fails_goes_on(monkeypatch: pytest.MonkeyPatch, broken: type[io.StringIO]) -> None:
    monkeypatch.setattr(sys, "stdout", broken())
    console = Console()
    for _ in range(3):
        console.line("a line")
    console.table(["name"], [["row"]])


def test_a_console_whose_output_was_closed_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    output = stream("utf-8")
    output.close()
    monkeypatch.setattr(sys, "stdout", output)
    Console().line("a line")


def test_a_program_may_have_no_output_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    Console().line("a line")
    steady = SteadyStream("stdout")
    assert not steady.isatty()
    with pytest.raises(OSError, match="no stdout"):
        steady.fileno()
    with pytest.raises(OSError, match="no standard output"):
        write_output("text")


def test_an_output_that_takes_the_place_of_a_lost_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console()
    monkeypatch.setattr(sys, "stdout", Full())
    console.line("lost")
    output = stream("utf-8")
    monkeypatch.setattr(sys, "stdout", output)
    console.line("seen")
    assert written(output) == b"seen\n"


def test_output_for_a_program_is_whole_or_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for broken, error in ((Full(), OSError), (Gone(), BrokenPipeError)):
        monkeypatch.setattr(sys, "stdout", broken)
        with pytest.raises(error):
            write_output("text")


def test_what_python_still_holds_of_a_lost_output_goes_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as output:
        monkeypatch.setattr(sys, "stdout", output)
        with pytest.raises(BrokenPipeError):
            write_output("text")
        output.flush()  # Python's own, as it exits
