"""Pixels from encoded images."""

import contextlib
import io
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor


class BadImageError(ValueError):
    """An image cannot be used; the message says why."""


def open_image(data: bytes | None) -> Image.Image:
    """Open an image without decoding its pixels; its size is known afterwards.

    Raises:
        BadImageError: it is empty, of no known format or has more than 8 bits per channel.
    """
    if not data:
        raise BadImageError("the image is empty")
    with _bad_image_errors():
        image = Image.open(io.BytesIO(data))
    if image.mode.startswith(("I", "F")):
        raise BadImageError("the image cannot be decoded (it has more than 8 bits a channel)")
    return image


def load(image: Image.Image, channels: int | None = None) -> Image.Image:
    """Decode an image.

    Args:
        image: an opened image.
        channels: 1 for grey, 3 for RGB; None keeps grey images grey and converts all others to RGB.

    Raises:
        BadImageError: the image is broken.
    """
    stored = 1 if image.mode in ("1", "L") else 3
    with _bad_image_errors():
        return image.convert("L" if (channels or stored) == 1 else "RGB")


def pixels(image: Image.Image) -> Tensor:
    """Return the pixels of a grey image as uint8 [1, H, W], those of an RGB image as uint8 [3, H, W]."""
    array = np.array(image)
    return torch.from_numpy(array).view(*array.shape[:2], -1).permute(2, 0, 1)


def decode(data: bytes | None, channels: int | None = None) -> Tensor:
    """Decode an image to uint8 [C, H, W].

    Args:
        data: the bytes of the image.
        channels: as for :func:`load`.

    Raises:
        BadImageError: it cannot be decoded.
    """
    return pixels(load(open_image(data), channels))


@contextlib.contextmanager
def _bad_image_errors() -> Iterator[None]:
    """Turn the exceptions of Pillow into BadImageError."""
    try:
        yield
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        reason = "neither PNG nor JPEG" if isinstance(e, UnidentifiedImageError) else str(e)
        raise BadImageError(f"the image cannot be decoded ({reason})") from None
