"""The images of a part of a split, in batches: the two ways to have them."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from pfs_core.data.augment import random_crop, random_flip


class Images(Protocol):
    """Images of one part of a split (or several), with their labels."""

    labels: Tensor
    """int64 [N] on the device, in the order of :meth:`in_order`."""

    def __len__(self) -> int:
        """How many there are."""

    def steps(self, size: int) -> int:
        """How many batches :meth:`epoch` makes."""

    def epoch(self, size: int, generator: torch.Generator, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled, augmented batches, every row once: uint8 [n, C, H, W] and int64 [n] on the device.

        The first ``skip`` are left out; the others are what they would be without that.
        """

    def in_order(self, size: int) -> Iterator[Tensor]:
        """Every image once, as it is: uint8 [n, C, H, W] on the device."""


class InMemory:
    """Images that are on the device already; augmented there, a batch at a time.

    Args:
        images: uint8 [N, C, H, W].
        labels: int64 [N].
        crop_padding: pixels that a random crop may move by.
        flip: whether to mirror images at random.
    """

    def __init__(self, images: Tensor, labels: Tensor, crop_padding: int, flip: bool) -> None:
        self.images = images
        self.labels = labels
        self.crop_padding = crop_padding
        self.flip = flip

    def __len__(self) -> int:
        return len(self.labels)

    def steps(self, size: int) -> int:
        """Full batches and the rest, if it is more than one image."""
        full, rest = divmod(len(self), size)
        return max(1, full + (rest > 1))

    def epoch(self, size: int, generator: torch.Generator, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The last batch is smaller where ``size`` does not divide the rows.

        A last batch of a single row (which BatchNorm cannot train on) joins the one before it.
        """
        order = torch.randperm(len(self), generator=generator).to(self.images.device)
        parts = list(order.split(size))
        if len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2:] = [torch.cat(parts[-2:])]
        for number, rows in enumerate(parts):
            images = self.images[rows] if number >= skip else torch.empty(len(rows), 1, 1, 1)
            batch = random_crop(images, self.crop_padding, generator)
            if self.flip:
                batch = random_flip(batch, generator)
            if number >= skip:
                yield batch, self.labels[rows]

    def in_order(self, size: int) -> Iterator[Tensor]:
        """Slices of the images."""
        yield from self.images.split(size)
