"""Images that stay in the files of the dataset: worker processes read a few row groups at a time, decode and crop.

An epoch follows a plan, which is computed from the seed alone. Its rows have *places*, and a batch is so many places in
a row. Place after place belongs to one process after the other, and of those of a process to one of its ``LANES`` after
the other; a lane reads its row groups one at a time. Workers, however many there are, have equally many lanes each.
Every process and every worker computes the same plan, so that together they read each row once without talking to each
other, and a resumed epoch can skip to any batch.
"""

import itertools
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from pfs_core.data.balance import balanced_rows
from pfs_core.data.crop import Crop
from pfs_core.data.dataset import Source
from pfs_core.data.decode import BadImageError
from pfs_core.data.image_augmentation import ImageAugmentation
from pfs_core.data.images import batch_borders
from pfs_core.data.reading import FILES, Reader, bad_image, read_together, row_groups
from pfs_core.errors import UserError
from pfs_core.runtime.device import core_count
from pfs_core.runtime.seeded import seed_again, seeded

LANES = 24
"""Row groups that a batch takes its rows from, in each process. Each lane holds one in memory and reads the next one
meanwhile. The number can be divided among 1, 2, 3, 4, 6, 8 or 12 workers."""
_WORKERS = 12
_SHARES_AHEAD = 4
"""Batches of which each worker makes its share ahead: all have to be ready for the next one."""

Row = tuple[int, bytes | None]
"""A row with the bytes of its image."""


def plan(source: Source, rows: np.ndarray, lanes: int, seed: int) -> list[list[np.ndarray]]:
    """Plan which rows each lane of all processes reads in an epoch, in which order.

    Row groups are shuffled and dealt out in equal shares of rows; a group on the border of two shares is divided. Then
    the rows of every group are shuffled. Rows are not shuffled across the whole dataset, since a row group is read as a
    whole. Where every image is a file, they are.

    Args:
        source: the dataset.
        rows: int64 [N], the rows of the part of the split.
        lanes: number of lanes of all processes.
        seed: the seed of the epoch.

    Returns:
        The row groups of each lane, in the order in which it reads them; every row is in exactly one of them, or in as
        many as it is repeated in ``rows``.
    """
    random = np.random.default_rng(seed)
    if source.kind == "tree":
        rows = random.permutation(rows)
        groups = np.split(rows, range(FILES, len(rows), FILES))
    else:
        groups = row_groups(source, rows)
        groups = [groups[i] for i in random.permutation(len(groups))]
    order = np.concatenate(groups)
    starts = np.cumsum([0, *map(len, groups)])
    ends = np.cumsum([0, *(_places(lane, len(order), lanes) for lane in range(lanes))]).tolist()
    groups_of_lanes: list[list[np.ndarray]] = []
    for start, stop in itertools.pairwise(ends):
        borders = [start, *starts[(starts > start) & (starts < stop)].tolist(), stop]
        groups_of_lanes.append([random.permutation(order[a:b]) for a, b in itertools.pairwise(borders)])
    return groups_of_lanes


def _places(first: int, stop: int, step: int) -> int:
    """Return how many of the places before ``stop`` are every ``step``-th one from ``first`` on.

    >>> [_places(lane, 10, 4) for lane in range(4)]
    [3, 3, 2, 2]
    """
    return len(range(first, stop, step))


def _dividing(workers: int) -> int:
    """Return the most workers, but no more than ``workers``, that can have equally many lanes.

    >>> [_dividing(workers) for workers in (0, 1, 3, 5, 8)]
    [0, 1, 3, 4, 8]
    """
    return max((number for number in range(1, workers + 1) if LANES % number == 0), default=0)


