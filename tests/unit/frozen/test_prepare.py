"""What is kept of a prepared backbone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from autotl.frozen import prepare as module
from autotl.frozen.activations import BATCH, ImageLoader, embed_stages
from autotl.frozen.kept_embeddings import Embedded
from autotl.frozen.prepare import TIMED_BATCHES, EmbeddingTime, PreparedBackbone
from autotl.models.backbone import Preprocessing
from autotl.models.catalog import BackboneEntry, load_catalog
from autotl.storage.cache import DiskCache

ROWS = np.array([1, 3, 4, 8])
EMBEDDINGS = np.arange(8, dtype=np.float32).reshape(4, 2)


@pytest.fixture
def prepared() -> PreparedBackbone:
    """Embeddings of four rows."""
    paths = {"state": Path("state"), "converted": None}
    measured = {"weights_sha256": "", "engine": "", "engines": {}, "seconds": 2.0, "n_stages": 1, "preprocessing": {}}
    return PreparedBackbone(
        entry=load_catalog()[0],
        rows=ROWS,
        embeddings=EMBEDDINGS,
        stage_rows=ROWS[:0],
        stage_features={},
        **paths,
        **measured,
    )  # type: ignore[arg-type]


def test_embeddings_of_some_rows(prepared: PreparedBackbone) -> None:
    np.testing.assert_array_equal(prepared.of(np.array([3, 8])), EMBEDDINGS[[1, 3]])
    np.testing.assert_array_equal(prepared.of(np.array([8, 1, 1])), EMBEDDINGS[[3, 0, 0]])


def test_embeddings_of_all_rows_are_no_copy(prepared: PreparedBackbone) -> None:
    assert prepared.of(ROWS.copy()) is EMBEDDINGS
    np.testing.assert_array_equal(prepared.of(ROWS[::-1]), EMBEDDINGS[::-1])


def test_images_per_second(prepared: PreparedBackbone) -> None:
    assert prepared.images_per_second == 2.0


class Machine:
    """A clock, and decoding that goes on until so many batches are embedded: one takes 1 s, and 5 s beside it."""

    def __init__(self, batches: int) -> None:
        self.now, self._left = 0.0, batches
        self.store = SimpleNamespace(n_images=200)

    @property
    def is_over(self) -> bool:
        return self._left <= 0

    def wait(self, rows: np.ndarray) -> None:
        assert len(rows) == 200
        self._left = 0

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        self.now += 1.0 if self.is_over else 5.0
        self._left -= 1
        return batch.flatten(1), {}


@pytest.mark.parametrize("decoding", [0, 1, 16, 19, 20, 21])
def test_the_time_of_embedding_is_that_with_nothing_decoded_beside_it(
    monkeypatch: pytest.MonkeyPatch, decoding: int
) -> None:
    machine = Machine(decoding)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: machine.now))
    preprocessing = Preprocessing(2, 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 2)
    loader = ImageLoader(np.zeros((200, 2, 2, 3), np.uint8), preprocessing, torch.device("cpu"), seed=0)
    rows, done = np.arange(20 * BATCH), list[int]()
    timing = EmbeddingTime(machine)  # type: ignore[arg-type]
    # Batch by batch: the threads of a pool are ahead of what they report.
    watch = timing.watched(done.append)
    for batch in range(20):
        embed_stages(machine.forward, loader, rows[batch * BATCH : (batch + 1) * BATCH], rows[:0])
        watch((batch + 1) * BATCH)
    embedded = machine.now
    assert timing.seconds(machine.forward, loader, rows, 1) == 20.0
    assert machine.now - embedded == (TIMED_BATCHES if decoding > 20 - TIMED_BATCHES else 0)
    assert len(done) == 20


class TestTheSameWeights:
    """`prepare` with backbones that are known, and loading and embedding replaced."""

    @pytest.fixture
    def embedded(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The names of timm that come as far as embedding, which then fails."""
        names: list[str] = []

        def stop(backbone: str, *_: object) -> None:
            names.append(backbone)
            raise InterruptedError

        loaded = torch.nn.Linear(1, 1), Path("loaded.safetensors"), "aa11"
        monkeypatch.setattr(module, "_load", lambda entry, folder, allow_download: loaded)
        monkeypatch.setattr(module, "preprocessing_of", lambda model: Preprocessing(2, 1.0, (0.0,), (1.0,), 2))
        monkeypatch.setattr(module, "wrap", stop)
        return names

    @staticmethod
    def prepare(entry: BackboneEntry, known: PreparedBackbone) -> PreparedBackbone:
        store = SimpleNamespace(size=2, open=lambda: np.zeros((1, 2, 2, 3), np.uint8))
        arguments = {
            "allow_download": False,
            "workers": 1,
            "passes": 1,
            "cache": None,
            "on_progress": lambda done: None,
        }
        return module.prepare(entry, store, ROWS, Path(), None, known=[known], **arguments)  # type: ignore[arg-type]

    def test_nothing_is_embedded_twice(self, prepared: PreparedBackbone, embedded: list[str]) -> None:
        copy = replace(prepared.entry, name="copy")
        again = self.prepare(copy, replace(prepared, weights_sha256="aa11"))
        assert again.entry == copy
        assert again.embeddings is prepared.embeddings
        assert again.state == Path("loaded.safetensors")
        assert embedded == []

    @pytest.mark.parametrize("known", [{"weights_sha256": "bb22"}, {"weights_sha256": "aa11", "timm_name": "another"}])
    def test_other_weights_and_architectures_are(
        self, prepared: PreparedBackbone, embedded: list[str], known: dict[str, str]
    ) -> None:
        entry = replace(prepared.entry, timm_name=known.get("timm_name", prepared.entry.timm_name))
        with pytest.raises(InterruptedError):
            self.prepare(prepared.entry, replace(prepared, weights_sha256=known["weights_sha256"], entry=entry))
        assert embedded == [prepared.entry.timm_name]


