"""The linear probe and nearest neighbours on data with known answers."""

from __future__ import annotations

import math
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info

from autotl.train import probe as module
from autotl.train.probe import (
    SHRINKAGES,
    SIMILARITIES,
    SMOOTHING,
    START_FLOOR,
    STRENGTHS,
    HeadSettings,
    Probe,
    fit_head,
    fit_probe,
    knn_probabilities,
    save_head,
    softmax,
    spreads,
    unit,
)

LOGISTIC, DISCRIMINANT = HeadSettings("logistic", 1.0), HeadSettings("discriminant", 0.3)


@pytest.fixture
def only_logistic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_discriminants", lambda *arguments: [])


def blobs(n_classes: int, seed: int, n: int = 90, dimensions: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian clouds around one axis a class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    return (generator.normal(size=(n, dimensions)) + 3 * np.eye(dimensions)[labels]).astype(np.float32), labels


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_probe_separates_clouds(n_classes: int) -> None:
    train, labels = blobs(n_classes, 0)
    val, val_labels = blobs(n_classes, 1)
    test, test_labels = blobs(n_classes, 2)
    probe = fit_probe(train, labels, val, val_labels, n_classes)
    assert probe.weight.shape == (n_classes, 12)
    assert probe.bias.shape == (n_classes,)
    assert (probe.probabilities(test).argmax(1) == test_labels).mean() > 0.8


@pytest.mark.usefixtures("only_logistic")
def test_probe_finds_nothing_in_noise() -> None:
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(300, 8)).astype(np.float32), np.arange(300) % 3
    probe = fit_probe(features[:150], labels[:150], features[150:], labels[150:], 3)
    probabilities = probe.probabilities(features[150:])
    # The strongest regularisation: close to the uniform answer, whose log loss is log 3.
    own = probabilities[np.arange(150), labels[150:]]
    assert -np.log(own).mean() == pytest.approx(math.log(3), abs=0.02)
    assert probe.settings == HeadSettings("logistic", min(STRENGTHS))


@pytest.mark.usefixtures("only_logistic")
def test_two_classes_give_the_sigmoid_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    train, labels = blobs(2, 0)
    val, val_labels = blobs(2, 1)
    probe = fit_probe(train, labels, val, val_labels, 2)
    mean, scale = train.mean(0), spreads(train)
    model = LogisticRegression(C=probe.settings.strength, max_iter=2000, tol=1e-8).fit((train - mean) / scale, labels)
    np.testing.assert_allclose(probe.probabilities(val), model.predict_proba((val - mean) / scale), atol=5e-3)


@pytest.mark.usefixtures("only_logistic")
def test_strength_is_the_best_on_the_validation_images() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    train, labels = blobs(3, 0, n=30)
    val, val_labels = blobs(3, 1, n=300)
    mean, scale = train.mean(0), spreads(train)
    losses = {}
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=2000).fit((train - mean) / scale, labels)
        losses[strength] = log_loss(val_labels, model.predict_proba((val - mean) / scale))
    assert fit_probe(train, labels, val, val_labels, 3).settings.strength == min(losses, key=lambda key: losses[key])


def test_probe_does_not_depend_on_common_scale_and_on_shifts() -> None:
    train, labels = blobs(3, 0)
    val, val_labels = blobs(3, 1)
    plain = fit_probe(train, labels, val, val_labels, 3).probabilities(val)
    factor, shift = np.float32(37.0), np.linspace(-5, 5, 12, dtype=np.float32)
    moved = fit_probe(train * factor + shift, labels, val * factor + shift, val_labels, 3)
    np.testing.assert_allclose(moved.probabilities(val * factor + shift), plain, atol=2e-3)


def test_a_feature_that_hardly_varies_gets_no_larger_weight_than_the_others() -> None:
    train, labels = blobs(3, 0)
    val, val_labels = blobs(3, 1)
    train[:, 0] *= 1e-4
    val[:, 0] *= 1e-4
    weight = np.abs(fit_probe(train, labels, val, val_labels, 3).weight)
    assert weight[:, 0].max() < weight[:, 1:].max()


