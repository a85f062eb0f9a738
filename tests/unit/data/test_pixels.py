"""The store of decoded pixels, and the threads that fill it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autotl.data import pixels
from autotl.data.folder import Finding
from autotl.data.pixels import Decoding, build_store, open_store
from autotl.errors import RunFolderError

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 8, 7)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, colour in enumerate(COLOURS):
        Image.new("RGB", (20 + number, 30), colour).save(tmp_path / f"{number}.png")
    return tmp_path


NAMES = [f"{number}.png" for number in range(len(COLOURS))]


@pytest.mark.parametrize("workers", [1, 3])
def test_images_stand_in_the_order_of_the_paths(folder: Path, workers: int) -> None:
    store, decoded = build_store(folder, NAMES[::-1], 16, folder / "cache/pixels.u8", workers)
    pixels = store.open()
    assert pixels.shape == (4, 16, 16, 3)
    for place, colour in enumerate(COLOURS[::-1]):
        assert (pixels[place] == colour).all()
    assert decoded.unreadable == {}
    assert decoded.findings == ()


def test_an_opened_store_holds_the_same_pixels_read_only(folder: Path) -> None:
    built, _ = build_store(folder, NAMES, 16, folder / "pixels.u8", 2)
    opened = open_store(folder / "pixels.u8")
    assert opened == built
    pixels = opened.open()
    np.testing.assert_array_equal(pixels, built.open())
    with pytest.raises(ValueError, match="read-only"):
        pixels[0, 0, 0, 0] = 1


def test_progress_counts_the_images(folder: Path) -> None:
    seen: list[int] = []
    build_store(folder, 5 * NAMES, 16, folder / "pixels.u8", 2, seen.append)
    assert seen == [8, 16, 20]


def test_a_damaged_file_is_named_and_leaves_zeros(folder: Path) -> None:
    (folder / "1.png").write_text("x")
    store, decoded = build_store(folder, NAMES, 16, folder / "pixels.u8", 2)
    assert list(decoded.unreadable) == ["1.png"]
    assert decoded.unreadable["1.png"].startswith("cannot identify image file")
    assert (store.open()[1] == 0).all()
    assert (store.open()[2] == COLOURS[2]).all()


def test_all_damaged_files_are_named(folder: Path) -> None:
    (folder / "0.png").write_text("x")
    (folder / "3.png").unlink()
    _, decoded = build_store(folder, NAMES, 16, folder / "pixels.u8", 2)
    assert list(decoded.unreadable) == ["0.png", "3.png"]


def test_odd_colour_modes_are_counted(folder: Path) -> None:
    for name in ("0.png", "2.png"):
        Image.new("RGBA", (20, 20), (1, 2, 3, 255)).save(folder / name)
    _, decoded = build_store(folder, NAMES, 16, folder / "pixels.u8", 2)
    assert decoded.findings == (Finding("colour-mode", "info", "2 images of mode RGBA were converted to RGB"),)


def test_a_store_without_its_shape_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pixels.u8").write_bytes(bytes(12))
    with pytest.raises(RunFolderError, match=r"pixels\.u8\.json: cannot be read"):
        open_store(tmp_path / "pixels.u8")


def test_a_damaged_file_among_others_costs_only_its_own_place(folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"no image")
    names = [*NAMES, "broken.png", *NAMES]
    done: list[int] = []
    store, decoded = build_store(folder, names, 16, folder / "cache/pixels.u8", 2, done.append)
    stored = store.open()
    for place, colour in [*enumerate(COLOURS), *enumerate(COLOURS, 5)]:
        assert (stored[place] == colour).all()
    assert list(decoded.unreadable) == ["broken.png"]
    assert done == [8, 9]


class Gate:
    """Decoding that stops at some files until it may go on; it knows which files were begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *held: str) -> None:
        self.begun: list[str] = []
        self.reached, self.opened = threading.Event(), threading.Event()
        self._held, self._decode = held, pixels.decode
        monkeypatch.setattr(pixels, "decode", self)

    def __call__(self, path: Path, size: int) -> Any:
        self.begun.append(path.name)
        if path.name in self._held:
            self.reached.set()
            assert self.opened.wait(60), "the gate was never opened"
        return self._decode(path, size)


