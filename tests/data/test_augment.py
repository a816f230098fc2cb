"""Crops, flips and batches against references in plain words."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from pfs_core.data.augment import Normalise, random_crop, random_flip
from pfs_core.data.images import InMemory
from pfs_core.data.split_info import SplitInfo

SEEDS = st.integers(0, 1000)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def pixels(n, shape=(3, 5, 4), seed=0):
    return torch.randint(1, 256, (n, *shape), dtype=torch.uint8, generator=generator(seed))


@given(SEEDS, st.integers(0, 3))
def test_each_crop_is_the_window_at_its_offset(seed, padding):
    images = pixels(6, seed=seed)
    cropped = random_crop(images, padding, generator(seed))
    offset = torch.randint(2 * padding + 1, (2, 6), generator=generator(seed))
    padded = F.pad(images, [padding] * 4)
    for i in range(6):
        top, left = offset[0, i], offset[1, i]
        assert torch.equal(cropped[i], padded[i, :, top : top + 5, left : left + 4])
    assert cropped.dtype == torch.uint8


def test_no_padding_changes_nothing():
    images = pixels(9)
    assert torch.equal(random_crop(images, 0, generator(0)), images)


def test_every_offset_occurs_alike():
    image = torch.zeros(1, 1, 3, 3, dtype=torch.uint8)
    image[0, 0, 1, 1] = 1
    cropped = random_crop(image.expand(9000, 1, 3, 3), 1, generator(0))
    centres = cropped.float().sum(0)[0]
    assert centres.sum() == 9000
    assert (centres - 1000).abs().max() < 150


@given(SEEDS)
def test_an_image_is_mirrored_or_not(seed):
    images = pixels(20, seed=seed)
    for image, flipped in zip(images, random_flip(images, generator(seed)), strict=True):
        assert torch.equal(flipped, image) or torch.equal(flipped, image.flip(-1))


def test_half_of_the_images_are_mirrored():
    images = pixels(2000, (1, 1, 8))
    mirrored = (random_flip(images, generator(0)) != images).flatten(1).any(1)
    assert 900 < mirrored.sum() < 1100


def numbered(n):
    """Images that carry their number, and their labels: the number as well."""
    return torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, 4, 4).clone(), torch.arange(n)


@given(st.integers(2, 60), st.integers(2, 20), SEEDS)
def test_every_row_comes_exactly_once_an_epoch_with_its_label(rows, size, seed):
    images = InMemory(*numbered(rows), crop_padding=0, flip=False)
    epoch = list(images.epoch(size, generator(seed)))
    seen = torch.cat([target for _, target in epoch])
    assert sorted(seen.tolist()) == list(range(rows))
    for batch, target in epoch:
        assert torch.equal(batch[:, 0, 0, 0].long(), target)
    assert len(epoch) == images.steps(size)
    sizes = [len(target) for _, target in epoch]
    assert min(sizes) >= 2
    assert all(length == size for length in sizes[:-1])
    assert sizes[-1] <= size + 1


def test_a_last_row_joins_the_batch_before_it():
    images = InMemory(*numbered(9), crop_padding=0, flip=False)
    assert [len(t) for _, t in images.epoch(4, generator(0))] == [4, 5]


def test_all_images_come_in_their_order():
    images, labels = numbered(9)
    whole = InMemory(images, labels, crop_padding=2, flip=True)
    assert len(whole) == 9
    assert [len(batch) for batch in whole.in_order(4)] == [4, 4, 1]
    assert torch.equal(torch.cat(list(whole.in_order(4))), images)


def test_the_generator_decides_everything():
    images = InMemory(pixels(30), torch.arange(30), crop_padding=2, flip=True)

    def epochs(seed):
        random = generator(seed)
        return [list(images.epoch(7, random)) for _ in range(2)]

    first, again, other = epochs(0), epochs(0), epochs(1)
    for a, b in zip(first[0] + first[1], again[0] + again[1], strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])
    assert not torch.equal(first[0][0][1], other[0][0][1])
    assert not torch.equal(first[0][0][1], first[1][0][1])


def test_the_images_stay_as_they_were():
    images, labels = pixels(12), torch.arange(12)
    before = images.clone()
    for batch, _ in InMemory(images, labels, crop_padding=1, flip=True).epoch(5, generator(0)):
        batch.zero_()
    assert torch.equal(images, before)


def test_normalised_images_have_mean_0_and_deviation_1():
    images = pixels(50)
    values = images.double()
    mean, std = values.mean((0, 2, 3)).tolist(), values.std((0, 2, 3), correction=0).tolist()
    info = SplitInfo.model_construct(mean=mean, std=std)
    out = Normalise(info, torch.device("cpu"), torch.channels_last)(images)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert out.mean((0, 2, 3)).abs().max() < 1e-5
    assert (out.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5


@pytest.mark.parametrize(("rows", "world"), [(30, 2), (33, 2), (35, 2), (37, 3), (9, 2)])
def test_processes_share_every_batch_as_one_has_it(rows, world):
    whole = InMemory(pixels(rows), torch.arange(rows), crop_padding=2, flip=True)
    shares = [InMemory(pixels(rows), torch.arange(rows), 2, True, rank, world) for rank in range(world)]
    epochs = [list(share.epoch(10, generator(0))) for share in shares]
    assert len({len(epoch) for epoch in epochs} | {share.steps(10) for share in shares}) == 1
    together = [torch.cat(parts) for batch in zip(*epochs, strict=True) for parts in zip(*batch, strict=True)]
    alone = [part for batch in whole.epoch(10, generator(0)) for part in batch]
    if rows % 10 == 0 or rows % 10 >= 2 * world:
        assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))
    assert sorted(torch.cat(together[1::2]).tolist()) == list(range(rows))
    assert all(len(labels) >= 2 for epoch in epochs for _, labels in epoch)


def test_processes_share_the_batches_in_order():
    shares = [InMemory(pixels(9), torch.arange(9), 0, False, rank, 2) for rank in (0, 1)]
    batches = [list(share.in_order(4)) for share in shares]
    assert torch.equal(torch.cat([batches[0][0], batches[1][0], batches[0][1]]), pixels(9))
