"""Images that stay in the files of the dataset: worker processes read a few row groups at a time, decode and crop.

An epoch follows a plan, which is computed from the seed alone. Every process and every worker computes the same plan,
so that together they read each row once without talking to each other, and a resumed epoch can skip to any batch.
"""

import itertools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pfs_core.data.augment import random_flip
from pfs_core.data.balance import balanced_rows
from pfs_core.data.crop import Crop
from pfs_core.data.dataset import Source
from pfs_core.data.decode import BadImageError
from pfs_core.data.formats.tree import GROUP
from pfs_core.data.image_augmentation import ImageAugmentation
from pfs_core.data.reading import Reader, row_groups
from pfs_core.errors import UserError
from pfs_core.runtime.device import core_count
from pfs_core.runtime.seeded import seeded

WINDOW = 8
"""Row groups whose rows are shuffled together. A worker holds one window in memory and reads the next one meanwhile."""


def plan(source: Source, rows: np.ndarray, slots: int, seed: int) -> list[list[np.ndarray]]:
    """Plan which rows each slot (one worker of one process) reads in an epoch, in which order.

    Row groups are shuffled and dealt out in equal shares of rows; a group on the border of two shares is divided. Then
    the rows of every ``WINDOW`` groups are shuffled. Rows are not shuffled across the whole dataset, since a row group
    is read as a whole. Where every image is a file, they are.

    Args:
        source: the dataset.
        rows: int64 [N], the rows of the part of the split.
        slots: number of workers of all processes.
        seed: the seed of the epoch.

    Returns:
        The windows of each slot, in the order in which it reads them; every row is in exactly one window, or in as many
        as it is repeated in ``rows``.
    """
    random = np.random.default_rng(seed)
    if source.kind == "tree":
        rows = random.permutation(rows)
        groups = np.split(rows, range(GROUP, len(rows), GROUP))
    else:
        groups = row_groups(source, rows)
        groups = [groups[i] for i in random.permutation(len(groups))]
    order = np.concatenate(groups)
    starts = np.cumsum([0, *map(len, groups)])
    windows_of_slots: list[list[np.ndarray]] = []
    for start, stop in itertools.pairwise(_cuts(len(order), slots)):
        borders = [start, *starts[(starts > start) & (starts < stop)][WINDOW - 1 :: WINDOW].tolist(), stop]
        windows_of_slots.append([random.permutation(order[a:b]) for a, b in itertools.pairwise(borders)])
    return windows_of_slots


def _cuts(count: int, slots: int) -> list[int]:
    """Divide ``count`` rows into ``slots`` shares of equal size, give or take one, and return their borders.

    >>> _cuts(10, 4)
    [0, 2, 5, 8, 10]
    """
    return [round(count * slot / slots) for slot in range(slots + 1)]