class TestDecoding:
    @pytest.fixture(autouse=True)
    def images_one_by_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pixels, "PART", 1)

    def test_images_can_be_read_while_a_later_one_is_not_decoded_yet(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = Gate(monkeypatch, "2.png")
        with Decoding(folder, NAMES, 16, folder / "pixels.u8", 1) as decoding:
            decoding.wait(np.array([1, 0]))
            stored = decoding.store.open()
            assert (stored[0] == COLOURS[0]).all()
            assert (stored[1] == COLOURS[1]).all()
            assert not decoding.is_over
            assert decoding.seconds == 0.0
            gate.opened.set()
            decoding.wait(np.array([3, 2]))
            assert (stored[2] == COLOURS[2]).all()
            assert decoding.is_over
            assert decoding.seconds > 0.0

    def test_several_can_wait_for_the_same_image(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        gate = Gate(monkeypatch, "2.png")
        with Decoding(folder, NAMES, 16, folder / "pixels.u8", 2) as decoding, ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(decoding.wait, np.array([place, 2])) for place in (0, 1, 3)]
            assert gate.reached.wait(60)
            assert not any(wait.done() for wait in waiting)
            gate.opened.set()
            assert [wait.result(60) for wait in waiting] == [None] * 3

    def test_each_file_is_decoded_once_in_the_order_asked_for(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = Gate(monkeypatch)
        with Decoding(folder, NAMES, 16, folder / "pixels.u8", 1, np.array([2, 0, 3, 1])) as decoding:
            store, _ = decoding.finish()
        assert gate.begun == ["2.png", "0.png", "3.png", "1.png"]
        for place, colour in enumerate(COLOURS):
            assert (store.open()[place] == colour).all()

    def test_what_is_found_is_listed_in_the_order_of_the_paths(self, folder: Path) -> None:
        for name, mode in (("1.png", "RGBA"), ("2.png", "LA")):
            Image.new(mode, (20, 20)).save(folder / name)
        for name in ("0.png", "3.png"):
            (folder / name).write_text("x")
        with Decoding(folder, NAMES, 16, folder / "pixels.u8", 2, np.array([3, 2, 1, 0])) as decoding:
            _, decoded = decoding.finish()
        assert list(decoded.unreadable) == ["0.png", "3.png"]
        assert [finding.message.split()[4] for finding in decoded.findings] == ["RGBA", "LA"]

    def test_a_damaged_file_is_known_before_the_end(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "0.png").write_text("x")
        gate = Gate(monkeypatch, "2.png")
        with Decoding(folder, NAMES, 16, folder / "pixels.u8", 1) as decoding:
            assert not (gate.reached.wait(60) and decoding.is_over)
            assert decoding.is_damaged
            assert list(decoding.found.unreadable) == ["0.png"]
            gate.opened.set()

    def test_what_ended_a_thread_is_raised_where_its_image_is_waited_for(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, no_thread_is_left: Callable[[], bool]
    ) -> None:
        def run_out(path: Path, size: int) -> Any:
            raise MemoryError(path.name)

        monkeypatch.setattr(pixels, "decode", run_out)
        with Decoding(folder, NAMES, 16, folder / "pixels.u8", 1) as decoding:
            with pytest.raises(MemoryError, match=r"3\.png"):
                decoding.wait(np.array([3]))
            with pytest.raises(MemoryError):
                decoding.finish()
        assert no_thread_is_left()
        assert not (folder / "pixels.u8.json").exists()

    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
    def test_an_error_of_the_caller_ends_the_threads_after_the_file_at_hand(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        error: type[BaseException],
        no_thread_is_left: Callable[[], bool],
    ) -> None:
        gate = Gate(monkeypatch, "1.png")

        def interrupted() -> None:
            with Decoding(folder, NAMES, 16, folder / "pixels.u8", 1) as decoding:
                assert gate.reached.wait(60)
                after(decoding, gate.opened.set)
                raise error

        with pytest.raises(error):
            interrupted()
        assert gate.begun == ["0.png", "1.png"]
        assert no_thread_is_left()

    def test_who_waits_when_it_is_given_up_gets_an_error(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        gate = Gate(monkeypatch, "1.png")
        with ThreadPoolExecutor(1) as pool:
            with Decoding(folder, NAMES, 16, folder / "pixels.u8", 1) as decoding:
                assert gate.reached.wait(60)
                waiting = pool.submit(decoding.wait, np.array([3]))
                after(decoding, gate.opened.set)
            with pytest.raises(CancelledError):
                waiting.result(60)


def after(decoding: Decoding, then: Callable[[], None]) -> None:
    """Do something as soon as `decoding` is asked to end."""
    shutdown = decoding._pool.shutdown

    def ended(*, cancel_futures: bool) -> None:
        shutdown(wait=False, cancel_futures=cancel_futures)
        then()
        shutdown()

    decoding._pool.shutdown = ended  # type: ignore[method-assign, assignment]
