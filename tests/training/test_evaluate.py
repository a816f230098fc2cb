"""Predictions of a whole set."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pfs_core.data.images import InMemory
from pfs_core.training.evaluate import accuracy, predict
from pfs_core.training.retrain import confusion


@given(st.integers(1, 1300), st.booleans())
def test_every_row_is_predicted_in_order_in_evaluation_mode(rows, training):
    model = nn.BatchNorm2d(1).train(training)
    labels = torch.randint(4, (rows,), generator=torch.Generator().manual_seed(rows))
    images = nn.functional.one_hot(labels, 4).to(torch.uint8).view(rows, 1, 2, 2)

    def forward(batch):
        assert not model.training
        return model(batch.float()).flatten(1)

    predictions = predict(model, forward, InMemory(images, labels, crop_padding=1, flip=True))
    assert torch.equal(predictions, labels)
    assert model.training == training
    assert model.num_batches_tracked == 0


@given(st.integers(1, 60), st.integers(1, 200), st.integers(1, 200))
def test_the_pixels_that_go_through_at_once_are_bounded(rows, height, width):
    images = torch.zeros(rows, 1, height, width, dtype=torch.uint8)
    sizes = []

    def forward(batch):
        sizes.append(len(batch))
        return torch.zeros(len(batch), 2)

    predict(nn.Identity(), forward, InMemory(images, torch.zeros(rows, dtype=torch.int64), 0, False))
    assert sum(sizes) == rows
    assert max(sizes) == 1 or max(sizes) * height * width <= 500 * 64 * 64


def test_accuracy_is_the_fraction_that_is_right():
    assert accuracy(torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 2, 0])) == 0.75


def test_confusion_counts_true_by_predicted():
    found = confusion(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 0, 1]), 3)
    assert found == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]