class Streamed:
    """Images of a part of a split that are read from the files of the dataset in every epoch.

    It is an implementation of :class:`pfs_core.data.images.Images`.

    Args:
        source: the dataset; reading a file that has changed since the split was made is an error.
        rows: int64 [N], the rows of the part.
        crop: how images become pixels.
        flip: whether to mirror training images at random.
        device: the device that batches go to.
        workers: processes that read and decode; None for one per core, at most 8.
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
        self.flip = flip
        self.device = device
        self.workers = min(8, core_count()) if workers is None else workers
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
        return sum(self._batches(size))

    def epoch(self, size: int, generator: torch.Generator, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield random crops as :meth:`pfs_core.data.images.Images.epoch` does.

        The last batch of every worker may be smaller than the others.
        """
        seed = int(torch.randint(2**62, (1,), generator=generator))
        done, turn = _turns(self._batches(size), skip)
        batches = self._loaded(_Training(self, size, seed, done, turn))
        for number, (images, labels) in enumerate(batches, skip):
            flips = torch.Generator().manual_seed(hash((seed, number)))
            yield random_flip(images, flips) if self.flip else images, labels

    def rows_of_epoch(self, seed: int) -> np.ndarray:
        """Return the rows of an epoch, int64 [N]; where it is balanced, some of them are repeated."""
        rows: np.ndarray = self.rows
        if self.balanced:
            rows = rows[balanced_rows(self.source.labels[rows], seed)]
        return rows

    def training_image(self, data: bytes | None) -> Tensor:
        """Return an encoded image as training has it, but for mirroring; draws from torch's global generator.

        Raises:
            BadImageError: the image is missing or cannot be decoded.
        """
        crop = self.crop.training(data)
        return self.augment(crop) if self.augment else crop

    def in_order(self, size: int) -> Iterator[Tensor]:
        """Yield images as evaluation has them, as :meth:`pfs_core.data.images.Images.in_order` does."""
        for images, _ in self._loaded(_Evaluation(self, size)):
            yield images

    def _batches(self, size: int) -> list[int]:
        """Return the number of batches of each worker of this process."""
        return [len(borders) - 1 for borders in self.borders(size)]

    def borders(self, size: int) -> list[list[int]]:
        """Return where the batches begin and end among the rows of each worker of this process.

        All workers of all processes make the same number of batches, though one may have a row more than another:
        processes that train together must take the same number of steps.
        """
        workers = max(1, self.workers)
        counts = np.diff(_cuts(len(self), self.world * workers)).tolist()
        return [
            _borders(count, min(counts), max(1, size // self.world))
            for count in counts[self.rank * workers : (self.rank + 1) * workers]
        ]

    def _loaded(self, dataset: "IterableDataset[Any]") -> Iterator[tuple[Tensor, Tensor]]:
        """Run a dataset in worker processes and bring its batches to the device.

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


def _turns(batches: list[int], skip: int) -> tuple[list[int], int]:
    """Find where the workers are after the first ``skip`` batches, which the loader takes from them in turn.

    Args:
        batches: number of batches of each worker; one that has made all of its own is passed over.
        skip: number of batches taken.

    Returns:
        The number of batches taken from each worker, and the worker whose turn is next.

    >>> _turns([2, 1, 2], 4)
    ([2, 1, 1], 1)
    """
    done, worker = [0] * len(batches), 0
    for _ in range(min(skip, sum(batches))):
        while done[worker] == batches[worker]:
            worker = (worker + 1) % len(batches)
        done[worker] += 1
        worker = (worker + 1) % len(batches)
    return done, worker


def _borders(count: int, least: int, size: int) -> list[int]:
    """Return where the batches of ``count`` rows begin and end.

    There are as many batches as ``least`` rows need, and the last one has all remaining rows. A last batch of a single
    row, on which BatchNorm cannot train, joins the one before it.

    Args:
        count: the rows of this worker.
        least: the smallest number of rows of any worker.
        size: rows per batch.

    >>> _borders(11, 10, 4), _borders(10, 9, 4)
    ([0, 4, 8, 11], [0, 4, 10])
    """
    full, rest = divmod(least or count, size)
    batches = max(min(1, count), full + (rest > 1))
    return [*(size * batch for batch in range(batches)), count]


class _Training(IterableDataset[Any]):
    """Batches of random crops of this process's rows, as tuples (images, labels, fault).

    Args:
        images: the images.
        size: rows per batch, of all processes together.
        seed: the seed of the epoch.
        done: number of batches of each worker that are skipped.
        turn: the worker whose turn is first.
    """

    def __init__(self, images: Streamed, size: int, seed: int, done: list[int], turn: int) -> None:
        self.images = images
        self.size = size
        self.seed = seed
        self.done = done
        self.turn = turn

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, str]]:
        worker, workers = _worker()
        images = self.images
        # The loader always asks its worker 0 first. In a resumed epoch that one continues for the worker whose turn it
        # is, the next one for the next, and so on.
        worker = (worker + self.turn) % workers
        slot = images.rank * workers + worker
        windows = plan(images.source, images.rows_of_epoch(self.seed), images.world * workers, self.seed)[slot]
        borders = images.borders(self.size)[worker]
        first = self.done[worker]
        rows = _read_ahead(images.source, windows, skip=borders[first])
        for number in range(first, len(borders) - 1):
            count = borders[number + 1] - borders[number]
            # A seed for each batch, so that its crops do not depend on the batches before it.
            with seeded(self.seed, slot, number):
                batch = _batch(images, itertools.islice(rows, count), images.training_image)
            yield batch


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
        rows = _read_ahead(images.source, [group for rows in batches for group in row_groups(images.source, rows)])
        for batch in batches:
            yield _batch(images, itertools.islice(rows, len(batch)), images.crop.evaluation)


def _worker() -> tuple[int, int]:
    """Return the number of this worker, and how many there are."""
    info = get_worker_info()
    if info is None:
        return 0, 1
    torch.set_num_threads(1)  # there is a worker per core already
    return info.id, info.num_workers


def _read_ahead(
    source: Source, windows: Sequence[np.ndarray], skip: int = 0
) -> Iterator[tuple[int, bytes | None] | UserError]:
    """Yield the rows of the windows with their bytes, and read the next window in the meantime.

    Args:
        source: the dataset.
        windows: the rows, in the order in which they are wanted.
        skip: number of rows to leave out at the start.

    Yields:
        A row and its bytes; or, as the last item, the error that stopped the reading.
    """
    ends = np.cumsum([len(window) for window in windows])
    remaining = [
        window[max(0, skip - end + len(window)) :] for window, end in zip(windows, ends, strict=True) if end > skip
    ]
    reader = Reader(source)

    def read(window: np.ndarray) -> dict[int, bytes | None]:
        return {
            row: data
            for rows in row_groups(source, np.unique(window))
            for row, data in zip(rows.tolist(), reader.read(rows), strict=True)
        }

    with ThreadPoolExecutor(1) as pool:
        reading = [pool.submit(read, window) for window in remaining[:1]]
        for i, window in enumerate(remaining):
            try:
                data_of_rows = reading.pop().result()
            except UserError as e:
                yield e
                return
            reading += [pool.submit(read, next_window) for next_window in remaining[i + 1 : i + 2]]
            for row in window.tolist():
                yield row, data_of_rows[row]


def _batch(
    images: Streamed, rows: Iterator[tuple[int, bytes | None] | UserError], crop: Callable[[bytes | None], Tensor]
) -> tuple[Tensor, Tensor, str]:
    """Decode and crop a batch.

    Returns:
        The images, the labels and an empty text. Where an image cannot be used, two empty tensors and the reason:
        an exception would come out of a worker process as a page of traceback.
    """
    crops, labels = [], []
    for item in rows:
        if isinstance(item, UserError):
            return torch.empty(0), torch.empty(0), str(item)
        row, data = item
        try:
            crops.append(crop(data))
        except BadImageError as e:
            place = images.source.place(row)
            return torch.empty(0), torch.empty(0), f"{place}: {e}; split.on_bad=skip leaves such images out"
        labels.append(int(images.source.labels[row]))
    return torch.stack(crops), torch.tensor(labels), ""
