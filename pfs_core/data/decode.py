"""Pixels from encoded images, as a viewer shows them: upright, 8 bits a channel, over a background.

Pillow reads all formats and judges what is broken. JPEGs are decoded by simplejpeg, to the same pixels in less time.
"""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from PIL import Image, ImageColor, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from pfs_core.data.jpeg import Jpeg, may_be_turned

TURNED, TRANSPARENT, DEEP, ANIMATED = "turned", "transparent", "deep", "animated"
"""What may be remarkable about an image that can be used (:attr:`Picture.remarks`)."""
REMARKS = {
    TURNED: "{count:,} turned upright by their EXIF orientation",
    TRANSPARENT: "{count:,} with transparent pixels, laid over {background}",
    DEEP: "{count:,} scaled from more than 8 bits a channel",
    ANIMATED: "{count:,} of several frames, of which the first is used",
}
"""How so many images with a remark are reported."""

_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "DIB", "PPM", "TIFF", "AVIF", "JPEG2000")
_MOVING = ("GIF", "WEBP", "PNG", "TIFF", "AVIF")
_DEEP = re.compile(r"(?<!BGR);16")  # BGR;16 is 16 bits of all channels together
_ORIENTATION, _PHOTOMETRIC, _SAMPLE_FORMAT = 0x0112, 0x0106, 0x0153
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns of what is odd but can be read, with a line of its own source; what matters here is in the remarks.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


class BadImageError(ValueError):
    """An image cannot be used; the message says why."""


