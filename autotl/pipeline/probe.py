"""The advice of a call: backbones probed and compared with the source; the best probe is the first model."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autotl.advice.advisor import Advice
from autotl.advice.advisor import advise as put_statements_together
from autotl.advice.evidence import BackboneEvidence, look_closer, probe_backbone, rank
from autotl.advice.probes import LabelledFeatures, folds_of
from autotl.advice.reference_set import load_yardstick
from autotl.advice.similarity import Similarity, measure_similarity
from autotl.compute.memory import give_back_memory
from autotl.data.splits import Dataset
from autotl.frozen.prepare import Prepared
from autotl.models.catalog import BackboneEntry, find_entry
from autotl.pipeline.budget import ADVICE_SHARE, PROBING_SHARE, expected_seconds
from autotl.pipeline.context import EXPECTED_PASSES, Call, Ground, candidates, embed, rows_for_stages
from autotl.records import Status, TrialRecord
from autotl.storage.saved_model import offer
from autotl.train.metrics import estimate, score_of
from autotl.train.probe import Probe
from autotl.train.probe_model import probe_card, probe_state

LOOKED_CLOSER = 2
"""So many of the best backbones are probed at every stage."""


@dataclass(frozen=True, slots=True)
class Probed:
    """A prepared backbone with its linear probe."""

    prepared: Prepared
    evidence: BackboneEvidence
    probe: Probe


def probe_backbones(call: Call, ground: Ground, *, keep: bool) -> tuple[list[Probed], list[TrialRecord]]:
    """Fit linear probes on the embeddings of each backbone; `keep` saves the best as the run's model."""
    call.console.heading("Backbones on your images, frozen")
    required, optional = candidates(call)
    share = ADVICE_SHARE if keep else PROBING_SHARE
    limit = call.begun + share * call.settings.budget.timeout
    passes = EXPECTED_PASSES if keep else 1
    probed: list[Probed] = []
    records: list[TrialRecord] = []
    for entry in (*required, *optional):
        expected = expected_seconds(entry, probed[0].prepared if probed else None)
        if entry in optional and time.time() + expected > limit:
            left = max(0.0, limit - time.time())
            call.console.line(f"  {entry.name}: left out, probing would take {expected:.0f} s of {left:.0f} s left")
            continue
        prepared = ground.first if not probed else _embed(call, entry, ground, passes)
        probed.append(_probe(call, prepared, ground))
        give_back_memory()
        if keep:
            records.append(_keep_probe(call, probed[-1], ground, len(records)))
    return probed, records


def _embed(call: Call, entry: BackboneEntry, ground: Ground, passes: int) -> Prepared:
    rows, stage_rows = ground.dataset.indices("train", "val"), rows_for_stages(ground.dataset, call.settings.seed)
    return embed(call, entry, ground.store, rows, ground.precision, passes=passes, stage_rows=stage_rows)


def _probe(call: Call, prepared: Prepared, ground: Ground) -> Probed:
    entry = prepared.entry
    evidence, probe = probe_backbone(
        entry.name,
        labelled_features(prepared, ground.dataset),
        ground.metric,
        balanced=ground.balanced,
        top1=entry.top1,
        images_per_second=prepared.images_per_second,
        n_stages=prepared.n_stages,
    )
    call.console.line(
        f"  {entry.name}: {ground.metric} of linear probe {evidence.probe_score:.4f}, nearest neighbours "
        f"{evidence.knn_score:.4f} on {evidence.scored_on} "
        f"({prepared.images_per_second:.0f} images/s with {prepared.engine}; LogME {evidence.logme:.3f}, H-score "
        f"{evidence.h_score:.2f})"
    )
    return Probed(prepared, evidence, probe)


def _keep_probe(call: Call, probed: Probed, ground: Ground, number: int) -> TrialRecord:
    """Record the probe as a trial and offer it as the run's model, for as long as nothing beats it."""
    prepared, evidence, probe = probed.prepared, probed.evidence, probed.probe
    val = ground.dataset.indices("val")
    probabilities = probe.probabilities(prepared.of(val))
    score = score_of(evidence.probe_metrics, ground.metric)
    labels = ground.dataset.labels[val]
    card = probe_card(
        prepared,
        ground.dataset.classes,
        ground.metric,
        score,
        evidence.probe_metrics["log_loss"],
        estimate(ground.metric, probabilities, labels),
        ground.provenance,
    )
    state = probe_state(prepared, probe, len(ground.dataset.classes))
    if state is not None:
        offer(call.run, card, lambda: state)
    record = TrialRecord(
        number=number,
        trial_id=card.trial_id,
        config=card.config,
        status=Status.COMPLETED,
        score=score,
        epochs=0,
        seconds=round(prepared.seconds, 2),
        metrics=evidence.probe_metrics,
        origin="probe",
    )
    call.run.append_trial(record.to_json())
    return record


