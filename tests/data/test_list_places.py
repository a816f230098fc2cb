"""Lists in which names are of several images, lists that are not at the top, and parts in columns of any name."""

from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.feather import write_feather

from pfs_core.data.open import open_source
from pfs_core.errors import UserError
from tests.data.folders import encode, picture, tree
from tests.data.test_lists import CLASSES, NAMES, classes, csv, flat


@pytest.mark.parametrize("form", ["{}", "{}.png"])
def test_a_name_in_two_parts_is_that_of_the_part_of_the_list(tmp_path, form):
    tree(tmp_path, *[f"{part}/{i}.png" for part in ("train", "test") for i in range(20)])
    csv(tmp_path / "trainLabels.csv", "id,label", [(form.format(i), CLASSES[i]) for i in range(20)])
    csv(tmp_path / "sampleSubmission.csv", "id,label", [(form.format(i), "cat") for i in range(20)])
    source = open_source(str(tmp_path))
    assert sorted(source.names.to_pylist()) == sorted(f"train/{i}.png" for i in range(20))
    assert [source.class_names[label] for label in source.labels] == [
        CLASSES[int(name[6:-4])] for name in source.names.to_pylist()
    ]
    assert [(one.reason, one.files) for one in source.left_out] == [
        ("not in trainLabels.csv", 20),
        ("not an image", 1),
    ]


def test_names_without_suffix_of_several_images_are_refused(tmp_path):
    tree(tmp_path, "cover.png", *[f"{folder}/{name}.png" for folder in "ab" for name in NAMES])
    csv(tmp_path / "labels.csv", "id,label", zip(NAMES, CLASSES, strict=True))
    with pytest.raises(UserError, match=r"labels.csv, row 0: several images are called '000'; write their paths"):
        open_source(str(tmp_path))


def test_numbers_are_not_taken_for_names_where_a_path_is_missing(tmp_path):
    tree(tmp_path, *[f"images/{i}.png" for i in range(20)])
    csv(tmp_path / "labels.csv", "path,label", [(f"images/{i}.png", i % 2) for i in range(21)])
    with pytest.raises(UserError, match="row 20: there is no image 'images/20.png'"):
        open_source(str(tmp_path))


def test_labels_that_are_numbers_of_images_are_not_taken_for_their_names(tmp_path):
    tree(tmp_path, *[f"images/{i}.png" for i in range(20)])
    csv(tmp_path / "labels.csv", "id,label", [(i, i % 2) for i in range(21)])
    with pytest.raises(UserError, match="row 20: there is no image '20'"):
        open_source(str(tmp_path))


