"""Encoded images to crops of one size."""

import math
from functools import cached_property
from typing import Any

from PIL import Image
from torch import Tensor

from pfs_core.data.decode import load, open_image, pixels


class Crop:
    """How an image becomes uint8 [channels, size, size]: a random crop in training, the centre in evaluation."""

    def __init__(self, size: int, channels: int, scale: tuple[float, float]) -> None:
        self.size = size
        self.channels = channels
        self.scale = scale

    @cached_property
    def random(self) -> Any:
        """Draws the boxes; torchvision is slow and large to import, and a split needs none of them."""
        from torchvision.transforms import v2

        return v2.RandomResizedCrop(self.size, self.scale)

    def training(self, data: bytes | None) -> Tensor:
        """A crop of random area and aspect, from torch's global generator; BadImageError if there is no image."""
        image = open_image(data)
        box = self.random.make_params([image])
        return self._resized(image, (box["left"], box["top"], box["width"], box["height"]))

    def evaluation(self, data: bytes | None) -> Tensor:
        """The centre: the short side is 8/7 of the crop; BadImageError if there is no image."""
        image = open_image(data)
        side = min(image.size) * 7 / 8
        return self._resized(image, ((image.width - side) / 2, (image.height - side) / 2, side, side))

    def _resized(self, image: Image.Image, box: tuple[float, float, float, float]) -> Tensor:
        """A part of an image (left, top, width, height), which a JPEG need not be decoded at full size for."""
        left, top, width, height = box
        shrink = min(width, height) / self.size
        before = image.width
        image.draft(image.mode, (math.ceil(image.width / shrink), math.ceil(image.height / shrink)))
        ratio = image.width / before
        area = (left * ratio, top * ratio, (left + width) * ratio, (top + height) * ratio)
        area = (*area[:2], min(area[2], image.width), min(area[3], image.height))
        return pixels(load(image, self.channels).resize((self.size, self.size), Image.Resampling.BILINEAR, area))
