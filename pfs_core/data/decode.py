"""Encoded images to pixels."""

import contextlib
import io
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor


class BadImageError(ValueError):
    """Why an image cannot be used."""


def open_image(data: bytes | None) -> Image.Image:
    """An image whose size is known and whose pixels are not decoded yet.

    Raises:
        BadImageError: it is empty, of no known format or of more than 8 bits a channel.
    """
    if not data:
        raise BadImageError("the image is empty")
    with _named():
        image = Image.open(io.BytesIO(data))
    if image.mode.startswith(("I", "F")):
        raise BadImageError("the image cannot be decoded (it has more than 8 bits a channel)")
    return image


def load(image: Image.Image, channels: int | None = None) -> Image.Image:
    """The decoded image, grey or RGB: as ``channels`` (1 or 3) asks, or as it is stored; BadImageError if broken."""
    stored = 1 if image.mode in ("1", "L") else 3
    with _named():
        return image.convert("L" if (channels or stored) == 1 else "RGB")


def pixels(image: Image.Image) -> Tensor:
    """uint8 [1, H, W] of a grey image, [3, H, W] of another."""
    array = np.array(image)
    return torch.from_numpy(array).view(*array.shape[:2], -1).permute(2, 0, 1)


def decode(data: bytes | None, channels: int | None = None) -> Tensor:
    """uint8 [C, H, W]; BadImageError if it cannot be decoded."""
    return pixels(load(open_image(data), channels))


@contextlib.contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        reason = "neither PNG nor JPEG" if isinstance(e, UnidentifiedImageError) else str(e)
        raise BadImageError(f"the image cannot be decoded ({reason})") from None
