"""Reading a data set: split, decoded and embedded at once, and what happens where files turn out damaged."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autotl.compute.device import Speed
from autotl.console import Console
from autotl.data import pixels
from autotl.data.folder import list_folder, without
from autotl.data.splits import make_dataset
from autotl.errors import DatasetError
from autotl.interrupt import raise_if_pressed
from autotl.models.catalog import find_entry
from autotl.pipeline import context, ingest
from autotl.pipeline.budget import EMBEDDING_SHARE
from autotl.pipeline.context import RunContext, make_context
from autotl.pipeline.ingest import read_data
from autotl.pipeline.validate import ValidInput
from autotl.settings import Budget, FitSettings
from autotl.storage.cache import DiskCache
from autotl.storage.rundir import RunDir

LITE0 = "tf_efficientnet_lite0.in1k"
Capture = pytest.CaptureFixture[str]
BATCH = 4


class Embedding:
    """Stands in for `prepare`: waits for the images batch by batch and keeps their mean colours."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passes: list[int] = []
        self.in_batch: Callable[[int], None] = lambda done: None
        monkeypatch.setattr(context, "prepare", self)
        monkeypatch.setattr(ingest, "measure_device", lambda device: Speed("fp32", math.inf))

    def __call__(self, entry: Any, store: Any, rows: np.ndarray, folder: Path, precision: str, **other: Any) -> Any:
        self.passes.append(other["passes"])
        stored, means = other["decoding"].pixels, []
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            other["decoding"].wait(batch)
            means.append(stored[batch].mean(axis=(1, 2)))
            self.in_batch(start + len(batch))
            other["on_progress"](start + len(batch))
        return SimpleNamespace(entry=entry, rows=rows, embeddings=np.concatenate(means))


