"""Images of one size from encoded images of any size: by crops, or by squashing the whole image."""

import math
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pfs_core.config.stages import SplitConfig
from pfs_core.data.decode import Picture, as_image, as_tensor

CENTRE = 7 / 8
"""Size of the part in the centre, as a share of the largest one: 224 pixels of 256, as is usual for ImageNet."""

Box = tuple[float, float, float, float]
"""Left and top of a part of an image in pixels, and two more numbers: width and height, or right and bottom."""


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
        drawn = self.random.make_params([torch.empty(1, height, width, device="meta")])
        box = self._draft(picture, (drawn["left"], drawn["top"], drawn["width"], drawn["height"]))
        left, top, right, bottom = map(round, box)
        part = picture.pixels(self.channels)[None, :, top:bottom, left:right]
        # For bytes, torch's kernel gives what Pillow's gives, or a level beside it, in a third of the time.
        return F.interpolate(part, self.size, mode="bilinear", antialias=True)[0]

    def evaluation(self, data: bytes | None) -> Tensor:
        """Return the part in the centre that has the result's aspect ratio and ``CENTRE`` of the largest one's sides.

        Its borders may lie within pixels, and Pillow resizes it, so that whoever uses the network can do the same.

        Raises:
            BadImageError: the image is missing or cannot be decoded.
        """
        picture = Picture(data, self.background)
        return self._resized(picture, centre_box(*picture.size, self.size))

    def _resized(self, picture: Picture, box: Box) -> Tensor:
        """Return a part of an image, resized by Pillow to the size of the result."""
        box = self._draft(picture, box)
        image = as_image(picture.pixels(self.channels))
        return as_tensor(image.resize(self.size[::-1], Image.Resampling.BILINEAR, box))

    def _draft(self, picture: Picture, box: Box) -> Box:
        """Let a JPEG be decoded at the smallest scale at which a part of it has at least the pixels of the result.

        Returns:
            Left, top, right and bottom of that part at this scale.
        """
        left, top, width, height = box
        shrink = min(width / self.size[1], height / self.size[0])
        before = picture.size[0]
        picture.draft(math.ceil(before / shrink), math.ceil(picture.size[1] / shrink))
        ratio = picture.size[0] / before
        right, bottom = min((left + width) * ratio, picture.size[0]), min((top + height) * ratio, picture.size[1])
        return left * ratio, top * ratio, right, bottom


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
