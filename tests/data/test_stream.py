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
from pfs_core.data.open import open_source
from pfs_core.data.reading import Reader
from pfs_core.data.stream import WINDOW, Streamed, _borders, _cuts, plan
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


def labels(batches):
    return torch.cat([target for _, target in batches]).tolist()


@pytest.mark.parametrize(("world", "workers"), itertools.product([1, 2], [0, 1, 2]))
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


@given(count=st.integers(1, 400), size=st.integers(2, 40), world=st.integers(1, 4), workers=st.integers(1, 3))
def test_all_ranks_make_as_many_batches(count, size, world, workers):
    cuts = np.diff(_cuts(count, world * workers)).tolist()
    borders = [_borders(share, min(cuts), size) for share in cuts]
    for share, each in zip(cuts, borders, strict=True):
        assert each[0] == 0 or share == 0
        assert each[-1] == share
        assert all(b - a >= min(2, share) for a, b in itertools.pairwise(each))
        assert all(b - a <= size + 2 for a, b in itertools.pairwise(each))
    if count >= world * workers:
        assert len({len(each) for each in borders}) == 1


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
    whole = epoch(images)
    assert len(whole) == images.steps(10) >= 7
    for step in range(len(whole) + 2):
        rest = epoch(images, skip=step)
        assert len(rest) == max(0, len(whole) - step)
        for (a, b), (c, d) in zip(rest, whole[step:], strict=True):
            assert torch.equal(a, c)
            assert torch.equal(b, d)


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
    for (a, b), (c, d) in zip(epoch(sent), epoch(images), strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)


def test_a_part_has_as_many_workers_as_cores_it_may_use(noise, monkeypatch):
    for cores, workers in ((1, 1), (2, 2), (64, 8)):
        monkeypatch.setattr("pfs_core.data.stream.core_count", lambda cores=cores: cores)
        assert streamed(noise).workers == workers


def test_a_window_mixes_its_row_groups(numbered):
    (windows,) = plan(numbered, np.arange(ROWS), 1, seed=0)
    groups = numbered.file.astype(int) * 1000 + numbered.group
    for window in windows[:-1]:
        assert len(set(groups[window])) == WINDOW
        assert (np.diff(groups[window]) != 0).sum() > WINDOW


@pytest.mark.parametrize("slots", [1, 3, 8, 200])
def test_slots_have_equal_shares_of_the_rows(numbered, slots):
    dealt = [sum(map(len, windows)) for windows in plan(numbered, np.arange(ROWS), slots, seed=4)]
    assert sum(dealt) == ROWS
    assert max(dealt) - min(dealt) <= 1


def test_no_more_than_two_windows_are_held(numbered, monkeypatch):
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
    epoch(streamed(numbered, workers=0))
    assert WINDOW * GROUP < peak[0] <= 2 * WINDOW * GROUP + 1
    peak[0] = 0
    list(streamed(numbered, workers=0).in_order(50))
    assert peak[0] <= 2 * GROUP + 1


def test_a_row_group_is_read_once_an_epoch(numbered, monkeypatch):
    read, groups = Reader.read, []

    def counting(self, rows):
        groups.append((int(numbered.file[rows[0]]), int(numbered.group[rows[0]])))
        return read(self, rows)

    monkeypatch.setattr(Reader, "read", counting)
    epoch(streamed(numbered, workers=0))
    assert len(groups) == len(set(groups)) == len({*zip(numbered.file, numbered.group, strict=True)})


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
