"""Images that stay where they are: read a few row groups at a time, decoded and cropped in worker processes."""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pfs_core.data.augment import random_flip
from pfs_core.data.crop import Crop
from pfs_core.data.dataset import Source
from pfs_core.data.decode import BadImageError
from pfs_core.data.formats.tree import GROUP
from pfs_core.data.reading import Reader, row_groups
from pfs_core.errors import UserError

WINDOW = 8
"""Row groups that are shuffled together; what a worker holds in memory."""


def plan(source: Source, rows: np.ndarray, slots: int, seed: int) -> list[list[np.ndarray]]:
    """For each slot (a worker of a rank) the windows of rows that it reads, one after the other.

    Row groups are shuffled and dealt out in equal shares of rows, then the rows of every window of ``WINDOW`` groups
    are shuffled; where every image is a file, all rows are shuffled. Every row is in exactly one slot.
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
    cuts = _cuts(len(order), slots)
    dealt: list[list[np.ndarray]] = []
    for start, stop in itertools.pairwise(cuts):
        borders = [start, *starts[(starts > start) & (starts < stop)][WINDOW - 1 :: WINDOW].tolist(), stop]
        dealt.append([random.permutation(order[a:b]) for a, b in itertools.pairwise(borders)])
    return dealt


def _cuts(count: int, slots: int) -> list[int]:
    """Where the shares of ``slots`` begin and end."""
    return [round(count * slot / slots) for slot in range(slots + 1)]


class Streamed:
    """Images of a part of a split, read from their source.

    Args:
        source: the dataset; a file that is no longer what it was is refused.
        rows: int64 [N], the rows of the part.
        crop: how images become pixels.
        flip: whether to mirror training images at random.
        device: where batches go.
        workers: processes that read and decode.
        rank: which of ``world`` processes this is; each reads its own rows.
        world: processes that train together.
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
    ) -> None:
        self.source = source
        self.rows = np.sort(rows)
        self.crop = crop
        self.flip = flip
        self.device = device
        self.workers = min(8, _cores()) if workers is None else workers
        self.rank = rank
        self.world = world
        self.labels = torch.from_numpy(source.labels[self.rows]).to(device)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "labels"}  # a worker needs no device

    def __len__(self) -> int:
        return len(self.rows)

    def steps(self, size: int) -> int:
        """Batches of this rank's rows, as many as of any other's; every worker's last one may be smaller."""
        return sum(self._batches(size))

    def epoch(self, size: int, generator: torch.Generator, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled batches of random crops, without the first ``skip``."""
        seed = int(torch.randint(2**62, (1,), generator=generator))
        given, turn = _turns(self._batches(size), skip)
        loaded = self._loaded(_Training(self, size, seed, given, turn))
        for number, (images, labels) in enumerate(loaded, skip):
            flips = torch.Generator().manual_seed(hash((seed, number)))
            yield random_flip(images, flips) if self.flip else images, labels

    def in_order(self, size: int) -> Iterator[Tensor]:
        """Centre crops."""
        for images, _ in self._loaded(_Evaluation(self, size)):
            yield images

    def _batches(self, size: int) -> list[int]:
        """Batches that each worker of this rank makes."""
        return [len(borders) - 1 for borders in self.borders(size)]

    def borders(self, size: int) -> list[list[int]]:
        """Where the batches begin and end among the rows of each of this rank's workers.

        All shares make as many batches, though one may have a row more than another.
        """
        workers = max(1, self.workers)
        counts = np.diff(_cuts(len(self), self.world * workers)).tolist()
        return [
            _borders(count, min(counts), max(1, size // self.world))
            for count in counts[self.rank * workers : (self.rank + 1) * workers]
        ]

    def _loaded(self, dataset: IterableDataset) -> Iterator[tuple[Tensor, Tensor]]:
        pinned = self.device.type == "cuda"
        unused = torch.Generator()  # else the loader would draw from the global one
        loader = DataLoader(dataset, batch_size=None, num_workers=self.workers, pin_memory=pinned, generator=unused)
        for images, labels, fault in loader:
            if fault:
                raise UserError(fault)
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _turns(batches: list[int], skip: int) -> tuple[list[int], int]:
    """How many batches each worker has given when ``skip`` have been taken from them in turn, and whose turn it is."""
    given, worker = [0] * len(batches), 0
    for _ in range(min(skip, sum(batches))):
        while given[worker] == batches[worker]:
            worker = (worker + 1) % len(batches)
        given[worker] += 1
        worker = (worker + 1) % len(batches)
    return given, worker


def _borders(count: int, least: int, size: int) -> list[int]:
    """Where batches of ``count`` rows begin and end: as many as ``least`` rows need, the last with all that are left.

    A last batch of a single row joins the one before it.
    """
    full, rest = divmod(least or count, size)
    batches = max(min(1, count), full + (rest > 1))
    return [*(size * batch for batch in range(batches)), count]


class _Training(IterableDataset):
    """Random crops of this rank's rows: a tuple (images, labels, fault) a batch."""

    def __init__(self, images: Streamed, size: int, seed: int, given: list[int], turn: int) -> None:
        self.images = images
        self.size = size
        self.seed = seed
        self.given = given
        self.turn = turn

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, str]]:
        worker, workers = _worker()
        images = self.images
        worker = (worker + self.turn) % workers
        slot = images.rank * workers + worker
        windows = plan(images.source, images.rows, images.world * workers, self.seed)[slot]
        borders = images.borders(self.size)[worker]
        first = self.given[worker]
        rows = _read_ahead(images.source, windows, skip=borders[first])
        for batch in range(first, len(borders) - 1):
            count = borders[batch + 1] - borders[batch]
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(hash((self.seed, slot, batch)))
                made = _stacked(images, itertools.islice(rows, count), images.crop.training)
            yield made


