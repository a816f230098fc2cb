"""Images of any size as inputs of one size, which may be a rectangle: by crops, or squashed as a whole."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from pfs_core.config.stages import SplitConfig
from pfs_core.data import load_split, split_dataset
from pfs_core.data.crop import Crop, Squash, centre_box
from pfs_core.errors import UserError
from tests.data.folders import encode, picture, tree

PATHS = [f"{name}/{i:02}.png" for name in ("cat", "dog") for i in range(20)]


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (224, (224, 224)),
        (224.0, (224, 224)),
        ("224", (224, 224)),
        ("160x128", (160, 128)),
        ("160X128", (160, 128)),
        ([160, 128], (160, 128)),
        ("64x64", (64, 64)),
        (None, None),
    ],
)
def test_a_size_is_a_side_or_height_and_width(given, size):
    config = SplitConfig.parse({"image_size": given}, "split")
    assert config.input_size == size
    assert SplitConfig.parse(config.model_dump(mode="json"), "split") == config


def test_a_square_is_recorded_as_its_side():
    assert SplitConfig.parse({"image_size": "64x64"}, "split").model_dump()["image_size"] == 64


@pytest.mark.parametrize(
    "size", [True, 7, 1025, 0, -8, "7x32", "32x1025", "32x", "x", "", "32x32x3", [], [32, None], 9.5]
)
def test_another_size_is_refused_in_a_line(size):
    with pytest.raises(
        UserError, match=r"^split.image_size: must (be a side in pixels|have sides of 8 to 1024)"
    ) as error:
        SplitConfig.parse({"image_size": size}, "split")
    assert "\n" not in str(error.value)


# An image of one level per column and row shows what part of it a result is.
def ramp(width, height):
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return encode(Image.fromarray(np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8)))


@pytest.mark.parametrize(
    ("image", "size", "box"),
    [
        ((160, 120), (24, 32), (10, 7.5, 140, 105)),  # the aspect ratio of the image
        ((240, 120), (24, 32), (50, 7.5, 140, 105)),  # wider
        ((160, 240), (24, 32), (10, 67.5, 140, 105)),  # higher
        ((200, 80), (16, 16), (65, 5, 70, 70)),
    ],
)
def test_evaluation_takes_the_centre_of_the_aspect_ratio(image, size, box):
    assert centre_box(*image, size) == box
    found = Crop(size, 3).evaluation(ramp(*image)).double()
    assert found.shape == (3, *size)
    left, top, width, height = box
    # The mean of a column is the level in its middle, a column of the image being its number + 1/2 from the left.
    columns = left + (torch.arange(size[1]) + 0.5) * width / size[1] - 0.5
    rows = top + (torch.arange(size[0]) + 0.5) * height / size[0] - 0.5
    assert (found[0] - columns).abs().max() < 1
    assert (found[1] - rows.view(-1, 1)).abs().max() < 1


def test_the_aspect_ratios_of_random_crops_are_around_that_of_the_input():
    data, crop = ramp(250, 250), Crop((40, 80), 3, (0.2, 0.4))
    aspects = []
    for seed in range(60):
        torch.manual_seed(seed)
        found = crop.training(data).int()
        width = (found[0, 0, -1] - found[0, 0, 0]).item() * 80 / 79
        height = (found[1, -1, 0] - found[1, 0, 0]).item() * 40 / 39
        assert 0.18 < width * height / 250**2 < 0.43
        aspects.append(width / height)
    assert 1.4 < min(aspects) < 1.6 < 2.5 < max(aspects) < 2.8


@pytest.mark.parametrize("size", [(16, 16), (12, 30)])
def test_squashing_takes_the_whole_image_in_training_too(size):
    image = picture(3, (40, 25))
    expected = torch.from_numpy(np.array(image.resize(size[::-1], Image.Resampling.BILINEAR))).permute(2, 0, 1)
    squash = Squash(size, 3)
    assert torch.equal(squash.evaluation(encode(image)), expected)
    assert torch.equal(squash.training(encode(image)), expected)


def test_a_large_jpeg_is_decoded_with_enough_pixels_for_both_sides():
    whole = picture(5, (20, 16)).resize((640, 480), Image.Resampling.BICUBIC)
    data = encode(whole, "JPEG")
    decoded = Image.open(io.BytesIO(data))
    for size in ((32, 300), (300, 32)):
        expected = np.array(decoded.resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
        found = Squash(size, 3).evaluation(data).permute(1, 2, 0).numpy().astype(int)
        assert np.abs(found - expected).mean() < 3


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_a_split_of_rectangles(tmp_path, resize):
    root = tree(tmp_path / "tree", *PATHS, size=(40, 30))
    info = split_dataset(str(root), tmp_path / "split", SplitConfig(image_size=(24, 16), resize=resize))
    assert info.input_shape == (3, 24, 16)
    assert info.augmentation.crop_scale == ((0.08, 1.0) if resize == "crop" else None)
    data = load_split(tmp_path / "split")
    (images, labels), *_ = data.part("train").epoch(10, torch.Generator().manual_seed(0))
    assert images.shape == (10, 3, 24, 16)
    assert labels.shape == (10,)
    whole = {Squash((24, 16), 3).evaluation(path.read_bytes()).numpy().tobytes() for path in root.rglob("*.png")}
    both_ways = zip(images, images.flip(-1), strict=True)
    uncropped = [any(one.contiguous().numpy().tobytes() in whole for one in pair) for pair in both_ways]
    assert uncropped == [resize == "squash"] * 10
    assert "24x16" in (tmp_path / "split" / "dataset.html").read_text()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"resize": "squash"}, "split.resize: squash needs a size: set split.image_size, such as 224 or 160x128"),
        (
            {"resize": "squash", "image_size": 32, "crop_scale": [0.5, 1]},
            "split.crop_scale: scales crops, and split.resize=squash makes none; leave one of the two out",
        ),
        ({"resize": "pad", "image_size": 32}, "split.resize: must be crop or squash"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, line):
    with pytest.raises(UserError) as error:
        SplitConfig.parse(settings, "split")
    assert str(error.value).startswith(line)
