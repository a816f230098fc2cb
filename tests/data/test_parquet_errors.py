"""A broken dataset is refused in one line that names the file, the row and what was expected."""

import re
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.feather import write_feather

from pfs_core.config.stages import SplitConfig
from pfs_core.data import split_dataset
from pfs_core.data.open import check_dataset, open_source
from pfs_core.errors import UserError
from tests.data.folders import decoded, images, png, write

GOOD = [png(image) for image in images(3)]


def refused(dataset, *messages, call=open_source):
    with pytest.raises(UserError) as error:
        call(str(dataset))
    assert "\n" not in str(error.value)
    for message in messages:
        assert re.search(message, str(error.value)), str(error.value)


def test_an_unknown_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (open_source, check_dataset):
        refused("cifar10", "'cifar10' does not exist", "digits", call=call)


def test_a_missing_folder(tmp_path):
    refused(tmp_path / "missing", "does not exist", "a folder or s3:// prefix of images")


def test_an_empty_folder(tmp_path):
    refused(tmp_path, r"holds no \*.parquet file")
    refused(tmp_path, "is an empty folder", call=check_dataset)


def test_a_file(tmp_path):
    write(tmp_path / "train.parquet", GOOD, [0, 1, 0])
    refused(tmp_path / "train.parquet", "is a file; name the folder")
    (tmp_path / "train.zip").write_bytes(b"PK")
    refused(tmp_path / "train.zip", "is an archive; unpack it, and name the folder")


@pytest.mark.parametrize("uri", ["https://example.com/x", "gs://bucket/x"])
def test_an_address_of_an_unknown_kind(uri):
    for call in (open_source, check_dataset):
        refused(uri, "cannot be read: .*:// is not known", call=call)


def test_test_files_only(tmp_path):
    write(tmp_path / "test.parquet", GOOD, [0, 1, 0])
    refused(tmp_path, "holds test files only")


def test_what_is_no_parquet(tmp_path):
    (tmp_path / "train.parquet").write_text("image,label")
    refused(tmp_path, "train.parquet is not a Parquet file")


def test_a_truncated_file(tmp_path):
    write(tmp_path / "train.parquet", GOOD, [0, 1, 0])
    whole = (tmp_path / "train.parquet").read_bytes()
    (tmp_path / "train.parquet").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path, "train.parquet is not a Parquet file")


@pytest.mark.parametrize(("column", "other"), [("image", "label"), ("label", "image")])
def test_a_missing_column(tmp_path, column, other):
    values = {"image": GOOD, "label": [0, 1, 0]}
    pq.write_table(pa.table({other: values[other], "extra": [1, 2, 3]}), tmp_path / "train.parquet")
    refused(tmp_path, f"train.parquet has no column '{column}'", f"its columns: {other}, extra")


@pytest.mark.parametrize(
    ("label", "fault"),
    [
        (0.5, "row 1: the label is 0.5, which is no whole number"),
        (float("nan"), "row 1: the label is missing"),
        (1e30, r"row 1: the label is 1e\+30, which is no class"),
        (Decimal("0.50"), "row 1: the label is 0.50, which is no whole number"),
    ],
)
def test_labels_that_are_no_whole_numbers(tmp_path, label, fault):
    write(tmp_path / "train.parquet", GOOD, [type(label)(0), label, type(label)(1)])
    refused(tmp_path, fault)


def test_labels_that_are_no_numbers(tmp_path):
    write(tmp_path / "train.parquet", GOOD, [[0], [1], [0]])
    refused(tmp_path, "column 'label' must hold whole numbers or names of classes, not list")


def test_images_that_are_no_bytes(tmp_path):
    write(tmp_path / "train.parquet", [[1, 2], [3], [4]], [0, 1, 0])
    refused(tmp_path, "column 'image' must hold PNG or JPEG bytes")


def test_a_struct_without_bytes(tmp_path):
    write(tmp_path / "train.parquet", [{"bytes": "x", "path": "x"}] * 3, [0, 1, 0])
    refused(tmp_path, "column 'image' must hold PNG or JPEG bytes, not struct")


@pytest.mark.parametrize("name", ["image", "label", "other"])
def test_a_column_that_is_there_twice(tmp_path, name):
    columns = {"image": pa.array(GOOD), "label": pa.array([0, 1, 0]), "other": pa.array([1, 1, 1])}
    table = pa.Table.from_arrays([*columns.values(), columns[name]], [*columns, name])
    pq.write_table(table, tmp_path / "train.parquet")
    refused(tmp_path, f"train.parquet has 2 columns named '{name}'; keep one")


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_images_in_columns_of_two_names(tmp_path, kind):
    save = pq.write_table if kind == "parquet" else write_feather
    save(pa.table({"image": GOOD, "label": [0, 1, 0]}), tmp_path / f"train.{kind}")
    save(pa.table({"img": GOOD, "label": [0, 1, 0]}), tmp_path / f"test.{kind}")
    refused(tmp_path, f"test.{kind} has the images in column 'img', .*train.{kind} in 'image'; set split.image_column")
    save(pa.table({"image": GOOD, "img": GOOD, "label": [0, 1, 0]}), tmp_path / f"train.{kind}")
    refused(tmp_path, f"train.{kind} has several columns of images")


