"""Images of one size from encoded images of any size: by crops, or by squashing the whole image."""

import math
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pfs_core.config.stages import SplitConfig
from pfs_core.data.decode import Picture, pixels

CENTRE = 7 / 8
"""Size of the part in the centre, as a share of the largest one: 224 pixels of 256, as is usual for ImageNet."""

Box = tuple[float, float, float, float]
"""Left, top, width and height of a part of an image, in pixels."""


class Crop:
    """Turns an encoded image into uint8 [channels, height, width]: by a random crop in training, else by the centre.

    Args:
        size: height and width of the result.
        channels: 1 for grey, 3 for RGB.
        scale: smallest and largest area of a random crop, as a share of its image.
        background: the colour behind transparent pixels.
    """

    def __init__(
        self, size: tuple[int, int], channels: int, scale: tuple[float, float] = (1.0, 1.0), background: str = "white"
    ) -> None:
        self.size = size
        self.channels = channels
        self.scale = scale
        self.background = background

    @cached_property
    def random(self) -> Any:
        """Transform that draws the boxes of random crops; their aspect ratios are around that of the result."""
        from torchvision.transforms import v2  # here, as it is slow to import and only training needs it

        aspect = self.size[1] / self.size[0]
        return v2.RandomResizedCrop(self.size, self.scale, (3 / 4 * aspect, 4 / 3 * aspect))

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
        """Return the part in the centre that has the result's aspect ratio and ``CENTRE`` of the largest one's sides.

        Raises:
            BadImageError: the image is missing or cannot be decoded.
        """
        picture = Picture(data, self.background)
        return self._resized(picture, centre_box(*picture.size, self.size))

    def _resized(self, picture: Picture, box: Box) -> Tensor:
        """Return a part of an image, resized to the size of the result."""
        left, top, width, height = box
        shrink = min(width / self.size[1], height / self.size[0])
        before = picture.size[0]
        # This asks for the smallest scale at which the part has at least the pixels of the crop.
        picture.draft(math.ceil(before / shrink), math.ceil(picture.size[1] / shrink))
        ratio = picture.size[0] / before
        right = min((left + width) * ratio, picture.size[0])
        bottom = min((top + height) * ratio, picture.size[1])
        area = (left * ratio, top * ratio, right, bottom)
        image = picture.load(self.channels)
        return pixels(image.resize(self.size[::-1], Image.Resampling.BILINEAR, area))


class Squash(Crop):
    """Turns an encoded image into uint8 [channels, height, width] as a whole, its aspect ratio not kept."""

    def training(self, data: bytes | None) -> Tensor:
        """Return the whole image, as in evaluation.

        Raises:
            BadImageError: the image is missing or cannot be decoded.
        """
        return self.evaluation(data)

    def evaluation(self, data: bytes | None) -> Tensor:
        """Return the whole image, resized.

        Raises:
            BadImageError: the image is missing or cannot be decoded.
        """
        picture = Picture(data, self.background)
        return self._resized(picture, (0.0, 0.0, *picture.size))


def centre_box(width: int, height: int, size: tuple[int, int], share: float = CENTRE) -> Box:
    """Return the part in the centre of an image of ``width`` and ``height`` that evaluation takes.

    It has the aspect ratio of ``size``, a height and a width, and ``share`` of the sides of the largest such part.

    >>> centre_box(400, 200, (100, 50), 1.0)
    (150.0, 0.0, 100.0, 200.0)
    """
    rows, columns = size
    wide = width * rows > height * columns
    box_width = (height * columns / rows if wide else width) * share
    box_height = (height if wide else width * rows / columns) * share
    return (width - box_width) / 2, (height - box_height) / 2, box_width, box_height


def crop_for(config: SplitConfig, channels: int) -> Crop:
    """Return what makes images of the size that the configuration asks for."""
    assert config.input_size is not None
    kind = Squash if config.resize == "squash" else Crop
    return kind(config.input_size, channels, config.crop_scale, config.background)
