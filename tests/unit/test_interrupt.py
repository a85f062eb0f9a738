"""Ctrl-C that somebody swallowed is raised again."""

from __future__ import annotations

import contextlib
import signal
import threading

import pytest

from autotl.interrupt import noticed, raise_if_pressed


def test_a_swallowed_ctrl_c_is_raised_once_more() -> None:
    with noticed():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            raise_if_pressed()
        raise_if_pressed()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nothing_is_raised_if_nothing_was_pressed() -> None:
    with noticed():
        raise_if_pressed()


def test_what_was_pressed_before_does_not_count_afterwards() -> None:
    with noticed(), contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    raise_if_pressed()


def test_another_handler_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with noticed():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_are_left_alone() -> None:
    seen = []

    def work() -> None:
        with noticed():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
