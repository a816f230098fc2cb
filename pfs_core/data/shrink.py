"""Pictures that are larger than a training needs, encoded once at the size that it does."""

import io

from PIL import Image

from pfs_core.data.decode import BadImageError, Picture, as_image


def shrink(data: bytes | None, side: int, quality: int, background: str = "white") -> bytes | None:
    """Encode an image anew, as a JPEG whose shorter side has ``side`` pixels; a smaller one stays as it is.

    The longer side follows in proportion. It is upright then, has 8 bits a channel and no transparency. What cannot be
    decoded stays as it is too, for the split to name.

    Args:
        data: the bytes of the image.
        side: the pixels of the shorter side.
        quality: of the JPEG, 1 to 95.
        background: the colour behind transparent pixels.
    """
    try:
        picture = Picture(data, background)
        width, height = picture.size
        if min(width, height) <= side:
            return data
        scale = side / min(width, height)
        size = (max(side, round(width * scale)), max(side, round(height * scale)))
        picture.draft(*size)
        image = as_image(picture.pixels())
    except BadImageError:
        return data
    out = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(out, "JPEG", quality=quality)
    return out.getvalue()
