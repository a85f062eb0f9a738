"""Images that a disk has no room for as pixels: what a store of their files gives, and what is found on the way."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autotl.data import on_demand
from autotl.data.folder import Finding
from autotl.data.on_demand import OnDemand, fits
from autotl.data.pixels import build_store, open_store

NAMES = [f"{number}.png" for number in range(5)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        Image.new("RGB", (20 + number, 30), (number, 50, 100)).save(tmp_path / name)
    return tmp_path


def on_demand_of(folder: Path) -> OnDemand:
    return OnDemand(folder, NAMES, 16, folder / "cache" / "pixels.u8", workers=2)


def test_gives_the_pixels_of_a_decoded_store(folder: Path) -> None:
    decoded, _ = build_store(folder, NAMES, 16, folder / "cache" / "decoded.u8", 1)
    with on_demand_of(folder) as images:
        assert images.is_over
        images.wait(np.arange(5))
        np.testing.assert_array_equal(images.pixels[np.arange(5)], decoded.open()[np.arange(5)])
        store, found = images.finish()
    assert found.unreadable == {}
    opened = open_store(store.path)
    assert opened == store
    np.testing.assert_array_equal(opened.open()[np.array([4, 1])], decoded.open()[np.array([4, 1])])
    assert 0 < store.decode_seconds < 1
    assert decoded.decode_seconds == 0


def test_takes_no_room_for_pixels(folder: Path) -> None:
    with on_demand_of(folder) as images:
        store, _ = images.finish()
    assert store.path.stat().st_size < 200


def test_what_nobody_asked_for_is_looked_at_in_the_end(folder: Path) -> None:
    (folder / "1.png").write_text("x")
    (folder / "4.png").unlink()
    Image.new("RGBA", (20, 20)).save(folder / "2.png")
    seen: list[int] = []
    with on_demand_of(folder) as images:
        images.pixels[np.array([0])]
        assert not images.is_damaged
        images.pixels[np.array([1])]
        assert images.is_damaged
        assert list(images.found.unreadable) == ["1.png"]
        _, found = images.finish(seen.append)
    assert list(found.unreadable) == ["1.png", "4.png"]
    assert found.findings == (Finding("colour-mode", "info", "1 images of mode RGBA were converted to RGB"),)
    assert seen == [5]


def test_half_of_a_disk_may_be_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    image = 3 * 16**2
    monkeypatch.setattr(on_demand.shutil, "disk_usage", lambda folder: usage(10**9, 0, 20 * image))
    assert fits(10, 16, tmp_path / "new")
    assert not fits(11, 16, tmp_path / "new")
