"""The images of a part of a split in batches, and the simple case that they fit in memory."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from pfs_core.data.augment import random_crop, random_flip
from pfs_core.data.balance import balanced_rows
from pfs_core.data.image_augmentation import ImageAugmentation


class Images(Protocol):
    """Images of one or several parts of a split, with their labels.

    Where several processes train together, each gets its share of every batch, and all get equally many batches.
    """

    labels: Tensor
    """The labels of all images, int64 [N] on the device."""
    shape: tuple[int, int, int]
    """Channels, height and width of an image."""
    rank: int
    """The rank of this process among those that train together."""
    world: int
    """How many processes train together."""

    def __len__(self) -> int:
        """Return the number of images."""

    def steps(self, size: int) -> int:
        """Return the number of batches of an epoch with batches of ``size``."""

    def epoch(self, size: int, generator: torch.Generator, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all images once, shuffled and augmented, in batches; as many of every class, if they are balanced.

        Args:
            size: images per batch, of all processes together.
            generator: the source of the order and the augmentation. Its state at the start decides both.
            skip: leave out this many batches; the others are the same as without it, so that a stopped epoch resumes.

        Yields:
            Images, uint8 [n, C, H, W], and labels, int64 [n], on the device.
        """

    def in_order(self, size: int) -> Iterator[Tensor]:
        """Yield this process's share of all images, unaltered and in the order of the labels.

        The share is every ``world``-th batch of ``size`` images, from that of its rank on: uint8 [n, C, H, W] on the
        device.
        """


def batch_borders(count: int, size: int, world: int) -> list[int]:
    """Return where the batches of an epoch begin and end.

    The last one is smaller if ``size`` does not divide the number of images. If it would leave a single image, on which
    BatchNorm cannot train, to some process, it joins the batch before it.

    Args:
        count: the number of images.
        size: images per batch, of all processes together.
        world: how many processes train together.

    >>> batch_borders(10, 4, 1), batch_borders(9, 4, 1)
    ([0, 4, 8, 10], [0, 4, 9])
    """
    full, rest = divmod(count, size)
    batches = max(1, full + (rest >= 2 * world))
    return [*(size * batch for batch in range(batches)), count]


class InMemory:
    """Images that are on the device already, and are augmented there batch by batch.

    Args:
        images: uint8 [N, C, H, W].
        labels: int64 [N].
        crop_padding: the most pixels that a random crop moves by.
        flip: whether to mirror images at random.
        rank: the rank of this process among those that train together.
        world: how many processes train together.
        augment: changes the images after crop and mirroring; None if nothing does.
        balanced: whether an epoch has equally many images of every class (:func:`balanced_rows`).
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        crop_padding: int,
        flip: bool,
        rank: int = 0,
        world: int = 1,
        augment: ImageAugmentation | None = None,
        balanced: bool = False,
    ) -> None:
        self.images = images
        self.shape = (images.shape[1], images.shape[2], images.shape[3])
        self.labels = labels
        self.crop_padding = crop_padding
        self.flip = flip
        self.rank = rank
        self.world = world
        self.augment = augment
        self.balanced = balanced

    def __len__(self) -> int:
        return len(self.labels)

    def steps(self, size: int) -> int:
        """Return the number of batches of an epoch."""
        return len(batch_borders(len(self), size, self.world)) - 1

    def epoch(self, size: int, generator: torch.Generator, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches as :meth:`Images.epoch` does."""
        order = self._order(generator).to(self.images.device)
        for number, batch in enumerate(order.tensor_split(batch_borders(len(self), size, self.world)[1:-1])):
            first = len(batch) * self.rank // self.world
            last = len(batch) * (self.rank + 1) // self.world
            rows = batch[first:last]
            # A skipped batch still draws its augmentation, for the generator to give later batches the same as ever;
            # one pixel per image is enough for that.
            images = self.images[rows] if number >= skip else torch.empty(len(rows), 1, 1, 1)
            images = random_crop(images, self.crop_padding, generator, first, len(batch))
            if self.flip:
                images = random_flip(images, generator, first, len(batch))
            if self.augment:
                seeds = torch.randint(2**62, (len(batch),), generator=generator)[first:last]
                images = self.augment.batch(images, seeds) if number >= skip else images
            if number >= skip:
                yield images, self.labels[rows]

    def _order(self, generator: torch.Generator) -> Tensor:
        """Draw the order of an epoch, int64 [N] on the CPU."""
        if not self.balanced:
            return torch.randperm(len(self), generator=generator)
        seed = int(torch.randint(2**62, (1,), generator=generator))
        return torch.from_numpy(balanced_rows(self.labels.cpu().numpy(), seed))

    def in_order(self, size: int) -> Iterator[Tensor]:
        """Yield slices of the images, as :meth:`Images.in_order` does."""
        yield from self.images.split(size)[self.rank :: self.world]
