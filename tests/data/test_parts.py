"""The parts that a dataset has are the parts that it is split into, wherever they are said and however it is stored."""

import gzip
import json
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.feather import write_feather

from pfs_core.config.stages import SplitConfig
from pfs_core.data import split_dataset
from pfs_core.data.open import open_source
from pfs_core.data.parts import part_named, parts_in
from pfs_core.errors import UserError
from pfs_core.storage import open_storage
from pfs_core.storage.artifacts import read_json
from tests.data.folders import encode, picture, tree

IN_ORDER = ("train", "validation", "test")
LAYOUTS = {
    "train alone": ({"train": 10}, (None, None, None)),
    "capitals": ({"Train": 10, "Test": 4}, (None, None, 8)),
    "sets": ({"training_set": 10, "test_set": 4}, (None, None, 8)),
    "val alone": ({"train": 10, "val": 3}, (None, None, 6)),
    "validation alone": ({"TRAINING": 10, "Validation": 3}, (None, None, 6)),
    "all three": ({"train": 10, "val": 3, "test": 4}, (20, 6, 8)),
    "all three, otherwise": ({"training": 10, "valid": 3, "testing": 4}, (20, 6, 8)),
    "dev": ({"train": 10, "dev": 3, "test": 4}, (20, 6, 8)),
    "years": ({"train2017": 10, "val2017": 3, "test2017": 4}, (20, 6, 8)),
    "eval alone": ({"train": 10, "eval": 3}, (None, None, 6)),
    "eval and test": ({"train": 10, "eval": 3, "test": 4}, (20, 6, 8)),
    "eval and val": ({"train": 10, "eval": 4, "val": 3}, (20, 6, 8)),
    "of one set": ({"pets_train": 10, "pets_val": 3, "pets_test": 4}, (20, 6, 8)),
}


def as_tree(folder, layout):
    return tree(
        folder, *[f"{part}/{c}/{i}.png" for part, n in layout.items() for c in ("cat", "dog") for i in range(n)]
    )


def as_parquet(folder, layout):
    folder.mkdir(exist_ok=True)
    for number, (part, n) in enumerate(layout.items()):
        images = pa.array([encode(picture(100 * number + i)) for i in range(2 * n)], pa.binary())
        pq.write_table(pa.table({"image": images, "label": [0, 1] * n}), folder / f"{part}-00000-of-00001.parquet")
    return folder


def as_idx(folder, layout):
    folder.mkdir(exist_ok=True)
    for part, n in layout.items():
        images = np.random.default_rng(n).integers(256, size=(2 * n, 6, 5), dtype=np.uint8)
        for what, array in (("images", images), ("labels", np.array([0, 1] * n, np.uint8))):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            name = f"{part}-{what}-idx{array.ndim}-ubyte.gz"
            (folder / name).write_bytes(gzip.compress(header + array.tobytes()))
    return folder


def stored(source, layout, tmp_path, request):
    """The address of a dataset with the parts of a layout."""
    if source == "bucket":
        there = open_storage(f"{request.getfixturevalue('bucket')}/set")
        for path in sorted(as_tree(tmp_path / "data", layout).rglob("*.png")):
            there.write(str(path.relative_to(tmp_path / "data")), path)
        return there.uri
    return str({"tree": as_tree, "parquet": as_parquet, "idx": as_idx}[source](tmp_path / "data", layout))