def test_a_list_in_the_only_folder_is_named_with_its_folder(tmp_path):
    flat(tmp_path / "data")
    csv(tmp_path / "data" / "labels.csv", "path,label", [(f"images/{NAMES[0]}.png", "cat")])
    with pytest.raises(UserError, match=r"if data/labels.csv is the list of its images, name .*/data$"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("name", ["labels.csv", "_classes.csv"])
def test_lists_in_folders_of_parts_are_told_where_they_would_be_read(tmp_path, name):
    for part, some in (("train", slice(12)), ("test", slice(12, 20))):
        tree(tmp_path, *[f"{part}/{one}.png" for one in NAMES[some]])
        csv(tmp_path / part / name, "path,label", zip(NAMES[some], CLASSES[some], strict=True))
    with pytest.raises(UserError, match=f"test/{name} is not read, as lists are read at the top only, or as metadata"):
        open_source(str(tmp_path))
    for part in ("train", "test"):
        (tmp_path / part / name).rename(tmp_path / part / "metadata.csv")
    source = open_source(str(tmp_path))
    assert (classes(source), source.is_test.sum()) == (dict(zip(NAMES, CLASSES, strict=True)), 8)


@pytest.mark.parametrize("labels", [["cat", "dog", "cat dog"], ["a", "b", "a;b"]])
def test_several_labels_in_one_are_refused(tmp_path, labels):
    flat(tmp_path)
    csv(tmp_path / "labels.csv", "id,label", [(name, labels[i % 3]) for i, name in enumerate(NAMES)])
    with pytest.raises(UserError, match=f"row 2: '{labels[2]}' is several labels"):
        open_source(str(tmp_path))


def test_words_that_are_no_classes_of_their_own_are_one_label(tmp_path):
    flat(tmp_path)
    csv(tmp_path / "labels.csv", "id,label", [(n, ["cat", "big dog", "hot dog"][i % 3]) for i, n in enumerate(NAMES)])
    assert open_source(str(tmp_path)).class_names == ["big dog", "cat", "hot dog"]


@pytest.mark.parametrize("column", ["dataset_split", "Usage", "train_or_test"])
@pytest.mark.parametrize("label", ["label", "kind"])
def test_a_column_of_parts_says_them_whatever_it_is_called(tmp_path, column, label):
    flat(tmp_path)
    rows = [(n, c, "Test" if i < 5 else "train") for i, (n, c) in enumerate(zip(NAMES, CLASSES, strict=True))]
    csv(tmp_path / "labels.csv", f"id,{label},{column}", rows)
    source = open_source(str(tmp_path))
    assert (source.class_names, source.is_test.sum()) == (["cat", "dog"], 5)


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ("Usage", ["Training", "PublicTest", "PrivateTest"]),
        ("stage,phase", ["train,train", "test,train", "test,test"]),
    ],
)
def test_parts_that_could_be_others_are_refused(tmp_path, columns, values):
    flat(tmp_path)
    rows = [(n, c, values[i % 3]) for i, (n, c) in enumerate(zip(NAMES, CLASSES, strict=True))]
    csv(tmp_path / "labels.csv", f"id,label,{columns}", rows)
    with pytest.raises(UserError, match=r"seems to say parts \(.*\); write a column split with train"):
        open_source(str(tmp_path))


def test_labels_that_are_called_like_parts_are_labels(tmp_path):
    flat(tmp_path)
    csv(tmp_path / "labels.csv", "id,class", [(name, ["train", "test"][i % 2]) for i, name in enumerate(NAMES)])
    assert open_source(str(tmp_path)).class_names == ["test", "train"]


TEXTS = {
    # the texts of train and test files without such a name, and whether they are refused
    "mixed": (["train", "test"], ["train", "test"], True),
    "one after the other": (["train", "train"], ["test", "test"], True),
    "Kaggle's": (["Training", "PublicTest"], ["Training", "PrivateTest"], True),
    "nothing of the kind": (["bus", "train"], ["test", "bus"], False),
    "missing": (["train", None], ["test", None], False),
}


@pytest.mark.parametrize("kind", ["parquet", "feather"])
@pytest.mark.parametrize("case", TEXTS)
def test_texts_of_a_table_that_say_parts_are_refused(tmp_path, case, kind):
    *texts, refused = TEXTS[case]
    for name, said in zip("ab", texts, strict=True):
        table = pa.table({"image": [encode(picture(i)) for i in range(2)], "label": [0, 1], "stage": said})
        (pq.write_table if kind == "parquet" else write_feather)(table, tmp_path / f"{name}.{kind}")
    if not refused:
        assert open_source(str(tmp_path)).notes == ("columns that are not used: stage",)
        return
    with pytest.raises(UserError, match="column 'stage' says parts .*; write a file for each part"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("more", [datetime(2024, 1, 1), [0.1, 0.2], {"x": 1}, None])
def test_columns_that_are_no_texts_are_not_used_of_a_list(tmp_path, more):
    flat(tmp_path)
    table = pa.table({"image": [f"{name}.png" for name in NAMES], "label": CLASSES, "more": [more] * 20})
    pq.write_table(table, tmp_path / "labels.parquet")
    assert classes(open_source(str(tmp_path))) == dict(zip(NAMES, CLASSES, strict=True))