class _Evaluation(IterableDataset):
    """Centre crops in the order of the rows; every worker takes its turn at a batch."""

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
            yield _stacked(images, itertools.islice(rows, len(batch)), images.crop.evaluation)


def _worker() -> tuple[int, int]:
    info = get_worker_info()
    if info is None:
        return 0, 1
    torch.set_num_threads(1)
    return info.id, info.num_workers


def _read_ahead(
    source: Source, windows: Sequence[np.ndarray], skip: int = 0
) -> Iterator[tuple[int, bytes | None] | UserError]:
    """The rows of the windows with their bytes, but for the first ``skip``; the next window is read meanwhile."""
    ends = np.cumsum([len(window) for window in windows])
    left = [window[max(0, skip - end + len(window)) :] for window, end in zip(windows, ends, strict=True) if end > skip]
    reader = Reader(source)

    def read(window: np.ndarray) -> dict[int, bytes | None]:
        return {
            row: data
            for rows in row_groups(source, window)
            for row, data in zip(rows.tolist(), reader.read(rows), strict=True)
        }

    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(read, window) for window in left[:1]]
        for i, window in enumerate(left):
            try:
                found = coming.pop().result()
            except UserError as e:
                yield e
                return
            coming += [pool.submit(read, following) for following in left[i + 1 : i + 2]]
            for row in window.tolist():
                yield row, found[row]


def _stacked(
    images: Streamed, rows: Iterator[tuple[int, bytes | None] | UserError], crop: Callable[[bytes | None], Tensor]
) -> tuple[Tensor, Tensor, str]:
    """A batch; or what is wrong, as text, since an exception would come out of a worker as a page of traceback."""
    pixels_, labels = [], []
    for item in rows:
        if isinstance(item, UserError):
            return torch.empty(0), torch.empty(0), str(item)
        row, data = item
        try:
            pixels_.append(crop(data))
        except BadImageError as e:
            place = images.source.place(row)
            return torch.empty(0), torch.empty(0), f"{place}: {e}; split.on_bad=skip leaves such images out"
        labels.append(int(images.source.labels[row]))
    return torch.stack(pixels_), torch.tensor(labels), ""
