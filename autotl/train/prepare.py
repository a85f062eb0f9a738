"""Making a backbone ready for a run: load its weights once, embed the images once, keep both for the workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from autotl.data.pixels import PixelStore
from autotl.models.backbone import create, preprocessing_of, stage_of_parameters
from autotl.models.catalog import BackboneEntry
from autotl.models.saved import ModelCard
from autotl.models.weights import file_sha256, load_pretrained, locate, save_state
from autotl.result import Estimate
from autotl.train.activations import ImageSource, embed
from autotl.train.device import Precision, pick_device
from autotl.train.probe import Probe


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A backbone with its weights on disk and the embeddings of some images.

    Attributes:
        entry: from the catalog.
        state, weights_sha256: its weights as the workers load them, and their checksum.
        rows: which images of the store were embedded.
        embeddings: float32, shape (len(rows), dimensions).
        seconds: the embedding took.
        n_stages: freeze depths lie in 0..n_stages.
        preprocessing: plain, for a model card.
    """

    entry: BackboneEntry
    state: Path
    weights_sha256: str
    rows: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    seconds: float
    n_stages: int
    preprocessing: dict[str, object]

    @property
    def images_per_second(self) -> float:
        """Measured, with all threads of the driver."""
        return len(self.rows) / max(self.seconds, 1e-9)

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings of `rows`, all of which were embedded."""
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
    on_progress: Callable[[int], None],
) -> Prepared:
    """Load a backbone, write its weights into `folder`, and embed the images `rows` of the store on `workers` cores.

    Raises:
        BackboneError: if the weights are missing or do not fit.
    """
    model = load_pretrained(entry, locate(entry, allow_download)).eval()
    state = folder / f"{entry.name}.safetensors"
    save_state(model, state)
    preprocessing = replace(preprocessing_of(model), store_size=store.size)
    device = pick_device()
    model.to(device, memory_format=torch.channels_last)
    source = ImageSource(store.open(), preprocessing, device, seed=0)
    begun = time.perf_counter()
    embeddings = embed(model, source, rows, precision, on_progress, workers)
    seconds = time.perf_counter() - begun
    stages = [stage for stage in stage_of_parameters(model).values() if stage is not None]
    return Prepared(
        entry=entry,
        state=state,
        weights_sha256=file_sha256(state),
        rows=rows,
        embeddings=embeddings,
        seconds=seconds,
        n_stages=1 + max(stages),
        preprocessing=preprocessing.to_json(),
    )


def save_head(probe: Probe, path: Path) -> None:
    """Write a linear probe for the workers to start from."""
    np.savez(path, weight=probe.weight, bias=probe.bias)


def probe_state(prepared: Prepared, probe: Probe, n_classes: int) -> dict[str, torch.Tensor] | None:
    """The weights of the backbone with the probe as its classifier; None where its classifier is not linear."""
    backbone = create(prepared.entry.name, n_classes, prepared.state)
    if not backbone.set_classifier(torch.from_numpy(probe.weight), torch.from_numpy(probe.bias)):
        return None
    state: dict[str, torch.Tensor] = backbone.model.state_dict()
    return state


def probe_card(
    prepared: Prepared,
    classes: tuple[str, ...],
    metric: str,
    score: float,
    log_loss: float,
    validation: Estimate,
    provenance: dict[str, object],
) -> ModelCard:
    """The card of the model that is a backbone with its linear probe."""
    return ModelCard(
        backbone=prepared.entry.name,
        classes=classes,
        preprocessing=dict(prepared.preprocessing),
        freeze_depth=prepared.n_stages,
        metric=metric,
        score=score,
        log_loss=log_loss,
        validation=validation,
        trial_id=f"probe-{prepared.entry.name}",
        epoch=0,
        config={"backbone": prepared.entry.name, "initial_weights": "pretrained", "freeze_depth": prepared.n_stages},
        provenance=provenance,
    )
