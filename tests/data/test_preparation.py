"""What split.json says of the inputs in evaluation is what the network is tested on."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from pfs_core.config.stages import SplitConfig
from pfs_core.data import load_split, split_dataset
from tests.data.folders import tree


def prepared(path, preparation):
    """An image as the record says, without any code of the loader."""
    image = Image.open(io.BytesIO(path.read_bytes())).convert("RGB" if preparation.channels == 3 else "L")
    size = (preparation.width, preparation.height)
    if preparation.squash:
        image = image.resize(size, Image.Resampling.BILINEAR)
    elif preparation.centre is not None:
        enlarged = min(image.width / size[0], image.height / size[1]) * preparation.centre
        width, height = size[0] * enlarged, size[1] * enlarged
        left, top = (image.width - width) / 2, (image.height - height) / 2
        image = image.resize(size, Image.Resampling.BILINEAR, (left, top, left + width, top + height))
    return torch.from_numpy(np.array(image)).view(preparation.height, preparation.width, -1).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "as they are"),
        ({"image_size": 16}, "the square in the centre with 0.875 of the shorter side, resized to 16x16"),
        ({"image_size": (16, 24)}, "the aspect ratio of 16x24 (height by width) and 0.875 of the largest such part's"),
        ({"image_size": (16, 24), "resize": "squash"}, "the whole image, resized to 16x24 whatever its aspect ratio"),
    ],
)
def test_it_is_enough_to_make_the_inputs(tmp_path, settings, expected):
    root = tree(tmp_path / "tree", *(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(20)))
    info = split_dataset(str(root), tmp_path / "split", SplitConfig(**settings))
    assert expected in info.preparation.words
    written = json.loads((tmp_path / "split" / "split.json").read_text())["preparation"]
    assert ("squash" in written) == ("resize" in settings)
    data = load_split(tmp_path / "split")
    inputs = torch.cat(list(data.part("test").in_order(100)))
    by_hand = {prepared(path, info.preparation).numpy().tobytes() for path in root.rglob("*.png")}
    assert len(inputs) == info.rows["test"]
    assert all(image.numpy().tobytes() in by_hand for image in inputs)
