"""The loss against formulas written out: weights of classes, mixed labels, smoothing, and parts of a batch."""

import pytest
import torch
import torch.nn.functional as F

from pfs_core.training.fit import backward
from pfs_core.training.loss import class_weights, hits, mean_loss
from tests.training.test_optimise import batch, called, gradients, network, recipe

WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 0.0, 3.0], dtype=torch.float64)


def mixed(labels, share=0.7):
    """Probabilities of each label and the one before it."""
    one_hot = F.one_hot(labels, 5).double()
    return share * one_hot + (1 - share) * one_hot.roll(1, 0)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("soft", [False, True])
def test_the_loss_is_the_formula(weights, smoothing, soft):
    images, labels = batch(7)
    logits, target = network()(images), mixed(labels) if soft else labels
    shares = mixed(labels) if soft else F.one_hot(labels, 5).double()
    shares = (1 - smoothing) * shares + smoothing / 5
    by_class = -shares * logits.log_softmax(1) * (1 if weights is None else weights)
    found = mean_loss(logits, target, recipe(label_smoothing=smoothing), weights)
    assert found.item() == pytest.approx(by_class.sum(1).mean().item())


@pytest.mark.parametrize("accumulate", [1, 2, 5])
def test_the_gradient_of_weighted_micro_batches_is_that_of_the_whole_batch(accumulate):
    images, labels = batch(11)
    for target in (labels, mixed(labels)):
        whole, parts = network(), network()
        loss = mean_loss(whole(images), target, recipe(), WEIGHTS)
        loss.backward()
        sums = backward(parts, called, images, target, len(images), recipe(accumulate=accumulate), weights=WEIGHTS)
        for a, b in zip(gradients(whole), gradients(parts), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
        assert sums.tolist() == pytest.approx([11 * loss.item(), hits(whole(images), target).item()])


def test_weights_are_those_of_the_images_that_train():
    labels = torch.tensor([0, 0, 0, 2])
    assert class_weights(recipe(), labels, 3) is None
    found = class_weights(recipe(class_weights="balanced"), labels, 3)
    torch.testing.assert_close(found, torch.tensor([4 / 6, 0.0, 2.0]))


def test_a_hit_is_the_class_of_the_larger_share():
    logits = torch.eye(3)[[0, 1, 2]]
    assert hits(logits, torch.tensor([0, 2, 2])) == 2
    assert hits(logits, torch.tensor([[0.6, 0.4, 0], [0.7, 0.3, 0], [0, 0.1, 0.9]])) == 2
