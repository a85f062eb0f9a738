"""Whatever the classes and copies are: no class is lost, and no group lies on two sides."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from autotl.data.splits import assign_folds, stratified_holdout, stratified_order

Images = tuple[NDArray[np.int64], NDArray[np.int64]]


@st.composite
def images(draw: st.DrawFn) -> Images:
    """Labels and groups: every class has an image, and groups may span classes."""
    n_classes = draw(st.integers(1, 6))
    more = draw(st.lists(st.integers(0, n_classes - 1), max_size=60))
    labels = np.array([*range(n_classes), *more], dtype=np.int64)
    most = draw(st.integers(1, len(labels)))
    groups = np.array(draw(st.lists(st.integers(0, most), min_size=len(labels), max_size=len(labels))), dtype=np.int64)
    return labels, groups


@given(images(), st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_a_holdout_loses_no_class_and_divides_no_group(both: Images, fraction: float, seed: int) -> None:
    labels, groups = both
    held = stratified_holdout(labels, groups, fraction, seed)
    assert held.shape == labels.shape
    assert set(labels[~held]) == set(labels)  # every class is left to train on
    assert not set(groups[held]) & set(groups[~held])
    assert np.array_equal(held, stratified_holdout(labels, groups, fraction, seed))


@given(images(), st.integers(0, 9))
def test_without_copies_a_class_of_two_is_on_both_sides(both: Images, seed: int) -> None:
    labels, _ = both
    held = stratified_holdout(labels, np.arange(len(labels)), 0.2, seed)
    several = {label for label in labels if (labels == label).sum() > 1}
    assert set(labels[held]) == several


@given(images(), st.integers(2, 5))
def test_folds_divide_no_group_and_each_has_images(both: Images, n_folds: int) -> None:
    labels, groups = both
    folds = assign_folds(labels, groups, int(labels.max()) + 1, n_folds)
    if folds is None:
        return
    assert set(folds) == set(range(n_folds))
    assert all(len(set(folds[groups == group])) == 1 for group in groups)


@given(images(), st.integers(0, 9))
def test_every_beginning_of_the_order_has_what_it_has_room_for(both: Images, seed: int) -> None:
    labels, _ = both
    order = stratified_order(labels, seed)
    assert np.array_equal(np.sort(order), np.arange(len(labels)))
    n_classes = len(set(labels))
    assert len(set(labels[order[:n_classes]])) == n_classes
