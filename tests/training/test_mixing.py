"""Mixup and CutMix: labels say what pixels are of, and what is mixed follows from seed, step and rank."""

import numpy as np
import pytest
import torch

from pfs_core.config.stages import RetrainConfig
from pfs_core.training.mixing import Mixing

CLASSES = 5


def mixing(**alphas):
    return Mixing(RetrainConfig(epochs=1, **alphas), CLASSES)


def batch(rows=8):
    """Images whose pixels are all 40 times their label."""
    labels = torch.arange(rows) % CLASSES
    return (40 * labels).to(torch.uint8).view(-1, 1, 1, 1).expand(rows, 3, 12, 10).clone(), labels


@pytest.mark.parametrize("alphas", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_labels_are_the_shares_of_the_pixels(alphas):
    images, labels = batch()
    before, shares = images.clone(), set()
    for step in range(30):
        mixed, target = mixing(**alphas)(images, labels, 0, step, 0)
        assert (mixed.dtype, target.dtype, target.shape) == (torch.float32, torch.float32, (8, CLASSES))
        torch.testing.assert_close(target.sum(1), torch.ones(8))
        levels = 40 * torch.arange(CLASSES, dtype=torch.float32)
        torch.testing.assert_close(mixed.mean((1, 2, 3)), target @ levels, rtol=1e-4, atol=1e-3)
        present = {*labels[:1].tolist(), *labels[-1:].tolist()}
        assert set(target[0].nonzero().flatten().tolist()) <= present
        shares.add(round(target[0].max().item(), 4))
    assert len(shares) > 5
    assert torch.equal(images, before)


def test_mixup_blends_and_cutmix_cuts():
    images, labels = batch()
    blended, _ = mixing(mixup=1.0)(images, labels, 0, 0, 0)
    assert all(len(image.unique()) == 1 for image in blended)
    cut, target = mixing(cutmix=1.0)(images, labels, 0, 0, 0)
    assert set(cut.unique().tolist()) <= {40.0 * label for label in range(CLASSES)}
    assert 0 < target[0].max() < 1


def test_the_mixture_follows_from_its_key():
    images, labels = batch()
    mix = mixing(mixup=0.4, cutmix=1.0)
    first = mix(images, labels, 0, 3, 0)
    torch.rand(3)
    again = mixing(mixup=0.4, cutmix=1.0)(images, labels, 0, 3, 0)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in ((1, 3, 0), (0, 4, 0), (0, 3, 1)):
        assert not torch.equal(mix(images, labels, *other)[1], first[1])


def test_of_both_a_batch_gets_either():
    images, labels = batch()
    mix = mixing(mixup=1.0, cutmix=1.0)
    blended = [all(len(image.unique()) == 1 for image in mix(images, labels, 0, step, 0)[0]) for step in range(300)]
    assert np.mean(blended) == pytest.approx(0.5, abs=0.1)


def test_the_global_generator_is_left_as_it_was():
    state = torch.get_rng_state()
    mixing(mixup=0.4, cutmix=1.0)(*batch(), 0, 0, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_either_a_batch_stays_what_it_is():
    images, labels = batch()
    found = mixing()(images, labels, 0, 0, 0)
    assert found[0] is images
    assert found[1] is labels