@pytest.mark.parametrize("source", ["tree", "bucket", "parquet", "idx"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_given_parts_are_the_parts(layout, source, tmp_path, request):
    counts, expected = LAYOUTS[layout]
    info = split_dataset(stored(source, counts, tmp_path, request), tmp_path / "split")
    rows = sum(counts.values()) * 2
    assert info.class_names == (["cat", "dog"] if source in ("tree", "bucket") else ["0", "1"])
    assert sum(info.rows.values()) == rows
    for part, count in zip(IN_ORDER, expected, strict=True):
        assert count is None or info.rows[part] == count
    assert info.validation_is_given == (expected[1] is not None)
    assert info.test_is_given == (expected[2] is not None)
    (note,) = info.notes
    for name, count in counts.items():
        assert name in note
        assert f"({2 * count} images)" in note
    assert ("as there is no other test part" in note) == (
        expected[1] is None and any(part_named(n) == "validation" for n in counts)
    )
    assert read_json(tmp_path / "split" / "split.json")["notes"] == [note]


def test_a_given_validation_part_is_drawn_from_by_no_setting(tmp_path, capsys):
    as_tree(tmp_path / "data", {"train": 10, "val": 3, "test": 4})
    info = split_dataset(str(tmp_path / "data"), tmp_path / "split", SplitConfig(validation_per_class=1))
    assert info.rows == {"train": 20, "validation": 6, "test": 8}
    out = capsys.readouterr().out
    assert "split.validation_per_class is not used: the dataset has a validation part" in out
    assert (
        "split taken: train/ (20 images) as training, val/ (6 images) as validation, test/ (8 images) as test\n" in out
    )


REFUSED = {
    "parts beside another": ["train/cat", "train/dog", "test/cat", "test/dog", "unlabeled/cat"],
    "parts beside images": ["train/cat", "train/dog", "unlabeled"],
    "parts beside classes": ["train/cat", "train/dog", "cat", "dog"],
    "parts beside a folder of parts": ["train/cat", "train/dog", "val/cat", "chest/train/cat", "chest/train/dog"],
    "parts within folders of their names": ["seg_train/seg_train/sea", "seg_test/seg_test/sea", "seg_pred/seg_pred"],
    "parts below classes": ["cat/train", "cat/test", "dog/train", "dog/test"],
    "parts in a folder": ["chest/train/cat", "chest/train/dog", "chest/val/cat"],
    "parts without folders beside another": ["train", "test", "supplemental"],
    "no training part": ["val/cat", "val/dog", "test/cat"],
}


@pytest.mark.parametrize("layout", REFUSED)
@pytest.mark.parametrize("source", ["tree", "bucket"])
def test_folders_that_are_parts_and_classes_are_refused(layout, source, tmp_path, request):
    root = tree(tmp_path / "data", *[f"{folder}/{i}.png" for folder in REFUSED[layout] for i in range(3)])
    uri = str(root)
    if source == "bucket":
        uri = f"{request.getfixturevalue('bucket')}/set"
        for path in root.rglob("*.png"):
            open_storage(uri).write(str(path.relative_to(root)), path)
    with pytest.raises(UserError, match=r"named like parts|no training images") as error:
        open_source(uri)
    assert "expected train/CLASS/image.jpg" in str(error.value) or f"name {uri}/chest" in str(error.value)
    assert "\n" not in str(error.value)


CLASSES = {
    "a class named train": ["train", "plane"],
    "a class named train with folders": ["train/steam", "train", "plane/jet"],
    "classes that are called by such words": ["bullet_train/day", "test_tube/glass", "car/day"],
    "one word in many": ["bullet_train/day", "steam_train/day", "car/day"],
}


@pytest.mark.parametrize("layout", CLASSES)
def test_classes_that_are_named_like_parts_are_classes(layout, tmp_path):
    root = tree(tmp_path, *[f"{folder}/{i}.png" for folder in CLASSES[layout] for i in range(3)])
    source = open_source(str(root))
    assert source.class_names == sorted({folder.split("/")[0] for folder in CLASSES[layout]})
    assert [note for note in source.notes if not note.startswith("classes are the folders")] == []


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("Test", {"test"}),
        ("cifar_test", {"test"}),
        ("cifar10test", {"test"}),
        ("trainingSet", {"training"}),
        ("T10K", {"test"}),
        ("validation-00000-of-00003", {"validation"}),
        ("latest", set()),
        ("protest", set()),
        ("contrains", set()),
        ("train_test", {"training", "test"}),
    ],
)
def test_words_say_parts(name, parts):
    assert parts_in(name) == parts


def named(*names):
    return {"huggingface": json.dumps({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}})}


def classes(*names):
    return {"classes": json.dumps(names)}


