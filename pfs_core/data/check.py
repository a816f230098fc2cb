"""A check of every image of a dataset, to be made before anything is trained on it."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from pfs_core.data.dataset import Source
from pfs_core.data.decode import BadImageError, decode
from pfs_core.data.reading import Reader, row_groups
from pfs_core.data.split_info import CLASSES, EACH
from pfs_core.runtime.progress import TimeLeft

logger = logging.getLogger(__package__)

_SIDE = 192
_THREADS = 8


@dataclass
class Findings:
    """The findings of a check.

    Attributes:
        rows_per_class: ``{part: number of rows of each class}`` for the parts ``train``, ``test`` and, if it is given,
            ``validation``.
        bad: (place, reason) of every image that cannot be decoded.
        sizes: number of images of each (width, height).
        channels: number of images of each number of channels.
        repeated: number of images whose bytes occur more than once in the same part, not counting the first.
        leaked: (place, place) of images that occur in two parts, the training part first, the test part last.
        samples: labels and images, uint8 [C, H, W], for the page; of large images only every n-th pixel.
    """

    rows_per_class: dict[str, list[int]]
    bad: list[tuple[str, str]] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    channels: Counter[int] = field(default_factory=Counter)
    repeated: int = 0
    leaked: list[tuple[str, str]] = field(default_factory=list)
    samples: list[tuple[int, Tensor]] = field(default_factory=list)


def check(source: Source) -> Findings:
    """Decode every image of ``source``, and find those whose bytes occur more than once."""
    classes = len(source.class_names)
    part = source.is_test * 2
    names = {0: "train", 2: "test"}
    if source.is_validation is not None:
        part, names = part + source.is_validation, {0: "train", 1: "validation", 2: "test"}
    findings = Findings(
        {name: np.bincount(source.labels[part == i], minlength=classes).tolist() for i, name in names.items()}
    )
    first_rows: dict[bytes, int] = {}
    samples_of: Counter[int] = Counter()
    for i, digest, image in _decoded(source):
        if isinstance(image, BadImageError):
            findings.bad.append((source.place(i), str(image)))
            continue
        findings.sizes[image.shape[2], image.shape[1]] += 1
        findings.channels[image.shape[0]] += 1
        first = first_rows.setdefault(digest, i)
        if first != i and part[first] == part[i]:
            findings.repeated += 1
        elif first != i:
            one, other = sorted((first, i), key=lambda row: int(part[row]))
            findings.leaked.append((source.place(one), source.place(other)))
        label = int(source.labels[i])
        if label < CLASSES and samples_of[label] < EACH:
            samples_of[label] += 1
            step = max(1, min(image.shape[1:]) // _SIDE)
            findings.samples.append((label, image[:, ::step, ::step].clone()))
    return findings


def _decoded(source: Source) -> Iterator[tuple[int, bytes, Tensor | BadImageError]]:
    """Yield every row with a digest of its bytes, and its image or the reason why it cannot be decoded."""
    if source.images is not None:
        for i, image in enumerate(source.images):
            yield i, hashlib.sha256(image.numpy().tobytes()).digest(), image
        return

    def decoded_row(i: int, data: bytes | None) -> tuple[int, bytes, Tensor | BadImageError]:
        digest = hashlib.sha256(data or b"").digest()
        try:
            return i, digest, decode(data)
        except BadImageError as e:
            return i, digest, e

    reader, groups, time_left = Reader(source), row_groups(source, np.arange(len(source))), TimeLeft()
    with ThreadPoolExecutor(_THREADS) as pool:
        for done, rows in enumerate(groups, 1):
            yield from pool.map(decoded_row, rows.tolist(), reader.read(rows))
            if done % max(1, len(groups) // 20) == 0:
                images = f"{int(rows[-1]) + 1:,}/{len(source):,} images"
                logger.info(f"data check {images}  left {time_left(done, len(groups))}")