class TestWhatAnEarlierCallMade:
    """`prepare` with a cache; loading and embedding are replaced."""

    MANY = np.arange(100)

    @pytest.fixture
    def embeds(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """How many images were embedded, each time."""
        embeds: list[int] = []

        def embed(backbone: object, loader: object, rows: np.ndarray, *_: object) -> tuple[Embedded, None]:
            embeds.append(len(rows))
            return Embedded("torch-fp32", {}, False, 2.0, rows[:, None].astype(np.float32), {}), None

        loaded = torch.nn.Linear(1, 1), Path("loaded.safetensors"), "aa11"
        monkeypatch.setattr(module, "_load", lambda entry, folder, allow_download: loaded)
        monkeypatch.setattr(module, "preprocessing_of", lambda model: Preprocessing(2, 1.0, (0.0,), (1.0,), 2))
        monkeypatch.setattr(module, "wrap", lambda name, model: SimpleNamespace(n_stages=3))
        monkeypatch.setattr(module, "_embed", embed)
        return embeds

    def prepare(self, folder: Path, data: str, rows: np.ndarray | None = None) -> PreparedBackbone:
        store = SimpleNamespace(size=2, open=lambda: np.zeros((1, 2, 2, 3), np.uint8))
        done: list[int] = []
        rows = self.MANY if rows is None else rows
        prepared = module.prepare(
            load_catalog()[0],
            store,  # type: ignore[arg-type]
            rows,
            Path(),
            "fp32",
            allow_download=False,
            workers=1,
            passes=1,
            cache=DiskCache(folder),
            on_progress=done.append,
            data_fingerprint=data,
        )
        assert prepared.seconds == 2.0
        assert np.array_equal(prepared.of(rows)[:, 0], rows)
        return prepared

    def test_nothing_is_embedded_twice(self, embeds: list[int], tmp_path: Path) -> None:
        first, second = self.prepare(tmp_path, "photos"), self.prepare(tmp_path, "photos")
        assert embeds == [100]
        assert np.array_equal(first.embeddings, second.embeddings)

    def test_other_images_are(self, embeds: list[int], tmp_path: Path) -> None:
        self.prepare(tmp_path, "photos")
        self.prepare(tmp_path, "photos that have changed")
        self.prepare(tmp_path, "photos", self.MANY[1:])
        assert embeds == [100, 100, 99]

    def test_without_a_name_for_the_images_nothing_is_kept(self, embeds: list[int], tmp_path: Path) -> None:
        self.prepare(tmp_path, "")
        self.prepare(tmp_path, "")
        assert embeds == [100, 100]
        assert list(tmp_path.iterdir()) == []

    def test_without_openvino_nothing_is_asked_of_it(
        self, embeds: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "has_openvino", lambda: False)
        monkeypatch.delattr(module, "conversion_key")  # which asks for the version of the package
        for _ in range(2):
            self.prepare(tmp_path, "photos")
        assert embeds == [100]

    def test_few_are_embedded_while_one_would_look(self, embeds: list[int], tmp_path: Path) -> None:
        self.prepare(tmp_path, "photos", self.MANY[:10])
        assert list(tmp_path.iterdir()) == []
