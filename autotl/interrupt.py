"""Ctrl-C that is not lost.

Libraries swallow it in bare `except:` clauses while they are imported, and Python itself in callbacks of the garbage
collector. A single press counts nevertheless: `raise_if_pressed` raises it again between pieces of work.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_pressed = threading.Event()


@contextmanager
def noticed() -> Iterator[None]:
    """Notice Ctrl-C inside; does nothing outside the main thread, or where SIGINT has another handler than Python's."""
    main = threading.current_thread() is threading.main_thread()
    # Equal, not identical: Python makes a second object of its handler where a library imports `_signal` anew.
    if not main or signal.getsignal(signal.SIGINT) != signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _pressed.clear()


@contextmanager
def handlers_restored() -> Iterator[None]:
    """Put the handlers of Ctrl-C and of SIGUSR1 back that were there before: Ray Tune leaves its own behind.

    Those only end a search that is long over, so that the next Ctrl-C would be lost. Does nothing outside the
    main thread, where handlers cannot be set.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGUSR1") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that was not set from Python cannot be put back
                signal.signal(number, handler)


def _note(number: int, frame: FrameType | None) -> None:
    _pressed.set()
    raise KeyboardInterrupt


def raise_if_pressed() -> None:
    """Raise KeyboardInterrupt if Ctrl-C was pressed since `noticed` was entered."""
    if _pressed.is_set():
        _pressed.clear()
        raise KeyboardInterrupt
