"""What was measured on the user's own data: how well each backbone's frozen features serve."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotl.train.metrics import all_metrics, score_of
from autotl.train.probe import Features, Probe, fit_probe, knn_probabilities


@dataclass(frozen=True, slots=True)
class BackboneEvidence:
    """One backbone on this data.

    Attributes:
        name: timm's full name.
        metric: of the scores.
        probe_score, knn_score: on the validation images, larger is better.
        probe_metrics: all metrics of the linear probe there.
        top1: on ImageNet-1k in %, 0 where unknown.
        images_per_second: measured while embedding, with all cores.
        n_stages: its stages; freeze depths lie in 0..n_stages.
    """

    name: str
    metric: str
    probe_score: float
    knn_score: float
    probe_metrics: dict[str, float]
    top1: float
    images_per_second: float
    n_stages: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFeatures:
    """Embeddings of the training and validation images with their labels."""

    train: Features
    train_labels: NDArray[np.int64]
    val: Features
    val_labels: NDArray[np.int64]
    n_classes: int


def probe_backbone(
    name: str,
    features: LabelledFeatures,
    metric: str,
    *,
    balanced: bool,
    top1: float,
    images_per_second: float,
    n_stages: int,
) -> tuple[BackboneEvidence, Probe]:
    """Fit the linear probe and ask the nearest neighbours; the probe is kept to start trials from."""
    probe = fit_probe(
        features.train, features.train_labels, features.val, features.val_labels, features.n_classes, balanced=balanced
    )
    metrics = all_metrics(probe.probabilities(features.val), features.val_labels)
    neighbours = knn_probabilities(features.train, features.train_labels, features.val, features.n_classes)
    evidence = BackboneEvidence(
        name=name,
        metric=metric,
        probe_score=score_of(metrics, metric),
        knn_score=score_of(all_metrics(neighbours, features.val_labels), metric),
        probe_metrics=metrics,
        top1=top1,
        images_per_second=images_per_second,
        n_stages=n_stages,
    )
    return evidence, probe


def rank(evidence: list[BackboneEvidence]) -> tuple[BackboneEvidence, ...]:
    """Best first: by the mean of probe and nearest-neighbour score, then by ImageNet accuracy (arXiv 2503.18528)."""
    return tuple(sorted(evidence, key=lambda one: (-(one.probe_score + one.knn_score) / 2, -one.top1)))
