"""JPEGs decoded by simplejpeg: the pixels that Pillow gives, in two thirds of its time."""

import contextlib

import simplejpeg
import torch
from PIL import Image
from torch import Tensor

_MARKS = (b"Exif\0\0", b"tiff:Orientation")
"""One of these is in every file whose pixels are turned: the start of EXIF data, or the name that XMP has for it."""
_SPACES = {("Gray", None): "GRAY", ("Gray", 1): "GRAY", ("Gray", 3): "RGB"} | {
    (stored, channels): "RGB" for stored in ("YCbCr", "RGB") for channels in (None, 3)
}
"""What to decode to, by the colours of the file and the channels that are asked for. Of grey from colours, Pillow
rounds otherwise."""


def may_be_turned(data: bytes) -> bool:
    """Return whether a JPEG may say that a viewer should turn it: EXIF data or XMP does, wherever it is in the file."""
    return any(mark in data for mark in _MARKS)


class Jpeg:
    """A JPEG as it is stored, not turned.

    Args:
        data: the bytes of the image.

    Attributes:
        size: width and height in pixels, after :meth:`draft` those of what is decoded.

    Raises:
        ValueError: it is something else, broken, or of as many pixels as Pillow warns of.
    """

    def __init__(self, data: bytes) -> None:
        height, width, self._colours, _ = simplejpeg.decode_jpeg_header(data)
        if width * height > (Image.MAX_IMAGE_PIXELS or 0):
            raise ValueError("too many pixels")
        self.size: tuple[int, int] = (width, height)
        self._data = data

    def draft(self, width: int, height: int) -> None:
        """Decode at 1/2, 1/4 or 1/8 of the size, if that is no smaller than asked for.

        Pillow's JPEGs have the same method.
        """
        possible = min(self.size[0] // width, self.size[1] // height)
        scale = next((scale for scale in (8, 4, 2) if scale <= possible), 1)
        self.size = (-(-self.size[0] // scale), -(-self.size[1] // scale))

    def pixels(self, channels: int | None) -> Tensor | None:
        """Decode to uint8 [channels, height, width].

        Args:
            channels: 1 for grey, 3 for RGB; None for what is stored.

        Returns:
            The pixels, which lie one after the other; None where Pillow has to decode: it is broken in some way, of
            which Pillow may think less, or grey is asked for of colours.
        """
        space = _SPACES.get((self._colours, channels))
        if space is None:
            return None
        width, height = self.size
        with contextlib.suppress(ValueError):
            array = simplejpeg.decode_jpeg(self._data, space, min_height=height, min_width=width)
            return torch.from_numpy(array).permute(2, 0, 1)
        return None
