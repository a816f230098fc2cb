"""Classes of different sizes: weights, and epochs with as many images of each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from pfs_core.data.balance import balanced_rows, balanced_weights

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(np.array)


@given(LABELS)
def test_the_weights_of_all_images_of_a_class_sum_to_the_same(labels):
    weights = balanced_weights(labels, 7)
    present = np.unique(labels)
    sums = [weights[labels[labels == label]].sum() for label in present]
    assert sums == pytest.approx([len(labels) / len(present)] * len(present))
    assert weights[labels].mean() == pytest.approx(1)
    assert (np.delete(weights, present) == 0).all()
    assert weights[present] == pytest.approx(compute_class_weight("balanced", classes=present, y=labels))


@given(LABELS, st.integers(0, 2**62))
def test_every_class_gives_as_many_images_and_every_image_comes_as_often(labels, seed):
    rows = balanced_rows(labels, seed)
    assert len(rows) == len(labels)
    times = np.bincount(rows, minlength=len(labels))
    of_classes = [times[labels == label] for label in np.unique(labels)]
    totals = [counts.sum() for counts in of_classes]
    assert max(totals) - min(totals) <= 1
    assert all(counts.max() - counts.min() <= 1 for counts in of_classes)


def test_a_large_class_gives_other_images_each_time_and_all_alike():
    labels = np.array([0] * 30 + [1] * 10)
    times = sum(np.bincount(balanced_rows(labels, seed), minlength=40) for seed in range(600))
    assert times.sum() == 600 * 40
    assert times[:30] == pytest.approx(400, abs=60)
    assert (times[30:] == 1200).all()


def test_the_order_is_random_and_follows_from_the_seed():
    labels = np.array([0, 1] * 20)
    assert (balanced_rows(labels, 3) == balanced_rows(labels, 3)).all()
    assert (balanced_rows(labels, 3) != balanced_rows(labels, 4)).any()
    mixed = labels[balanced_rows(labels, 3)]
    assert 10 < (np.diff(mixed) != 0).sum() < 35