class Streamed:
    """Images of a part of a split that are read from the files of the dataset in every epoch.

    It is an implementation of :class:`pfs_core.data.images.Images`.

    Args:
        source: the dataset; reading a file that has changed since the split was made is an error.
        rows: int64 [N], the rows of the part.
        crop: how images become pixels.
        flip: whether to mirror training images at random.
        device: the device that batches go to.
        workers: processes that read and decode, as far as they can have equally many lanes; None for one per core, at
            most 12.
        rank: the rank of this process among those that train together.
        world: how many processes train together.
        augment: changes training images after the crop; None if nothing does.
        balanced: whether an epoch has equally many images of every class (:func:`balanced_rows`).
    """

    def __init__(
        self,
        source: Source,
        rows: np.ndarray,
        crop: Crop,
        flip: bool,
        device: torch.device,
        workers: int | None = None,
        rank: int = 0,
        world: int = 1,
        augment: ImageAugmentation | None = None,
        balanced: bool = False,
    ) -> None:
        self.source = source
        self.rows = np.sort(rows)
        self.crop = crop
        self.shape = (crop.channels, *crop.size)
        self.flip = flip
        self.device = device
        self.workers = _dividing(min(_WORKERS, core_count()) if workers is None else workers)
        self.rank = rank
        self.world = world
        self.augment = augment
        self.balanced = balanced
        self.labels = torch.from_numpy(source.labels[self.rows]).to(device)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "labels"}  # a worker needs no device

    def __len__(self) -> int:
        return len(self.rows)

    def steps(self, size: int) -> int:
        """Return the number of batches of an epoch, which is the same in every process."""
        return len(batch_borders(len(self), size, self.world)) - 1

    def epoch(self, size: int, generator: torch.Generator, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield random crops as :meth:`pfs_core.data.images.Images.epoch` does."""
        seed = int(torch.randint(2**62, (1,), generator=generator))
        borders = batch_borders(len(self), size, self.world)[skip:]
        borders = [_places(self.rank, border, self.world) for border in borders]
        shares = self._loaded(_Training(self, borders, seed), _SHARES_AHEAD)
        batches = zip(*[shares] * max(1, self.workers), strict=True)
        for first, batch in zip(borders, batches, strict=False):
            images, labels = (_joined(parts, first) for parts in zip(*batch, strict=True))
            yield images, labels

    def rows_of_epoch(self, seed: int) -> np.ndarray:
        """Return the rows of an epoch, int64 [N]; where it is balanced, some of them are repeated."""
        rows: np.ndarray = self.rows
        if self.balanced:
            rows = rows[balanced_rows(self.source.labels[rows], seed)]
        return rows

    def training_image(self, data: bytes | None) -> Tensor:
        """Return an encoded image as training has it; draws from torch's global generator.

        Raises:
            BadImageError: the image is missing or cannot be decoded.
        """
        image = self.crop.training(data)
        if self.flip and torch.rand(()) < 0.5:
            image = image.flip(-1)
        return self.augment(image) if self.augment else image

    def in_order(self, size: int) -> Iterator[Tensor]:
        """Yield images as evaluation has them, as :meth:`pfs_core.data.images.Images.in_order` does."""
        for images, _ in self._loaded(_Evaluation(self, size)):
            yield images

    def _loaded(self, dataset: "IterableDataset[Any]", ahead: int = 2) -> Iterator[tuple[Tensor, Tensor]]:
        """Run a dataset in worker processes, and bring to the device what they yield in turn.

        Args:
            dataset: yields tuples (images, labels, fault).
            ahead: how many of them each worker makes ahead.

        Raises:
            UserError: a worker reports a fault.
        """
        pinned = self.device.type == "cuda"
        # The loader draws a seed for its workers. From the global generator, it would change what dropout draws.
        unused = torch.Generator()
        loader = DataLoader(
            dataset,
            batch_size=None,
            num_workers=self.workers,
            prefetch_factor=ahead if self.workers else None,
            pin_memory=pinned,
            generator=unused,
            worker_init_fn=_end_quietly,
        )
        for images, labels, fault in loader:
            if fault:
                raise UserError(fault)
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)


def _end_quietly(worker: int) -> None:
    """Let SIGTERM end a worker as if its work were done.

    It reaches all processes of a step. One that it kills would be an error of the training, which could not write its
    last checkpoint.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))


def _joined(shares: Sequence[Tensor], first: int) -> Tensor:
    """Put together a batch whose places are in the shares of one worker after the other.

    Args:
        shares: the rows of each worker.
        first: the first place of the batch.
    """
    if len(shares) == 1:
        return shares[0]
    longest = max(shares, key=len)
    batch = longest.new_empty(sum(map(len, shares)), *longest.shape[1:])
    for worker, share in enumerate(shares):
        if len(share):
            batch[(worker - first) % len(shares) :: len(shares)] = share
    return batch


