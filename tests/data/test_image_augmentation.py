"""RandAugment, TrivialAugment and random erasing: each image in its own way, which its seed repeats anywhere."""

import pickle

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from pfs_core.config.stages import RetrainConfig
from pfs_core.data.image_augmentation import ImageAugmentation, image_augmentation
from pfs_core.data.images import InMemory
from pfs_core.data.open import open_source
from tests.data.folders import images, tree
from tests.data.test_stream import epoch, labels, same, streamed

POLICIES = {"randaugment": v2.RandAugment, "trivialaugment": v2.TrivialAugmentWide}
SEEDS = torch.arange(40) * 7919


def augmentation(mean=(90.4, 120.6, 33.0), **settings):
    return ImageAugmentation(RetrainConfig(epochs=1, **settings), mean)


def test_nothing_asked_for_is_nothing_done():
    assert image_augmentation(RetrainConfig(epochs=1), [0.0]) is None
    assert image_augmentation(RetrainConfig(epochs=1, random_erasing=0.1), [0.0]) is not None


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", POLICIES)
def test_an_image_is_changed_as_torchvision_does_from_its_seed(policy, channels):
    before = images(40, (channels, 9, 12))
    changed = augmentation([50.0] * channels, augment=policy).batch(before, SEEDS)
    for image, seed, found in zip(before, SEEDS.tolist(), changed, strict=True):
        torch.manual_seed(hash((seed,)))
        assert torch.equal(found, POLICIES[policy]()(image))
    assert changed.dtype == torch.uint8
    assert (changed != before).flatten(1).any(1).sum() > 20
    assert torch.equal(before, images(40, (channels, 9, 12)))


def test_images_do_not_depend_on_their_neighbours():
    change, before = augmentation(augment="randaugment", random_erasing=0.5), images(40, (3, 9, 12))
    whole = change.batch(before, SEEDS)
    assert torch.equal(change.batch(before[25:], SEEDS[25:]), whole[25:])
    assert torch.equal(pickle.loads(pickle.dumps(change)).batch(before, SEEDS), whole)


def test_the_global_generator_is_left_as_it_was():
    state = torch.get_rng_state()
    augmentation(augment="randaugment", random_erasing=1.0).batch(images(5), SEEDS[:5])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("probability", "least", "most"), [(1.0, 38, 40), (0.5, 12, 28)])
def test_a_rectangle_of_the_mean_colour_is_erased(probability, least, most):
    before = images(40, (3, 20, 24))
    erased = 0
    for image, found in zip(before, augmentation(random_erasing=probability).batch(before, SEEDS), strict=True):
        rows, columns = (found != image).any(0).any(1).nonzero(), (found != image).any(0).any(0).nonzero()
        if len(rows):
            erased += 1
            box = found[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert (box == torch.tensor([90, 121, 33]).view(3, 1, 1)).all()
            assert 0.01 < box[0].numel() / image[0].numel() < 0.4
    assert least <= erased <= most


def in_memory(rows=41, **places):
    of_rows = torch.arange(rows) % 7 // 5  # 5 of class 0 to 2 of class 1
    change = augmentation(augment="trivialaugment", random_erasing=0.3)
    return InMemory(images(rows), of_rows, 1, True, augment=change, balanced=True, **places)


def test_an_epoch_in_memory_taken_up_at_any_step_is_the_same_to_the_bit():
    whole = epoch(in_memory())
    assert all(same(epoch(in_memory(), skip=step), whole[step:]) for step in range(len(whole) + 1))
    assert not torch.equal(epoch(in_memory(), seed=1)[0][0], whole[0][0])


def test_processes_share_every_batch_as_one_has_it():
    whole, shares = epoch(in_memory(40)), [epoch(in_memory(40, rank=rank, world=2)) for rank in (0, 1)]
    together = [tuple(torch.cat(parts) for parts in zip(*batch, strict=True)) for batch in zip(*shares, strict=True)]
    assert same(together, whole)


def test_an_epoch_in_memory_has_as_many_images_of_every_class():
    counts = np.bincount(labels(epoch(in_memory())))
    assert sorted(counts) == [20, 21]
    assert len(epoch(in_memory())) == in_memory().steps(10)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """A tree of 50 images of one class and 20 of another."""
    names = [f"{'ab'[i % 7 >= 5]}/{i:02}.png" for i in range(70)]
    return open_source(str(tree(tmp_path_factory.mktemp("uneven"), *names, size=(30, 25))))


def changed_stream(source, **places):
    return streamed(source, flip=True, augment=augmentation(augment="randaugment"), balanced=True, **places)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_streamed_epoch_taken_up_at_any_step_is_the_same_to_the_bit(uneven, workers):
    whole = epoch(changed_stream(uneven, workers=workers))
    steps = range(len(whole) + 1) if not workers else (1, 4)
    assert all(same(epoch(changed_stream(uneven, workers=workers), skip=step), whole[step:]) for step in steps)
    plain = epoch(streamed(uneven, flip=True, balanced=True, workers=workers))
    assert labels(plain) == labels(whole)
    assert not torch.equal(plain[0][0], whole[0][0])


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (2, 2)])
def test_a_streamed_epoch_has_as_many_images_of_every_class(uneven, world, workers):
    shares = [epoch(changed_stream(uneven, workers=workers, rank=rank, world=world)) for rank in range(world)]
    assert np.bincount([label for share in shares for label in labels(share)]).tolist() == [35, 35]
    assert len({len(share) for share in shares}) == 1
