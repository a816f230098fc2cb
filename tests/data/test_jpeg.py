"""A JPEG gives the pixels that Pillow gives, whichever of the two libraries decodes it."""

import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pfs_core.data.crop import Crop
from pfs_core.data.decode import BadImageError, Picture, decode
from pfs_core.data.jpeg import Jpeg, may_be_turned
from tests.data.test_pixels import saved

SIDES = st.integers(1, 90)


def noisy(width, height, mode):
    """Coarse and fine noise, as a photograph has."""
    random = np.random.default_rng(width * 100 + height)
    coarse = random.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    fine = random.integers(-20, 20, (height, width, 3))
    return Image.fromarray((coarse[:height, :width] + fine).clip(0, 255).astype(np.uint8)).convert(mode)


def by_pillow(data, channels, wanted):
    image = Image.open(io.BytesIO(data))
    image.draft(image.mode, wanted)
    image = image.convert("L" if (channels or (1 if image.mode == "L" else 3)) == 1 else "RGB")
    return torch.from_numpy(np.array(image)).view(image.height, image.width, -1).permute(2, 0, 1)


@given(
    size=st.tuples(SIDES, SIDES),
    mode=st.sampled_from(["L", "RGB", "CMYK"]),
    channels=st.sampled_from([None, 1, 3]),
    wanted=st.tuples(SIDES, SIDES),
    options=st.fixed_dictionaries(
        {
            "quality": st.integers(10, 100),
            "subsampling": st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
            "progressive": st.booleans(),
            "optimize": st.booleans(),
        }
    ),
    keep_rgb=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_any_jpeg_has_the_pixels_of_pillow(size, mode, channels, wanted, options, keep_rgb):
    if mode == "RGB" and keep_rgb:
        options = {**options, "keep_rgb": True, "subsampling": "4:4:4"}
    data = saved(noisy(*size, mode), "JPEG", **options)
    picture = Picture(data)
    assert picture.size == size
    picture.draft(*wanted)
    found, expected = picture.pixels(channels), by_pillow(data, channels, wanted)
    assert picture.size == (expected.shape[2], expected.shape[1])
    assert torch.equal(found, expected)


def test_simplejpeg_decodes_them():
    """Or else the test above says nothing."""
    grey, colours = (Jpeg(saved(noisy(40, 30, mode), "JPEG")) for mode in ("L", "RGB"))
    assert grey.pixels(None).shape == grey.pixels(1).shape == (1, 30, 40)
    assert grey.pixels(3).shape == colours.pixels(None).shape == colours.pixels(3).shape == (3, 30, 40)
    assert colours.pixels(1) is None


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_damaged_one_is_judged_by_pillow(mode):
    """Cut anywhere, or with a byte changed, it is refused if Pillow refuses it and looks as in Pillow if not."""
    data = saved(noisy(24, 20, mode), "JPEG", quality=60)
    random = np.random.default_rng(0)
    damaged = [data[:end] for end in range(1, len(data), 7)]
    for _ in range(300):
        bad = bytearray(data)
        bad[random.integers(len(bad))] = random.integers(256)
        damaged.append(bytes(bad))
    for bad in damaged:
        try:
            expected = by_pillow(bad, 3, (1000, 1000))
        except Exception:
            with pytest.raises(BadImageError):
                decode(bad, 3)
        else:
            assert torch.equal(decode(bad, 3), expected)


def test_one_of_too_many_pixels_is_left_to_pillow(monkeypatch):
    data = saved(noisy(40, 30, "RGB"), "JPEG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(ValueError, match="too many pixels"):
        Jpeg(data)
    with warnings.catch_warnings(), pytest.raises(BadImageError, match="exceeds limit of 1000 pixels"):
        warnings.simplefilter("ignore")
        decode(data)


def test_what_may_turn_an_image_is_seen_anywhere_in_the_file():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(noisy(40, 30, "RGB"), "JPEG", exif=exif, comment=b"x" * 60_000)
    assert may_be_turned(data)
    assert Picture(data).size == (30, 40)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    by_xmp = saved(noisy(40, 30, "RGB"), "JPEG", xmp=xmp)
    assert may_be_turned(by_xmp)
    assert Picture(by_xmp).size == (30, 40)
    assert not may_be_turned(saved(noisy(40, 30, "RGB"), "JPEG"))


@pytest.mark.parametrize("size", [(60, 50), (700, 500)])
def test_a_training_crop_is_that_of_pillow_or_a_level_beside_it(size):
    """At a draft's scale too: 500 pixels are decoded at a quarter for crops of 24."""
    data, crop = saved(noisy(*size, "RGB"), "JPEG"), Crop((24, 24), 3, (0.5, 1.0))
    for seed in range(20):
        torch.manual_seed(seed)
        found = crop.training(data)
        torch.manual_seed(seed)
        box = crop.random.make_params([torch.empty(1, *size[::-1])])
        image = Image.open(io.BytesIO(data))
        scale = min(box["width"], box["height"]) // 24
        image.draft("RGB", (size[0] // scale, size[1] // scale))
        ratio = image.width / size[0]
        left, top = round(box["left"] * ratio), round(box["top"] * ratio)
        right, bottom = round((box["left"] + box["width"]) * ratio), round((box["top"] + box["height"]) * ratio)
        part = image.crop((left, top, min(right, image.width), min(bottom, image.height)))
        expected = np.array(part.resize((24, 24), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(found.permute(1, 2, 0).numpy() - expected).max() <= 1
