"""Ctrl-C that is not lost, and SIGTERM and SIGHUP that count as one.

Libraries swallow Ctrl-C in bare `except:` clauses while they are imported, and Python itself in callbacks of the
garbage collector. A single press counts nevertheless: `raise_if_pressed` raises it again between pieces of work. A
second one means "at once".
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What a batch system, a container, or a terminal that is closed sends: the fit ends as by Ctrl-C."""
TUNES_SIGNAL = getattr(signal, "SIGUSR1", None)
"""Ray Tune ends a search after its current step when it gets this one."""
PATIENCE = 4.0
"""Seconds that a search may take to end by itself when something else than the user ends it, and will soon kill it."""
ERRORS = 2
"""The file descriptor of standard error."""
HINT = b"\r\n  ending with the best model so far; Ctrl-C again ends at once\r\n"
TUNES_SWITCH = "TUNE_DISABLE_SIGINT_HANDLER"
"""Set, Ray Tune leaves SIGINT to whoever handles it."""


class _Presses:
    """What came since `noticed` was entered.

    Attributes:
        received: the signals, in order.
        pending: whether one has to be raised again.
        taken: the handlers that `noticed` put in place, by signal.
        search: of Ray Tune, which ends by itself when it is told; None while none is running.
        torn_out: whether the search was told and has not ended in `PATIENCE`.
    """

    def __init__(self) -> None:
        self.received: list[int] = []
        self.pending = False
        self.taken: dict[int, Any] = {}
        self.search: _Search | None = None
        self.torn_out = False


class _Search:
    """A search of Ray Tune that is running.

    Args:
        not_tunes: the handler of `TUNES_SIGNAL` as long as Ray Tune has not put its own in place.
        last_resort: called where the search cannot end, before the process is ended.
    """

    def __init__(self, not_tunes: Any, last_resort: Callable[[], None]) -> None:
        self._not_tunes, self._last_resort = not_tunes, last_resort
        self._over = threading.Event()
        self._timer: threading.Timer | None = None

    def tell(self, number: int, frame: FrameType | None) -> bool:
        """Tell Ray Tune to end after its current step, if it listens already."""
        handler = signal.getsignal(TUNES_SIGNAL) if TUNES_SIGNAL is not None else None
        if not callable(handler) or handler == self._not_tunes:
            return False
        handler(number, frame)
        if number != signal.SIGINT:  # Ray's processes may have got it, too, and then never answer
            self._timer = threading.Timer(PATIENCE, self._tear_out, [number])
            self._timer.daemon = True
            self._timer.start()
        return True

    def _tear_out(self, number: int) -> None:
        """Called in a thread of its own: raise KeyboardInterrupt in the search, if it still runs.

        Where Ray's own processes are gone, its calls do not come back, not even for that: then this process ends here.
        """
        if self._over.is_set():
            return
        _presses.torn_out = True
        os.kill(os.getpid(), signal.SIGINT)  # Python handles it in the main thread
        if not self._over.wait(PATIENCE):
            self._last_resort()
            os._exit(128 + number)

    def has_ended(self) -> None:
        """Nothing has to be torn out of any more."""
        self._over.set()
        if self._timer is not None:
            self._timer.cancel()


_presses = _Presses()


@contextmanager
def noticed() -> Iterator[None]:
    """Notice Ctrl-C inside, and SIGTERM and SIGHUP where nothing else is done with them.

    Does nothing outside the main thread, or where SIGINT has another handler than Python's.
    """
    global _presses
    main = threading.current_thread() is threading.main_thread()
    # Equal, not identical: Python makes a second object of its handler where a library imports `_signal` anew.
    if not main or signal.getsignal(signal.SIGINT) != signal.default_int_handler:
        yield
        return
    before = {signal.SIGINT: signal.default_int_handler}
    # One that is ignored (`nohup`) or handled by the program that fits stays so.
    before |= {number: signal.SIG_DFL for number in ENDING if signal.getsignal(number) == signal.SIG_DFL}
    _presses = _Presses()
    _presses.taken = dict.fromkeys(before, _note)
    take_back()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _presses.taken = {}
        _presses.pending = False


def take_back() -> None:
    """Put the handlers of `noticed` in place again: Ray, as it starts, sets one of its own for SIGTERM, in C++."""
    if threading.current_thread() is threading.main_thread():
        for number, handler in _presses.taken.items():
            signal.signal(number, handler)


@contextmanager
def search_ends_by_itself(last_resort: Callable[[], None] = lambda: None) -> Iterator[None]:
    """While Ray Tune runs it is told to end, and is not torn out of what it is doing.

    The handlers that it leaves behind are taken away: they only end a search that is long over, so that the next Ctrl-C
    would be lost. Does nothing outside the main thread, where handlers cannot be set.

    Args:
        last_resort: called in another thread, before the process is ended because the search cannot end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in (signal.SIGINT, TUNES_SIGNAL) if number is not None]
    before = {number: signal.getsignal(number) for number in numbers}
    take_back()
    own = os.environ.get(TUNES_SWITCH)
    if _presses.taken:
        _presses.search = _Search(before.get(TUNES_SIGNAL) if TUNES_SIGNAL is not None else None, last_resort)
        os.environ[TUNES_SWITCH] = "1"
    try:
        yield
    finally:
        if _presses.search is not None:
            _presses.search.has_ended()
            if own is None:
                del os.environ[TUNES_SWITCH]
        _presses.search = None
        for number, handler in before.items():
            if handler is not None:  # one that was not set from Python cannot be put back
                signal.signal(number, handler)


def _note(number: int, frame: FrameType | None) -> None:
    if _presses.torn_out:
        _presses.torn_out = False
        raise KeyboardInterrupt
    if number != signal.SIGINT and told_to_end() is not None:
        return  # the kernel and the shell both send one when a terminal is closed; a batch system repeats its own
    _presses.received.append(number)
    _presses.pending = True
    if _presses.search is None or at_once() or not _presses.search.tell(number, frame):
        raise KeyboardInterrupt
    _presses.pending = False
    if number == signal.SIGINT and os.isatty(ERRORS):
        os.write(ERRORS, HINT)  # as the only safe way to print in a signal handler


def raise_if_pressed() -> None:
    """Raise KeyboardInterrupt if Ctrl-C was pressed since `noticed` was entered, and has not been raised by this."""
    take_back()
    if _presses.pending:
        _presses.pending = False
        raise KeyboardInterrupt


def at_once() -> bool:
    """Whether the user does not want to wait for anything any more: Ctrl-C was pressed twice."""
    return _presses.received.count(signal.SIGINT) > 1


def told_to_end() -> int | None:
    """The signal by which something else than the user ended the last fit, or None."""
    return next((number for number in _presses.received if number != signal.SIGINT), None)