def test_files_at_the_root_and_below(tmp_path):
    for name in ("train.parquet", "held_out/test.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, GOOD, [0, 1, 0])
    refused(tmp_path, r"holds Parquet files in several folders \(\., held_out\); name one of them")


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_a_suffix_in_capitals_is_the_same(tmp_path, kind):
    save = pq.write_table if kind == "parquet" else write_feather
    for name in (f"train.{kind}", f"TEST.{kind.upper()}"):
        save(pa.table({"image": GOOD, "label": [0, 1, 0]}), tmp_path / name)
    assert open_source(str(tmp_path)).is_test.sum() == 3


def test_no_rows(tmp_path):
    write(tmp_path / "train.parquet", [], [], label_type=pa.int64(), image_type=pa.binary())
    refused(tmp_path, "train.parquet holds no rows")


@pytest.mark.parametrize("row", [0, 2])
def test_an_undecodable_image(tmp_path, row):
    encoded = list(GOOD)
    encoded[row] = b"no image at all"
    write(tmp_path / "train.parquet", encoded, [0, 1, 0])
    refused(tmp_path, f"train.parquet, row {row}: the image cannot be decoded", call=decoded)


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("nothing", [b"", None])
def test_an_empty_image(tmp_path, row, nothing):
    encoded = list(GOOD)
    encoded[row] = nothing
    write(tmp_path / "train.parquet", encoded, [0, 1, 0])
    refused(tmp_path, f"train.parquet, row {row}: the image is empty", call=decoded)


def test_a_broken_image_behind_the_first_thousand(tmp_path):
    write(tmp_path / "train.parquet", GOOD[:1] * 1005 + [b"broken"], [0, 1] * 503)
    refused(tmp_path, "train.parquet, row 1005: the image cannot be decoded", call=decoded)


def test_images_of_other_sizes(tmp_path):
    encoded = [*GOOD, png(images(1, (3, 6, 6))[0])]
    write(tmp_path / "train.parquet", encoded, [0, 1, 0, 1])
    refused(tmp_path, "row 3: the image is 3x6x6, the first one 3x6x5", call=decoded)


def test_images_of_another_size_in_a_second_file(tmp_path):
    write(tmp_path / "a.parquet", GOOD, [0, 1, 0])
    write(tmp_path / "b.parquet", [png(image) for image in images(2, (1, 6, 5))], [0, 1])
    refused(tmp_path, "b.parquet, row 0: the image is grey, the first one RGB; set split.channels=3", call=decoded)


def test_a_negative_label(tmp_path):
    write(tmp_path / "train.parquet", GOOD, [0, -1, 1])
    refused(tmp_path, "train.parquet, row 1: label -1 is out of range")


def test_a_missing_label(tmp_path):
    write(tmp_path / "train.parquet", GOOD, [0, 1, None])
    refused(tmp_path, "train.parquet, row 2: the label is missing")


def test_a_label_beyond_the_named_classes(tmp_path):
    write(tmp_path / "train.parquet", GOOD, [0, 1, 2], classes=["cat", "dog"])
    refused(tmp_path, "train.parquet, row 2: label 2 is out of range; 2 classes are named in its schema")


def test_a_test_label_that_training_has_not(tmp_path):
    write(tmp_path / "train.parquet", GOOD, [0, 1, 0])
    write(tmp_path / "test.parquet", GOOD, [0, 1, 3])
    refused(tmp_path, "test.parquet, row 2: label 3 is out of range; 2 classes occur in the training files")


def test_a_gap_in_the_labels(tmp_path):
    write(tmp_path / "train.parquet", GOOD, [0, 1, 3])
    refused(tmp_path, "train.parquet, row 2: label 3 is out of range; 2 classes occur .* without a gap")


def test_a_single_class(tmp_path):
    write(tmp_path / "train.parquet", GOOD, [0, 0, 0])
    refused(tmp_path, "a single class; at least 2 are needed")


def test_classes_that_are_no_list(tmp_path):
    write(tmp_path / "train.parquet", GOOD, [0, 1, 0], classes={"cat": 0})
    refused(tmp_path, "'classes' in the schema metadata must be a JSON list")


def test_a_broken_dataset_leaves_no_split(tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train.parquet", [b"broken"] * 20, [0, 1] * 10)
    for recipe in (SplitConfig(), SplitConfig(image_size=8)):
        with pytest.raises(UserError, match=r"train.parquet, row \d+: the image cannot be decoded"):
            split_dataset(str(tmp_path / "data"), tmp_path / "split", recipe)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
