"""What frozen features are worth on labelled data."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from autotl.advice.evidence import BackboneEvidence, probe_backbone, probe_closely
from autotl.advice.probes import LabelledFeatures, folds_of
from autotl.settings import METRICS


def features(distance: float, seed: int = 0, *, folded: bool = True) -> LabelledFeatures:
    """Three clouds, `distance` from the origin each."""
    generator = np.random.default_rng(seed)
    labels = np.arange(180) % 3
    rows = (generator.normal(size=(180, 8)) + distance * np.eye(8)[labels]).astype(np.float32)
    folds = folds_of(labels, np.arange(180), 3, own_validation=False) if folded else None
    return LabelledFeatures(rows[:120], labels[:120], rows[120:], labels[120:], 3, folds)


def probed(data: LabelledFeatures, metric: str = "accuracy") -> tuple[BackboneEvidence, Any]:
    return probe_backbone("some.model", data, metric, balanced=False, top1=77.5, images_per_second=120.0, n_stages=8)


def test_good_features_score_high_and_noise_scores_chance() -> None:
    good, _ = probed(features(4))
    noise, _ = probed(features(0))
    assert min(good.probe_score, good.knn_score) > 0.9
    assert max(noise.probe_score, noise.knn_score) < 0.55


def test_evidence_describes_the_probe_that_is_kept() -> None:
    data = features(2)
    found, probe = probed(data)
    assert found.probe_metrics["accuracy"] == (probe.probabilities(data.val).argmax(1) == data.val_labels).mean()
    assert set(found.probe_metrics) == set(METRICS)
    assert (found.name, found.metric, found.top1) == ("some.model", "accuracy", 77.5)
    assert (found.images_per_second, found.n_stages) == (120.0, 8)


def test_backbones_are_compared_on_all_images_where_these_are_few() -> None:
    few, _ = probed(features(2))
    assert (few.n_scored, few.folded, few.scored_on) == (180, True, "180 images, five-fold")
    assert few.recall == pytest.approx(few.probe_score), "three classes of the same size"
    many, _ = probed(features(2, folded=False))
    assert (many.n_scored, many.folded, many.scored_on) == (60, False, "60 validation images")
    assert many.recall == many.probe_metrics["balanced_accuracy"] == pytest.approx(many.probe_score)
    assert few.probe_metrics == many.probe_metrics
    assert few.standard_error < many.standard_error


def test_mean_recall_is_there_whatever_the_metric() -> None:
    found, _ = probed(features(4), "log_loss")
    assert 0.9 < found.recall <= 1


def test_log_loss_scores_are_negative_so_that_larger_is_better() -> None:
    good, _ = probed(features(4), "log_loss")
    noise, _ = probed(features(0), "log_loss")
    assert noise.probe_score < good.probe_score < 0
    assert noise.knn_score < good.knn_score < 0


def test_evidence_is_json() -> None:
    found, _ = probed(features(2))
    assert BackboneEvidence(**json.loads(json.dumps(found.to_json(), allow_nan=False))) == found


def test_draws_of_the_same_data_are_paired_and_spread_as_the_score_does() -> None:
    found, _ = probed(features(1))
    again, _ = probed(features(1))
    assert found.draws is not None
    assert again.draws is not None
    np.testing.assert_array_equal(found.draws, again.draws)
    assert found.draws.mean() == pytest.approx(found.mean_score)
    assert found.standard_error == pytest.approx(np.std(found.draws, ddof=1))
    assert 0 < found.standard_error < 0.1


def test_transferability_scores_stand_beside() -> None:
    good, _ = probed(features(4))
    noise, _ = probed(features(0))
    assert good.logme is not None
    assert noise.logme is not None
    assert good.logme > noise.logme
    assert good.h_score is not None
    assert noise.h_score is not None
    assert good.h_score > noise.h_score


def test_probing_closely_adds_stages_and_curve() -> None:
    data = features(2)
    found, probe = probed(data)
    closer = probe_closely(found, probe, data, {3: features(0), 8: data}, balanced=False)
    assert closer.stage_scores[8] == found.probe_score
    assert closer.stage_scores[3] < 0.6
    assert closer.proposed_depth == 8
    assert closer.learning_curve is not None
    assert closer.learning_curve.n_images == (36, 72, 144), "of the four fifths that a fold's forecasts come from"
    assert closer.learning_curve.scores[-1] == found.probe_score
    assert json.loads(json.dumps(closer.to_json()))["stage_scores"].keys() == {"3", "8"}


@pytest.mark.parametrize("balanced", [False, True])
def test_balanced_weights_reach_the_probe(balanced: bool) -> None:
    generator = np.random.default_rng(0)
    labels = np.array([0] * 180 + [1] * 20)
    rows = (generator.normal(size=(200, 4)) + labels[:, None] * 0.7).astype(np.float32)
    data = LabelledFeatures(rows, labels, rows, labels, 2)
    _, probe = probe_backbone(
        "m", data, "balanced_accuracy", balanced=balanced, top1=0, images_per_second=1, n_stages=2
    )
    assert (probe.probabilities(rows)[:, 1].mean() > 0.2) == balanced
