"""The mistakes that are shown are mistakes, from all over the test images."""

import itertools

import pytest
import torch

from pfs_core.training.mistakes import SHOWN, MistakeSample, load_mistakes


def sampled(folder, labels, predictions):
    """The mistakes of batches whose images are numbered."""
    sample, first = MistakeSample(labels), 0
    for label, prediction in zip(labels, predictions, strict=True):
        images = torch.arange(first, first + len(label), dtype=torch.uint8).view(-1, 1, 1, 1)
        sample.add(images, prediction)
        first += len(label)
    sample.save(folder)
    return [(int(image), label, found) for image, label, found in load_mistakes(folder)]


def test_they_are_spread_over_the_batches(tmp_path):
    labels = [torch.zeros(50, dtype=torch.int64) for _ in range(4)]
    found = sampled(tmp_path, labels, [torch.arange(50) % 2 for _ in labels])
    assert len(found) == SHOWN
    assert [image for image, _, _ in found] == [50 * batch + 2 * i + 1 for batch in range(4) for i in range(4)]
    assert {(label, taken) for _, label, taken in found} == {(0, 1)}


@pytest.mark.parametrize("batches", [10, 17, 100])
def test_of_more_batches_than_are_shown_those_of_all_of_them_are(tmp_path, batches):
    """The images of many datasets come class by class."""
    labels = [torch.full((2,), batch) for batch in range(batches)]
    found = sampled(tmp_path, labels, [label + 1 for label in labels])
    shown = [label for _, label, _ in found]
    assert len({image for image, _, _ in found}) == SHOWN
    assert max(later - sooner for sooner, later in itertools.pairwise([0, *shown, batches])) <= batches / SHOWN + 1


def test_who_makes_none_has_none(tmp_path):
    labels = [torch.arange(5), torch.arange(3)]
    assert sampled(tmp_path, labels, labels) == []
    assert load_mistakes(tmp_path / "of an older version") == []
