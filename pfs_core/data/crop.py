"""Crops of one size from encoded images of any size."""

import math
from functools import cached_property
from typing import Any

from PIL import Image
from torch import Tensor

from pfs_core.data.decode import load, open_image, pixels


class Crop:
    """Turns an encoded image into uint8 [channels, size, size]: by a random crop in training, else by the centre.

    Args:
        size: height and width of the result.
        channels: 1 for grey, 3 for RGB.
        scale: smallest and largest area of a random crop, as a share of its image.
    """

    def __init__(self, size: int, channels: int, scale: tuple[float, float]) -> None:
        self.size = size
        self.channels = channels
        self.scale = scale

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
        image = open_image(data)
        box = self.random.make_params([image])
        return self._resized(image, (box["left"], box["top"], box["width"], box["height"]))

    def evaluation(self, data: bytes | None) -> Tensor:
        """Return the square in the centre whose side is 7/8 of the shorter side of the image.

        These are the usual proportions of ImageNet: a centre of 224 pixels from a shorter side of 256.

        Raises:
            BadImageError: the image is missing or cannot be decoded.
        """
        image = open_image(data)
        side = min(image.size) * 7 / 8
        return self._resized(image, ((image.width - side) / 2, (image.height - side) / 2, side, side))

    def _resized(self, image: Image.Image, box: tuple[float, float, float, float]) -> Tensor:
        """Return a part of an image, given as left, top, width and height in pixels, resized to the crop's size."""
        left, top, width, height = box
        shrink = min(width, height) / self.size
        before = image.width
        # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, in a fraction of the time. This asks for the smallest
        # of these at which the part has at least the pixels of the crop, and does nothing for other formats.
        image.draft(image.mode, (math.ceil(image.width / shrink), math.ceil(image.height / shrink)))
        ratio = image.width / before
        right = min((left + width) * ratio, image.width)
        bottom = min((top + height) * ratio, image.height)
        area = (left * ratio, top * ratio, right, bottom)
        return pixels(load(image, self.channels).resize((self.size, self.size), Image.Resampling.BILINEAR, area))
