"""What the training images of a split are as inputs of a network: size, mean and deviation, and some to look at."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pfs_core.config.stages import SplitConfig
from pfs_core.data.choice import TRAIN, first_of_each_class
from pfs_core.data.crop import CENTRE, Crop, crop_for
from pfs_core.data.dataset import Source
from pfs_core.data.decode import BadImageError
from pfs_core.data.reading import Reader, read_together, row_groups
from pfs_core.data.split_info import CLASSES, EACH, Augmentation, Preparation
from pfs_core.errors import UserError

_SAMPLED_GROUPS, _SAMPLED_ROWS = 16, 128
_COUNTED = 128


class Inputs(NamedTuple):
    """What the training images are as inputs of a network.

    Attributes:
        shape: channels, height and width.
        mean: of each channel, in units of 0-255.
        std: the deviation of each channel, in the same units.
        augmentation: how they are changed at random.
        preparation: how an image becomes an input.
        samples: rows of the dataset with their images, uint8 [C, H, W], for the page.
    """

    shape: tuple[int, int, int]
    mean: list[float]
    std: list[float]
    augmentation: Augmentation
    preparation: Preparation
    samples: list[tuple[int, Tensor]]


def inputs_of(source: Source, images: Tensor | None, parts: np.ndarray, config: SplitConfig, seed: int) -> Inputs:
    """Return what the training images are as inputs.

    Args:
        source: the dataset.
        images: all of them, uint8 [N, C, H, W]; None where they are read as they are needed: then mean and deviation
            are those of some, drawn at random.
        parts: the part of each row, as :func:`~pfs_core.data.choice.choose_rows` gives it.
        config: size, channels and augmentation.
        seed: of the draw.

    Raises:
        UserError: an image cannot be decoded.
    """
    flip = source.flip and config.flip
    channels: int
    samples: list[tuple[int, Tensor]] = []
    if images is None:
        channels = config.channels or 3
        crop = crop_for(config, channels)
        height, width = crop.size
        mean, std = pixel_statistics(keeping(samples_of(source, parts, crop, seed), source.labels, samples))
        augmentation = Augmentation(crop_scale=config.crop_scale if config.resize == "crop" else None, flip=flip)
    else:
        _, channels, height, width = images.shape
        training = np.flatnonzero(parts == TRAIN)
        shown = first_of_each_class(source.labels[training], np.full(len(source.class_names), EACH))
        samples = [(i, images[i]) for i in training[np.sort(shown)].tolist()]
        mean, std = pixel_statistics(images[rows] for rows in torch.from_numpy(training).split(_COUNTED))
        augmentation = Augmentation(crop_padding=height // 8, flip=flip)
    preparation = Preparation(
        channels=channels,
        height=height,
        width=width,
        centre=CENTRE if images is None and config.resize == "crop" else None,
        background=config.background,
    )
    if config.resize == "squash":
        preparation = preparation.model_copy(update={"squash": True})
    return Inputs((channels, height, width), mean, std, augmentation, preparation, samples)


def pixel_statistics(images: Iterable[Tensor]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of uint8 [..., C, H, W], in units of 0-255."""
    levels: Tensor | int = 0
    for image in images:
        channels = image.movedim(-3, 0).flatten(1)
        levels = levels + torch.stack([torch.bincount(channel.int(), minlength=256) for channel in channels])
    assert isinstance(levels, Tensor)
    mean, std = [], []
    level = torch.arange(256, dtype=torch.float64)
    for histogram in levels.double():
        count = histogram.sum()
        m = float((histogram * level).sum() / count)
        mean.append(m)
        std.append(max(float(((histogram * (level - m) ** 2).sum() / count).sqrt()), 1e-3))
    return mean, std


def samples_of(source: Source, parts: np.ndarray, crop: Crop, seed: int) -> Iterator[tuple[int, Tensor]]:
    """Yield training rows at random, those of tables from a few row groups, with their images as evaluation has them.

    A row group is read as a whole; files cost the same wherever they are, and neighbours are of one class.
    """
    random = np.random.default_rng(seed)
    training, reader = np.flatnonzero(parts == TRAIN), Reader(source)
    if source.kind == "tree":
        drawn = read_together(source, random.permutation(training)[: _SAMPLED_GROUPS * _SAMPLED_ROWS])
    else:
        groups = row_groups(source, training)
        some = [groups[i] for i in random.permutation(len(groups))[:_SAMPLED_GROUPS]]
        drawn = [random.permutation(group)[:_SAMPLED_ROWS] for group in some]
    for rows in drawn:
        for row, data in zip(rows.tolist(), reader.read(rows), strict=True):
            try:
                yield row, crop.evaluation(data)
            except BadImageError as e:
                raise UserError(f"{source.place(row)}: {e}") from None


def keeping(
    samples: Iterable[tuple[int, Tensor]], labels: np.ndarray, kept: list[tuple[int, Tensor]]
) -> Iterator[Tensor]:
    """The images of ``samples``; those that the page shows are also added to ``kept``."""
    counts: Counter[int] = Counter()
    for row, image in samples:
        label = int(labels[row])
        if counts[label] < EACH and (label in counts or len(counts) < CLASSES):
            counts[label] += 1
            kept.append((row, image))
        yield image
