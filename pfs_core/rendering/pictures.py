"""Images as part of a page."""

import base64
import io

from PIL import Image
from torch import Tensor

_SIDE = 96


def png_text(image: Tensor) -> str:
    """Encode an image, uint8 [C, H, W], as a PNG of at most 96 pixels per side, in base64."""
    array = image.permute(1, 2, 0).numpy()
    picture = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    picture.thumbnail((_SIDE, _SIDE))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()
