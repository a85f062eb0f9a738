"""What was measured on the user's own data: how well each backbone's frozen features serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from autotl.advice.probes import (
    Draws,
    LabelledFeatures,
    LearningCurve,
    forecast,
    learning_curve,
    score_draws,
    stage_profile,
    standard_error,
)
from autotl.advice.transferability import h_score, logme
from autotl.data.splits import stratified_order
from autotl.train.metrics import all_metrics, score_of
from autotl.train.probe import Probe, fit_probe

TRANSFERABILITY_ROWS = 2000
"""Training images on which LogME and the H-score are computed, at most."""


@dataclass(frozen=True, slots=True)
class BackboneEvidence:
    """One backbone on this data.

    Attributes:
        name: in configs; timm's full name, or that after `RUN/` for an earlier run.
        metric: of the scores.
        probe_score, knn_score: what backbones are compared by, larger is better; see `autotl.advice.probes.forecast`.
        probe_metrics: all metrics of the linear probe on the validation images.
        top1: on ImageNet-1k in %, 0 where unknown.
        images_per_second: measured while embedding, with all cores.
        n_stages: its stages; freeze depths lie in 0..n_stages.
        standard_error: of `mean_score`.
        n_scored: images of the scores.
        folded: whether those are all images, by five-fold cross-validation, or the validation images.
        recall: of the linear probe on them, mean over the classes, whatever the metric.
        logme, h_score: of the training images' embeddings, see `autotl.advice.transferability`; None if not computed.
        stage_scores, stage_errors: of a linear probe at every freeze depth with a boundary, and of the embedding at
            `n_stages`, with standard errors; on a sample of the images; empty before `probe_closely`.
        proposed_depth: the freeze depth that follows from those.
        learning_curve: of the linear probe.
        draws: of `mean_score`, paired with those of other backbones on the same data; not part of the JSON.
    """

    name: str
    metric: str
    probe_score: float
    knn_score: float
    probe_metrics: dict[str, float]
    top1: float
    images_per_second: float
    n_stages: int
    standard_error: float = 0.0
    n_scored: int = 0
    folded: bool = False
    recall: float = 0.0
    logme: float | None = None
    h_score: float | None = None
    stage_scores: dict[int, float] = field(default_factory=dict)
    stage_errors: dict[int, float] = field(default_factory=dict)
    proposed_depth: int | None = None
    learning_curve: LearningCurve | None = None
    draws: Draws | None = field(default=None, repr=False, compare=False)

    @property
    def mean_score(self) -> float:
        """What backbones are ranked by: the mean of probe and nearest-neighbour score."""
        return (self.probe_score + self.knn_score) / 2

    @property
    def scored_on(self) -> str:
        """The images of the scores, in words."""
        return f"{self.n_scored} images, five-fold" if self.folded else f"{self.n_scored} validation images"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; freeze depths become strings."""
        plain = asdict(replace(self, draws=None))
        del plain["draws"]
        for name in ("stage_scores", "stage_errors"):
            plain[name] = {str(depth): value for depth, value in plain[name].items()}
        return plain | {"learning_curve": self.learning_curve.to_json() if self.learning_curve else None}


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
    found = forecast(features, probe, balanced=balanced)
    scored = all_metrics(found.probe, found.labels)
    folded = features.folds is not None
    held_back = all_metrics(probe.probabilities(features.val), features.val_labels) if folded else scored
    of_probe = score_draws(found.probe, found.labels, metric)
    draws = (of_probe + score_draws(found.neighbours, found.labels, metric)) / 2
    some = stratified_order(features.train_labels, 0)[:TRANSFERABILITY_ROWS]
    evidence = BackboneEvidence(
        name=name,
        metric=metric,
        probe_score=score_of(scored, metric),
        knn_score=score_of(all_metrics(found.neighbours, found.labels), metric),
        probe_metrics=held_back,
        top1=top1,
        images_per_second=images_per_second,
        n_stages=n_stages,
        standard_error=standard_error(draws),
        n_scored=len(found.labels),
        folded=folded,
        recall=scored["balanced_accuracy"],
        logme=logme(features.train[some], features.train_labels[some]),
        h_score=h_score(features.train[some], features.train_labels[some]),
        draws=draws,
    )
    return evidence, probe


def probe_closely(
    evidence: BackboneEvidence,
    probe: Probe,
    features: LabelledFeatures,
    stages: Mapping[int, LabelledFeatures],
    *,
    balanced: bool,
) -> BackboneEvidence:
    """The same evidence with the learning curve of its probe and the probes of its stages.

    Args:
        evidence, probe: of `probe_backbone`.
        features: embeddings of all training and validation images.
        stages: features of a sample of them by freeze depth, with the embeddings at `n_stages`.
        balanced: as for `fit_probe`.
    """
    curve = learning_curve(features, probe.settings, evidence.metric, balanced=balanced)
    profile = stage_profile(stages, probe.settings, evidence.metric, balanced=balanced)
    return replace(
        evidence,
        stage_scores=profile.scores,
        stage_errors=profile.errors,
        proposed_depth=profile.proposed_depth,
        learning_curve=curve,
    )
