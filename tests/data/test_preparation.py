"""What split.json says of the inputs in evaluation is what the network is tested on."""

import io

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
    if preparation.centre is not None:
        side = min(image.size) * preparation.centre
        left, top = (image.width - side) / 2, (image.height - side) / 2
        size = (preparation.width, preparation.height)
        image = image.resize(size, Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    return torch.from_numpy(np.array(image)).view(preparation.height, preparation.width, -1).permute(2, 0, 1)


@pytest.mark.parametrize("image_size", [None, 16])
def test_it_is_enough_to_make_the_inputs(tmp_path, image_size):
    root = tree(tmp_path / "tree", *(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(20)))
    info = split_dataset(str(root), tmp_path / "split", SplitConfig(image_size=image_size))
    expected = "as they are" if image_size is None else "0.875 of the shorter side, resized to 16x16"
    assert expected in info.preparation.words
    data = load_split(tmp_path / "split")
    inputs = torch.cat(list(data.part("test").in_order(100)))
    by_hand = {prepared(path, info.preparation).numpy().tobytes() for path in root.rglob("*.png")}
    assert len(inputs) == info.rows["test"]
    assert all(image.numpy().tobytes() in by_hand for image in inputs)
