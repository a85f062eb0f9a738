"""Making a backbone ready for a run: load its weights once, embed the images once, keep both for the workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autotl.compute.device import Precision, pick_device
from autotl.compute.memory import give_back_memory
from autotl.data.on_demand import OnDemand
from autotl.data.pixels import Decoding, PixelStore
from autotl.frozen.activations import ImageLoader, embed_stages, frozen_batch
from autotl.frozen.engines import fastest_embedding
from autotl.frozen.evaluation_views import EvaluationViews, ViewKeeper, kept_depth
from autotl.frozen.kept_embeddings import SMALLEST, Embedded, embeddings_key, find_embedded, keep_embedded
from autotl.frozen.openvino import conversion_key, has_openvino
from autotl.frozen.stages import StagedForward
from autotl.models.backbone import Backbone, Preprocessing, preprocessing_of, wrap
from autotl.models.catalog import BackboneEntry
from autotl.models.stages import TimmModel
from autotl.models.weights import file_sha256, load_pretrained, locate, save_state
from autotl.storage.cache import DiskCache

TIMED_BATCHES = 4
"""Batches a worker that embedding is timed on: with fewer, workers that are done wait for the last one."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedBackbone:
    """A backbone with its weights on disk and the embeddings of some images.

    Attributes:
        entry: from the catalog.
        state, weights_sha256: its weights as the workers load them, and their checksum.
        converted: the same for OpenVINO, where that was worth making.
        engine: how the images were embedded.
        engines: images a second, one batch at a time, and relative error of every way that was tried.
        rows: which images of the store were embedded.
        embeddings: float32, shape (len(rows), dimensions).
        stage_rows: some of `rows`, ascending.
        stage_features: what arrives at the stages' boundaries for those, averaged over places, by freeze depth
            1..n_stages-1: float32, shape (len(stage_rows), channels). Depths without a boundary are missing.
        seconds: the embedding took, or would have taken without images being decoded beside it.
        n_stages: freeze depths lie in 0..n_stages.
        preprocessing: plain, for a model card.
    """

    entry: BackboneEntry
    state: Path
    weights_sha256: str
    converted: Path | None
    engine: str
    engines: dict[str, tuple[float, float]]
    rows: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    stage_rows: NDArray[np.int64]
    stage_features: dict[int, NDArray[np.float32]]
    seconds: float
    n_stages: int
    preprocessing: dict[str, Any]

    @property
    def images_per_second(self) -> float:
        """Measured, with all threads of the driver."""
        return len(self.rows) / max(self.seconds, 1e-9)

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings of `rows`, all of which were embedded; not a copy where these are all there are."""
        if np.array_equal(rows, self.rows):
            return self.embeddings
        return self.embeddings[np.searchsorted(self.rows, rows)]


def prepare(
    entry: BackboneEntry,
    store: PixelStore,
    rows: NDArray[np.int64],
    folder: Path,
    precision: Precision,
    *,
    allow_download: bool,
    workers: int,
    passes: int,
    cache: DiskCache,
    on_progress: Callable[[int], None],
    stage_rows: NDArray[np.int64] | None = None,
    decoding: Decoding | OnDemand | None = None,
    known: Sequence[PreparedBackbone] = (),
    keep: EvaluationViews | None = None,
    data_fingerprint: str = "",
) -> PreparedBackbone:
    """Load a backbone, write its weights into `folder`, and embed the images `rows` of the store on `workers` cores.

    The embedding is done the fastest exact way there is, see `autotl.frozen.engines`. `passes` says how often the
    images will go through frozen stages, now and in trials. `stage_rows` are the images, some of `rows`, for which the
    stages' features are kept. `decoding` is what still fills the store: every batch waits for its images. `known` are
    backbones with the embeddings of the same images: nothing is embedded if one of them has the same weights. `keep`
    are evaluation views that are kept on the way. `data_fingerprint` stands for the images of the store: what an
    earlier call made of them is taken from the cache, and what this one makes is left there; "" does neither.

    Raises:
        BackboneError: if the weights are missing or do not fit.
        BaseException: what ended the decoding early.
    """
    model, state, sha256 = _load(entry, folder, allow_download)
    for other in known:
        if (other.weights_sha256, other.entry.timm_name) == (sha256, entry.timm_name):
            return replace(other, entry=entry, state=state)
    preprocessing = replace(preprocessing_of(model), store_size=store.size)
    device, backbone = pick_device(), wrap(entry.timm_name, model)
    stage_rows = rows[:0] if stage_rows is None else np.sort(stage_rows)
    key = None
    if data_fingerprint and device.type == "cpu" and len(rows) >= SMALLEST:
        key = embeddings_key(
            entry.timm_name, sha256, data_fingerprint, preprocessing, precision, workers, passes, rows, stage_rows
        )
    embedded, converted = None if key is None else find_embedded(cache, key), None
    if embedded is not None and embedded.converted and has_openvino():
        converted = cache.get(conversion_key(entry.timm_name, sha256, preprocessing.input_size))
    if embedded is not None and embedded.converted == (converted is not None):
        on_progress(len(rows))
    else:
        model.to(device, memory_format=torch.channels_last)
        loader = _loader(store, preprocessing, device, decoding)
        kept = _keeper(keep, entry, sha256, preprocessing, backbone.n_stages)
        embedded, converted = _embed(
            backbone, loader, rows, stage_rows, precision, sha256, workers, passes, cache, on_progress, decoding, kept
        )
        if key is not None:
            keep_embedded(cache, key, embedded)
    return PreparedBackbone(
        entry=entry,
        state=state,
        weights_sha256=sha256,
        converted=converted,
        engine=embedded.engine,
        engines=embedded.engines,
        rows=rows,
        embeddings=embedded.embeddings,
        stage_rows=stage_rows,
        stage_features=embedded.stage_features,
        seconds=embedded.seconds,
        n_stages=backbone.n_stages,
        preprocessing=preprocessing.to_json(),
    )


def _embed(
    backbone: Backbone,
    loader: ImageLoader,
    rows: NDArray[np.int64],
    stage_rows: NDArray[np.int64],
    precision: Precision,
    sha256: str,
    workers: int,
    passes: int,
    cache: DiskCache,
    on_progress: Callable[[int], None],
    decoding: Decoding | OnDemand | None,
    kept: ViewKeeper | None,
) -> tuple[Embedded, Path | None]:
    """The embeddings, the fastest exact way, and the converted model where there is one; see `prepare`."""
    with _on_one_core(workers > 1 and loader.device.type == "cpu"):
        engine, engines, converted, staged = fastest_embedding(
            backbone,
            loader.batch(rows[: frozen_batch(loader.device)], None, 0),
            precision,
            weights_sha256=sha256,
            n_images=passes * len(rows),
            workers=workers,
            cache=cache,
            whole=None if kept is None else kept_depth(backbone.n_stages),
        )
    give_back_memory()  # measuring and converting take several times what embedding does
    timing = EmbeddingTime(decoding)
    with kept or nullcontext():
        on_whole = kept.add if kept is not None else _drop
        watched = timing.watched(on_progress)
        embeddings, stages = embed_stages(staged, loader, rows, stage_rows, watched, workers, on_whole)
    embedded = Embedded(
        engine=engine.name,
        engines={measured.name: (measured.images_per_second, measured.error) for measured in engines},
        converted=converted is not None,
        seconds=timing.seconds(staged, loader, rows, workers),
        embeddings=embeddings,
        stage_features=stages,
    )
    return embedded, converted


def _load(entry: BackboneEntry, folder: Path, allow_download: bool) -> tuple[TimmModel, Path, str]:
    """The model without a classifier, and its weights in a file with their checksum."""
    model = load_pretrained(entry, locate(entry, allow_download)).eval()
    state = folder / f"{entry.name}.safetensors"
    save_state(model, state)
    return model, state, file_sha256(state)


def _loader(
    store: PixelStore, preprocessing: Preprocessing, device: torch.device, decoding: Decoding | OnDemand | None
) -> ImageLoader:
    if decoding is None:
        return ImageLoader(store.open(), preprocessing, device, seed=0)
    return ImageLoader(decoding.pixels, preprocessing, device, seed=0, wait=decoding.wait)


def _keeper(
    keep: EvaluationViews | None, entry: BackboneEntry, sha256: str, preprocessing: Preprocessing, n_stages: int
) -> ViewKeeper | None:
    if keep is None:
        return None
    return ViewKeeper(keep, entry.timm_name, sha256, preprocessing, kept_depth(n_stages))


def _drop(rows: NDArray[np.int64], tensor: torch.Tensor) -> None:
    """Nothing is kept."""


@contextmanager
def _on_one_core(wanted: bool) -> Iterator[None]:
    """Torch on a single core inside, as each worker will run, where that is wanted."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if wanted else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class EmbeddingTime:
    """How long embedding takes by itself: costs of trials are predicted from that, and decoding takes cores from it.

    The clock starts when the last image is decoded. Where that leaves too few to measure, some are embedded again.

    Args:
        decoding: what may still go on; the clock runs at once without.
    """

    def __init__(self, decoding: Decoding | OnDemand | None) -> None:
        self._decoding = decoding
        self._beside = decoding is not None and not decoding.is_over
        self._begun = time.perf_counter()
        self._done = 0

    def watched(self, on_progress: Callable[[int], None]) -> Callable[[int], None]:
        """The same function, which moves the beginning of the time to the end of the decoding."""

        def watch(done: int) -> None:
            if self._beside and self._decoding is not None and self._decoding.is_over:
                self._beside = False
                self._begun, self._done = time.perf_counter(), done
            on_progress(done)

        return watch

    def seconds(self, staged: StagedForward, loader: ImageLoader, rows: NDArray[np.int64], workers: int) -> float:
        """Seconds for all `rows`, which were just embedded; arguments are those of `embed_stages`."""
        ended = time.perf_counter()
        sample = rows[: TIMED_BATCHES * workers * frozen_batch(loader.device)]
        timed = len(rows) - self._done
        if self._decoding is not None and (self._beside or timed < len(sample)):
            self._decoding.wait(np.arange(self._decoding.store.n_images))
            timed, self._begun = len(sample), time.perf_counter()
            embed_stages(staged, loader, sample, sample[:0], workers=workers)
            ended = time.perf_counter()
        return (ended - self._begun) * len(rows) / timed
