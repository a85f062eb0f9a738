"""What everything after the decoding stands on: the images of a call, read and split, and how models will compute."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from autotl.checks import Checked, available_backbones
from autotl.console import Console
from autotl.data.folder import Listing, check_classes, unreadable_problems, without
from autotl.data.pixels import PixelStore, build_store
from autotl.data.splits import Dataset, make_dataset
from autotl.errors import raise_if_any
from autotl.models.backbone import preprocessing_named
from autotl.models.catalog import BackboneEntry
from autotl.rundir import RunDir
from autotl.settings import FitSettings
from autotl.train.cache import DiskCache
from autotl.train.device import Precision, measure_precision, pick_device
from autotl.train.metrics import default_metric, majority_score
from autotl.tune.runner import local_cpus

PACKAGES = ("autotl", "torch", "timm", "ray", "optuna", "numpy", "scipy", "scikit-learn")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of `fit` or `advise`.

    Attributes:
        settings: what was asked for.
        checked: what `check` returned for them.
        run: the run folder.
        console: where to tell about it.
        begun: time.time() at which the time given began to run.
        cache: of views and converted models.
    """

    settings: FitSettings
    checked: Checked
    run: RunDir
    console: Console
    begun: float
    cache: DiskCache

    @property
    def end(self) -> float:
        """time.time() at which the time given is over."""
        return self.begun + self.settings.budget.timeout


@dataclass(frozen=True, slots=True)
class Ground:
    """The data of a call.

    Attributes:
        dataset: manifest and splits.
        store: the decoded images.
        metric: what scores are made of.
        balanced: whether classes are weighed inversely to their frequency.
        precision: what trials compute in.
        provenance: goes into the card of every saved model.
    """

    dataset: Dataset
    store: PixelStore
    metric: str
    balanced: bool
    precision: Precision
    provenance: dict[str, Any]


def read_data(call: Call) -> Ground:
    """Decode and split.

    Raises:
        DatasetError: if images cannot be decoded and are not to be skipped; all of them are listed.
    """
    listing = call.checked.listing
    required, optional = candidates(call)
    size = max(preprocessing_named(entry.timm_name).store_size for entry in (*required, *optional))
    begun = time.perf_counter()
    store, unreadable = _decode(call, listing, size)
    if unreadable:
        if not call.settings.skip_unreadable:
            raise_if_any(unreadable_problems(listing.root, unreadable))
        listing = without(listing, unreadable)
        raise_if_any(check_classes(listing))
        store, _ = _decode(call, listing, size)
    dataset = make_dataset(listing, call.settings.val_fraction, call.settings.seed)
    _tell_data(call.console, dataset, time.perf_counter() - begun)
    counts = dataset.counts("train", "val")
    metric = default_metric(counts) if call.settings.metric == "auto" else call.settings.metric
    precision = measure_precision(pick_device())
    return Ground(
        dataset=dataset,
        store=store,
        metric=metric,
        balanced=metric in ("balanced_accuracy", "f1_macro"),
        precision=precision,
        provenance=_provenance(call, dataset, metric, precision),
    )


def _decode(call: Call, listing: Listing, size: int) -> tuple[PixelStore, dict[str, str]]:
    paths = [image.path for image in listing.images]
    with call.console.progress("decoding images", len(paths)) as on_progress:
        store, decoded = build_store(listing.root, paths, size, call.run.cache / "pixels.u8", local_cpus(), on_progress)
    for finding in decoded.findings:
        call.console.line(f"  note: {finding.message}")
    return store, decoded.unreadable


def _tell_data(console: Console, dataset: Dataset, seconds: float) -> None:
    console.heading(f"Data  {dataset.root}")
    counts = dataset.counts("train", "val")
    shown = ", ".join(f"{name} {count}" for name, count in zip(dataset.classes[:8], counts[:8], strict=True))
    more = f", and {len(counts) - 8} more" if len(counts) > 8 else ""
    console.line(f"  {len(dataset.classes)} classes: {shown}{more}")
    own = "its own" if dataset.own_validation else "held back"
    sizes = f"{len(dataset.indices('train'))} training, {len(dataset.indices('val'))} validation ({own})"
    test = len(dataset.indices("test"))
    tested = f"{test} test" if test else "no test split"
    console.line(f"  {len(dataset.paths)} images decoded in {seconds:.1f} s: {sizes}, {tested}")
    for finding in dataset.findings:
        named = f" ({', '.join(finding.paths[:3])}{', …' if len(finding.paths) > 3 else ''})" if finding.paths else ""
        mark = "warning" if finding.severity == "warning" else "note"
        console.line(f"  {mark}: {finding.message}{named}", "yellow" if mark == "warning" else None)


def candidates(call: Call) -> tuple[tuple[BackboneEntry, ...], tuple[BackboneEntry, ...]]:
    """Backbones that are probed in any case (those asked for, or the cheapest), and those for which time decides.

    The cheapest pretrained one comes before own sources, so that these have a rival whatever the time.
    """
    if call.checked.entries:
        return call.checked.entries, ()
    own = tuple(source.entry for source in call.checked.sources)
    here = available_backbones()
    return (*here[:1], *own), here[1:]


def _provenance(call: Call, dataset: Dataset, metric: str, precision: Precision) -> dict[str, Any]:
    train, val = (dataset.labels[dataset.indices(split)] for split in ("train", "val"))
    return {
        "dataset": str(dataset.root),
        "dataset_fingerprint": dataset.fingerprint(),
        "seed": call.settings.seed,
        "precision": precision,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(call.begun)),
        "versions": versions(),
        # What a model has to beat to be worth reusing, see `autotl.sources`.
        "majority_score": majority_score(metric, train, val, len(dataset.classes)),
        "sources": [source.to_json() for source in call.checked.sources],
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
