"""Streamed images: every row once, in an order that the seed repeats and that can be taken up anywhere."""

import io
import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pfs_core.data.crop import Crop
from pfs_core.data.images import batch_borders
from pfs_core.data.open import open_source
from pfs_core.data.reading import Reader
from pfs_core.data.stream import LANES, Streamed, plan
from pfs_core.errors import UserError
from tests.data.folders import encode, picture, tree, write

ROWS, GROUP = 143, 3


def number(i):
    """The bytes of an image that is its number in every pixel."""
    return encode(Image.new("RGB", (9, 8), (i, 7, i)))


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """A source of numbered images, whose labels are the numbers too."""
    folder = tmp_path_factory.mktemp("numbered")
    for start, stop in ((0, 60), (60, 61), (61, ROWS)):
        rows = range(start, stop)
        write(
            folder / f"train-{start:03}.parquet", map(number, rows), rows, map(str, range(ROWS)), row_group_size=GROUP
        )
    return open_source(str(folder))


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A source of 70 images in which no two crops are alike."""
    folder = tmp_path_factory.mktemp("noise")
    return open_source(str(tree(folder, *[f"{'ab'[i % 2]}/{i:02}.png" for i in range(70)], size=(30, 25))))


def streamed(source, rows=None, size=8, flip=False, **places):
    rows = np.arange(len(source)) if rows is None else rows
    return Streamed(source, rows, Crop((size, size), 3, (0.3, 1.0)), flip, torch.device("cpu"), **places)


def epoch(images, size=10, seed=0, skip=0):
    return list(images.epoch(size, torch.Generator().manual_seed(seed), skip))


def same(some, others):
    pairs = zip(some, others, strict=True)
    return all(torch.equal(a, b) for batches in pairs for a, b in zip(*batches, strict=True))


def labels(batches):
    return torch.cat([target for _, target in batches]).tolist()


@pytest.mark.parametrize(("world", "workers"), list(itertools.product([1, 2], [0, 1, 2])))
def test_every_row_comes_exactly_once_an_epoch_with_its_label(numbered, world, workers):
    rows = np.flatnonzero(np.arange(ROWS) % 7)
    seen, steps = [], set()
    for rank in range(world):
        images = streamed(numbered, rows, rank=rank, world=world, workers=workers)
        batches = epoch(images)
        assert len(batches) == images.steps(10)
        steps.add(len(batches))
        for batch, target in batches:
            assert batch.shape == (len(target), 3, 8, 8)
            assert (batch[:, 0] == target.view(-1, 1, 1)).all()
            assert 2 <= len(target) <= 10 // world + 1
        seen += labels(batches)
    assert sorted(seen) == rows.tolist()
    assert len(steps) == 1


@given(count=st.integers(1, 400), size=st.integers(2, 40), world=st.integers(1, 4))
def test_batches_are_of_the_size_asked_for_but_for_the_last(count, size, world):
    sizes = np.diff(batch_borders(count, size, world)).tolist()
    assert sum(sizes) == count
    assert set(sizes[:-1]) <= {size}
    assert len(sizes) == 1 or min(size, 2 * world) <= sizes[-1] < size + 2 * world


def test_evaluation_is_shared_out_by_batches(numbered):
    whole = list(streamed(numbered, workers=0).in_order(10))
    shares = [list(streamed(numbered, workers=2, rank=rank, world=2).in_order(10)) for rank in (0, 1)]
    for share, expected in zip(shares, (whole[::2], whole[1::2]), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(share, expected, strict=True))


@pytest.mark.parametrize("rows", [1, 2, 3, 11, 21])
def test_few_rows_come_once_too(numbered, rows):
    images = streamed(numbered, np.arange(rows), workers=2)
    batches = epoch(images)
    assert sorted(labels(batches)) == list(range(rows))
    assert len(batches) == images.steps(10)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_seed_alone_decides_the_order(numbered, workers):
    images = streamed(numbered, workers=workers)
    torch.manual_seed(1)
    first = epoch(images)
    torch.manual_seed(2)
    assert labels(epoch(images)) == labels(first)
    assert labels(epoch(images, seed=1)) != labels(first)
    random = torch.Generator().manual_seed(0)
    assert labels(images.epoch(10, random)) == labels(first) != labels(images.epoch(10, random))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_taken_up_at_any_step_is_the_same_to_the_bit(noise, workers):
    images = streamed(noise, size=8, flip=True, workers=workers)
    whole = epoch(streamed(noise, size=8, flip=True, workers=0))
    assert len(whole) == images.steps(10) == 7
    for step in range(len(whole) + 2) if workers == 0 else (0, 3, 7, 8):
        assert same(epoch(images, skip=step), whole[step:])


def test_crops_differ_from_epoch_to_epoch_and_from_image_to_image(noise):
    images = streamed(noise, workers=0)
    (first, target), *_ = epoch(images)
    assert len({image.numpy().tobytes() for image in first}) == len(first)
    other = {int(t): image for batch, ts in epoch(images, seed=1) for image, t in zip(batch, ts, strict=True)}
    assert not any(torch.equal(image, other[int(t)]) for image, t in zip(first, target, strict=True))


def test_half_of_the_images_are_mirrored_each_batch_in_its_own_way(tmp_path):
    ramp = encode(Image.fromarray(np.tile(np.arange(0, 240, 8, dtype=np.uint8), (30, 1))))
    write(tmp_path / "train.parquet", [ramp] * 320, [0, 1] * 160)
    for flip, share in ((True, 0.5), (False, 0)):
        batches = epoch(streamed(open_source(str(tmp_path)), flip=flip, workers=0), size=32)
        mirrored = [tuple((images[..., 0] > images[..., -1]).flatten(1).all(1).tolist()) for images, _ in batches]
        assert np.mean(mirrored) == pytest.approx(share, abs=0.1)
        assert len(set(mirrored)) == (10 if flip else 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_generator_is_left_as_it_was(noise, workers):
    state = torch.get_rng_state()
    epoch(streamed(noise, workers=workers))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_evaluation_is_in_the_order_of_the_labels(numbered, workers):
    rows = np.concatenate([np.arange(0, ROWS, 2), np.arange(1, ROWS, 3)])
    images = streamed(numbered, np.unique(rows)[::-1], workers=workers)
    batches = list(images.in_order(20))
    assert [len(batch) for batch in batches[:-1]] == [20] * (len(batches) - 1)
    assert torch.cat(batches)[:, 0, 0, 0].tolist() == images.labels.tolist()
    assert sorted(images.labels.tolist()) == sorted(set(rows.tolist()))


def test_it_can_be_sent_to_a_worker_that_is_not_a_fork(noise):
    images = streamed(noise, workers=0)
    sent = pickle.loads(pickle.dumps(images))
    assert "labels" not in vars(sent)  # they may be on a device that a worker must not touch
    assert same(epoch(sent), epoch(images))


@pytest.fixture
def in_turn(monkeypatch):
    """Workers are iterators in this process, which the loader asks in turn as it does processes."""

    def loader(dataset, num_workers, **_):
        running = []
        for worker in range(num_workers):
            monkeypatch.setattr("pfs_core.data.stream._worker", lambda worker=worker: (worker, num_workers))
            running.append(itertools.chain([next(items := iter(dataset), None)], items))
        return (item for items in zip(*running, strict=True) for item in items if item)

    monkeypatch.setattr("pfs_core.data.stream.DataLoader", loader)


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("balanced", [False, True])
def test_an_epoch_is_the_same_to_the_bit_on_any_number_of_cores_also_taken_up(noise, in_turn, world, balanced):
    def images(workers):
        return streamed(noise, flip=True, rank=world - 1, world=world, balanced=balanced, workers=workers)

    whole = epoch(images(1))
    assert len(whole) == 7
    for workers in (2, 3, 8):
        for done in (0, workers - 1):
            assert same(epoch(images(workers), skip=done), whole[done:])


def test_a_part_has_as_many_workers_as_cores_it_may_use(noise, monkeypatch):
    for cores, workers in ((1, 1), (2, 2), (5, 4), (64, 12)):
        monkeypatch.setattr("pfs_core.data.stream.core_count", lambda cores=cores: cores)
        assert streamed(noise).workers == workers


def test_a_batch_mixes_as_many_row_groups_as_there_are_lanes(numbered):
    groups = numbered.file.astype(int) * 1000 + numbered.group
    batches = [target.numpy() for _, target in epoch(streamed(numbered, workers=0), size=LANES)]
    assert all(len(set(groups[rows])) > LANES * 3 / 4 for rows in batches[:-1])


@pytest.mark.parametrize("lanes", [1, 3, LANES, 200])
def test_lanes_have_equal_shares_of_the_rows_and_read_a_row_group_at_a_time(numbered, lanes):
    planned = plan(numbered, np.arange(ROWS), lanes, seed=4)
    groups = numbered.file.astype(int) * 1000 + numbered.group
    dealt = [sum(map(len, lane)) for lane in planned]
    assert sum(dealt) == ROWS
    assert dealt == sorted(dealt, reverse=True)
    assert max(dealt) - min(dealt) <= 1
    assert all(len(set(groups[rows])) <= 1 for lane in planned for rows in lane)


def test_no_more_than_two_row_groups_of_a_lane_are_held(numbered, monkeypatch):
    alive, peak = [0], [0]

    class Counted(bytes):
        def __new__(cls, value):
            alive[0] += 1
            peak[0] = max(peak[0], alive[0])
            return super().__new__(cls, value)

        def __del__(self):
            alive[0] -= 1

    read = Reader.read
    monkeypatch.setattr(Reader, "read", lambda self, rows: [Counted(data) for data in read(self, rows)])
    monkeypatch.setattr("pfs_core.data.stream.LANES", 5)
    epoch(streamed(numbered, workers=0))
    assert 5 * GROUP < peak[0] <= 2 * 5 * GROUP + 1
    peak[0] = 0
    list(streamed(numbered, workers=0).in_order(50))
    assert peak[0] <= 2 * GROUP + 1


def read_in_an_epoch(images, monkeypatch):
    """The row groups that are read from their files in an epoch."""
    read, groups = Reader._read_row_group, []

    def counting(self, file, group):
        groups.append((file, group))
        return read(self, file, group)

    monkeypatch.setattr(Reader, "_read_row_group", counting)
    epoch(images)
    return groups


def test_a_row_group_is_read_once_an_epoch_unless_two_lanes_share_it(numbered, monkeypatch):
    groups = read_in_an_epoch(streamed(numbered, workers=0), monkeypatch)
    assert set(groups) == {*zip(numbered.file, numbered.group, strict=True)}
    assert len(groups) <= len(set(groups)) + LANES - 1


def test_a_single_row_group_is_read_once_for_all_lanes(tmp_path, monkeypatch):
    write(tmp_path / "train.parquet", map(number, range(100)), range(100), map(str, range(100)))
    assert read_in_an_epoch(streamed(open_source(str(tmp_path)), workers=0), monkeypatch) == [(0, 0)]


def test_files_are_read_many_at_once(noise, monkeypatch):
    read, counts = Reader.read, []
    monkeypatch.setattr(Reader, "read", lambda self, rows: counts.append(len(rows)) or read(self, rows))
    monkeypatch.setattr("pfs_core.data.stream.LANES", 2)
    epoch(streamed(noise, workers=0))
    assert sorted(counts) == [6, 29, 35]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("bad", [b"<html>", b"", None])
def test_a_bad_image_is_named_in_one_line(tmp_path, workers, bad):
    encoded = [encode(picture(i)) for i in range(30)]
    encoded[23] = bad
    write(tmp_path / "train.parquet", encoded, [0, 1] * 15, row_group_size=4)
    images = streamed(open_source(str(tmp_path)), workers=workers)
    for use in (lambda: epoch(images), lambda: list(images.in_order(7))):
        with pytest.raises(UserError) as error:
            use()
        assert str(error.value).startswith(f"{tmp_path}/train.parquet, row 23: the image ")
        assert str(error.value).endswith("split.on_bad=skip leaves such images out")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_changes_during_an_epoch_is_refused(tmp_path, workers):
    write(tmp_path / "train.parquet", [encode(picture(i)) for i in range(30)], [0, 1] * 15, row_group_size=4)
    images = streamed(open_source(str(tmp_path)), workers=workers)
    write(tmp_path / "train.parquet", [encode(picture(i)) for i in range(31)], [0, 1] * 15 + [0], row_group_size=4)
    with pytest.raises(UserError, match=r"train.parquet has changed since it was listed; split the dataset again"):
        epoch(images)


@pytest.mark.parametrize("size", [(30, 25), (25, 30), (8, 64)])
def test_evaluation_crops_the_centre(size):
    image = picture(3, size)
    side = min(size) * 7 / 8
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    expected = image.resize((8, 8), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    found = Crop((8, 8), 3, (0.08, 1.0)).evaluation(encode(image))
    assert (found.permute(1, 2, 0).numpy() == np.array(expected)).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_decoded_small_looks_like_one_decoded_whole(mode, channels):
    whole = picture(5, (20, 16)).resize((640, 500), Image.Resampling.BICUBIC).convert(mode)
    data = encode(whole, "JPEG")
    decoded = Image.open(io.BytesIO(data)).convert("L" if channels == 1 else "RGB")
    left, top, side = (640 - 437.5) / 2, (500 - 437.5) / 2, 437.5
    expected = decoded.resize((32, 32), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    found = Crop((32, 32), channels, (0.08, 1.0)).evaluation(data).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(found - np.array(expected).reshape(32, 32, channels)).mean() < 6


def test_training_crops_lie_within_the_asked_share_of_the_image():
    side = np.arange(200, dtype=np.uint8)
    ramp = np.stack(np.broadcast_arrays(side[:, None], side[None], 0), axis=-1).astype(np.uint8)
    data, crop = encode(Image.fromarray(ramp)), Crop((50, 50), 3, (0.25, 0.5))
    for seed in range(30):
        torch.manual_seed(seed)
        found = crop.training(data).int()
        height, width = ((found[c, -1, -1] - found[c, 0, 0]).item() * 50 / 49 for c in (0, 1))
        assert 0.22 < height * width / 200**2 < 0.55
        assert 0.7 < height / width < 1.4