class Picture:
    """An encoded image that is open: its size is known, and its pixels are decoded when they are asked for.

    Args:
        data: the bytes of the image.
        background: the colour behind transparent pixels.

    Attributes:
        remarks: what is remarkable about it; whether it is transparent is known after :meth:`pixels`.

    Raises:
        BadImageError: it is empty, of no known format or broken.
    """

    def __init__(self, data: bytes | None, background: str = "white") -> None:
        if not data:
            paths = " (a table must have the bytes of images, not only their paths)" if data is None else ""
            raise BadImageError(f"the image is empty{paths}")
        self.background = background
        self.remarks: set[str] = set()
        self._data = data
        self._asked: tuple[int, int] | None = None
        self._orientation = 1
        self._image: ImageFile | None = None
        self._jpeg: Jpeg | None = None
        with contextlib.suppress(ValueError):
            self._jpeg = Jpeg(data)
        if self._jpeg is None or may_be_turned(data):
            self._open()

    def _open(self) -> ImageFile:
        """Open the image with Pillow, unless it is, and note what is remarkable about it."""
        if self._image is not None:
            return self._image
        with _bad_image_errors(self._data):
            image = Image.open(io.BytesIO(self._data), formats=_FORMATS)
            if image.format in _MOVING and getattr(image, "is_animated", False):
                self.remarks.add(ANIMATED)
            # Pillow turns levels that count from white around only where they have 8 bits or fewer.
            self._from_white = isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0
            self._levels = 4095 if ";12" in str(image.tile) else 65535
            if _DEEP.search(str(image.tile)) or image.mode.startswith("I;16") or _deep_ppm(image):
                self.remarks.add(DEEP)
            elif image.mode in ("I", "F"):
                raise BadImageError("the image cannot be decoded (it has 32 bits a channel, in no known range)")
            if isinstance(image, TiffImageFile) and 2 in image.tag_v2.get(_SAMPLE_FORMAT, ()):
                raise BadImageError("the image cannot be decoded (its levels are signed, in no known range)")
            self._orientation = _orientation(image)
            if self._orientation in _UPRIGHT:
                self.remarks.add(TURNED)
            if image.format == "TIFF":  # which Pillow turns by itself
                self._orientation = 1
        if self._asked is not None:
            image.draft(image.mode, self._asked)
        self._image = image
        return image

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, upright."""
        width, height = (self._jpeg or self._open()).size
        return (height, width) if self._orientation >= 5 else (width, height)

    def draft(self, width: int, height: int) -> None:
        """Decode a JPEG at 1/2, 1/4 or 1/8 of its size, in a fraction of the time, if that is enough.

        The size becomes the smallest of these that is no smaller than asked for. Other formats stay as they are. It is
        called once at most.
        """
        self._asked = (height, width) if self._orientation >= 5 else (width, height)
        if self._jpeg is not None:
            self._jpeg.draft(*self._asked)
        if self._image is not None:
            self._image.draft(self._image.mode, self._asked)

    def pixels(self, channels: int | None = None) -> Tensor:
        """Decode the pixels.

        Args:
            channels: 1 for grey, 3 for RGB; None keeps grey images grey and converts all others to RGB.

        Returns:
            The upright image, uint8 [channels, height, width]; its bytes lie pixel by pixel.

        Raises:
            BadImageError: the image is broken.
        """
        decoded = self._jpeg.pixels(channels) if self._jpeg is not None else None
        if decoded is None:
            decoded = as_tensor(self._by_pillow(channels))
        turn = _UPRIGHT.get(self._orientation)
        return decoded if turn is None else as_tensor(as_image(decoded).transpose(turn))

    def _by_pillow(self, channels: int | None) -> Image.Image:
        """Decode an image of any format, to RGB or grey."""
        image: Image.Image = self._open()
        with _bad_image_errors():
            image.load()
            if image.mode.startswith("I"):
                image = self._in_8_bits(image)
            stored = 1 if image.mode in ("1", "L") else 3
            image = self._over_background(image)
            mode = "L" if (channels or stored) == 1 else "RGB"
            return image if image.mode == mode else image.convert(mode)  # which would copy all of it

    def _in_8_bits(self, image: Image.Image) -> Image.Image:
        """Scale the levels of a grey image to 0-255."""
        levels = np.asarray(image).astype(np.int64)
        if self._from_white:
            levels = self._levels - levels
        grey = Image.fromarray(((levels * 255 + self._levels // 2) // self._levels).clip(0, 255).astype(np.uint8))
        if isinstance(clear := image.info.get("transparency"), int):
            alpha = Image.fromarray(np.where(levels == clear, 0, 255).astype(np.uint8))
            if clear in levels:
                self.remarks.add(TRANSPARENT)
            canvas = Image.new("L", image.size, _grey(self.background))
            canvas.paste(grey, mask=alpha)
            return canvas
        return grey

    def _over_background(self, image: Image.Image) -> Image.Image:
        """Return an image without transparent pixels."""
        if image.mode not in ("RGBA", "RGBa", "LA", "La", "PA") and "transparency" not in image.info:
            return image
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        if alpha.getextrema()[0] == 255:
            return image
        self.remarks.add(TRANSPARENT)
        canvas = Image.new("RGB", image.size, self.background)
        canvas.paste(rgba.convert("RGB"), mask=alpha)
        return canvas


def as_tensor(image: Image.Image) -> Tensor:
    """Return the pixels of a grey image as uint8 [1, H, W], those of an RGB image as uint8 [3, H, W]."""
    array = np.array(image)
    return torch.from_numpy(array).view(*array.shape[:2], -1).permute(2, 0, 1)


def as_image(pixels: Tensor) -> Image.Image:
    """Return pixels, uint8 [1 or 3, H, W], as a grey or an RGB image."""
    array = pixels.permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if len(pixels) == 1 else array)


def decode(data: bytes | None, channels: int | None = None, background: str = "white") -> Tensor:
    """Decode an image to uint8 [C, H, W].

    Args:
        data: the bytes of the image.
        channels: as for :meth:`Picture.pixels`.
        background: the colour behind transparent pixels.

    Raises:
        BadImageError: it cannot be decoded.
    """
    return Picture(data, background).pixels(channels)


def remarks_on(counts: Mapping[str, int], background: str) -> str:
    """Describe how many images have which remarks.

    >>> remarks_on({"animated": 2, "turned": 1}, "white")
    'images: 1 turned upright by their EXIF orientation, 2 of several frames, of which the first is used'
    """
    texts = [text.format(count=counts[key], background=background) for key, text in REMARKS.items() if counts.get(key)]
    return f"images: {', '.join(texts)}"


def _deep_ppm(image: ImageFile) -> bool:
    """Whether the levels of a PGM or PPM go beyond 255; Pillow scales these to 65535 or 255."""
    most = re.search(r"'ppm'.*, (\d+)\)", str(image.tile))
    return image.format == "PPM" and most is not None and int(most[1]) > 255


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened image, 1 to 8; 1 where there is none that can be understood.

    All but JPEGs are decoded by this, as the orientation may come after the pixels.
    """
    if image.format not in ("JPEG", "MPO", "TIFF"):
        image.load()
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow raises anything on EXIF data that is broken; viewers then show the image as it is
        return 1
    return value if value in _UPRIGHT else 1


def _grey(colour: str) -> int:
    level = ImageColor.getcolor(colour, "L")
    return level if isinstance(level, int) else level[0]


@contextlib.contextmanager
def _bad_image_errors(data: bytes = b"") -> Iterator[None]:
    """Turn the exceptions of Pillow, which may be of any kind for a broken image, into BadImageError."""
    try:
        yield
    except BadImageError:
        raise
    except Exception as e:
        text = str(e).strip() or type(e).__name__
        reason = text.splitlines()[0]
        if isinstance(e, UnidentifiedImageError):
            heic = data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc")
            reason = "HEIC is not read; convert it to JPEG" if heic else "neither PNG nor JPEG"
            if data.startswith(b"version https://git-lfs"):
                reason = "a pointer of Git LFS in place of the file; git lfs pull fetches it"
        raise BadImageError(f"the image cannot be decoded ({reason})") from None
