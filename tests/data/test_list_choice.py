"""Several tables may name the images: lists of their labels are read, and folders of classes stay the classes."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pfs_core.config.stages import SplitConfig
from pfs_core.data.open import open_source
from pfs_core.errors import UserError
from tests.data.folders import tree
from tests.data.test_lists import CLASSES, NAMES, classes, csv, flat, json_lines

IN_FOLDERS = [f"{label}/{name}.png" for name, label in zip(NAMES, CLASSES, strict=True)]

OTHER_COLUMNS = {
    "photographer": ("photographer", lambda i: "pq"[i % 2]),
    "fold": ("fold", lambda i: i % 5),
    "digest": ("md5", lambda i: f"{i:032x}"),
    "sizes": ("width,height", lambda i: "8,8"),
    "a missing image": ("photographer", lambda i: "p" if i else "p\nnowhere.png,q"),
    "a missing text": ("photographer", lambda i: "p" if i else ""),
}


@pytest.mark.parametrize("case", OTHER_COLUMNS)
def test_a_list_whose_column_may_be_anything_leaves_the_folders_the_classes(tmp_path, case):
    header, value = OTHER_COLUMNS[case]
    tree(tmp_path, *IN_FOLDERS)
    before = open_source(str(tmp_path))
    csv(tmp_path / "meta.csv", f"path,{header}", [(path, value(i)) for i, path in enumerate(IN_FOLDERS)])
    after = open_source(str(tmp_path))
    assert (after.class_names, after.fingerprint) == (["cat", "dog"], before.fingerprint)
    columns = header.replace(",", ", ")
    said = f"(split.label_column names one: {columns}); classes are the folders"
    assert next(note for note in after.notes if note.startswith("meta.csv has no column called")).endswith(said)


def test_a_column_that_is_set_goes_before_folders(tmp_path):
    tree(tmp_path, *IN_FOLDERS)
    csv(tmp_path / "meta.csv", "path,photographer", [(path, "pq"[i % 2]) for i, path in enumerate(IN_FOLDERS)])
    assert open_source(str(tmp_path), SplitConfig(label_column="photographer")).class_names == ["p", "q"]
    assert open_source(str(tmp_path), SplitConfig(image_column="path")).class_names == ["p", "q"]


def test_sizes_of_the_training_images_leave_the_given_test_part(tmp_path):
    paths = [f"{'test' if i < 6 else 'train'}/{path}" for i, path in enumerate(IN_FOLDERS)]
    tree(tmp_path, *paths)
    csv(tmp_path / "sizes.csv", "path,width", [(path, 8 + i % 2) for i, path in enumerate(paths[6:])])
    source = open_source(str(tmp_path))
    assert (source.class_names, source.is_test.sum(), len(source)) == (["cat", "dog"], 6, 20)


def test_metadata_in_folders_of_classes_is_named_once(tmp_path):
    tree(tmp_path, *IN_FOLDERS)
    for label in ("cat", "dog"):
        here = [path.rpartition("/")[2] for path in IN_FOLDERS if path.startswith(label)]
        rows = [{"file_name": name, "source": ["flickr", "web"][i % 2]} for i, name in enumerate(here)]
        json_lines(tmp_path / label / "metadata.jsonl", rows)
    source = open_source(str(tmp_path))
    assert source.class_names == ["cat", "dog"]
    assert [note.partition(" has ")[0] for note in source.notes] == ["cat/metadata.jsonl (and 1 more)"]


def test_downloads_in_several_pieces_are_no_classes_beside_a_list(tmp_path):
    tree(tmp_path, *[f"images_{i // 10:03}/{name}.png" for i, name in enumerate(NAMES)])
    csv(
        tmp_path / "entries.csv",
        "image,finding,age",
        [(n, c, i) for i, (n, c) in enumerate(zip(NAMES, CLASSES, strict=True))],
    )
    with pytest.raises(UserError, match=r"which of its other columns has the labels \(finding, age\)"):
        open_source(str(tmp_path))
    source = open_source(str(tmp_path), SplitConfig(label_column="finding"))
    assert classes(source) == dict(zip(NAMES, CLASSES, strict=True))


WITHOUT_LABELS = {
    "another column": ("path,sex", lambda i: "fm"[i % 2]),
    "several columns": ("path,width,height", lambda i: "8,8"),
    "the same images": ("path,photographer", lambda i: "bob"),
    "nothing": ("path", None),
}


@pytest.mark.parametrize("setting", [{}, {"label_column": "label"}, {"image_column": "path"}])
@pytest.mark.parametrize("case", WITHOUT_LABELS)
def test_beside_a_list_of_labels_one_without_them_is_not_used(tmp_path, case, setting):
    header, value = WITHOUT_LABELS[case]
    flat(tmp_path)
    rows = [(f"{name}.png", label, "fm"[i % 2]) for i, (name, label) in enumerate(zip(NAMES, CLASSES, strict=True))]
    csv(tmp_path / "train.csv", "path,label,sex", rows[:15])
    others = rows[:15] if case == "the same images" else rows[15:]
    csv(tmp_path / "test.csv", header, [(row[0], value(i)) if value else row[:1] for i, row in enumerate(others)])
    source = open_source(str(tmp_path), SplitConfig(**setting))
    assert (source.class_names, len(source), source.is_test.any()) == (["cat", "dog"], 15, False)
    assert source.left_out[0].reason == "not in train.csv"
    said = [note for note in source.notes if note.startswith("test.csv has no column")]
    assert len(said) == 1
    assert said[0].endswith("; it is not used")


def test_a_parquet_list_of_test_images_without_labels_is_not_used(tmp_path):
    flat(tmp_path)
    pq.write_table(pa.table({"id": NAMES[:15], "label": CLASSES[:15]}), tmp_path / "train.parquet")
    pq.write_table(pa.table({"id": NAMES[15:], "sex": ["f", "m", "f", "m", "f"]}), tmp_path / "test.parquet")
    source = open_source(str(tmp_path))
    assert (source.class_names, len(source), source.is_test.any()) == (["cat", "dog"], 15, False)


def test_two_lists_whose_labels_are_a_guess_must_have_the_same_column(tmp_path):
    flat(tmp_path)
    csv(tmp_path / "train.csv", "id,diagnosis", zip(NAMES[:15], CLASSES, strict=False))
    csv(tmp_path / "test.csv", "id,sex", [(name, "fm"[i % 2]) for i, name in enumerate(NAMES[15:])])
    with pytest.raises(UserError, match="in 'sex', as test.csv has it, or in 'diagnosis', as train.csv has it"):
        open_source(str(tmp_path))
    assert len(open_source(str(tmp_path), SplitConfig(label_column="diagnosis"))) == 15


TABLES = {
    "classes": ("id,name", [(i, f"breed{i}") for i in range(4)]),
    "classes in a usual column": ("id,class_name", [(i, f"breed{i}") for i in range(4)]),
    "classes in groups": ("id,category", [(i, "ab"[i % 2]) for i in range(4)]),
    "a training log": ("epoch,loss,acc", [(i, f"0.{i}", "0.5") for i in range(20)]),
    "more epochs than images": ("epoch,loss", [(i, i % 2) for i in range(50)]),
}


@pytest.mark.parametrize("again", [False, True], ids=["numbered through", "numbered in each folder"])
@pytest.mark.parametrize("case", TABLES)
def test_numbers_of_something_else_are_no_names_of_images(tmp_path, case, again):
    header, rows = TABLES[case]
    tree(tmp_path, *[f"breed{i % 4}/{i // 4 if again else i}.png" for i in range(40)])
    csv(tmp_path / "table.csv", header, rows)
    source = open_source(str(tmp_path))
    assert (source.class_names, len(source)) == ([f"breed{i}" for i in range(4)], 40)


def test_numbers_name_images_where_they_name_most_or_no_folders_are_classes(tmp_path):
    tree(tmp_path, *[f"b{i % 2}/{i}.png" for i in range(20)])
    csv(tmp_path / "labels.csv", "id,label", [(i, "xyz"[i % 3]) for i in range(15)])
    assert open_source(str(tmp_path)).class_names == ["x", "y", "z"]
    csv(tmp_path / "labels.csv", "id,label", [(i, "xyz"[i % 3]) for i in range(9)])
    assert open_source(str(tmp_path)).class_names == ["b0", "b1"]
    assert open_source(str(tmp_path), SplitConfig(label_column="label")).class_names == ["x", "y", "z"]


def test_a_table_of_classes_beside_lists_of_numbers_is_not_used(tmp_path):
    tree(tmp_path, *[f"images/{i}.png" for i in range(20)])
    csv(tmp_path / "train.csv", "id,label", [(i, "ab"[i % 2]) for i in range(16)])
    csv(tmp_path / "test.csv", "id,label", [(i, "ab"[i % 2]) for i in range(16, 20)])
    csv(tmp_path / "classes.csv", "id,class_name", [(0, "a"), (1, "b")])
    source = open_source(str(tmp_path))
    assert (len(source), source.is_test.sum(), source.class_names) == (20, 4, ["a", "b"])


SETTINGS = {
    "another label": ({"label_column": "DX"}, r"no list has a column 'DX' \(did you mean dx\?\); meta.csv has id, dx"),
    "another image": ({"label_column": "dx", "image_column": "img"}, "no list has a column 'img'; meta.csv has id, dx"),
    "the names": ({"label_column": "id"}, "meta.csv has the column 'id', but none of names of images beside it"),
}


@pytest.mark.parametrize("folders", ["part_{}", "class{}", "images"])
@pytest.mark.parametrize("case", SETTINGS)
def test_a_column_that_no_list_has_is_refused(tmp_path, case, folders):
    settings, message = SETTINGS[case]
    tree(tmp_path, *[f"{folders.format(i % 2)}/{name}.png" for i, name in enumerate(NAMES)])
    csv(tmp_path / "meta.csv", "id,dx", zip(NAMES, CLASSES, strict=True))
    with pytest.raises(UserError, match=message):
        open_source(str(tmp_path), SplitConfig(**settings))


def test_a_column_of_a_dataset_without_columns_is_said_to_do_nothing(tmp_path):
    tree(tmp_path, *IN_FOLDERS)
    for uri in (str(tmp_path), "digits"):
        notes = open_source(uri, SplitConfig(label_column="dx")).notes
        assert "split.label_column is not used: the dataset has no columns" in notes


def test_a_list_of_no_part_beside_lists_of_parts_is_not_used(tmp_path):
    flat(tmp_path)
    rows = [(f"{name}.png", i % 2, 7) for i, name in enumerate(NAMES)]
    csv(tmp_path / "Meta.csv", "Path,ClassId,ShapeId", rows[:3])
    csv(tmp_path / "Train.csv", "Path,ClassId,Width", rows[3:15])
    source = open_source(str(tmp_path))
    assert len(source) == 15
    csv(tmp_path / "Test.csv", "Path,ClassId,Width", rows[15:])
    source = open_source(str(tmp_path))
    assert (len(source), source.is_test.sum()) == (17, 5)
    assert "Meta.csv says no part, and others do; it is not used" in source.notes


@pytest.mark.parametrize("label", ["md5", "label"])
def test_a_label_of_its_own_for_each_image_is_refused(tmp_path, label):
    flat(tmp_path)
    csv(tmp_path / "list.csv", f"file,{label}", [(name, f"{name}x") for name in NAMES])
    with pytest.raises(UserError, match=f"column '{label}' says 20 different things of 20 images, .* no classes; name"):
        open_source(str(tmp_path))


FEATURES = {
    "features": {"embedding": [[0.1, 0.2]] * 20},
    "boxes": {"box": [{"x": 1}] * 20},
    "labels": {"label": CLASSES},
}


@pytest.mark.parametrize("case", FEATURES)
def test_a_parquet_file_without_images_leaves_the_folders_the_classes(tmp_path, case):
    tree(tmp_path, *IN_FOLDERS)
    pq.write_table(pa.table({"file": IN_FOLDERS, **FEATURES[case]}), tmp_path / "features.parquet")
    source = open_source(str(tmp_path))
    assert source.class_names == ["cat", "dog"]
    assert [(one.suffix, one.files) for one in source.left_out] == [(".parquet", 1)]


def test_a_parquet_file_that_is_refused_names_the_folders_beside_it(tmp_path):
    tree(tmp_path, *IN_FOLDERS)
    (tmp_path / "x.parquet").write_bytes(b"")
    with pytest.raises(UserError, match=r"not a Parquet file: .*; or move it elsewhere, .* beside it \(cat/, dog/\)"):
        open_source(str(tmp_path))