def put_together(call: Call, ground: Ground, probed: list[Probed]) -> Advice:
    """The advice, told and returned."""
    similarity = _measure_similarity(call, ground, probed)
    to_sources = _measure_source_similarities(call, ground, probed)
    advice = put_statements_together(ground.dataset, similarity, _look_closer(call, ground, probed), to_sources)
    call.console.heading("Advice")
    for statement in advice.statements:
        call.console.line(f"  {statement.text}", "yellow" if statement.severity == "warning" else None)
    return advice


def _look_closer(call: Call, ground: Ground, probed: list[Probed]) -> list[BackboneEvidence]:
    """The evidence, with stages and learning curve of the best backbones."""
    best = rank([one.evidence for one in probed])[:LOOKED_CLOSER]
    return [
        look_closer(
            one.evidence,
            one.probe,
            labelled_features(one.prepared, ground.dataset),
            _stage_features(one.prepared, ground.dataset),
            balanced=ground.balanced,
        )
        if one.evidence in best
        else one.evidence
        for one in probed
    ]


def _measure_similarity(call: Call, ground: Ground, probed: list[Probed]) -> Similarity:
    yardstick = call.checked.yardstick or load_yardstick()
    entry = find_entry(yardstick.backbone)
    rows = ground.dataset.indices("train", "val")
    prepared = next((one.prepared for one in probed if one.prepared.entry == entry), None)
    if prepared is None:
        rows = np.sort(np.random.default_rng(call.settings.seed).permutation(rows)[:1000])
        prepared = embed(call, entry, ground.store, rows, ground.precision, passes=1, folder="yardstick")
    classes = np.array(ground.dataset.classes)[ground.dataset.labels[rows]]
    return measure_similarity(prepared.of(rows), yardstick, classes, call.settings.seed)


def _measure_source_similarities(call: Call, ground: Ground, probed: list[Probed]) -> tuple[Similarity, ...]:
    rows = ground.dataset.indices("train", "val")
    classes = np.array(ground.dataset.classes)[ground.dataset.labels[rows]]
    prepared = {one.evidence.name: one.prepared for one in probed}
    measured = [
        measure_similarity(prepared[source.entry.name].of(rows), source.yardstick, classes, call.settings.seed)
        for source in call.checked.sources
    ]
    return tuple(replace(one, learned=source.tuned) for one, source in zip(measured, call.checked.sources, strict=True))


def labelled_features(prepared: Prepared, dataset: Dataset) -> LabelledFeatures:
    """The embeddings of the training and validation images with their labels."""
    train, val = dataset.indices("train"), dataset.indices("val")
    n_classes, folds = len(dataset.classes), _folds(dataset, train, val)
    return LabelledFeatures(
        prepared.of(train), dataset.labels[train], prepared.of(val), dataset.labels[val], n_classes, folds
    )


def _folds(dataset: Dataset, train: NDArray[np.int64], val: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Of the training images, then of the validation images; see `folds_of`."""
    rows = np.concatenate([train, val])
    return folds_of(
        dataset.labels[rows], dataset.groups[rows], len(dataset.classes), own_validation=dataset.own_validation
    )


def _stage_features(prepared: Prepared, dataset: Dataset) -> dict[int, LabelledFeatures]:
    """Features of the sampled images by freeze depth, the embeddings at the deepest."""
    rows = prepared.stage_rows
    labels, in_val = dataset.labels[rows], dataset.split[rows] == "val"
    n_classes, folds = len(dataset.classes), _folds(dataset, rows[~in_val], rows[in_val])
    by_depth = prepared.stage_features | {prepared.n_stages: prepared.of(rows)}
    return {
        depth: LabelledFeatures(features[~in_val], labels[~in_val], features[in_val], labels[in_val], n_classes, folds)
        for depth, features in by_depth.items()
    }
