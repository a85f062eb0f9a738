"""Earlier runs: the best model of each as a backbone, and the reference set that a run leaves for that.

A model that has learned no more than the class shares of its training images has nothing to transfer, so it has to
outperform the majority-class baseline. Of many candidates at chance the best one looks better than the baseline: its
score on the validation images that it was chosen on has to hold for so many candidates. Test images are seen once.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray

from autotl.advice.reference_set import (
    MIN_PHOTOGRAPHS,
    ReferenceSet,
    load_reference_set,
    make_reference_set,
    save_reference_set,
)
from autotl.compute.device import pick_device
from autotl.data.pixels import PixelStore
from autotl.data.splits import Dataset
from autotl.errors import BackboneError, ModelFileError, Problem, RunFolderError, SettingsError
from autotl.frozen.activations import ImageLoader, batches, embed
from autotl.models.backbone import preprocessing_of
from autotl.models.catalog import BackboneEntry, find_entry
from autotl.models.weights import load_pretrained, locate
from autotl.records import Estimate
from autotl.storage import rundir
from autotl.storage.rundir import RunDir
from autotl.storage.saved_model import ModelCard, load_card
from autotl.train.intervals import wilson_interval

REFERENCE_IMAGES = 1000
"""Training images in a run's reference set, at most."""
_REFIT = "run autotl fit on its data again with this version"
FEWEST_IMAGES = 32
"""Images a worker that a reference set is made of, however little time is left."""


@dataclass(frozen=True, slots=True, eq=False)
class EarlierRun:
    """The best model of an earlier run, which passed every check.

    Attributes:
        name: of the run's folder.
        run: the run folder.
        entry: the model as a backbone, named `name/timm_name`.
        reference: embeddings of images it was trained on, by itself.
        tuned: whether its stages learned from them; the backbone of a linear probe is as pretrained.
    """

    name: str
    run: RunDir
    entry: BackboneEntry
    reference: ReferenceSet
    tuned: bool = True

    def renamed(self, name: str) -> EarlierRun:
        """The same under another name, wherever the name is used."""
        entry = replace(self.entry, name=f"{name}/{self.entry.timm_name}")
        reference = replace(self.reference, name=f"the data of {name}", backbone=entry.name)
        return replace(self, name=name, entry=entry, reference=reference)

    def to_json(self) -> dict[str, str]:
        """Where weights came from, for the card of a model that began with them."""
        return {"name": self.name, "run": str(self.run.path), "sha256": self.entry.sha256}


def find_earlier_runs(paths: Sequence[Path]) -> tuple[tuple[EarlierRun, ...], list[Problem]]:
    """The models of earlier runs, and everything that is wrong with any of them.

    Runs whose folders have the same name get the first digits of their model's checksum to tell them apart.
    """
    found: list[EarlierRun] = []
    problems: list[Problem] = []
    for path in paths:
        earlier, wrong = read_earlier_run(path)
        problems += wrong
        if earlier is not None and earlier.entry.sha256 in {other.entry.sha256 for other in found}:
            problems.append(Problem("run folder", f"reuse {path}", "is named more than once", "each model once"))
        elif earlier is not None:
            found.append(earlier)
    names = Counter(earlier.name for earlier in found)
    distinct = [
        earlier if names[earlier.name] == 1 else earlier.renamed(f"{earlier.name}-{earlier.entry.sha256[:6]}")
        for earlier in found
    ]
    return tuple(distinct), problems


def read_earlier_run(path: Path) -> tuple[EarlierRun | None, list[Problem]]:
    """The earlier run in a folder, or None with every problem it has."""
    where = f"reuse {path}"
    try:
        run = rundir.find(path)
        card = load_card(run.model)
    except RunFolderError as error:
        return None, [replace(problem, where=where) for problem in error.problems]
    except ModelFileError as error:
        return None, [Problem("run folder", where, str(error))]
    entry, problems = _check_model(run, card, where)
    reference, more = _check_reference_set(run, card, where)
    problems += more + _check_score(run, card, where)
    if problems or entry is None or reference is None:
        return None, problems
    name = run.path.resolve().name
    tuned = card.freeze_depth is None or card.freeze_depth < entry.stages
    return EarlierRun(name, run, entry, reference, tuned).renamed(name), []