def test_spreads_are_deviations_with_a_floor() -> None:
    features = np.array([[0.0, 0.0], [2.0, 0.0]], dtype=np.float32)  # deviations 1 and 0: 0.5 in the mean square
    np.testing.assert_allclose(spreads(features), [np.sqrt(1 + 0.09 * 0.5), np.sqrt(0.09 * 0.5)], rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 7.3])
def test_a_constant_feature_changes_nothing(value: float) -> None:
    train, labels = blobs(3, 0)
    val, val_labels = blobs(3, 1)
    plain = fit_probe(train, labels, val, val_labels, 3).probabilities(val)
    train[:, -1], val[:, -1] = value, value
    without = fit_probe(train[:, :-1], labels, val[:, :-1], val_labels, 3).probabilities(val[:, :-1])
    found = fit_probe(train, labels, val, val_labels, 3).probabilities(val)
    np.testing.assert_allclose(found, without, atol=2e-2)
    assert np.abs(plain - without).max() > 0.05  # while it varied it counted


def test_balanced_probe_raises_the_rare_class() -> None:
    generator = np.random.default_rng(0)
    labels = np.array([0] * 180 + [1] * 20)
    features = (generator.normal(size=(200, 4)) + labels[:, None] * 0.7).astype(np.float32)
    plain = fit_probe(features, labels, features, labels, 2)
    balanced = fit_probe(features, labels, features, labels, 2, balanced=True)
    assert plain.probabilities(features)[:, 1].mean() == pytest.approx(0.1, abs=0.02)
    assert balanced.probabilities(features)[:, 1].mean() > 0.25


def test_softmax_of_large_logits_is_finite() -> None:
    np.testing.assert_allclose(softmax(np.array([[1000.0, 1000.0, -1000.0]], dtype=np.float32)), [[0.5, 0.5, 0.0]])


def test_softmax_has_known_values() -> None:
    np.testing.assert_allclose(softmax(np.log(np.array([[1.0, 2.0, 5.0]]))), [[0.125, 0.25, 0.625]], rtol=1e-6)


def test_unit_rows_have_length_one_and_zero_stays_zero() -> None:
    rows = unit(np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
    assert rows.dtype == np.float32


def test_nearest_neighbour_of_a_training_image_is_itself() -> None:
    train, labels = blobs(4, 0)
    found = knn_probabilities(train, labels, train, 4, k=1)
    np.testing.assert_allclose(found, (np.eye(4)[labels] + SMOOTHING / 4) / (1 + SMOOTHING), rtol=1e-6)


def test_neighbours_are_weighted_by_the_exponential_of_their_cosine() -> None:
    train = np.array([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]], dtype=np.float32)
    found = knn_probabilities(train, np.array([0, 1, 1]), np.array([[5.0, 0.0]], dtype=np.float32), 3, k=2)
    rare = math.exp(-0.4 / 0.07)
    shares = np.array([[1 / (1 + rare), rare / (1 + rare), 0]])
    np.testing.assert_allclose(found, (shares + SMOOTHING / 3) / (1 + SMOOTHING), rtol=1e-4)


def test_no_more_neighbours_are_asked_for_than_there_are_images() -> None:
    train, labels = blobs(2, 0, n=4)
    found = knn_probabilities(train, labels, train, 2, k=50)
    np.testing.assert_allclose(found, knn_probabilities(train, labels, train, 2, k=4))
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)


def test_neighbours_serve_more_queries_than_one_block() -> None:
    train, labels = blobs(3, 0)
    queries, asked = blobs(3, 1, n=2500)
    found = knn_probabilities(train, labels, queries, 3)
    np.testing.assert_allclose(found[2400:], knn_probabilities(train, labels, queries[2400:], 3), rtol=1e-4)
    assert (found.argmax(1) == asked).mean() > 0.85


def test_a_class_without_a_neighbour_is_improbable_but_not_impossible() -> None:
    features = np.eye(3, dtype=np.float32)
    shares = knn_probabilities(features, np.array([0, 1, 2]), features[:1], 3, k=1)
    assert shares.argmax() == 0
    assert shares.min() > 0
    assert shares.sum() == pytest.approx(1.0)


