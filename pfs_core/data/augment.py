"""Normalisation, random crop and flip of a whole batch on the device."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Normalise:
    """uint8 [N, C, H, W] to float32 in a memory format, with the training rows' mean and standard deviation."""

    def __init__(self, info: Mapping[str, Any], device: torch.device, layout: torch.memory_format) -> None:
        self.mean = torch.tensor(info["mean"], device=device).view(1, -1, 1, 1)
        self.std = torch.tensor(info["std"], device=device).view(1, -1, 1, 1)
        self.layout = layout

    def __call__(self, images: Tensor) -> Tensor:
        """Normalised images."""
        return images.float().sub_(self.mean).div_(self.std).contiguous(memory_format=self.layout)


def random_crop(
    images: Tensor, padding: int, generator: torch.Generator, first: int = 0, of: int | None = None
) -> Tensor:
    """Pad with 0 on all sides and cut each image of [N, C, H, W] out at its own random place.

    The images may be a share of a batch, from its image ``first`` on and ``of`` so many: they are cut as in the whole.
    """
    n, _, height, width = images.shape
    windows = F.pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
    offset = torch.randint(2 * padding + 1, (2, of or n), generator=generator)[:, first : first + n].to(images.device)
    return windows[torch.arange(n, device=images.device), :, offset[0], offset[1]]


def random_flip(images: Tensor, generator: torch.Generator, first: int = 0, of: int | None = None) -> Tensor:
    """Mirror each image of [N, C, H, W] left to right with probability 1/2; ``first`` and ``of`` as for a crop."""
    n = len(images)
    mirrored = torch.rand(of or n, 1, 1, 1, generator=generator)[first : first + n] < 0.5
    return torch.where(mirrored.to(images.device), images.flip(-1), images)
