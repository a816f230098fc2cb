"""Crops of one size from encoded images of any size."""

import math
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pfs_core.data.decode import Picture, pixels

CENTRE = 7 / 8
"""Side of the square in the centre, as a share of the shorter side: 224 pixels of 256, as is usual for ImageNet."""


class Crop:
    """Turns an encoded image into uint8 [channels, size, size]: by a random crop in training, else by the centre.

    Args:
        size: height and width of the result.
        channels: 1 for grey, 3 for RGB.
        scale: smallest and largest area of a random crop, as a share of its image.
        background: the colour behind transparent pixels.
    """

    def __init__(self, size: int, channels: int, scale: tuple[float, float], background: str = "white") -> None:
        self.size = size
        self.channels = channels
        self.scale = scale
        self.background = background

    @cached_property
    def random(self) -> Any:
        """Transform that draws the boxes of random crops."""
        from torchvision.transforms import v2  # here, as it is slow to import and only training needs it

        return v2.RandomResizedCrop(self.size, self.scale)

    def training(self, data: bytes | None) -> Tensor:
        """Return a crop of random area, aspect ratio and position, drawn from torch's global generator.

        Raises:
            BadImageError: the image is missing or cannot be decoded.
        """
        picture = Picture(data, self.background)
        width, height = picture.size
        box = self.random.make_params([torch.empty(1, height, width, device="meta")])
        return self._resized(picture, (box["left"], box["top"], box["width"], box["height"]))

    def evaluation(self, data: bytes | None) -> Tensor:
        """Return the square in the centre whose side is ``CENTRE`` of the shorter side of the image.

        Raises:
            BadImageError: the image is missing or cannot be decoded.
        """
        picture = Picture(data, self.background)
        width, height = picture.size
        side = min(width, height) * CENTRE
        return self._resized(picture, ((width - side) / 2, (height - side) / 2, side, side))

    def _resized(self, picture: Picture, box: tuple[float, float, float, float]) -> Tensor:
        """Return a part of an image, given as left, top, width and height in pixels, resized to the crop's size."""
        left, top, width, height = box
        shrink = min(width, height) / self.size
        before = picture.size[0]
        # This asks for the smallest scale at which the part has at least the pixels of the crop.
        picture.draft(math.ceil(before / shrink), math.ceil(picture.size[1] / shrink))
        ratio = picture.size[0] / before
        right = min((left + width) * ratio, picture.size[0])
        bottom = min((top + height) * ratio, picture.size[1])
        area = (left * ratio, top * ratio, right, bottom)
        image = picture.load(self.channels)
        return pixels(image.resize((self.size, self.size), Image.Resampling.BILINEAR, area))
