"""The images of a part of a split, in batches: the two ways to have them."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from pfs_core.data.augment import random_crop, random_flip


class Images(Protocol):
    """Images of one part of a split (or several), with their labels.

    Where several processes train together, each gets its share of every batch, and all make as many.
    """

    labels: Tensor
    """int64 [N] on the device, of all images."""
    rank: int
    world: int

    def __len__(self) -> int:
        """How many there are."""

    def steps(self, size: int) -> int:
        """How many batches :meth:`epoch` makes."""

    def epoch(self, size: int, generator: torch.Generator, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled, augmented batches of ``size``, every row once: uint8 [n, C, H, W] and int64 [n] on the device.

        The first ``skip`` are left out; the others are what they would be without that.
        """

    def in_order(self, size: int) -> Iterator[Tensor]:
        """Every image once, as it is, in the order of the labels: uint8 [n, C, H, W] on the device.

        Of the batches this process gets those at its rank, and at every ``world`` from there on.
        """


class InMemory:
    """Images that are on the device already; augmented there, a batch at a time.

    Args:
        images: uint8 [N, C, H, W].
        labels: int64 [N].
        crop_padding: pixels that a random crop may move by.
        flip: whether to mirror images at random.
        rank: which of ``world`` processes this is.
        world: processes that train together.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, crop_padding: int, flip: bool, rank: int = 0, world: int = 1
    ) -> None:
        self.images = images
        self.labels = labels
        self.crop_padding = crop_padding
        self.flip = flip
        self.rank = rank
        self.world = world

    def __len__(self) -> int:
        return len(self.labels)

    def steps(self, size: int) -> int:
        """Full batches and the rest, if it is more than one image a process."""
        full, rest = divmod(len(self), size)
        return max(1, full + (rest >= 2 * self.world))

    def epoch(self, size: int, generator: torch.Generator, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The last batch is smaller where ``size`` does not divide the rows.

        A last batch that would leave a process a single row (which BatchNorm cannot train on) joins the one before it.
        """
        order = torch.randperm(len(self), generator=generator).to(self.images.device)
        parts = list(order.split(size))
        if len(parts) > 1 and len(parts[-1]) < 2 * self.world:
            parts[-2:] = [torch.cat(parts[-2:])]
        for number, batch in enumerate(parts):
            first, last = (len(batch) * part // self.world for part in (self.rank, self.rank + 1))
            rows = batch[first:last]
            images = self.images[rows] if number >= skip else torch.empty(len(rows), 1, 1, 1)
            images = random_crop(images, self.crop_padding, generator, first, len(batch))
            if self.flip:
                images = random_flip(images, generator, first, len(batch))
            if number >= skip:
                yield images, self.labels[rows]

    def in_order(self, size: int) -> Iterator[Tensor]:
        """Slices of the images."""
        yield from self.images.split(size)[self.rank :: self.world]
