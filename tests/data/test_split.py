"""Every row is in exactly one part, by a choice that the seed repeats."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sklearn.datasets
import torch

from pfs_core.config.stages import SplitConfig
from pfs_core.data import load_split, split_dataset
from pfs_core.data.open import open_source
from pfs_core.data.split_info import PARTS
from pfs_core.errors import UserError
from pfs_core.storage.artifacts import read_json, write_json


def test_sizes_of_the_digits(digits):
    info = read_json(digits / "split.json")
    assert info["rows"] == {"train": 1294, "validation": 144, "test": 359}
    assert info["input_shape"] == [1, 8, 8]
    assert info["class_names"] == list("0123456789")
    assert info["augmentation"] == {"crop_padding": 1, "flip": False}
    assert not info["test_is_given"]


def test_every_digit_is_in_exactly_one_part(digits, digits_data):
    table = pq.read_table(digits / "split.parquet")
    assert table.column_names == ["file", "row_group", "row", "label", "split"]
    assert table.column("row").to_pylist() == list(range(1797))
    assert set(table.column("split").to_pylist()) == set(PARTS)
    whole = open_source("digits")
    parts = np.array(table.column("split").to_pylist())
    for part in PARTS:
        images = digits_data.part(part)
        assert torch.equal(images.images, whole.images[torch.from_numpy(parts == part)])
        assert images.labels.tolist() == whole.labels[parts == part].tolist()


def test_the_index_is_of_plain_columns_however_it_is_written(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("pfs_core.data.split._WRITTEN", 100)
    split_dataset("digits", tmp_path / "split")
    table = pq.read_table(tmp_path / "split" / "split.parquet")
    assert table.schema.types == [pa.string(), pa.int32(), pa.int64(), pa.int64(), pa.string()]
    assert table == pq.read_table(digits / "split.parquet")
    assert pq.ParquetFile(tmp_path / "split" / "split.parquet").num_row_groups == 18


def test_digits_are_scikit_learns():
    whole, bunch = open_source("digits"), sklearn.datasets.load_digits()
    assert whole.images.shape == (1797, 1, 8, 8)
    assert whole.images.dtype == torch.uint8
    assert np.abs(whole.images[:, 0].numpy() - bunch.images * 255 / 16).max() <= 0.5
    assert whole.labels.tolist() == bunch.target.tolist()


def test_counts_a_class_add_up(digits, digits_data):
    info = read_json(digits / "split.json")
    for part in PARTS:
        assert info["rows_per_class"][part] == digits_data.part(part).labels.bincount(minlength=10).tolist()


def test_the_choice_is_that_of_the_first_release(digits):
    expected = "6c8f6c98611342f94d881243443c348c79dd421ba507d8a2dbb4156b1a4a567c"
    assert read_json(digits / "split.json")["fingerprint"] == expected


def test_the_same_seed_gives_the_same_bytes(digits, tmp_path):
    split_dataset("digits", tmp_path / "again", seed=0)
    for name in ("split.parquet", "files.parquet", "split.json", "images.safetensors", "dataset.html"):
        assert (tmp_path / "again" / name).read_bytes() == (digits / name).read_bytes()


def test_another_seed_gives_another_split(digits, tmp_path):
    split_dataset("digits", tmp_path / "other", seed=1)
    first, other = (pq.read_table(f / "split.parquet").column("split") for f in (digits, tmp_path / "other"))
    assert first != other
    assert read_json(tmp_path / "other" / "split.json")["rows"] == read_json(digits / "split.json")["rows"]


def test_statistics_are_of_the_training_rows(digits, digits_data):
    info = read_json(digits / "split.json")
    assert info["mean"] == pytest.approx([digits_data.part("train").images.double().mean().item()])


def test_grey_becomes_colour_where_that_is_asked_for(digits_data, tmp_path):
    info = split_dataset("digits", tmp_path / "split", SplitConfig(channels=3))
    assert info.input_shape == (3, 8, 8)
    assert torch.equal(load_split(tmp_path / "split").images, digits_data.images.expand(-1, 3, -1, -1))


def test_small_images_are_not_cropped(tmp_path):
    with pytest.raises(UserError, match=r"split.image_size: digits is a set of small images"):
        split_dataset("digits", tmp_path / "split", SplitConfig(image_size=32))


def test_a_split_of_an_older_release_is_refused(digits, tmp_path):
    shutil.copytree(digits, tmp_path / "split")
    write_json(tmp_path / "split" / "split.json", {**read_json(digits / "split.json"), "schema": "pfs.split/1"})
    with pytest.raises(UserError, match=r"has schema 'pfs.split/1'; expected 'pfs.split/2'; split again"):
        load_split(tmp_path / "split")


def test_parts_are_read_as_one(digits_data):
    one, two, both = (digits_data.part(*names) for names in (["train"], ["validation"], ["train", "validation"]))
    assert (len(one), len(two), len(both)) == (1294, 144, 1438)
    assert torch.equal(both.images, torch.cat([one.images, two.images]))
    assert torch.equal(both.labels, torch.cat([one.labels, two.labels]))


def test_what_is_no_split_is_refused(gates, tmp_path):
    for folder in (gates, tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match="pfs split DATASET OUT"):
            load_split(folder)