def test_a_head_of_a_given_strength_is_the_probe_that_chose_it() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = (np.eye(3)[labels] + generator.normal(0, 0.6, (60, 3))).astype(np.float32)
    probe = fit_probe(features[:40], labels[:40], features[40:], labels[40:], 3)
    head = fit_head(features[:40], labels[:40], probe.settings)
    np.testing.assert_allclose(head.probabilities(features), probe.probabilities(features), atol=0.02)


def test_the_discriminant_of_normal_classes_is_the_right_one() -> None:
    """Fisher's: for two classes with the identity as covariance the weights are the difference of the means."""
    generator = np.random.default_rng(0)
    labels = np.arange(20_000) % 2
    features = (generator.normal(size=(20_000, 3)) + labels[:, None] * [2.0, 0.0, -1.0]).astype(np.float32)
    head = fit_head(features, labels, HeadSettings("discriminant", 0.0))
    np.testing.assert_allclose(head.weight[1] - head.weight[0], [2.0, 0.0, -1.0], atol=0.1)
    # The boundary lies half way between the means: half of the squared distance is the bias.
    assert head.bias[1] - head.bias[0] == pytest.approx(-2.5, abs=0.1)


def drawn(n: int, common: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Five classes around means of their own; all images vary much, and alike, in a few directions."""
    fixed, generator = np.random.default_rng(0), np.random.default_rng(seed)
    directions, means = fixed.normal(size=(common, 40)) * 2, fixed.normal(size=(5, 40)) / 2
    labels = np.arange(n) % 5
    rows = generator.normal(size=(n, common)) @ directions + means[labels] + generator.normal(size=(n, 40)) * noise
    return rows.astype(np.float32), labels


def test_where_images_vary_alike_a_discriminant_is_taken() -> None:
    probe = fit_probe(*drawn(100, 3, 0.3, 1), *drawn(300, 3, 0.3, 2), 5)
    assert probe.settings.kind == "discriminant"
    assert probe.settings.strength in SHRINKAGES


def test_where_classes_are_many_shaped_a_regression_is_taken() -> None:
    """A tenth of one class lies far out: it moves the mean and the covariance, but not the boundary."""
    generator = np.random.default_rng(0)
    labels = np.arange(400) % 2
    rows = generator.normal(size=(400, 2)) * 0.3
    rows[:, 0] += 1.5 * labels
    rows[:, 0] += np.where((labels == 1) & (generator.random(400) < 0.1), 30.0, 0.0)
    features = rows.astype(np.float32)
    probe = fit_probe(features[:200], labels[:200], features[200:], labels[200:], 2)
    assert probe.settings.kind == "logistic"


def test_few_images_that_are_all_right_make_no_sure_head() -> None:
    train, labels = blobs(2, 0, n=40)
    val, val_labels = blobs(2, 1, n=6)
    probabilities = fit_probe(train, labels, val, val_labels, 2).probabilities(val)
    assert (probabilities.argmax(1) == val_labels).all()
    assert probabilities.max(1).mean() < 0.97


def test_regressions_of_many_images_are_fitted_on_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    fit = LogisticRegression.fit
    monkeypatch.setattr(LogisticRegression, "fit", lambda *args: (seen.append(len(args[1])), fit(*args))[1])
    monkeypatch.setattr(module, "LOGISTIC_WORK", 45 * 12 * 3)
    train, labels = blobs(3, 0)
    fit_head(train, labels, LOGISTIC)
    assert seen == [45]


def test_without_enough_images_of_a_class_for_a_regression_there_is_a_discriminant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LogisticRegression, "fit", lambda *args: pytest.fail("it would take too long"))
    monkeypatch.setattr(module, "LOGISTIC_WORK", 29 * 12 * 3)  # ten images a class are 30
    train, labels = blobs(3, 0)
    val, val_labels = blobs(3, 1)
    for floor in (module.SPREAD_FLOOR, START_FLOOR):
        probe = fit_probe(train, labels, val, val_labels, 3, floor=floor)
        assert probe.settings.kind == "discriminant"
        assert (probe.probabilities(val).argmax(1) == val_labels).mean() > 0.8
    assert (fit_head(train, labels, LOGISTIC).probabilities(val).argmax(1) == val_labels).mean() > 0.8


def test_neighbours_do_not_depend_on_how_many_are_looked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    train, labels = blobs(3, 0)
    queries, _ = blobs(3, 1)
    at_once = knn_probabilities(train, labels, queries, 3)
    monkeypatch.setattr("autotl.train.probe.SIMILARITIES", 4 * len(train))
    np.testing.assert_allclose(knn_probabilities(train, labels, queries, 3), at_once, rtol=1e-5)


def test_neighbours_of_many_images_take_the_memory_of_a_block() -> None:
    generator = np.random.default_rng(0)
    train, queries = (generator.normal(size=(n, 4)).astype(np.float32) for n in (20_000, 600))
    tracemalloc.start()
    try:
        knn_probabilities(train, np.arange(len(train)) % 2, queries, 2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Similarities, those of the block before, and their order: 16 bytes a pair; all pairs at once take 144 MB.
    assert peak < 16 * SIMILARITIES * 1.5


@pytest.mark.parametrize("settings", [None, LOGISTIC, DISCRIMINANT])
def test_a_probe_of_many_images_takes_the_memory_of_one_more_copy(settings: HeadSettings | None) -> None:
    features, labels = blobs(2, 0, n=20_000, dimensions=100)
    val, val_labels = blobs(2, 1, n=50, dimensions=100)
    fit_head(val, val_labels, LOGISTIC)  # imports scikit-learn
    tracemalloc.start()
    try:
        if settings is None:
            fit_probe(features, labels, val, val_labels, 2)
        else:
            fit_head(features, labels, settings)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * features.nbytes


def test_features_are_left_as_they_are() -> None:
    train, labels = blobs(3, 0)
    val, val_labels = blobs(3, 1)
    before = train.copy(), val.copy()
    fit_probe(train, labels, val, val_labels, 3)
    unit(train)
    np.testing.assert_array_equal(train, before[0])
    np.testing.assert_array_equal(val, before[1])


def test_a_head_to_start_from_has_smaller_weights_and_the_same_answers() -> None:
    train, labels = blobs(3, 0)
    val, val_labels = blobs(3, 1)
    for features in (train, val):
        features[:, 1:3] *= 0.3
    probe = fit_probe(train, labels, val, val_labels, 3)
    start = fit_probe(train, labels, val, val_labels, 3, floor=START_FLOOR)
    assert np.abs(start.weight).max() < np.abs(probe.weight).max() / 2
    assert (start.probabilities(val).argmax(1) == probe.probabilities(val).argmax(1)).mean() > 0.9


def test_a_saved_head_comes_back_without_a_pickle(tmp_path: Path) -> None:
    probe = Probe(np.arange(6, dtype=np.float32).reshape(2, 3), np.array([0.5, -0.5], dtype=np.float32), LOGISTIC)
    save_head(probe, tmp_path / "head.npz")
    with np.load(tmp_path / "head.npz", allow_pickle=False) as head:
        assert sorted(head.files) == ["bias", "weight"]
        np.testing.assert_array_equal(head["weight"], probe.weight)
        np.testing.assert_array_equal(head["bias"], probe.bias)


@pytest.mark.parametrize("settings", [LOGISTIC, DISCRIMINANT])
def test_one_image_a_class_is_no_warning(settings: HeadSettings) -> None:
    rows = np.eye(30, dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probe = fit_head(rows, np.arange(30), settings)
    assert (probe.probabilities(rows).argmax(1) == np.arange(30)).all()


@pytest.mark.parametrize(("limit", "threads"), [(10**9, {1}), (0, None)])
def test_small_fits_run_on_one_core(limit: int, threads: set[int] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    before = blas_threads()
    seen: list[set[int]] = []
    fit = LogisticRegression.fit
    monkeypatch.setattr(LogisticRegression, "fit", lambda *args: (seen.append(blas_threads()), fit(*args))[1])
    monkeypatch.setattr("autotl.train.probe.ONE_THREAD", limit)
    fit_head(np.eye(8, dtype=np.float32), np.arange(8) % 2, LOGISTIC)
    assert seen == [threads or before]
    assert blas_threads() == before


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
