"""Standard output and standard error that never end a fit: whoever reads them may go away, or know few characters."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Literal, TextIO

ASCII = str.maketrans(
    {
        "×": "x",
        "±": "+-",
        "→": "->",
        "…": "...",
        "−": "-",
        "–": "-",
        "“": '"',
        "”": '"',
        "’": "'",
        **dict(zip("▁▂▃▄▅▆▇█", ".:-=+*%#", strict=True)),
    }
)
"""What stands for characters that an ASCII terminal or log does not have."""


def encodable(text: str, encoding: str) -> str:
    """The text with what `encoding` does not have replaced: by a look-alike, else by its escape (`\\xe9`)."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(ASCII).encode(encoding, "backslashreplace").decode(encoding)
    return text


class SteadyStream:
    """Standard output or error, as it is at each moment; what cannot be written is dropped.

    Args:
        name: which of the two.
    """

    def __init__(self, name: Literal["stdout", "stderr"]) -> None:
        self._name = name
        self._lost: TextIO | None = None  # the stream that failed; another one may take its place

    @property
    def _stream(self) -> TextIO | None:
        """None where there is none, as for a program without a console, and where it has failed."""
        stream: TextIO | None = getattr(sys, self._name)
        # While rich shows a bar, it puts a stream of its own there that writes to this one.
        stream = getattr(stream, "rich_proxied_file", stream)
        return None if stream is self._lost else stream

    @property
    def encoding(self) -> str:
        """As of the stream itself."""
        return encoding_of(self._stream)

    def isatty(self) -> bool:
        """As of the stream itself."""
        with suppress(ValueError, OSError):
            return self._stream is not None and self._stream.isatty()
        return False

    def fileno(self) -> int:
        """As of the stream itself.

        Raises:
            OSError: if there is none.
        """
        if self._stream is None:
            raise OSError(f"there is no {self._name}")
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write what can be written."""
        stream = self._stream
        if stream is not None:
            try:
                stream.write(encodable(text, self.encoding))
            except (OSError, ValueError):  # the latter: it was closed
                self._give_up(stream)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        stream = self._stream
        if stream is not None:
            try:
                stream.flush()
            except (OSError, ValueError):
                self._give_up(stream)

    def _give_up(self, stream: TextIO) -> None:
        self._lost = stream
        silence(stream)


def silence(stream: TextIO) -> None:
    """Let Python's own last flush, as it exits, go nowhere: it would fail as well, and change the exit code."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def write_output(text: str) -> None:
    """Text for another program, to standard output; never coloured or wrapped.

    Raises:
        OSError: if it cannot be written whole; BrokenPipeError where nobody wants more of it (`| head`).
    """
    stream = sys.stdout
    if stream is None:
        raise OSError("there is no standard output")
    try:
        stream.write(encodable(text, encoding_of(stream)))
        stream.flush()
    except ValueError as error:  # closed
        raise OSError(f"standard output: {error}") from error
    except OSError:
        silence(stream)
        raise


def encoding_of(stream: TextIO | None) -> str:
    """Its encoding; UTF-8 where it does not say."""
    return getattr(stream, "encoding", None) or "utf-8"
