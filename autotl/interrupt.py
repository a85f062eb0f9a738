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
        searching: whether Ray Tune is running, which ends by itself when it is told.
        torn_out, timer: whether it was told and has not ended in `PATIENCE`, and what looks after that.
        not_tunes: the handler of `TUNES_SIGNAL` as long as Ray Tune has not put its own in place.
        search_over, last_resort: whether it has ended, and what is done where it cannot.
    """

    def __init__(self) -> None:
        self.received: list[int] = []
        self.pending = False
        self.taken: dict[int, Any] = {}
        self.searching = False
        self.torn_out = False
        self.timer: threading.Timer | None = None
        self.not_tunes: Any = None
        self.search_over = threading.Event()
        self.last_resort: Callable[[], None] = lambda: None


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
    _presses.searching, _presses.last_resort = bool(_presses.taken), last_resort
    _presses.not_tunes = before.get(TUNES_SIGNAL) if TUNES_SIGNAL is not None else None
    _presses.search_over.clear()
    own = os.environ.get(TUNES_SWITCH)
    if _presses.searching:
        os.environ[TUNES_SWITCH] = "1"
    try:
        yield
    finally:
        _presses.search_over.set()
        if _presses.timer is not None:
            _presses.timer.cancel()
        if _presses.searching and own is None:
            del os.environ[TUNES_SWITCH]
        _presses.searching = False
        for number, handler in before.items():
            if handler is not None:  # one that was not set from Python cannot be put back
                signal.signal(number, handler)


def _tear_out(presses: _Presses, number: int) -> None:
    """Called in a thread of its own: raise KeyboardInterrupt in the search, if it still runs.

    Where Ray's own processes are gone, its calls do not come back, not even for that: then this process ends here.
    """
    if not presses.searching:
        return
    presses.torn_out = True
    os.kill(os.getpid(), signal.SIGINT)  # Python handles it in the main thread
    if not presses.search_over.wait(PATIENCE):
        presses.last_resort()
        os._exit(128 + number)


def _note(number: int, frame: FrameType | None) -> None:
    if _presses.torn_out:
        _presses.torn_out = False
        raise KeyboardInterrupt
    if number != signal.SIGINT and told_to_end() is not None:
        return  # the kernel and the shell both send one when a terminal is closed; a batch system repeats its own
    _presses.received.append(number)
    _presses.pending = True
    told = signal.getsignal(TUNES_SIGNAL) if _presses.searching and TUNES_SIGNAL is not None else None
    if callable(told) and told != _presses.not_tunes and not at_once():
        _presses.pending = False
        told(number, frame)
        if number != signal.SIGINT:  # Ray's processes may have got it, too, and then never answer
            _presses.timer = threading.Timer(PATIENCE, _tear_out, [_presses, number])
            _presses.timer.daemon = True
            _presses.timer.start()
        if number == signal.SIGINT and os.isatty(ERRORS):
            os.write(ERRORS, HINT)  # as the only safe way to print in a signal handler
        return
    raise KeyboardInterrupt


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