def entry_of(run: RunDir, card: ModelCard) -> BackboneEntry:
    """The run's model as a backbone: cost, stages and source learning rate are those of its architecture.

    Raises:
        BackboneError: if timm does not know the architecture.
    """
    return replace(
        find_entry(card.backbone),
        name=f"{run.path.name}/{card.backbone}",
        timm_name=card.backbone,
        weights="run",
        path=str(run.model / card.weights),
        sha256=card.sha256,
        top1=0.0,  # ImageNet's classes may be forgotten
        package="",
        file="",
    )


def _check_model(run: RunDir, card: ModelCard, where: str) -> tuple[BackboneEntry | None, list[Problem]]:
    try:
        entry = entry_of(run, card)
    except BackboneError:
        found = f"its architecture {card.backbone!r} is unknown to this version of timm"
        remedy = f"install timm {card.timm_version}"
        return None, [Problem("run folder", where, found, remedy=remedy)]
    try:
        load_pretrained(entry, locate(entry))
    except BackboneError as error:
        return None, [Problem("run folder", where, problem.found) for problem in error.problems]
    return entry, []


def _check_reference_set(run: RunDir, card: ModelCard, where: str) -> tuple[ReferenceSet | None, list[Problem]]:
    file = run.reference_set.relative_to(run.path)
    if not run.reference_set.is_file():
        found = (
            f"has no {file}: it was made by an older autotl, did not come to its end, or has fewer than "
            f"{MIN_PHOTOGRAPHS} training images"
        )
        return None, [Problem("run folder", where, found, remedy=_REFIT)]
    try:
        reference = load_reference_set(run.reference_set)
    except SettingsError as error:
        wrong = [f"{file} {problem.found}" for problem in error.problems]
        return None, [Problem("run folder", where, found, remedy=_REFIT) for found in wrong]
    if reference.weights_sha256 != card.sha256:
        found = f"{file} was made by another model than the one that is there"
        return None, [Problem("run folder", where, found, remedy=_REFIT)]
    return reference, []


def _check_score(run: RunDir, card: ModelCard, where: str) -> list[Problem]:
    """Whether the model outperforms the majority-class baseline: on the test images, else on those it was chosen on."""
    tested, baseline = _test_estimate(run), card.provenance.get("majority_score_test")
    if tested is not None and isinstance(baseline, int | float) and math.isfinite(baseline):
        return _compare(card.metric, "test", tested, baseline, 1, where)
    baseline = card.provenance.get("majority_score")  # on the validation images: no measure of a test score
    if not isinstance(baseline, int | float):
        found = "model/model.json has no score of the majority-class baseline: it was made by an older autotl"
        return [Problem("run folder", where, found, remedy=_REFIT)]
    candidates = _scored_candidates(run)
    if not candidates:
        found = f"has no {run.trials.name} with scores: of how many candidates its model is the best is unknown"
        return [Problem("run folder", where, found, remedy="name the whole run folder, or fit its data again")]
    return _compare(card.metric, "validation", card.validation, baseline, candidates, where)


def _compare(
    metric: str, split: str, estimate: Estimate, baseline: float, candidates: int, where: str
) -> list[Problem]:
    low, high = interval_of_best(metric, estimate, candidates)
    if (-high if metric == "log_loss" else low) > baseline:  # never true of NaN
        return []
    best = f" for the best of {candidates} candidates" if candidates > 1 else ""
    found = (
        f"its model does not significantly outperform the majority-class baseline: {split} {metric} "
        f"{estimate.value:.3f} (95% interval{best} {low:.3f} to {high:.3f}, {estimate.n_images} images), baseline "
        f"{abs(baseline):.3f}"
    )
    remedy = "fit its data with more images or more time, or do not reuse this run"
    return [Problem("run folder", where, found, "an interval on the better side of the baseline", remedy)]


