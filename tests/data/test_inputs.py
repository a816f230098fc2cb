"""Mean and deviation of the training images, and the images that a dataset's page shows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pfs_core.config.stages import SplitConfig
from pfs_core.data.choice import TRAIN, choose_rows
from pfs_core.data.inputs import inputs_of, keeping, pixel_statistics
from pfs_core.data.split_info import CLASSES, EACH
from tests.data.folders import source


@given(st.integers(1, 3), st.integers(1, 50), st.integers(0, 5))
def test_pixel_statistics_are_numpys(channels, count, seed):
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, channels, 4, 3), dtype=torch.uint8, generator=random)
    mean, std = pixel_statistics(images.split(7))
    assert mean == pytest.approx(images.numpy().mean((0, 2, 3)).tolist())
    assert std == pytest.approx(images.numpy().std((0, 2, 3)).tolist())


def test_few_of_the_samples_are_kept_for_the_page():
    labels, kept = np.arange(1000) % 50, []
    samples = [(i, torch.tensor(i)) for i in range(1000)]
    assert list(keeping(samples, labels, kept)) == [image for _, image in samples]
    assert np.bincount(labels[[i for i, _ in kept]]).tolist() == [EACH] * CLASSES
    assert all(image == i for i, image in kept)


def test_the_page_has_images_of_each_class_also_where_they_lie_class_by_class():
    rows = replace(source(3000), labels=np.repeat([0, 1], [2990, 10]))
    images = torch.zeros(3000, 1, 2, 2, dtype=torch.uint8)
    parts = choose_rows(rows, SplitConfig(stratified=True), seed=0)
    samples = inputs_of(rows, images, parts, SplitConfig(), 0).samples
    assert np.bincount(rows.labels[[i for i, _ in samples]]).tolist() == [EACH, 7]
    assert all(parts[i] == TRAIN for i, _ in samples)


def test_flat_images_have_a_deviation_to_divide_by():
    mean, std = pixel_statistics([torch.full((2, 1, 3, 3), 9, dtype=torch.uint8)])
    assert mean == [9.0]
    assert 0 < std[0] < 0.01
