"""What a worker needs to know to train any config: plain data, the same for all trials of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotl import clock
from autotl.compute.device import Precision
from autotl.train.cost import NOT_MEASURED, StageSeconds


@dataclass(frozen=True, slots=True)
class BackboneFiles:
    """One backbone as the driver prepared it.

    Attributes:
        weights_sha256: stands for its weights.
        state: its weights, written by `autotl.models.weights.save_state`.
        converted: the same for OpenVINO, or "".
        head: its linear probe (npz with weight and bias), or "" where it has none to start from.
        source_learning_rate: at a batch of 32.
        n_stages: freeze depths lie in 0..n_stages.
        base_depth: from which the views of all deeper depths are computed; 0 for none.
        evaluation_depth: at which the evaluation views are in the cache already; 0 if they are not.
        seconds_per_image: of one image's frozen forward pass on one core (or one GPU), measured while embedding.
        timm_name: what timm builds it by; its name in configs may be another.
        engine: what the images were embedded with on a GPU; "" on CPUs.
        stages: of one image's training step, stage by stage, on one core (or one GPU); only predictions need it.
    """

    weights_sha256: str
    state: str
    converted: str
    head: str
    source_learning_rate: float
    n_stages: int
    seconds_per_image: float
    timm_name: str
    stages: StageSeconds = NOT_MEASURED
    base_depth: int = 0
    evaluation_depth: int = 0
    engine: str = ""


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """The data, the backbones and the rules of a run.

    Attributes:
        run_dir: the run folder, where the best model goes.
        store: file of the decoded pixels, see `autotl.data.pixels`.
        manifest: npz with labels and split.
        classes: class names.
        metric: what scores are made of.
        balanced: weight classes inversely to their frequency in the loss.
        backbones: by name.
        precision: see `autotl.compute.device`.
        max_t: epochs of a full trial.
        n_views: augmented views that are cached for a frozen prefix.
        cache_dir, cache_limit: of `autotl.storage.cache.DiskCache`, bytes.
        data_fingerprint: stands for the images.
        seed: of weights and order.
        cache_activations: compute frozen stages once; without it they run in every epoch, on views that are new.
        deadline: clock.now() at which training stops.
        threads: CPU threads of a trial.
        speed: how many times as fast as one core these train; 1 on a GPU.
        provenance: goes into the card of every saved model.
        gpus: of a trial, or the share of one; 0 trains on CPUs, even where there is a GPU.
        anchor: of the clock that `deadline` is counted by, see `autotl.clock`.
        whole_schedule: the learning rates are those of `max_t` epochs, even where the time is up earlier.
    """

    run_dir: str
    store: str
    manifest: str
    classes: tuple[str, ...]
    metric: str
    balanced: bool
    backbones: dict[str, BackboneFiles]
    precision: Precision
    max_t: int
    n_views: int
    cache_dir: str
    cache_limit: int
    data_fingerprint: str
    seed: int
    deadline: float
    threads: int
    speed: float
    provenance: dict[str, Any]
    cache_activations: bool = True
    gpus: float = 0.0
    anchor: clock.Anchor = field(default_factory=clock.current)
    whole_schedule: bool = False

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON types, to send to a worker."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> TrainingTask:
        """What `to_plain` gave."""
        backbones = {
            name: BackboneFiles(**(files | {"stages": StageSeconds.from_plain(files["stages"])}))
            for name, files in plain["backbones"].items()
        }
        anchor = clock.Anchor(**plain["anchor"])
        return cls(**(plain | {"backbones": backbones, "classes": tuple(plain["classes"]), "anchor": anchor}))

    def load_manifest(self) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
        """Labels and split of every image in the store."""
        return load_manifest(Path(self.manifest))


def save_manifest(path: Path, labels: NDArray[np.int64], split: NDArray[np.str_]) -> None:
    """Write labels and split for the workers."""
    np.savez(path, labels=labels, split=split)


def load_manifest(path: Path) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """What `save_manifest` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["labels"], arrays["split"]
