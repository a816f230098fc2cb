"""Lists of paths and labels beside the images: what they name is read, and nothing else trains."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pfs_core.config.stages import SplitConfig
from pfs_core.data import split_dataset
from pfs_core.data.open import open_source
from pfs_core.errors import UserError
from pfs_core.storage import open_storage
from tests.data.folders import tree

NAMES = [f"{i:03}" for i in range(20)]
CLASSES = ["dog" if i % 3 else "cat" for i in range(20)]


def flat(root, folder="images"):
    return tree(root, *[f"{folder}/{name}.png" for name in NAMES])


def csv(path, header, rows):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


def classes(source):
    return {
        name.rpartition("/")[2][:3]: source.class_names[label]
        for name, label in zip(source.names.to_pylist(), source.labels, strict=True)
    }


PATHS = {
    "whole paths": ("path", "images/{}.png"),
    "names": ("filename", "{}.png"),
    "names without suffix": ("id", "{}"),
    "somebody's own paths": ("file", "C:\\data\\{}.png"),
    "relative paths": ("image", "./images/{}.png"),
}


@pytest.mark.parametrize("where", ["folder", "bucket"])
@pytest.mark.parametrize("form", PATHS)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_list_gives_the_classes(tmp_path, request, form, kind, where):
    if where == "bucket" and form != "names":
        pytest.skip("one form is enough")
    header, path = PATHS[form]
    flat(tmp_path)
    rows = [(path.format(name), label) for name, label in zip(NAMES, CLASSES, strict=True)]
    if kind == "csv":
        csv(tmp_path / "labels.csv", f"{header},label", rows)
    else:
        pq.write_table(pa.table({header: [a for a, _ in rows], "label": [b for _, b in rows]}), tmp_path / "l.parquet")
    uri = str(tmp_path)
    if where == "bucket":
        uri = f"{request.getfixturevalue('bucket')}/set"
        for file in tmp_path.rglob("*.*"):
            open_storage(uri).write(str(file.relative_to(tmp_path)), file)
    source = open_source(uri)
    assert source.class_names == ["cat", "dog"]
    assert classes(source) == dict(zip(NAMES, CLASSES, strict=True))
    assert source.left_out == ()
    assert source.notes[0].startswith("labels are from l")


@pytest.mark.parametrize("column", ["split", "set"])
def test_a_column_says_the_parts(tmp_path, column):
    flat(tmp_path / "data")
    parts = ["train"] * 12 + ["val"] * 3 + ["Test"] * 5
    csv(tmp_path / "data" / "all.csv", f"{column},file,label", zip(parts, NAMES, CLASSES, strict=True))
    info = split_dataset(str(tmp_path / "data"), tmp_path / "split")
    assert info.rows == {"train": 12, "validation": 3, "test": 5}
    assert info.class_names == ["cat", "dog"]


def test_names_of_lists_say_the_parts(tmp_path):
    flat(tmp_path / "data")
    rows = list(zip(NAMES, CLASSES, strict=True))
    csv(tmp_path / "data" / "train.csv", "id,breed", rows[:12])
    csv(tmp_path / "data" / "test.csv", "id,breed", rows[12:])
    csv(tmp_path / "data" / "sample_submission.csv", "id,breed", [(name, "cat") for name in NAMES])
    info = split_dataset(str(tmp_path / "data"), tmp_path / "split")
    assert info.rows["test"] == 8
    assert [(files.suffix, files.files) for files in info.left_out] == [(".csv", 1)]


def test_images_that_no_list_names_are_counted(tmp_path):
    flat(tmp_path)
    csv(tmp_path / "train.csv", "id,label", zip(NAMES[:15], CLASSES, strict=False))
    csv(tmp_path / "test.csv", "id", [(name,) for name in NAMES[15:]])
    source = open_source(str(tmp_path))
    assert len(source) == 15
    assert [(one.suffix, one.reason, one.files) for one in source.left_out] == [
        (".png", "not in train.csv", 5),
        (".csv", "not an image", 1),
    ]


def test_numbers_are_classes_in_their_order(tmp_path):
    flat(tmp_path)
    csv(tmp_path / "labels.csv", "id,label", [(name, i % 11 + 1) for i, name in enumerate(NAMES)])
    source = open_source(str(tmp_path))
    assert source.class_names == [str(i) for i in range(1, 12)]
    assert classes(source)["010"] == "11"


def test_folders_of_classes_stay_the_classes(tmp_path):
    paths = [f"{label}/{name}.png" for name, label in zip(NAMES, CLASSES, strict=True)]
    tree(tmp_path, *paths)
    before = open_source(str(tmp_path))
    csv(tmp_path / "labels.csv", "path,label", [(path, 7 if "cat" in path else 8) for path in paths])
    after = open_source(str(tmp_path))
    assert (after.class_names, after.fingerprint) == (before.class_names, before.fingerprint)
    csv(tmp_path / "labels.csv", "path,label", [(path, i % 2) for i, path in enumerate(paths)])
    other = open_source(str(tmp_path))
    assert other.class_names == ["0", "1"]
    csv(tmp_path / "labels.csv", "a,b", [(1, 2)])
    assert open_source(str(tmp_path)).class_names == before.class_names


REFUSED = {
    "no image": ("id,label", [*zip(NAMES, CLASSES, strict=True), ("999", "cat")], "row 20: there is no image '999'"),
    "twice": (
        "id,label",
        [*zip(NAMES, CLASSES, strict=True), ("003", "dog")],
        "003.png is named 2 times, as 'cat' and",
    ),
    "no label": ("id,label", [*zip(NAMES[:19], CLASSES, strict=False), ("019", "")], "row 19: the label is missing"),
    "many columns": ("id,x,y", [(name, 1, 2) for name in NAMES], r"which of its other columns has the labels \(x, y\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_list_that_says_too_little_is_refused(tmp_path, case):
    header, rows, message = REFUSED[case]
    flat(tmp_path)
    csv(tmp_path / "labels.csv", header, rows)
    with pytest.raises(UserError, match=message) as error:
        open_source(str(tmp_path))
    assert "\n" not in str(error.value)


def test_columns_of_a_list_are_named_by_settings(tmp_path):
    flat(tmp_path)
    csv(tmp_path / "labels.csv", "id,x,y", [(name, i % 2, i % 3) for i, name in enumerate(NAMES)])
    source = open_source(str(tmp_path), SplitConfig(label_column="y", image_column="id"))
    assert source.class_names == ["0", "1", "2"]
