"""What every step of a call stands on: the call itself, its data, and how its images are embedded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotl.compute.device import Precision, pick_device
from autotl.console import Console
from autotl.data.on_demand import OnDemand
from autotl.data.pixels import Decoding, PixelStore
from autotl.data.splits import Dataset
from autotl.frozen.evaluation_views import EvaluationViews
from autotl.frozen.prepare import PreparedBackbone, prepare
from autotl.interrupt import raise_if_pressed
from autotl.models.catalog import BackboneEntry
from autotl.pipeline.callbacks import Callbacks
from autotl.pipeline.resume import Earlier
from autotl.pipeline.validate import ValidInput, available_backbones
from autotl.result import Callback
from autotl.settings import FitSettings
from autotl.storage.cache import DiskCache, default_folder
from autotl.storage.rundir import RunDir
from autotl.threads import local_cpus
from autotl.train.metrics import majority_score

PACKAGES = ("autotl", "torch", "timm", "ray", "optuna", "numpy", "scipy", "scikit-learn")
EXPECTED_PASSES = 4
"""How often a fit sends the images through frozen stages: once to embed them, and for the views of the trials."""
EMBEDDED_IMAGES = 100_000
"""Training and validation images that are embedded, at most: 0.5 GB for EfficientNet-Lite0, and twice that while a
probe is fitted."""
STAGE_IMAGES = 2000
"""Of these, for how many the features of every stage are kept, at most."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """One call of `fit` or `advise`.

    Attributes:
        settings: what was asked for.
        inputs: what `validate` made of them.
        run: the run folder.
        console: where progress is shown.
        begun: clock.now() at which the time given began to run.
        cache: of views and converted models.
        callbacks: called with the advice, with every trial and with the result.
        earlier: what earlier sessions of the run left; None in the first.
    """

    settings: FitSettings
    inputs: ValidInput
    run: RunDir
    console: Console
    begun: float
    cache: DiskCache
    callbacks: Callbacks
    earlier: Earlier | None = None

    @property
    def end(self) -> float:
        """clock.now() at which the time given is over."""
        return self.begun + self.settings.budget.timeout


def make_context(
    settings: FitSettings,
    inputs: ValidInput,
    run: RunDir,
    console: Console,
    begun: float,
    callbacks: Sequence[Callback] = (),
    cache: DiskCache | None = None,
    earlier: Earlier | None = None,
) -> RunContext:
    """The context of a call; the console is its first callback, and the cache is the user's own unless one is given."""
    together = Callbacks((console, *callbacks), lambda text: console.line(text, "red"))
    return RunContext(settings, inputs, run, console, begun, cache or DiskCache(default_folder()), together, earlier)


@dataclass(frozen=True, slots=True)
class PreparedData:
    """The data of a call.

    Attributes:
        dataset: manifest and splits.
        share: of the training and validation images that are in it; 1 for all.
        store: the decoded images.
        metric: what scores are made of.
        balanced: whether classes are weighted inversely to their frequency.
        precision: what trials compute in.
        provenance: goes into the card of every saved model.
        first: the first backbone, with the embeddings of the training and validation images, or of a sample of them.
        optional: further backbones, for which the images are large enough and the time may do.
    """

    dataset: Dataset
    share: float
    store: PixelStore
    metric: str
    balanced: bool
    precision: Precision
    provenance: dict[str, Any]
    first: PreparedBackbone
    optional: tuple[BackboneEntry, ...] = ()

    @property
    def n_images(self) -> tuple[int, int, int]:
        """Training, validation and test images."""
        train, val, test = (len(self.dataset.indices(split)) for split in ("train", "val", "test"))
        return train, val, test


def candidates(context: RunContext) -> tuple[tuple[BackboneEntry, ...], tuple[BackboneEntry, ...]]:
    """Backbones that are probed in any case (those asked for, or the cheapest), and those for which time decides.

    The cheapest pretrained one comes before the models of earlier runs, so that these have a rival whatever the time.
    """
    if context.inputs.entries:  # also those that the earlier sessions of a run probed
        return context.inputs.entries, ()
    reused = tuple(earlier.entry for earlier in context.inputs.earlier_runs)
    available = available_backbones()
    return (*available[:1], *reused), available[1:]


def embed(
    context: RunContext,
    entry: BackboneEntry,
    store: PixelStore,
    rows: NDArray[np.int64],
    precision: Precision,
    *,
    passes: int,
    folder: str = "weights",
    stage_rows: NDArray[np.int64] | None = None,
    decoding: Decoding | OnDemand | None = None,
    between: Callable[[], None] = lambda: None,
    known: Sequence[PreparedBackbone] = (),
    keep: EvaluationViews | None = None,
    data_fingerprint: str = "",
) -> PreparedBackbone:
    """A backbone with the embeddings of images, shown as they come.

    Arguments are those of `autotl.frozen.prepare.prepare`; `folder` is one of the run's cache. `between` is called
    between batches; what it raises ends the embedding.

    Raises:
        BackboneError: if the weights are missing or do not fit.
    """
    with context.console.progress(f"embedding with {entry.name}", len(rows)) as show:

        def on_progress(done: int) -> None:
            raise_if_pressed()
            between()
            show(done)

        return prepare(
            entry,
            store,
            rows,
            context.run.cache / folder,
            precision,
            allow_download=context.settings.allow_download,
            workers=local_cpus(),
            passes=passes,
            cache=context.cache,
            on_progress=on_progress,
            stage_rows=stage_rows,
            decoding=decoding,
            known=known,
            keep=keep,
            data_fingerprint=data_fingerprint,
        )


def views_to_keep(context: RunContext, dataset: Dataset, rows: NDArray[np.int64]) -> EvaluationViews | None:
    """The evaluation views that trials will ask for, of the training images and of the validation images.

    None if `rows`, which are embedded, are only a sample of both, and on a GPU, where trials compute their own.
    """
    parts = dataset.indices("train"), dataset.indices("val")
    if len(rows) < sum(map(len, parts)) or pick_device().type == "cuda":
        return None
    return EvaluationViews(context.cache, context.run.cache / "evaluation", dataset.image_fingerprint(), parts)


def rows_to_embed(dataset: Dataset, seed: int) -> NDArray[np.int64]:
    """The training and validation images, or a stratified sample of both: embeddings are kept in memory."""
    return dataset.sample(dataset.indices("train", "val"), EMBEDDED_IMAGES, seed)


def rows_for_stages(dataset: Dataset, rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """The images, of `rows`, whose stages are probed: all, or a stratified sample."""
    return dataset.sample(rows, STAGE_IMAGES, seed)


def provenance(context: RunContext, dataset: Dataset, metric: str, precision: Precision) -> dict[str, Any]:
    """Where a model of this call comes from, as plain data."""
    train, val, test = (dataset.labels[dataset.indices(split)] for split in ("train", "val", "test"))
    n_classes = len(dataset.classes)
    return {
        "dataset": str(dataset.root),
        "dataset_fingerprint": dataset.fingerprint(),
        "seed": context.settings.seed,
        "precision": precision,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(context.begun)),
        "versions": versions(),
        # What a model has to beat to be worth reusing, see `autotl.pipeline.earlier_runs`.
        "majority_score": majority_score(metric, train, val, n_classes),
        "majority_score_test": majority_score(metric, train, test, n_classes) if len(test) else None,
        "earlier_runs": [earlier.to_json() for earlier in context.inputs.earlier_runs],
    }


def versions() -> dict[str, str]:
    """The versions of autotl and of what it is built on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
