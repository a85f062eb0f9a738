"""The store of decoded pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autotl.data.folder import Finding
from autotl.data.pixels import build_store, open_store
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


def test_progress_counts_every_image(folder: Path) -> None:
    seen: list[int] = []
    build_store(folder, NAMES, 16, folder / "pixels.u8", 2, seen.append)
    assert seen == [1, 2, 3, 4]


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


def test_images_that_do_not_fit_the_queue_come_after(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotl.data.pixels.QUEUE", 3)
    (folder / "broken.png").write_bytes(b"no image")
    names = [*NAMES, "broken.png", *NAMES]
    done: list[int] = []
    store, decoded = build_store(folder, names, 16, folder / "cache/pixels.u8", 2, done.append)
    pixels = store.open()
    for place, colour in [*enumerate(COLOURS), *enumerate(COLOURS, 5)]:
        assert (pixels[place] == colour).all()
    assert list(decoded.unreadable) == ["broken.png"]
    assert done == list(range(1, 10))
