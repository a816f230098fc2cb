"""Pixels, labels and names come out of Parquet as they went in."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from pfs_core.config.stages import SplitConfig
from pfs_core.data import load_split, split_dataset
from pfs_core.data.open import open_source
from tests.data.folders import decoded, encode, images, png, write


def test_pixels_and_labels_are_exact(tmp_path):
    pixels = images(7)
    write(tmp_path / "train.parquet", [png(image) for image in pixels], [0, 1, 2, 0, 1, 2, 0])
    source = open_source(str(tmp_path))
    assert source.images is None
    assert decoded(tmp_path).dtype == torch.uint8
    assert torch.equal(decoded(tmp_path), pixels)
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert source.class_names == ["0", "1", "2"]
    assert not source.is_test.any()


def test_files_are_read_in_name_order_and_rows_counted_in_each(tmp_path):
    pixels = images(5)
    write(tmp_path / "train-1.parquet", [png(image) for image in pixels[3:]], [1, 0])
    write(tmp_path / "train-0.parquet", [png(image) for image in pixels[:3]], [0, 1, 0])
    source = open_source(str(tmp_path))
    assert torch.equal(decoded(tmp_path), pixels)
    assert [entry.path for entry in source.files] == ["train-0.parquet", "train-1.parquet"]
    assert source.file.tolist() == [0, 0, 0, 1, 1]
    assert source.row.tolist() == [0, 1, 2, 0, 1]
    assert source.place(4) == f"{tmp_path}/train-1.parquet, row 1"


@pytest.mark.parametrize("shape", [(1, 6, 5), (3, 6, 5)])
def test_grey_stays_grey(tmp_path, shape):
    pixels = images(2, shape)
    write(tmp_path / "train.parquet", [png(image) for image in pixels], [0, 1])
    assert torch.equal(decoded(tmp_path), pixels)


def test_transparency_is_laid_over_white(tmp_path):
    image = encode(Image.new("RGBA", (5, 6), (10, 20, 30, 128)))
    write(tmp_path / "train.parquet", [image] * 2, [0, 1])
    found = decoded(tmp_path)
    assert found.shape == (2, 3, 6, 5)
    assert found[0, :, 0, 0].tolist() == [132, 137, 142]


def test_palettes_give_their_colours(tmp_path):
    image = Image.new("P", (5, 6), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    write(tmp_path / "train.parquet", [encode(image)] * 2, [0, 1])
    found = decoded(tmp_path)
    assert found.shape == (2, 3, 6, 5)
    assert found[0, :, 0, 0].tolist() == [10, 20, 30]


def test_sixteen_bit_images_are_scaled(tmp_path):
    write(tmp_path / "train.parquet", [encode(Image.new("I;16", (5, 6), 0x80FF))] * 2, [0, 1])
    assert (decoded(tmp_path) == 128).all()


def test_jpeg_is_read(tmp_path):
    image = encode(Image.new("RGB", (16, 16), (90, 90, 90)), "JPEG")
    write(tmp_path / "train.parquet", [image] * 2, [0, 1])
    found = decoded(tmp_path)
    assert found.shape == (2, 3, 16, 16)
    assert (found.int() - 90).abs().max() <= 2


def test_structs_of_bytes_and_path_are_read(tmp_path):
    pixels = images(3)
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": png(image), "path": f"{i}.png"} for i, image in enumerate(pixels)]
    write(tmp_path / "train.parquet", rows, [0, 1, 0], image_type=struct)
    assert torch.equal(decoded(tmp_path), pixels)


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint8(), pa.int32(), pa.int64()])
def test_labels_of_any_integer_type_are_read(tmp_path, kind):
    write(tmp_path / "train.parquet", [png(image) for image in images(3)], [0, 1, 2], label_type=kind)
    labels = open_source(str(tmp_path)).labels
    assert labels.tolist() == [0, 1, 2]
    assert labels.dtype == np.int64


@pytest.mark.parametrize(
    "kind",
    [pa.float16(), pa.float32(), pa.float64(), pa.decimal128(9, 2), pa.bool_(), pa.dictionary(pa.int8(), pa.float64())],
)
def test_whole_numbers_are_labels_however_they_are_stored(tmp_path, kind):
    value = getattr(kind, "value_type", kind)
    labels = pa.array([0, 1, 1, 0], pa.int8()).cast(value)
    write(
        tmp_path / "train.parquet",
        [png(image) for image in images(4)],
        labels.cast(kind) if value == kind else labels.dictionary_encode(),
    )
    source = open_source(str(tmp_path))
    assert source.labels.tolist() == [0, 1, 1, 0]
    assert list(source.class_names) == ["0", "1"]


def test_classes_are_named_by_the_schema(tmp_path):
    write(tmp_path / "train.parquet", [png(image) for image in images(2)], [0, 1], classes=["cat", "dog", "frog"])
    assert open_source(str(tmp_path)).class_names == ["cat", "dog", "frog"]


def test_files_named_test_are_the_test_set(tmp_path):
    pixels = images(30)
    write(tmp_path / "train.parquet", [png(image) for image in pixels[:26]], [0, 1] * 13)
    write(tmp_path / "test-0.parquet", [png(image) for image in pixels[26:]], [1, 0, 1, 0])
    info = split_dataset(str(tmp_path), tmp_path / "split", SplitConfig(max_validation_fraction=0.5))
    test = load_split(tmp_path / "split").part("test")
    assert info.test_is_given
    assert info.rows == {"train": 13, "validation": 13, "test": 4}
    assert torch.equal(test.images, pixels[26:])
    assert test.labels.tolist() == [1, 0, 1, 0]
    assert info.augmentation.flip


@pytest.mark.parametrize("flip", [True, False])
def test_mirroring_is_a_setting(tmp_path, flip):
    write(tmp_path / "train.parquet", [png(image) for image in images(40)], [0, 1] * 20)
    info = split_dataset(str(tmp_path), tmp_path / "split", SplitConfig(flip=flip))
    assert info.augmentation.flip == flip


def test_the_fingerprint_is_of_the_content(tmp_path):
    prints = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "train.parquet", [png(image) for image in images(2, seed=seed)], [0, 1])
        prints.append(open_source(str(tmp_path / name)).fingerprint)
    assert prints[0] == prints[1] != prints[2]
