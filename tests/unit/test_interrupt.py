"""Ctrl-C that somebody swallowed is raised again; SIGTERM and SIGHUP count as one."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

import pytest

from autotl.interrupt import at_once, noticed, raise_if_pressed, search_ends_by_itself, told_to_end


@pytest.fixture(autouse=True)
def pythons_own_handler() -> Iterator[None]:
    """A process that was started in the background ignores the key, and other tests may leave a handler behind."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_swallowed_ctrl_c_is_raised_once_more() -> None:
    with noticed():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            raise_if_pressed()
        raise_if_pressed()
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_nothing_is_raised_if_nothing_was_pressed() -> None:
    with noticed():
        raise_if_pressed()


def test_what_was_pressed_before_does_not_count_afterwards() -> None:
    with noticed(), contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    raise_if_pressed()


def test_another_handler_is_left_alone() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with noticed():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_equal_copy_of_pythons_handler_counts_as_pythons_own() -> None:
    class Copy:
        def __call__(self, *args: object) -> None:
            raise KeyboardInterrupt

        def __eq__(self, other: object) -> bool:
            return other == signal.default_int_handler

        __hash__ = object.__hash__

    signal.signal(signal.SIGINT, Copy())
    with noticed():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            raise_if_pressed()


def test_other_threads_are_left_alone() -> None:
    seen = []

    def work() -> None:
        with noticed():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_handlers_that_a_library_leaves_behind_are_replaced_by_those_before(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with contextlib.suppress(ValueError), search_ends_by_itself():
        signal.signal(number, lambda number, frame: None)
        raise ValueError
    assert signal.getsignal(number) == before


def test_in_other_threads_no_handler_is_touched() -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with search_ends_by_itself():
                pass
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_a_batch_system_sends_counts_as_ctrl_c(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with noticed():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert told_to_end() == number
    assert signal.getsignal(number) == before
    assert told_to_end() == number  # for the exit code


def test_a_signal_that_is_repeated_counts_once() -> None:
    with noticed():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        assert not at_once()
        assert told_to_end() == signal.SIGHUP


def test_ctrl_c_is_the_user() -> None:
    with noticed(), contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert told_to_end() is None


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    """As with `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with noticed():
            signal.raise_signal(signal.SIGHUP)
            raise_if_pressed()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_handler_that_was_replaced_is_taken_back() -> None:
    with noticed():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as Ray does while it starts
        raise_if_pressed()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_a_search_that_cannot_be_told_yet_is_torn_out_at_once() -> None:
    """The program has its own use for the signal, and Ray Tune has not begun."""
    told = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: told.append(number))
    try:
        with noticed(), search_ends_by_itself(), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert told == []
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_search_is_told_once_and_torn_out_at_the_second_press() -> None:
    told = []
    before = signal.getsignal(signal.SIGUSR1)
    with noticed(), search_ends_by_itself():
        signal.signal(signal.SIGUSR1, lambda number, frame: told.append(number))  # as Ray Tune does
        signal.raise_signal(signal.SIGINT)
        assert told == [signal.SIGINT]
        raise_if_pressed()  # the search has taken note
        assert not at_once()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert at_once()
        assert told == [signal.SIGINT]
    assert signal.getsignal(signal.SIGUSR1) == before
