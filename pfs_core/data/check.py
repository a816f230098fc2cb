"""A check of every image of a dataset, to be made before anything is trained on it."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pfs_core.config.stages import SplitConfig
from pfs_core.data.choice import choose_rows
from pfs_core.data.dataset import Source
from pfs_core.data.decode import BadImageError, Picture
from pfs_core.data.reading import check_memory, difference, each_image, most_frequent
from pfs_core.data.split_info import CLASSES, EACH
from pfs_core.errors import UserError

_SIDE = 192


@dataclass
class Findings:
    """The findings of a check.

    Attributes:
        rows_per_class: ``{part: number of rows of each class}`` for the parts ``train``, ``test`` and, if it is given,
            ``validation``.
        bad: (place, reason) of every image that cannot be decoded.
        shapes: int64 [N, 3], channels, height and width of each image; 0 if it cannot be decoded.
        sizes: number of images of each (width, height).
        channels: number of images of each number of channels.
        repeated: number of images whose bytes occur more than once in the same part, not counting the first.
        leaked: (place, place) of images that occur in two parts, the training part first, the test part last.
        samples: labels and images, uint8 [C, H, W], for the page; of large images only every n-th pixel.
        remarks: the number of images with each of :data:`pfs_core.data.decode.REMARKS`.
    """

    rows_per_class: dict[str, list[int]]
    shapes: np.ndarray
    bad: list[tuple[str, str]] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    channels: Counter[int] = field(default_factory=Counter)
    repeated: int = 0
    leaked: list[tuple[str, str]] = field(default_factory=list)
    samples: list[tuple[int, Tensor]] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)


def used_rows(source: Source, findings: Findings, config: SplitConfig) -> np.ndarray:
    """Return the rows that the split would use, bool [N]: all, unless ``split.on_bad=skip`` leaves some out."""
    if config.on_bad == "stop":
        return np.ones(len(source), dtype=bool)
    used: np.ndarray = findings.shapes[:, 0] > 0
    if _in_memory(source, config) and used.any():
        alike = findings.shapes[:, 1:] if config.channels else findings.shapes
        used &= (alike == most_frequent(map(tuple, alike[used].tolist()))).all(axis=1)
    return used


def refusals(source: Source, findings: Findings, config: SplitConfig) -> list[str]:
    """Say why the split would refuse the dataset, other than for an image that cannot be decoded; nothing if not."""
    said, used, skip = [], used_rows(source, findings, config), config.on_bad == "skip"
    if _in_memory(source, config):
        if len(findings.sizes) > 1 and not skip:
            said.append("images differ in size; set split.image_size to resize all to one size")
        if len(findings.channels) > 1 and config.channels is None and not skip:
            said.append("images are grey and RGB; set split.channels=3 (or 1 for grey) to read all alike")
        channels = config.channels or findings.shapes[used, 0]
        largest = int((channels * findings.shapes[used, 1] * findings.shapes[used, 2]).max(initial=0))
        said += _refusal(lambda: check_memory(source, largest, skip))
    return said + _refusal(lambda: choose_rows(source, config, 0, used, _reasons(source, findings, used, config)))


def _reasons(source: Source, findings: Findings, used: np.ndarray, config: SplitConfig) -> dict[int, str]:
    """Return why rows are not used: they cannot be decoded, or are not like most."""

    def shape(i: int) -> list[int]:
        channels, height, width = findings.shapes[i].tolist()
        return [config.channels or channels, height, width]

    bad, first = dict(findings.bad), int(np.argmax(used))
    unused = np.flatnonzero(~used).tolist()
    return {i: bad.get(source.place(i)) or difference(shape(i), shape(first), most=True) for i in unused}


def _in_memory(source: Source, config: SplitConfig) -> bool:
    """Whether encoded images are to be kept in memory, where they must be alike."""
    return source.images is None and not config.image_size


def _refusal(action: Callable[[], object]) -> list[str]:
    try:
        action()
    except UserError as e:
        return [str(e)]
    return []


class _Seen(NamedTuple):
    """An image: a digest of its bytes, its shape [C, H, W], few of its pixels and its remarks."""

    digest: bytes
    shape: torch.Size
    small: Tensor
    remarks: set[str]


def check(source: Source) -> Findings:
    """Decode every image of ``source``, and find those whose bytes occur more than once."""
    classes = len(source.class_names)
    part = source.is_test * 2
    names = {0: "train", 2: "test"}
    if source.is_validation is not None:
        part, names = part + source.is_validation, {0: "train", 1: "validation", 2: "test"}
    findings = Findings(
        {name: np.bincount(source.labels[part == i], minlength=classes).tolist() for i, name in names.items()},
        np.zeros((len(source), 3), dtype=np.int64),
    )
    first_rows: dict[bytes, int] = {}
    samples_of: Counter[int] = Counter()
    for i, seen in _seen(source):
        if isinstance(seen, BadImageError):
            findings.bad.append((source.place(i), str(seen)))
            continue
        findings.shapes[i] = seen.shape
        findings.sizes[seen.shape[2], seen.shape[1]] += 1
        findings.channels[seen.shape[0]] += 1
        findings.remarks.update(seen.remarks)
        first = first_rows.setdefault(seen.digest, i)
        if first != i and part[first] == part[i]:
            findings.repeated += 1
        elif first != i:
            one, other = sorted((first, i), key=lambda row: int(part[row]))
            findings.leaked.append((source.place(one), source.place(other)))
        label = int(source.labels[i])
        if label < CLASSES and samples_of[label] < EACH:
            samples_of[label] += 1
            findings.samples.append((label, seen.small))
    return findings


def _seen(source: Source) -> Iterator[tuple[int, _Seen | BadImageError]]:
    """Yield what the check needs to know of every row, or the reason why its image cannot be decoded."""
    if source.images is None:
        yield from each_image(source, _look_at, "data check")
        return
    for i, image in enumerate(source.images):
        yield i, _Seen(hashlib.sha256(image.numpy().tobytes()).digest(), image.shape, _small(image), set())


def _look_at(data: bytes | None) -> _Seen:
    picture = Picture(data)
    image = picture.pixels()
    return _Seen(hashlib.sha256(data or b"").digest(), image.shape, _small(image), picture.remarks)


def _small(image: Tensor) -> Tensor:
    step = max(1, min(image.shape[1:]) // _SIDE)
    return image[:, ::step, ::step].clone()