class Decoder:
    """Notes which files are decoded, and does something before each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[str] = []
        self.before: Callable[[str], None] = lambda name: None
        self._decode = pixels.decode
        monkeypatch.setattr(pixels, "decode", self)

    def __call__(self, source: Path, size: int) -> Any:
        name = "/".join(source.parts[-3:])
        self.begun.append(name)
        self.before(name)
        return self._decode(source, size)


@pytest.fixture
def embedding(monkeypatch: pytest.MonkeyPatch) -> Embedding:
    return Embedding(monkeypatch)


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Decoder:
    monkeypatch.setattr(ingest, "local_cpus", lambda: 1)
    return Decoder(monkeypatch)


@pytest.fixture(autouse=True)
def images_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "PART", 1)


@pytest.fixture
def folder(tmp_path: Path, write_shapes: Callable[..., Path]) -> Path:
    """Ten training and two test images of each of three classes."""
    write_shapes(tmp_path / "data" / "train", 10, seed=0)
    write_shapes(tmp_path / "data" / "test", 2, seed=1)
    return tmp_path / "data"


def context_for(folder: Path, **changes: Any) -> RunContext:
    """The context of a call that validated a folder as it is now."""
    listing, problems = list_folder(folder)
    assert problems == []
    settings = FitSettings(folder, Budget(600), backbones=(LITE0,), seed=3, **changes)
    run = RunDir(folder.parent / "run")
    inputs = ValidInput(listing, (find_entry(LITE0),), None)
    return make_context(settings, inputs, run, Console(), 0.0, cache=DiskCache(folder.parent / "views"))


def damage(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"no image")


def test_images_are_embedded_while_others_are_not_decoded_yet(
    folder: Path, embedding: Embedding, decoder: Decoder
) -> None:
    embedded = threading.Event()
    embedding.in_batch = lambda done: embedded.set()

    def before(name: str) -> None:
        assert name != "train/triangle/09.png" or embedded.wait(60), "all images were decoded before any was embedded"

    decoder.before = before
    found = read_data(context_for(folder))
    np.testing.assert_array_equal(found.first.rows, found.dataset.indices("train", "val"))
    np.testing.assert_array_equal(found.first.embeddings, found.store.open()[found.first.rows].mean(axis=(1, 2)))
    assert embedding.passes == [context.EXPECTED_PASSES]


def test_each_file_is_decoded_once_and_the_test_split_comes_last(
    folder: Path, embedding: Embedding, decoder: Decoder
) -> None:
    found = read_data(context_for(folder), passes=1)
    assert len(decoder.begun) == len(set(decoder.begun)) == 36
    assert [name.split("/")[0] for name in decoder.begun] == ["train"] * 30 + ["test"] * 6
    assert found.dataset.paths[0].startswith("test/")
    store = pixels.open_store(found.store.path)
    for place, path in enumerate(found.dataset.paths):
        np.testing.assert_array_equal(store.open()[place], decoder._decode(folder / path, store.size)[0])
    assert embedding.passes == [1]


def test_the_split_is_that_of_the_listing(folder: Path, embedding: Embedding) -> None:
    asked = context_for(folder)
    found = read_data(asked)
    expected = make_dataset(asked.inputs.listing, asked.settings.val_fraction, 3)
    np.testing.assert_array_equal(found.dataset.split, expected.split)
    assert found.dataset.fingerprint() == found.provenance["dataset_fingerprint"] == expected.fingerprint()


def test_what_the_data_is_like_is_shown_once_as_soon_as_all_is_decoded(
    folder: Path, embedding: Embedding, decoder: Decoder, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGBA", (40, 40)).save(folder / "test" / "circle" / "00.png")
    held, shown, entered = threading.Event(), [], list[pixels.Decoding]()
    enter = pixels.Decoding.__enter__
    monkeypatch.setattr(pixels.Decoding, "__enter__", lambda self: entered.append(enter(self)) or self)

    def in_batch(done: int) -> None:
        """All is decoded when the third batch of eight is embedded."""
        shown.append(capsys.readouterr().out)
        if done == 3 * BATCH:
            held.set()
            entered[0].wait(np.arange(36))

    embedding.in_batch = in_batch

    def before(name: str) -> None:
        assert name != "test/triangle/01.png" or held.wait(60), "embedding waited for it"

    decoder.before = before
    read_data(context_for(folder))
    (text,) = [printed for printed in shown if printed]
    assert shown.index(text) == 3
    lines = text.splitlines()
    assert lines[0] == "  note: 1 images of mode RGBA were converted to RGB"
    assert lines[2:4] == [f"Data  {folder}", "  3 classes: circle 10, square 10, triangle 10"]
    assert lines[4].startswith("  36 images decoded in ")
    assert lines[4].endswith(" s: 24 training, 6 validation (held back), 6 test")
    assert capsys.readouterr().out == ""


class TestDamagedFiles:
    """Files that looked sound until they were decoded."""

    NAMES = ("test/circle/01.png", "train/circle/00.png", "train/square/04.png")

    def test_all_are_listed_and_nothing_is_shown_or_kept(
        self,
        folder: Path,
        embedding: Embedding,
        decoder: Decoder,
        capsys: Capture,
        no_thread_is_left: Callable[[], bool],
    ) -> None:
        asked = context_for(folder)
        damage(folder, *self.NAMES)
        with pytest.raises(DatasetError) as caught:
            read_data(asked)
        assert [problem.where for problem in caught.value.problems] == [str(folder / name) for name in self.NAMES]
        assert all("skip_unreadable=True" in problem.remedy for problem in caught.value.problems)
        assert len(decoder.begun) == 36
        assert capsys.readouterr().out == ""
        assert not asked.run.has_model
        assert no_thread_is_left()

    def test_embedding_ends_when_the_first_is_found(self, folder: Path, embedding: Embedding) -> None:
        embedded: list[int] = []
        embedding.in_batch = embedded.append
        asked = context_for(folder)
        damage(folder, "train/circle/00.png")
        with pytest.raises(DatasetError):
            read_data(asked)
        assert embedded == [BATCH]

    def test_skipped_they_leave_what_there_would_be_without_them(
        self, folder: Path, embedding: Embedding, capsys: Capture
    ) -> None:
        asked = context_for(folder, skip_unreadable=True)
        damage(folder, *self.NAMES)
        found = read_data(asked)
        shown = capsys.readouterr().out
        listing = without(asked.inputs.listing, dict.fromkeys(self.NAMES, "damaged"))
        expected = make_dataset(listing, asked.settings.val_fraction, 3)
        assert found.dataset.paths == expected.paths
        assert found.dataset.findings == expected.findings
        np.testing.assert_array_equal(found.dataset.split, expected.split)
        assert found.provenance["dataset_fingerprint"] == expected.fingerprint()
        assert "  33 images decoded in " in shown
        named = ", ".join(self.NAMES)
        assert f"  warning: 3 images could not be decoded and were left out, as asked ({named})\n" in shown
        assert shown.count("Data  ") == 1

        other = folder.parent / "other"
        shutil.copytree(folder, other / "data")
        for name in self.NAMES:
            (other / "data" / name).unlink()
        same = read_data(context_for(other / "data"))
        np.testing.assert_array_equal(found.store.open(), same.store.open())
        np.testing.assert_array_equal(found.first.embeddings, same.first.embeddings)

    def test_a_class_that_loses_its_images_is_a_problem(self, folder: Path, embedding: Embedding) -> None:
        asked = context_for(folder, skip_unreadable=True)
        damage(folder, *(f"train/circle/{number:02d}.png" for number in range(1, 10)))
        with pytest.raises(DatasetError, match="classes with a single training image: circle"):
            read_data(asked)


class TestOnAFullDisk:
    """Without room for pixels, files are decoded whenever they are needed, and everything else is as ever."""

    @pytest.fixture(autouse=True)
    def no_room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ingest, "fits", lambda *arguments: False)

    def test_the_embeddings_and_the_images_are_the_same(
        self, folder: Path, embedding: Embedding, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = read_data(context_for(folder))
        images, shown = found.store.open()[np.arange(36)], capsys.readouterr().out
        monkeypatch.setattr(ingest, "fits", lambda *arguments: True)
        same = read_data(context_for(folder))
        np.testing.assert_array_equal(found.first.embeddings, same.first.embeddings)
        np.testing.assert_array_equal(images, same.store.open()[np.arange(36)])
        assert found.provenance == same.provenance
        assert (
            "  36 images decoded whenever they are needed (all of them, 0.0 GiB, would fill the disk): 24 tr" in shown
        )

    def test_all_damaged_files_are_listed(
        self, folder: Path, embedding: Embedding, no_thread_is_left: Callable[[], bool]
    ) -> None:
        asked, names = context_for(folder), TestDamagedFiles.NAMES
        damage(folder, *names)
        with pytest.raises(DatasetError) as caught:
            read_data(asked)
        assert [problem.where for problem in caught.value.problems] == [str(folder / name) for name in names]
        assert no_thread_is_left()

    def test_skipped_they_leave_what_there_would_be_without_them(self, folder: Path, embedding: Embedding) -> None:
        asked = context_for(folder, skip_unreadable=True)
        damage(folder, *TestDamagedFiles.NAMES)
        found = read_data(asked)
        assert len(found.dataset.paths) == found.store.n_images == 33
        assert not set(found.dataset.paths) & set(TestDamagedFiles.NAMES)


def test_the_advice_is_from_a_sample_of_very_many_images(
    folder: Path, embedding: Embedding, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "EMBEDDED_IMAGES", 10)
    found = read_data(context_for(folder))
    rows = found.first.rows
    np.testing.assert_array_equal(rows, found.dataset.sample(found.dataset.indices("train", "val"), 10, 3))
    assert np.unique(found.dataset.labels[rows]).tolist() == [0, 1, 2]
    assert f"  the advice is from a stratified sample of {len(rows)} training and validation images\n" in (
        capsys.readouterr().out
    )
    assert len(found.dataset.indices("train", "val")) == 30  # which all trials train on


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_ends_the_embedding_ends_the_decoding(
    folder: Path,
    embedding: Embedding,
    decoder: Decoder,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    no_thread_is_left: Callable[[], bool],
) -> None:
    held = threading.Event()

    def fail(done: int) -> None:
        raise error

    def before(name: str) -> None:
        assert name != "train/square/00.png" or held.wait(60)

    leave = pixels.Decoding.__exit__

    def ended(decoding: pixels.Decoding, *exception: object) -> None:
        decoding._pool.shutdown(wait=False, cancel_futures=True)
        held.set()
        leave(decoding, *exception)

    monkeypatch.setattr(pixels.Decoding, "__exit__", ended)
    embedding.in_batch, decoder.before = fail, before
    with pytest.raises(error):
        read_data(context_for(folder))
    assert "train/square/01.png" not in decoder.begun
    assert no_thread_is_left()


def test_a_swallowed_ctrl_c_is_raised_between_batches(
    folder: Path, embedding: Embedding, monkeypatch: pytest.MonkeyPatch, no_thread_is_left: Callable[[], bool]
) -> None:
    pressed = iter([False, True])

    def raise_if() -> None:
        raise_if_pressed()
        if next(pressed):
            raise KeyboardInterrupt

    monkeypatch.setattr(context, "raise_if_pressed", raise_if)
    with pytest.raises(KeyboardInterrupt):
        read_data(context_for(folder))
    assert no_thread_is_left()


def test_what_ended_the_decoding_comes_through(
    folder: Path, embedding: Embedding, decoder: Decoder, no_thread_is_left: Callable[[], bool]
) -> None:
    def before(name: str) -> None:
        if name == "train/square/00.png":
            raise MemoryError("too large")

    decoder.before = before
    with pytest.raises(MemoryError, match="too large"):
        read_data(context_for(folder))
    assert no_thread_is_left()


def test_where_all_images_would_take_the_time_a_part_is_decoded_and_used(
    folder: Path, embedding: Embedding, decoder: Decoder, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lite0 = find_entry(LITE0)
    # Half of the 30 images in 0.3 of 600 seconds.
    speed = Speed("fp32", 15 * lite0.gmacs * 1e9 / (EMBEDDING_SHARE * 600))
    monkeypatch.setattr(ingest, "measure_device", lambda device: speed)
    found = read_data(context_for(folder))
    assert found.dataset.counts("train", "val").tolist() == [5, 5, 5]
    assert found.dataset.counts("test").tolist() == [2, 2, 2]
    assert set(found.dataset.split) == {"train", "val", "test"}
    assert len(decoder.begun) == 15 + 6
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "15 of 30 training and validation images are used: embedding all of them would take about 360 of 600 s" in shown
    )


def test_a_fast_machine_uses_all_images(
    folder: Path, embedding: Embedding, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed = Speed("fp32", 30 * find_entry(LITE0).gmacs * 1e9 / (EMBEDDING_SHARE * 600))
    monkeypatch.setattr(ingest, "measure_device", lambda device: speed)
    assert len(read_data(context_for(folder)).dataset.paths) == 36
