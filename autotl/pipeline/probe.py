"""The advice of a call: backbones probed and compared with the reference set; the best probe is the first model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from autotl import clock
from autotl.advice.advisor import Advice, advise
from autotl.advice.evidence import BackboneEvidence, probe_backbone, probe_closely
from autotl.advice.probes import LabelledFeatures, folds_of
from autotl.advice.ranking import rank
from autotl.advice.reference_set import ReferenceSet, load_reference_set
from autotl.advice.scenario import HEADROOM
from autotl.advice.similarity import Similarity, measure_similarity
from autotl.compute.memory import give_back_memory
from autotl.data.splits import Dataset
from autotl.frozen.prepare import PreparedBackbone
from autotl.models.catalog import BackboneEntry, find_entry
from autotl.pipeline.budget import expected_seconds, probing_seconds
from autotl.pipeline.context import (
    EXPECTED_PASSES,
    PreparedData,
    RunContext,
    candidates,
    embed,
    rows_for_stages,
    views_to_keep,
)
from autotl.records import Status, TrialRecord
from autotl.storage.saved_model import offer
from autotl.train.metrics import estimate, score_of
from autotl.train.probe import Probe
from autotl.train.probe_model import probe_card, probe_state

PROBED_CLOSELY = 2
"""So many of the best backbones are probed at every stage."""
REFERENCE_SAMPLE = 1000
"""Images embedded by the reference set's backbone where it is not one of those probed."""


@dataclass(frozen=True, slots=True)
class ProbedBackbone:
    """A prepared backbone with its linear probe.

    Attributes:
        similarity: to the reference set; None where another backbone made that.
    """

    prepared: PreparedBackbone
    evidence: BackboneEvidence
    probe: Probe
    similarity: Similarity | None = None

    @property
    def serves_well(self) -> bool:
        """Whether the data is known to be similar, and frozen features leave no headroom for fine-tuning."""
        similar = self.similarity is not None and self.similarity.similar
        return similar and self.evidence.recall > 1 - HEADROOM


def probe_backbones(
    context: RunContext, data: PreparedData, on_record: Callable[[TrialRecord], None] | None = None
) -> list[ProbedBackbone]:
    """Fit linear probes on the embeddings of each backbone.

    Args:
        context, data: what is known.
        on_record: called with a record of each probe; the best probe is then saved as the run's model. None: there
            is no search to follow, and nothing is kept.
    """
    context.console.heading("Backbones on your images, frozen")
    required, optional = candidates(context)
    searches = on_record is not None
    probed: list[ProbedBackbone] = []
    for entry in (*required, *optional):
        timeout, serve_well = context.settings.budget.timeout, any(backbone.serves_well for backbone in probed)
        limit = context.begun + probing_seconds(timeout, searches=searches, serve_well=serve_well)
        expected = expected_seconds(entry, probed[0].prepared if probed else None)
        if entry in optional and (entry not in data.optional or clock.now() + expected > limit):
            left = max(0.0, limit - clock.now())
            context.console.line(f"  {entry.name}: left out, probing would take {expected:.0f} s of {left:.0f} s left")
            continue
        prepared = data.first
        if probed:
            known = [backbone.prepared for backbone in probed]
            prepared = _embed(context, entry, data, EXPECTED_PASSES if searches else 1, known)
        probed.append(_probe(context, prepared, data))
        give_back_memory()
        if on_record is not None and not _is_known(context, probed[-1]):
            on_record(_keep_probe(context, probed[-1], data, len(probed) - 1))
    return probed


def _is_known(context: RunContext, probed: ProbedBackbone) -> bool:
    """Whether an earlier session of the run has a record of the probe; it is the same one."""
    return context.earlier is not None and probed.evidence.name in context.earlier.backbones


def _embed(
    context: RunContext, entry: BackboneEntry, data: PreparedData, passes: int, known: Sequence[PreparedBackbone]
) -> PreparedBackbone:
    rows = data.first.rows
    return embed(
        context,
        entry,
        data.store,
        rows,
        data.precision,
        passes=passes,
        stage_rows=rows_for_stages(data.dataset, rows, context.settings.seed),
        known=known,
        keep=views_to_keep(context, data.dataset, rows) if passes > 1 else None,
        data_fingerprint=data.dataset.image_fingerprint(),
    )


def _probe(context: RunContext, prepared: PreparedBackbone, data: PreparedData) -> ProbedBackbone:
    entry = prepared.entry
    evidence, probe = probe_backbone(
        entry.name,
        labelled_features(prepared, data.dataset),
        data.metric,
        balanced=data.balanced,
        top1=entry.top1,
        images_per_second=prepared.images_per_second,
        n_stages=prepared.n_stages,
    )
    context.console.line(
        f"  {entry.name}: {data.metric} of linear probe {evidence.probe_score:.4f}, nearest neighbours "
        f"{evidence.knn_score:.4f} on {evidence.scored_on} "
        f"({prepared.images_per_second:.0f} images/s with {prepared.engine}; LogME {evidence.logme:.3f}, H-score "
        f"{evidence.h_score:.2f})"
    )
    reference, similarity = _reference(context), None
    if find_entry(reference.backbone) == entry:
        similarity = _similarity(context, data, reference, prepared, prepared.rows)
    return ProbedBackbone(prepared, evidence, probe, similarity)


