"""Files as an array of pixels, decoded when they are asked for or a little ahead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autotl.data import file_pixels
from autotl.data.file_pixels import FilePixels, Noted

Make = Callable[..., FilePixels]
NAMES = [f"{number}.png" for number in range(10)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        Image.new("RGB", (20, 30), (number, 0, 0)).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def pixels_of() -> Iterator[Make]:
    """A function that makes pixels of 16 x 16, whose threads end with the test."""
    made: list[FilePixels] = []

    def make(folder: Path, workers: int, *note: Noted) -> FilePixels:
        made.append(FilePixels(folder, NAMES, 16, workers, *note))
        return made[-1]

    yield make
    for pixels in made:
        pixels.close()


class Decoder:
    """Notes the numbers of the files that were decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.numbers: list[int] = []
        self._changed = threading.Condition()
        self._decode = file_pixels.decode
        monkeypatch.setattr(file_pixels, "decode", self)

    def __call__(self, source: Path, size: int) -> Any:
        found = self._decode(source, size)
        with self._changed:
            self.numbers.append(int(source.stem))
            self._changed.notify()
        return found

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.numbers) >= count, timeout=60)


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Decoder:
    return Decoder(monkeypatch)


def numbers_in(pixels: np.ndarray) -> list[int]:
    return [int(image[0, 0, 0]) for image in pixels]


@pytest.mark.parametrize("workers", [1, 3])
def test_gives_what_is_asked_for_in_that_order(folder: Path, pixels_of: Make, workers: int) -> None:
    pixels = pixels_of(folder, workers)
    assert pixels.shape == (10, 16, 16, 3)
    assert numbers_in(pixels[np.array([7, 2, 2, 9])]) == [7, 2, 2, 9]
    assert pixels[np.array([], dtype=np.int64)].shape == (0, 16, 16, 3)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_damaged_file_is_an_error_that_names_it(folder: Path, pixels_of: Make, workers: int) -> None:
    (folder / "3.png").write_text("x")
    pixels = pixels_of(folder, workers)
    with pytest.raises(OSError, match=r"3\.png: cannot identify image file"):
        pixels[np.arange(5)]
    assert numbers_in(pixels[np.array([4])]) == [4]


def test_or_zeros_and_somebody_is_told(folder: Path, pixels_of: Make) -> None:
    (folder / "3.png").write_text("x")
    Image.new("RGBA", (20, 20), (5, 0, 0, 255)).save(folder / "5.png")
    told: list[tuple[int, str, str]] = []
    pixels = pixels_of(folder, 1, lambda place, mode, reason, seconds: told.append((place, mode, reason)))
    assert (pixels[np.array([3, 4, 5])][0] == 0).all()
    assert [place for place, _, _ in told] == [3, 4, 5]
    assert told[0][2].startswith("cannot identify image file")
    assert told[1] == (4, "", "")
    assert told[2] == (5, "RGBA", "")


class TestWhatIsExpected:
    def test_is_decoded_once_and_ahead(self, folder: Path, pixels_of: Make, decoder: Decoder) -> None:
        pixels = pixels_of(folder, 2)
        order = np.array([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
        pixels.expect(order)
        decoder.wait_for(10)
        assert numbers_in(pixels[order[:4]]) + numbers_in(pixels[order[4:]]) == order.tolist()
        assert sorted(decoder.numbers) == list(range(10))

    def test_is_no_more_than_there_is_room_for(
        self, folder: Path, pixels_of: Make, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(file_pixels, "AHEAD", 2)
        pixels = pixels_of(folder, 2)
        pixels.expect(np.arange(10))
        decoder.wait_for(4)
        pixels[np.arange(1)]
        decoder.wait_for(5)
        assert sorted(decoder.numbers) == [0, 1, 2, 3, 4]

    def test_may_be_asked_for_in_another_order_or_not_at_all(self, folder: Path, pixels_of: Make) -> None:
        pixels = pixels_of(folder, 2)
        pixels.expect(np.arange(10))
        assert numbers_in(pixels[np.array([9, 0, 0, 3])]) == [9, 0, 0, 3]
        pixels.expect(np.arange(10)[::-1])
        assert numbers_in(pixels[np.array([9, 8, 1])]) == [9, 8, 1]

    def test_may_be_asked_for_by_several_threads(self, folder: Path, pixels_of: Make) -> None:
        pixels = pixels_of(folder, 2)
        pixels.expect(np.arange(10))
        found: dict[int, list[int]] = {}

        def ask(start: int) -> None:
            found[start] = numbers_in(pixels[np.arange(start, start + 5)])

        threads = [threading.Thread(target=ask, args=(start,)) for start in (0, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {0: [0, 1, 2, 3, 4], 5: [5, 6, 7, 8, 9]}
