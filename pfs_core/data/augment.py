"""Normalisation, random crop and flip of a whole batch on the device."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pfs_core.data.split_info import SplitInfo


class Normalise:
    """Normalises images by the mean and standard deviation per channel of the training images.

    Args:
        info: the split, which has mean and standard deviation in units of 0-255.
        device: the device of the images.
        layout: the memory format of the result.
    """

    def __init__(self, info: SplitInfo, device: torch.device, layout: torch.memory_format) -> None:
        self.mean = torch.tensor(info.mean, device=device).view(1, -1, 1, 1)
        self.std = torch.tensor(info.std, device=device).view(1, -1, 1, 1)
        self.layout = layout

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise [N, C, H, W] in units of 0-255, uint8 or mixed to float32, to float32 [N, C, H, W]."""
        values = images.to(torch.float32, copy=True)
        return values.sub_(self.mean).div_(self.std).contiguous(memory_format=self.layout)


def random_crop(
    images: Tensor, padding: int, generator: torch.Generator, first: int = 0, batch_size: int | None = None
) -> Tensor:
    """Pad images with 0 on all sides, and crop each back to its size at its own random position.

    Args:
        images: [N, C, H, W], a batch or one process's share of it.
        padding: pixels on every side, hence the most that a crop may move by.
        generator: draws the positions of the whole batch, so that an image is cropped alike by whichever process.
        first: the position of the first image in the batch.
        batch_size: images in the batch; None if ``images`` is the whole batch.
    """
    n, _, height, width = images.shape
    windows = F.pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
    offsets = torch.randint(2 * padding + 1, (2, batch_size or n), generator=generator)
    top, left = offsets[:, first : first + n].to(images.device)
    return windows[torch.arange(n, device=images.device), :, top, left]


def random_flip(images: Tensor, generator: torch.Generator, first: int = 0, batch_size: int | None = None) -> Tensor:
    """Mirror each image left to right with probability 1/2; the arguments are those of :func:`random_crop`."""
    n = len(images)
    mirrored = torch.rand(batch_size or n, 1, 1, 1, generator=generator)[first : first + n] < 0.5
    return torch.where(mirrored.to(images.device), images.flip(-1), images)
