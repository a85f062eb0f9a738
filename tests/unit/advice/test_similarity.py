"""Similarity: its scale, its calibration on the shipped reference set, doubt, and the nearest classes."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from autotl.advice.distances import frechet_distance
from autotl.advice.reference_set import ReferenceSet, load_reference_set, make_reference_set
from autotl.advice.similarity import (
    EXPECTED_COVER,
    FAR,
    MAX_IMAGES,
    MIN_FOR_INTERVAL,
    SUBSAMPLE,
    Similarity,
    is_covered,
    measure_similarity,
    nearest_classes,
    to_similarity,
)
from autotl.train.probe import unit


def directions(n: int, dimensions: int, seed: int, around: float = 0.0) -> np.ndarray:
    """Random rows of length 1, all near the first axis where `around` is large."""
    rows = np.random.default_rng(seed).normal(size=(n, dimensions))
    rows[:, 0] += around
    return unit(rows.astype(np.float32))


@pytest.fixture(scope="module")
def shipped() -> ReferenceSet:
    return load_reference_set()


@pytest.fixture(scope="module")
def thinned(shipped: ReferenceSet) -> ReferenceSet:
    """Every fourth photograph, for speed."""
    return dataclasses.replace(shipped, embeddings=shipped.embeddings[::4], class_names=shipped.class_names[::4])


def test_similarity_is_half_at_the_threshold_and_falls_with_distance() -> None:
    assert to_similarity(0.0) == 1.0
    assert to_similarity(FAR) == pytest.approx(0.5)
    values = [to_similarity(distance) for distance in np.linspace(0, 0.5, 50)]
    assert all(after < before for before, after in pairwise(values))
    assert 0 < values[-1] < 0.05


def test_a_distance_below_zero_is_as_similar_as_can_be() -> None:
    assert to_similarity(-0.01) == 1.0


@pytest.mark.parametrize(("covered", "similarity"), [(1.0, 1.0), (0.95, 1.0), (0.475, 0.5), (0.0, 0.0)])
def test_similarity_is_at_most_the_share_of_covered_images(covered: float, similarity: float) -> None:
    assert to_similarity(0.0, covered) == pytest.approx(similarity)
    assert to_similarity(3 * FAR, covered) == pytest.approx(min(0.1, similarity))


def test_covered_are_all_that_lie_as_near_as_the_photographs_to_one_another() -> None:
    angles = np.radians([0, 10, 20, 30, 40])
    z = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    asked = np.radians([-9, 5, 49, 51, 180])
    x = np.stack([np.cos(asked), np.sin(asked)], axis=1).astype(np.float32)
    assert is_covered(x, z).tolist() == [True, True, True, False, False]


@pytest.mark.parametrize("seed", range(4))
def test_an_independent_sample_of_the_reference_set_is_as_similar_as_can_be(shipped: ReferenceSet, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(shipped.embeddings))
    rest = dataclasses.replace(shipped, embeddings=shipped.embeddings[order[500:]])
    found = measure_similarity(shipped.embeddings[order[:500]], rest)
    assert found.similarity > 0.9
    assert abs(found.distance) < 0.003
    assert abs(found.covered - EXPECTED_COVER) < 0.03
    assert not found.doubtful
    assert abs(found.kid) < 0.01
    assert abs(found.energy) < 0.002


@pytest.mark.parametrize("n", [10, 30])
def test_a_small_sample_of_the_reference_set_is_as_similar_as_can_be(shipped: ReferenceSet, n: int) -> None:
    found = []
    for seed in range(8):
        order = np.random.default_rng(seed).permutation(len(shipped.embeddings))
        rest = dataclasses.replace(shipped, embeddings=shipped.embeddings[order[n:]])
        found.append(measure_similarity(shipped.embeddings[order[:n]], rest))
    assert abs(np.mean([similarity.distance for similarity in found])) < 0.003
    assert np.mean([similarity.similarity for similarity in found]) > 0.9
    assert all(similarity.similar for similarity in found)


def test_reference_sets_whose_images_are_all_but_the_same_to_their_model_can_be_measured_with() -> None:
    # As fine-tuning leaves them: a point a class. In float32 the kernel of such rows is not positive definite.
    generator = np.random.default_rng(0)
    points = np.abs(generator.normal(size=(2, 256)))
    rows, same = (points[generator.integers(0, 2, n)] + 1e-4 * generator.normal(size=(n, 256)) for n in (120, 40))
    reference = make_reference_set("a", "b", rows.astype(np.float32), ("x",) * 120)
    assert abs(measure_similarity(same.astype(np.float32), reference).distance) < 0.05
    far = -points[[0, 1] * 10].astype(np.float32)
    assert measure_similarity(far, reference).distance > 0.2


def test_photographs_of_the_reference_set_are_near(shipped: ReferenceSet) -> None:
    found = measure_similarity(shipped.embeddings[::4], shipped)
    assert found.similar
    assert found.distance < 0.01
    assert found.similarity > 0.95
    assert (found.reference, found.backbone) == (shipped.name, shipped.backbone)


def test_photographs_of_a_few_other_classes_are_near(shipped: ReferenceSet) -> None:
    nearest = np.argsort(-shipped.embeddings @ shipped.embeddings[0])[:20]
    others = np.delete(shipped.embeddings, nearest, axis=0)[::2]
    narrow = measure_similarity(shipped.embeddings[nearest], dataclasses.replace(shipped, embeddings=others))
    assert narrow.similar


@pytest.mark.parametrize("n_directions", [1, 5])
def test_clouds_around_random_directions_are_far(thinned: ReferenceSet, n_directions: int) -> None:
    dimensions = thinned.embeddings.shape[1]
    centres, noise = directions(n_directions, dimensions, 0), directions(200, dimensions, 1)
    found = measure_similarity(centres[np.arange(200) % n_directions] + 0.6 * noise, thinned)
    assert not found.similar
    assert found.similarity < 0.4


def test_photographs_turned_into_unrelated_directions_are_far(thinned: ReferenceSet) -> None:
    shuffled = np.random.default_rng(0).permutation(thinned.embeddings.shape[1])
    found = measure_similarity(thinned.embeddings[:, shuffled], thinned)
    assert not found.similar
    assert found.distance < FAR  # the mixture alone does not see it
    assert found.covered < 0.4


def test_frechet_distance_tells_photographs_from_unrelated_directions(thinned: ReferenceSet) -> None:
    shuffled = np.random.default_rng(0).permutation(thinned.embeddings.shape[1])
    own = frechet_distance(thinned.embeddings[::2], thinned.embeddings)
    assert frechet_distance(thinned.embeddings[::2, shuffled], thinned.embeddings) > 2 * own


def test_length_of_embeddings_does_not_count() -> None:
    reference = make_reference_set("reference", "backbone", directions(50, 8, 0), tuple("x" * 50))
    rows = directions(20, 8, 1)
    short, long = measure_similarity(rows, reference), measure_similarity(rows * 17, reference)
    assert long.distance == pytest.approx(short.distance, abs=1e-5)
    assert long.frechet == pytest.approx(short.frechet, abs=1e-5)


def test_large_sets_are_sampled_with_the_seed() -> None:
    reference = make_reference_set("reference", "backbone", directions(50, 8, 0), tuple("x" * 50))
    rows = directions(MAX_IMAGES + 500, 8, 1)
    found = measure_similarity(rows, reference, seed=3)
    assert found.n_images == MAX_IMAGES
    assert measure_similarity(rows, reference, seed=3) == found
    assert measure_similarity(rows, reference, seed=4) != found
    assert measure_similarity(rows[:MAX_IMAGES], reference).n_images == MAX_IMAGES


@pytest.mark.parametrize("shape", [(1, 8), (0, 8), (20, 7)])
def test_too_few_images_or_other_dimensions_are_refused(shape: tuple[int, int]) -> None:
    reference = make_reference_set("reference", "backbone", directions(5, 8, 0), tuple("x" * 5))
    with pytest.raises(ValueError, match="8 dimensions"):
        measure_similarity(np.ones(shape, dtype=np.float32), reference)


def halves_apart(gap: float) -> tuple[ReferenceSet, np.ndarray]:
    """A reference set, and images that lie so far from it."""
    reference = make_reference_set("reference", "backbone", directions(80, 8, 0, around=2), tuple("x" * 80))
    rows = directions(70, 8, 1, around=2)
    rows[:, 1] += gap
    return reference, rows


def test_the_interval_holds_the_distance_and_narrows_with_more_images() -> None:
    reference, rows = halves_apart(0.7)
    few, many = measure_similarity(rows[:20], reference), measure_similarity(rows, reference)
    for found in (few, many):
        assert found.distance_interval is not None
        assert found.similarity_interval is not None
        assert found.distance_interval[0] < found.distance < found.distance_interval[1]
        assert found.similarity_interval[0] <= found.similarity <= found.similarity_interval[1]
    widths = [found.distance_interval[1] - found.distance_interval[0] for found in (few, many)]  # type: ignore[index]
    assert widths[1] < widths[0]


def test_doubt_is_where_the_interval_holds_the_threshold() -> None:
    gaps = np.linspace(0, 2.5, 26)
    found = [measure_similarity(halves_apart(gap)[1], halves_apart(gap)[0]) for gap in gaps]
    assert not found[0].doubtful
    assert found[0].similar
    assert found[0].probability == 1
    assert not found[-1].doubtful
    assert not found[-1].similar
    assert found[-1].probability == 0
    between = [similarity for similarity in found if similarity.doubtful]
    assert between
    probabilities = [similarity.probability for similarity in between if similarity.probability is not None]
    assert all(0.02 < probability < 0.98 for probability in probabilities)


def test_a_few_images_have_no_interval_and_leave_doubt() -> None:
    reference, rows = halves_apart(0.0)
    found = measure_similarity(rows[: MIN_FOR_INTERVAL - 1], reference)
    assert (found.distance_interval, found.similarity_interval, found.probability) == (None, None, None)
    assert found.doubtful
    assert measure_similarity(rows[:MIN_FOR_INTERVAL], reference).distance_interval is not None


def test_spread_is_that_of_the_distance_of_a_few_images() -> None:
    reference, rows = halves_apart(0.7)
    assert measure_similarity(rows[: 2 * SUBSAMPLE - 1], reference).spread is None
    generator = np.random.default_rng(5)
    again = [
        measure_similarity(rows[generator.choice(70, SUBSAMPLE, replace=False)], reference).distance for _ in range(30)
    ]
    spread = measure_similarity(rows, reference).spread
    assert spread is not None
    assert 0.4 < spread / np.std(again) < 2.5


def test_nearest_classes_are_those_of_the_photographs_around() -> None:
    corners = np.eye(4, dtype=np.float32)
    around = corners[[0, 0, 1, 2, 3]] + 0.1 * directions(5, 4, 0)
    reference = make_reference_set("reference", "backbone", around, ("ant", "ant", "bee", "cat", "dog"))
    x = unit(np.float32([[5, 3, 0, 0], [5, 2, 0, 0], [0, 0, 0, 1], [0, 0, 1, 2]]))
    found = nearest_classes(x, np.array(["b", "b", "a", "a"]), reference)
    assert list(found) == ["a", "b"]
    assert found["a"][:2] == ("dog", "cat")
    assert found["b"][:2] == ("ant", "bee")
    assert all(len(set(names)) == 3 for names in found.values())


def test_nearest_classes_of_photographs_are_their_own(shipped: ReferenceSet) -> None:
    names = np.array(["a", "b", "c"])
    found = measure_similarity(shipped.embeddings[[0, 1, 2]], shipped, names).nearest
    assert {name: classes[0] for name, classes in found.items()} == dict(zip(names, shipped.class_names, strict=False))
    assert measure_similarity(shipped.embeddings[:3], shipped).nearest == {}


def test_nearest_classes_know_every_class_of_a_large_set() -> None:
    reference = make_reference_set("reference", "backbone", directions(50, 8, 0), tuple("x" * 50))
    n = 2 * MAX_IMAGES
    classes = np.array([f"{place % 700}" for place in range(n)])
    found = measure_similarity(directions(n, 8, 1), reference, classes)
    assert len(found.nearest) == 700


def test_a_similarity_without_interval_is_plain_data() -> None:
    found = Similarity(0.01, 0.9, FAR, 1.0, 5, "reference", "backbone")
    assert found.similar
    assert found.doubtful