def file(path, labels, metadata=None, kind=None):
    images = pa.array([encode(picture(i)) for i in range(len(labels))], pa.binary())
    table = pa.table({"image": images, "label": pa.array(labels, kind)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path)


def meanings(folder):
    """The class of every row by name."""
    source = open_source(str(folder))
    return [source.class_names[label] for label in source.labels]


@pytest.mark.parametrize("names", [named, classes])
def test_lists_of_classes_are_merged_by_name(tmp_path, names):
    file(tmp_path / "train-0.parquet", [0, 1, 1], names("dog", "cat"))
    file(tmp_path / "train-1.parquet", [0, 1, 0], names("cat", "fox"))
    file(tmp_path / "test-0.parquet", [0, 1], names("fox", "cat"))
    assert meanings(tmp_path) == ["fox", "cat", "dog", "cat", "cat", "cat", "fox", "cat"]
    assert open_source(str(tmp_path)).class_names == ["cat", "dog", "fox"]
    assert "differ: matched by name, 3 in all" in open_source(str(tmp_path)).notes[1]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_labels_may_be_names(tmp_path, kind):
    file(tmp_path / "train-0.parquet", ["dog", "cat"], kind=kind)
    file(tmp_path / "train-1.parquet", ["fox", "cat"], kind=kind)
    assert meanings(tmp_path) == ["dog", "cat", "fox", "cat"]
    assert open_source(str(tmp_path)).notes[1:] == ()


CONTRADICTIONS = {
    "a class that training has not": (
        {"train": ([0, 1], classes("cat", "dog")), "test": ([0, 1], classes("cat", "owl"))},
        r"test.parquet, row 1: class 'owl' has no training images; .*train.parquet .*have cat, dog",
    ),
    "a list and no list": (
        {
            "train-0": ([0, 1], classes("a", "b")),
            "train-1": ([0, 1], classes("b", "c")),
            "train-2": ([0, 1], None),
        },
        r"train-2.parquet does not name its classes, and those of .*train-0.parquet and others differ",
    ),
    "a name twice": (
        {"train-0": ([0, 1], classes("a", "a")), "train-1": ([0, 1], classes("a", "b"))},
        r"train-0.parquet names two classes alike",
    ),
    "from 1": ({"train": ([1, 2, 3], None)}, r"row 0: labels count from 1 to 3, but must count from 0"),
    "from 1 with names": ({"train": ([1, 2], classes("a", "b"))}, r"row 1: label 2 is out of range.*count from 1"),
    "a gap": ({"train": ([0, 1, 3], None)}, r"row 2: label 3 is out of range; .*without a gap \(no row has label 2\)"),
    "no labels": (
        {"train": ([0, 1], None), "test": ([-1, -1], None)},
        r"test.parquet, row 0: label -1 is out of range; .*the file has no labels, so leave it out",
    ),
    "numbers and names": (
        {"train": ([0, 1], None), "test": (["cat", "dog"], None)},
        r"train.parquet has numbers as labels and .*test.parquet names; write names in all files, or numbers",
    ),
    "names and numbers": (
        {"train-0": (["cat", "dog"], None), "train-1": ([0, 1], None)},
        r"train-1.parquet has numbers as labels and .*train-0.parquet names",
    ),
    "no name": ({"train": (["cat", " ", "dog"], None)}, r"train.parquet, row 1: the label is missing"),
    "names that differ in spaces": (
        {"train": (["cat", "cat "], None)},
        "has classes 'cat' and 'cat ', which differ in",
    ),
    "names that differ in zeros": ({"train": (["01", "1"], None)}, "has classes '01' and '1', which differ in"),
    "names that differ in forms of Unicode": (
        {"train": (["caf\u00e9", "cafe\u0301"], None)},
        r"has classes 'cafe\\u0301' and 'caf\\xe9', which differ in",
    ),
    "a class that is written otherwise": (
        {"train": (["cat", "dog"], None), "test": (["Cat"], None)},
        "class 'Cat' has no training images, but 'cat' has",
    ),
    "two parts in a name": ({"train_test": ([0, 1], None)}, "is named like test and training; rename it"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradictions_are_refused_by_name(tmp_path, case):
    files, message = CONTRADICTIONS[case]
    for name, (labels, metadata) in files.items():
        file(tmp_path / f"{name}.parquet", labels, metadata)
    with pytest.raises(UserError, match=message) as error:
        open_source(str(tmp_path))
    assert "\n" not in str(error.value)


EMPTY = {
    # what is in the dataset, its empty folders, and the one that is refused
    "a part": (["train/cat", "train/dog"], ["test"], "test"),
    "a part of classes": (["train/cat", "train/dog"], ["test/cat", "test/dog"], "test"),
    "another held-out part": (["train/cat", "train/dog", "val/cat", "val/dog"], ["Testing", "extra"], "Testing"),
    "a part that is not the test part": (["train/cat", "train/dog", "test/cat", "test/dog"], ["valid"], "valid"),
}


@pytest.mark.parametrize("case", EMPTY)
def test_an_empty_folder_of_a_part_is_refused_and_the_part_not_drawn_from_training(tmp_path, case):
    folders, empty, named = EMPTY[case]
    tree(tmp_path, *[f"{folder}/{i}.png" for folder in folders for i in range(3)])
    for folder in empty:
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / named / ".DS_Store").write_bytes(b"")
    with pytest.raises(UserError, match=f"{tmp_path}/{named} is named like a .* part and holds no files") as error:
        open_source(str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("below", ["", "data/"])
def test_an_empty_folder_of_a_part_beside_files_of_rows_is_refused(tmp_path, below):
    for folder in ("train", "test"):
        (tmp_path / below / folder).mkdir(parents=True)
    file(tmp_path / below / "train" / "0.parquet", ["a", "b"])
    with pytest.raises(UserError, match=f"/{below}test is named like a test part and holds no files"):
        open_source(str(tmp_path))
    file(tmp_path / below / "test" / "0.parquet", ["a", "b"])
    (tmp_path / "eval").mkdir()  # the test part is there
    assert open_source(str(tmp_path)).is_test.sum() == 2


COLUMNS = {
    # a column beside images and labels, and the parts of train.parquet and test.parquet in it
    "split": (["train", "test"], ["test", "test"]),
    "Split": (["train", "train"], ["train", "train"]),
    "set": (["train", "other"], ["test", "test"]),
    "partition": ([0, 1], [2, 2]),
    "is_train": ([True, False], [False, False]),
    "train": ([True, False], [False, False]),
    "test": ([0, 1], [1, 1]),
    "Validation": ([0.0, 1.0], [0.0, 0.0]),
    "holdout": (["no", "yes"], ["yes", "yes"]),
    "val": ([None, True], [None, None]),
}


@pytest.mark.parametrize("kind", ["parquet", "feather"])
@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_that_says_other_parts_is_refused(tmp_path, column, kind):
    for name, said in zip(("train", "test"), COLUMNS[column], strict=True):
        table = pa.table({"image": [encode(picture(i)) for i in range(2)], "label": [0, 1], column: said})
        (pq.write_table if kind == "parquet" else write_feather)(table, tmp_path / f"{name}.{kind}")
    with pytest.raises(UserError, match=f"column '{column}' .*say.* parts.*; write a file for each part"):
        open_source(str(tmp_path))


def test_a_column_that_says_the_same_parts_is_let_pass(tmp_path):
    for name in ("train", "test"):
        table = pa.table({"image": [encode(picture(0))] * 2, "label": [0, 1], "split": [name] * 2, "set": ["a", "b"]})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    source = open_source(str(tmp_path))
    assert source.is_test.tolist() == [True, True, False, False]
    assert source.notes[1:] == ("columns that are not used: split, set",)


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_a_column_that_is_named_like_a_part_and_says_something_else_is_let_pass(tmp_path, kind):
    scores = {"test": [0, 7], "train": ["express", "local"], "val": [0.5, 1.0]}
    table = pa.table({"image": [encode(picture(i)) for i in range(2)], "label": [0, 1], **scores})
    (pq.write_table if kind == "parquet" else write_feather)(table, tmp_path / f"data.{kind}")
    assert open_source(str(tmp_path)).notes == ("columns that are not used: test, train, val",)


def test_classes_that_differ_in_capitals_are_said(tmp_path):
    file(tmp_path / "train.parquet", ["a", "B", "A", "b"])
    assert "A and a and 1 more are different classes" in open_source(str(tmp_path)).notes


def test_a_class_without_training_images_is_said(tmp_path):
    file(tmp_path / "train.parquet", [0, 1, 3], classes("a", "b", "c", "d"))
    assert "1 of 4 classes have no training images: c" in open_source(str(tmp_path)).notes


@pytest.mark.parametrize(("lacks", "said"), [("test", "test"), ("val", "validation")])
def test_a_class_without_images_of_a_given_part_is_said(tmp_path, lacks, said):
    kept = [f"{part}/{c}/0.png" for part in ("train", "val", "test") for c in "abc" if (part, c) != (lacks, "b")]
    assert f"1 of 3 classes have no {said} images: b" in open_source(str(tree(tmp_path, *kept))).notes


def test_two_idx_sets_in_a_folder_are_refused(tmp_path):
    as_idx(tmp_path, {"letters-train": 3, "digits-train": 3})
    with pytest.raises(UserError, match=r"several IDX sets \(digits-train and letters-train\)"):
        open_source(str(tmp_path))


def test_a_test_label_of_idx_without_training_images_is_refused(tmp_path):
    as_idx(tmp_path, {"train": 3, "t10k": 2})
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1] + b"\x07"))
    with pytest.raises(UserError, match="label 7 of t10k has no training images"):
        open_source(str(tmp_path))


def test_of_a_plain_and_a_packed_idx_file_the_plain_one_is_read(tmp_path):
    as_idx(tmp_path, {"train": 3})
    for path in list(tmp_path.iterdir()):
        data = gzip.decompress(path.read_bytes())
        path.with_suffix("").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    source = open_source(str(tmp_path))
    assert source.labels.tolist() == [0, 1, 0, 1, 0, 0]
    assert [(one.suffix, one.reason, one.files) for one in source.left_out] == [
        (".gz", "the same file is read in another form", 2)
    ]