class _Training(IterableDataset[Any]):
    """Each worker's shares of the batches of this process, random crops, as tuples (images, labels, fault).

    Args:
        images: the images.
        borders: the places, among those of this process, at which batches begin and end.
        seed: the seed of the epoch.
    """

    def __init__(self, images: Streamed, borders: list[int], seed: int) -> None:
        self.images = images
        self.borders = borders
        self.seed = seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, str]]:
        worker, workers = _worker()
        images = self.images
        lanes = plan(images.source, images.rows_of_epoch(self.seed), images.world * LANES, self.seed)
        lanes = lanes[images.rank :: images.world]
        done = self.borders[0] if self.borders else 0
        reader = Reader(images.source)
        with ThreadPoolExecutor(1) as pool:
            rows = {
                lane: _read_ahead(reader, pool, lanes[lane], skip=_places(lane, done, LANES))
                for lane in range(worker, LANES, workers)
            }
            for start, stop in itertools.pairwise(self.borders):
                places = range(start + (worker - start) % workers, stop, workers)
                with seeded(self.seed):
                    batch = _batch(images, (self._crop(rows, place) for place in places))
                yield batch

    def _crop(self, rows: Mapping[int, Iterator[Row]], place: int) -> tuple[int, Tensor]:
        """Return the row at a place, and a crop of it that depends on no other."""
        row = next(rows[place % LANES])
        seed_again(self.seed, self.images.rank, place)
        return _cropped(self.images, row, self.images.training_image)


class _Evaluation(IterableDataset[Any]):
    """Batches of centre crops in the order of the rows, as tuples (images, labels, fault).

    Args:
        images: the images.
        size: rows per batch.
    """

    def __init__(self, images: Streamed, size: int) -> None:
        self.images = images
        self.size = size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, str]]:
        worker, workers = _worker()
        images = self.images
        batches = np.split(images.rows, range(self.size, len(images.rows), self.size))
        batches = batches[images.rank :: images.world][worker::workers]
        groups = [group for rows in batches for group in read_together(images.source, rows)]
        with ThreadPoolExecutor(1) as pool:
            rows = _read_ahead(Reader(images.source), pool, groups)
            for batch in batches:
                some = itertools.islice(rows, len(batch))
                yield _batch(images, (_cropped(images, row, images.crop.evaluation) for row in some))


def _worker() -> tuple[int, int]:
    """Return the number of this worker, and how many there are."""
    info = get_worker_info()
    if info is None:
        return 0, 1
    torch.set_num_threads(1)  # there is a worker per core already
    return info.id, info.num_workers


def _read_ahead(reader: Reader, pool: Executor, groups: Sequence[np.ndarray], skip: int = 0) -> Iterator[Row]:
    """Return an iterator over the rows of row groups with their bytes, which reads the next group in the meantime.

    The first one is read from now on.

    Args:
        reader: reads them.
        pool: runs the reading.
        groups: the rows of one row group after the other, in the order in which they are wanted.
        skip: number of rows to leave out at the start.

    Raises:
        UserError: a group cannot be read; the iterator raises it.
    """
    ends = np.cumsum([len(group) for group in groups])
    remaining = [
        group[max(0, skip - end + len(group)) :] for group, end in zip(groups, ends, strict=True) if end > skip
    ]

    def read(group: np.ndarray) -> dict[int, bytes | None]:
        rows = np.unique(group)
        return dict(zip(rows.tolist(), reader.read(rows), strict=True))

    reading = [pool.submit(read, group) for group in remaining[:1]]

    def rows() -> Iterator[Row]:
        for i, group in enumerate(remaining):
            data = reading.pop().result()
            reading.extend(pool.submit(read, following) for following in remaining[i + 1 : i + 2])
            for row in group.tolist():
                yield row, data[row]

    return rows()


def _cropped(images: Streamed, row: Row, crop: Callable[[bytes | None], Tensor]) -> tuple[int, Tensor]:
    """Return the number of a row and its crop; UserError if its image cannot be used."""
    number, data = row
    try:
        return number, crop(data)
    except BadImageError as e:
        raise bad_image(images.source, number, str(e)) from None


def _batch(images: Streamed, crops: Iterable[tuple[int, Tensor]]) -> tuple[Tensor, Tensor, str]:
    """Make a batch of rows and their crops.

    Returns:
        The images, the labels and an empty text. Where an image cannot be read or used, two empty tensors and the
        reason: an exception would come out of a worker process as a page of traceback.
    """
    try:
        made = list(crops)
    except UserError as e:
        return torch.empty(0), torch.empty(0), str(e)
    if not made:
        return torch.empty(0), torch.empty(0), ""
    labels = images.source.labels[[row for row, _ in made]]
    # In a worker this stacks them in memory that the main process shares.
    return default_collate([crop for _, crop in made]), torch.from_numpy(labels), ""
