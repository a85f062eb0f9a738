"""The task of a search: files and measured costs of the backbones, and how long a trial is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from autotl.compute.device import local_cpus
from autotl.pipeline.budget import MOST, epochs
from autotl.pipeline.context import Call, Ground
from autotl.pipeline.probe import Probed, labelled_features
from autotl.space.search_space import Config, SearchSpace
from autotl.train.cost import base_depth, measure_backbones
from autotl.train.probe import START_FLOOR, Probe, fit_probe, save_head
from autotl.train.task import BackboneFiles, TrainingTask, save_manifest
from autotl.tune.pace import Predict, predictor
from autotl.tune.runner import Slots

BASE_BYTES = 4 * 2**30
"""Largest size of the views from which deeper ones are computed."""
FEWEST_VIEWS, MOST_VIEWS = 3, 4
"""Augmented views of the training images that are cached for a frozen prefix.

On hand signs, two cost half a point of accuracy against views that are new in every epoch; so did three at depth 4.
"""
VIEWS_SHARE = 0.2
"""The most views are computed if those of a trial take at most this share of the time."""


def make_task(
    call: Call,
    ground: Ground,
    probed: Sequence[Probed],
    space: SearchSpace,
    start_points: Sequence[Config],
    slots: Slots,
    deadline: float,
) -> TrainingTask:
    """What the workers need to know, with the epochs of a full trial that fit the time.

    Args:
        call, ground, probed: what was measured.
        space: what is searched.
        start_points: stand for the trials to come.
        slots: how many trials run at once.
        deadline: time.time() at which training stops.
    """
    manifest = call.run.cache / "manifest.npz"
    save_manifest(manifest, ground.dataset.labels, ground.dataset.split)
    task = TrainingTask(
        run_dir=str(call.run.path),
        store=str(ground.store.path),
        manifest=str(manifest),
        classes=ground.dataset.classes,
        metric=ground.metric,
        balanced=ground.balanced,
        backbones=_backbone_files(call, ground, probed, space),
        precision=ground.precision,
        max_t=MOST,
        n_views=MOST_VIEWS,
        cache_dir=str(call.cache.folder),
        cache_limit=call.cache.limit,
        data_fingerprint=ground.dataset.image_fingerprint(),
        seed=call.settings.seed,
        deadline=deadline,
        threads=slots.cpus,
        provenance=ground.provenance,
    )
    predict, left = predictor(task), deadline - time.time()
    max_t = epochs(space, start_points, predict, left)
    return replace(task, max_t=max_t, n_views=count_views(start_points, max_t, predict, left))


def count_views(start_points: Sequence[Config], max_t: int, predict: Predict, seconds: float) -> int:
    """How many views fit the time.

    Args:
        start_points: the first stands for the trials to come.
        max_t: epochs of a full trial.
        predict: seconds of a trial with `MOST_VIEWS`, see `autotl.tune.pace`.
        seconds: for the search.
    """
    if not start_points:
        return MOST_VIEWS
    first = start_points[0]
    views = predict(first, max_t, 0) - predict(first, max_t, first["freeze_depth"])
    return MOST_VIEWS if views <= VIEWS_SHARE * seconds else FEWEST_VIEWS


def _backbone_files(
    call: Call, ground: Ground, probed: Sequence[Probed], space: SearchSpace
) -> dict[str, BackboneFiles]:
    searched = [one for one in probed if one.evidence.name in space.backbones]
    stages = measure_backbones(
        {one.evidence.name: (one.prepared.entry.timm_name, one.prepared.state) for one in searched},
        len(ground.dataset.classes),
        ground.precision,
    )
    n_viewed = MOST_VIEWS * len(ground.dataset.indices("train")) + len(ground.dataset.indices("val"))
    files = {}
    for one in searched:
        name = one.evidence.name
        lowest = space.lowest_depth(one.prepared.n_stages)
        head = call.run.cache / "heads" / f"{name}.npz"
        head.parent.mkdir(parents=True, exist_ok=True)
        save_head(_start_head(one, ground), head)
        files[name] = BackboneFiles(
            weights_sha256=one.prepared.weights_sha256,
            state=str(one.prepared.state),
            converted=str(one.prepared.converted or ""),
            head=str(head),
            source_learning_rate=one.prepared.entry.source_learning_rate(),
            n_stages=one.prepared.n_stages,
            seconds_per_image=local_cpus() / one.prepared.images_per_second,
            timm_name=one.prepared.entry.timm_name,
            stages=stages[name],
            base_depth=base_depth(stages[name], lowest, n_viewed, min(BASE_BYTES, call.cache.limit // 2)),
        )
    return files


def _start_head(probed: Probed, ground: Ground) -> Probe:
    """The head that trials start from (LP-FT, arXiv 2202.10054)."""
    own = labelled_features(probed.prepared, ground.dataset)
    arguments = own.train, own.train_labels, own.val, own.val_labels, own.n_classes
    return fit_probe(*arguments, balanced=ground.balanced, floor=START_FLOOR)