def _keep_probe(context: RunContext, probed: ProbedBackbone, data: PreparedData, number: int) -> TrialRecord:
    """Record the probe as a trial and offer it as the run's model, for as long as nothing beats it."""
    prepared, evidence, probe = probed.prepared, probed.evidence, probed.probe
    val = data.dataset.among(prepared.rows, "val")
    probabilities = probe.probabilities(prepared.of(val))
    score = score_of(evidence.probe_metrics, data.metric)
    labels = data.dataset.labels[val]
    card = probe_card(
        prepared,
        data.dataset.classes,
        data.metric,
        score,
        evidence.probe_metrics["log_loss"],
        estimate(data.metric, probabilities, labels),
        data.provenance,
    )
    state = probe_state(prepared, probe, len(data.dataset.classes))
    if state is not None:
        offer(context.run, card, lambda: state)
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
    context.run.append_trial(record.to_json())
    return record


def make_advice(context: RunContext, data: PreparedData, probed: Sequence[ProbedBackbone]) -> Advice:
    """The advice, which callbacks get as well."""
    advice = advise(
        data.dataset,
        _measure_similarity(context, data, probed),
        _probe_closely(data, probed),
        _measure_earlier_run_similarities(context, data, probed),
    )
    context.callbacks.on_advice(advice)
    return advice


def _probe_closely(data: PreparedData, probed: Sequence[ProbedBackbone]) -> list[BackboneEvidence]:
    """The evidence, with stages and learning curve of the best backbones."""
    best = rank([backbone.evidence for backbone in probed])[:PROBED_CLOSELY]
    return [
        probe_closely(
            backbone.evidence,
            backbone.probe,
            labelled_features(backbone.prepared, data.dataset),
            _stage_features(backbone.prepared, data.dataset),
            balanced=data.balanced,
        )
        if backbone.evidence in best
        else backbone.evidence
        for backbone in probed
    ]


def _measure_similarity(context: RunContext, data: PreparedData, probed: Sequence[ProbedBackbone]) -> Similarity:
    measured = next((backbone.similarity for backbone in probed if backbone.similarity is not None), None)
    if measured is not None:
        return measured
    reference, seed = _reference(context), context.settings.seed
    rows = np.random.default_rng(seed).permutation(data.first.rows)[:REFERENCE_SAMPLE]
    rows, entry = np.sort(rows), find_entry(reference.backbone)
    prepared = embed(context, entry, data.store, rows, data.precision, passes=1, folder="reference")
    return _similarity(context, data, reference, prepared, rows)


def _reference(context: RunContext) -> ReferenceSet:
    return context.inputs.reference or _shipped_reference_set()


@cache
def _shipped_reference_set() -> ReferenceSet:
    """Read and checked once, however many backbones are probed."""
    return load_reference_set()


def _similarity(
    context: RunContext,
    data: PreparedData,
    reference: ReferenceSet,
    prepared: PreparedBackbone,
    rows: NDArray[np.int64],
) -> Similarity:
    return measure_similarity(prepared.of(rows), reference, _class_names(data.dataset, rows), context.settings.seed)


def _measure_earlier_run_similarities(
    context: RunContext, data: PreparedData, probed: Sequence[ProbedBackbone]
) -> tuple[Similarity, ...]:
    """To the data of each earlier run, as its own model sees it."""
    rows = data.first.rows
    prepared = {backbone.evidence.name: backbone.prepared for backbone in probed}
    similarities = []
    for earlier in context.inputs.earlier_runs:
        embeddings = prepared[earlier.entry.name].of(rows)
        classes = _class_names(data.dataset, rows)
        measured = measure_similarity(embeddings, earlier.reference, classes, context.settings.seed)
        similarities.append(replace(measured, learned=earlier.tuned))
    return tuple(similarities)


def _class_names(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.str_]:
    return np.array(dataset.classes)[dataset.labels[rows]]


def labelled_features(prepared: PreparedBackbone, dataset: Dataset) -> LabelledFeatures:
    """The embeddings of the training and validation images with their labels."""
    train, val = (dataset.among(prepared.rows, name) for name in ("train", "val"))
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


def _stage_features(prepared: PreparedBackbone, dataset: Dataset) -> dict[int, LabelledFeatures]:
    """Features of the sampled images by freeze depth, the embeddings at the deepest."""
    rows = prepared.stage_rows
    labels, in_val = dataset.labels[rows], dataset.split[rows] == "val"
    n_classes, folds = len(dataset.classes), _folds(dataset, rows[~in_val], rows[in_val])
    by_depth = prepared.stage_features | {prepared.n_stages: prepared.of(rows)}
    return {
        depth: LabelledFeatures(features[~in_val], labels[~in_val], features[in_val], labels[in_val], n_classes, folds)
        for depth, features in by_depth.items()
    }