def _test_estimate(run: RunDir) -> Estimate | None:
    """None where the run has no test images, did not come to its end, or its result cannot be read."""
    try:
        return Estimate.from_json(rundir.read_json(run.result)["test"])
    except (RunFolderError, KeyError, TypeError, ValueError):
        return None


def _scored_candidates(run: RunDir) -> int:
    """Trials with a score, probes included. Epochs do not count: those of one trial are nearly the same model."""
    scores = [trial.get("score") for trial in run.read_trials() if isinstance(trial, dict)]
    return sum(isinstance(score, int | float) and math.isfinite(score) for score in scores)


def interval_of_best(metric: str, estimate: Estimate, candidates: int) -> tuple[float, float]:
    """The 95% interval of the best of so many candidates, which holds for all of them at once (Bonferroni).

    Args:
        metric: what was estimated.
        estimate: of the best candidate, with its own 95% interval.
        candidates: how many were scored on the same images, 1 or more.
    """
    n, chance = estimate.n_images, 0.05 / candidates
    if metric == "accuracy":
        return wilson_interval(round(estimate.value * n), n, 1.0 - chance)
    # The images are not at hand: the halves are widened as a normal distribution's are.
    wider = NormalDist().inv_cdf(chance / 2) / NormalDist().inv_cdf(0.05 / 2)
    low = estimate.value - wider * (estimate.value - estimate.low)
    high = estimate.value + wider * (estimate.high - estimate.value)
    return max(0.0, low), high if metric == "log_loss" else min(1.0, high)


def leave_reference_set(run: RunDir, dataset: Dataset, store: PixelStore, seconds: float, workers: int) -> int:
    """Embed training images with the run's best model and write its reference set.

    Args:
        run: holds the model.
        dataset: of the run; at most `REFERENCE_IMAGES` of its training images are drawn, always the same.
        store: their pixels.
        seconds: after which no more images are embedded. There is always one batch a worker.
        workers: batches at once, on one core each.

    Returns:
        The number of images in it.

    Raises:
        BackboneError: if the model cannot be loaded.
        ValueError: if there are fewer than `MIN_PHOTOGRAPHS` training images; if half of the pairs of images, or more,
            look the same to the model.
        OSError: if the file cannot be written.
    """
    rows = np.random.default_rng(0).permutation(dataset.indices("train"))[:REFERENCE_IMAGES]
    if len(rows) < MIN_PHOTOGRAPHS:
        raise ValueError(f"{len(rows)} training images are no reference set; {MIN_PHOTOGRAPHS} or more are")
    card = load_card(run.model)
    entry = entry_of(run, card)
    device = pick_device()
    model = load_pretrained(entry, locate(entry)).eval().to(device, memory_format=torch.channels_last)
    loader = ImageLoader(store.open(), replace(preprocessing_of(model), store_size=store.size), device, seed=0)

    def forward(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            outputs: torch.Tensor = model(images)
        return outputs

    embeddings = embed_until(
        lambda part: embed(forward, loader, part, workers=workers), rows, seconds, batch=FEWEST_IMAGES * workers
    )
    names = tuple(dataset.classes[dataset.labels[row]] for row in rows[: len(embeddings)])
    reference = make_reference_set(dataset.root.name, card.backbone, embeddings, names)
    save_reference_set(replace(reference, weights_sha256=card.sha256), run.reference_set)
    return len(embeddings)


def embed_until(
    embed_rows: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    rows: NDArray[np.int64],
    seconds: float,
    *,
    batch: int,
    clock: Callable[[], float] = time.monotonic,
) -> NDArray[np.float32]:
    """Embeddings of the first of `rows`, as many as `seconds` allow, but of one batch in any case.

    Returns:
        Shape (images, dimensions).
    """
    begun = clock()
    parts: list[NDArray[np.float32]] = []
    for part in batches(rows, batch):
        if parts and (clock() - begun) * (len(parts) + 1) / len(parts) > seconds:
            break
        parts.append(embed_rows(part))
    return np.concatenate(parts)
