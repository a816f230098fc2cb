"""Looking at every image of a dataset before anything is trained on it."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from pfs_core.data.dataset import Source
from pfs_core.data.decode import BadImageError, decode
from pfs_core.data.page import CLASSES, EACH
from pfs_core.data.reading import Reader, row_groups
from pfs_core.runtime.progress import TimeLeft, say

_SIDE = 192
_THREADS = 8


@dataclass
class Findings:
    """What was found.

    Attributes:
        rows_per_class: rows of each class in the training and the test part.
        bad: place and reason of every image that cannot be read.
        sizes: how many images there are of each (width, height).
        channels: how many images there are of each number of channels.
        repeated: images whose bytes occurred before in the same part.
        leaked: (training place, test place) of images that occur in both.
        samples: label and uint8 [C, H, W] of a few images of each of the first classes, every n-th pixel of large ones.
    """

    rows_per_class: dict[str, list[int]]
    bad: list[tuple[str, str]] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    channels: Counter[int] = field(default_factory=Counter)
    repeated: int = 0
    leaked: list[tuple[str, str]] = field(default_factory=list)
    samples: list[tuple[int, Tensor]] = field(default_factory=list)


def check(source: Source) -> Findings:
    """Decode every image of ``source`` and compare them all by their bytes."""
    classes = len(source.class_names)
    parts = {"train": ~source.is_test, "test": source.is_test}
    found = Findings({p: np.bincount(source.labels[rows], minlength=classes).tolist() for p, rows in parts.items()})
    seen: dict[bytes, int] = {}
    taken: Counter[int] = Counter()
    for i, digest, image in _every(source):
        if isinstance(image, BadImageError):
            found.bad.append((source.place(i), str(image)))
            continue
        found.sizes[image.shape[2], image.shape[1]] += 1
        found.channels[image.shape[0]] += 1
        first = seen.setdefault(digest, i)
        if first != i and source.is_test[first] == source.is_test[i]:
            found.repeated += 1
        elif first != i:
            training, test = (i, first) if source.is_test[first] else (first, i)
            found.leaked.append((source.place(training), source.place(test)))
        label = int(source.labels[i])
        if label < CLASSES and taken[label] < EACH:
            taken[label] += 1
            step = max(1, min(image.shape[1:]) // _SIDE)
            found.samples.append((label, image[:, ::step, ::step].clone()))
    return found


def _every(source: Source) -> Iterator[tuple[int, bytes, Tensor | BadImageError]]:
    """Row, digest of its bytes, and its image."""
    if source.images is not None:
        for i, image in enumerate(source.images):
            yield i, hashlib.sha256(image.numpy().tobytes()).digest(), image
        return

    def one(item: tuple[int, bytes | None]) -> tuple[int, bytes, Tensor | BadImageError]:
        i, data = item
        digest = hashlib.sha256(data or b"").digest()
        try:
            return i, digest, decode(data)
        except BadImageError as e:
            return i, digest, e

    reader, groups, left = Reader(source), row_groups(source, np.arange(len(source))), TimeLeft()
    with ThreadPoolExecutor(_THREADS) as pool:
        for done, rows in enumerate(groups, 1):
            yield from pool.map(one, zip(rows.tolist(), reader.read(rows), strict=True))
            if done % max(1, len(groups) // 20) == 0:
                say(f"data check {int(rows[-1]) + 1:,}/{len(source):,} images  left {left(done, len(groups))}")
