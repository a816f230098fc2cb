"""Lists of paths and labels beside the images: what they name is read, and nothing else trains."""

import json

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


def json_lines(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def metadata(root, kind, below, rows):
    """A list as Hugging Face's ImageFolder reads it, of ``(file_name, label)``."""
    (root / below).mkdir(parents=True, exist_ok=True)
    path = root / below / f"metadata.{kind}"
    if kind == "csv":
        csv(path, "file_name,label", rows)
    elif kind == "jsonl":
        json_lines(path, [{"file_name": name, "label": label} for name, label in rows])
    else:
        pq.write_table(pa.table({"file_name": [a for a, _ in rows], "label": [b for _, b in rows]}), path)


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


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_list_in_each_part_names_what_is_below_it(tmp_path, kind):
    for part in ("train", "test"):
        tree(tmp_path / part, *[f"b{i % 2}/{name}.png" for i, name in enumerate(NAMES)])
        metadata(tmp_path, kind, part, [(f"b{i % 2}/{NAMES[i]}.png", label) for i, label in enumerate(CLASSES)])
    source = open_source(str(tmp_path))
    assert source.class_names == ["cat", "dog"]
    assert [source.class_names[label] for label in source.labels[source.is_test]] == [*CLASSES[::2], *CLASSES[1::2]]
    assert {path.split("/")[0] for path in source.files.paths.filter(pa.array(source.is_test)).to_pylist()} == {"test"}
    assert source.left_out == ()


def named_list(path, labels, names, form="huggingface"):
    """A Parquet list of the first images with the names of the classes in its schema metadata."""
    feature = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    metadata = {form: json.dumps(feature if form == "huggingface" else names)}
    table = pa.table({"file_name": [f"{name}.png" for name in NAMES[: len(labels)]], "label": labels})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path)


@pytest.mark.parametrize("form", ["huggingface", "classes"])
@pytest.mark.parametrize("text", [False, True])
def test_names_in_the_schema_of_a_list_are_those_of_the_classes(tmp_path, form, text):
    flat(tmp_path, "train")
    names = ["dog", "cat", "yak"]
    named_list(
        tmp_path / "train" / "metadata.parquet", CLASSES if text else list(map(names.index, CLASSES)), names, form
    )
    source = open_source(str(tmp_path))
    assert source.class_names == names
    assert classes(source) == dict(zip(NAMES, CLASSES, strict=True))
    assert source.notes[-1] == "1 of 3 classes have no training images: yak"


def test_names_in_the_schemas_of_lists_are_matched(tmp_path):
    for part, names in (("train", ["cat", "dog"]), ("test", ["dog", "cat"])):
        flat(tmp_path, part)
        named_list(tmp_path / part / "metadata.parquet", list(map(names.index, CLASSES)), names)
    source = open_source(str(tmp_path))
    assert source.class_names == ["cat", "dog"]
    assert source.labels[source.is_test].tolist() == source.labels[~source.is_test].tolist()
    assert [source.class_names[label] for label in source.labels[source.is_test]] == CLASSES
    assert any("differ: matched by name, 2 in all" in note for note in source.notes)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2], "metadata.parquet, row 2: label 2 is out of range; 2 classes are named in its schema"),
        ([-1, 1, 1], "metadata.parquet, row 0: label -1 is out of range"),
        (["cat", "cow", "cat"], "metadata.parquet, row 1: class 'cow' is not named in its schema"),
    ],
)
def test_a_label_without_a_name_in_the_schema_of_a_list_is_refused(tmp_path, labels, message):
    flat(tmp_path, "train")
    named_list(tmp_path / "train" / "metadata.parquet", labels, ["cat", "dog"])
    with pytest.raises(UserError, match=message):
        open_source(str(tmp_path))


def test_a_list_beside_folders_that_are_no_classes_says_the_classes(tmp_path):
    tree(tmp_path, *[f"b{i % 4}/{name}.png" for i, name in enumerate(NAMES)])
    metadata(tmp_path, "jsonl", ".", [(f"b{i % 4}/{NAMES[i]}.png", label) for i, label in enumerate(CLASSES)])
    assert classes(open_source(str(tmp_path))) == dict(zip(NAMES, CLASSES, strict=True))


@pytest.mark.parametrize("said", [["text"], []], ids=["captions", "nothing"])
def test_a_list_without_labels_is_named(tmp_path, said):
    tree(tmp_path, *[f"train/{label}/{name}.png" for label, name in zip(CLASSES, NAMES, strict=True)])
    rows = [{"file_name": f"{CLASSES[i]}/{n}.png", **dict.fromkeys(said, f"number {i}")} for i, n in enumerate(NAMES)]
    json_lines(tmp_path / "train" / "metadata.jsonl", rows)
    source = open_source(str(tmp_path))
    assert source.class_names == ["cat", "dog"]
    assert "train/metadata.jsonl has no column of labels; classes are the folders" in source.notes


JSON_LINES = {
    "no object": ([[1]], "line 21 is no JSON object"),
    "a label that is a box": (
        [{"id": "019", "label": {"x": 1}}],
        "row 20: the label is '{\"x\": 1}', which is no name",
    ),
    "no label": ([{"id": "019"}], "row 20: the label is missing"),
    "null": ([{"id": "019", "label": None}], "row 20: the label is missing"),
    "half a character": ([{"id": "\ud83d", "label": "cat"}], r"row 20: there is no image '\?'"),
}


@pytest.mark.parametrize("case", JSON_LINES)
def test_json_lines_that_say_too_little_are_refused(tmp_path, case):
    more, message = JSON_LINES[case]
    flat(tmp_path)
    json_lines(
        tmp_path / "labels.jsonl", [*({"id": i, "label": c} for i, c in zip(NAMES, CLASSES, strict=True)), *more]
    )
    with pytest.raises(UserError, match=message):
        open_source(str(tmp_path))


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ('{"id": "000", "label": "a", "label": "b"}', "label"),
        ('{"id": "000", "label": "a", "box": {"x": 1, "x": 2}}', "x"),
    ],
)
def test_a_line_of_json_with_a_name_twice_is_refused(tmp_path, line, name):
    flat(tmp_path)
    path = tmp_path / "labels.jsonl"
    json_lines(path, [{"id": i, "label": c} for i, c in zip(NAMES[1:], CLASSES[1:], strict=True)])
    path.write_text(path.read_text() + line)
    with pytest.raises(UserError, match=f"labels.jsonl: line 20 has '{name}' twice; keep one"):
        open_source(str(tmp_path))


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


@pytest.mark.parametrize("text", ["{}.0", "{}.", "{}"])
def test_whole_numbers_are_classes_however_they_are_written(tmp_path, text):
    flat(tmp_path)
    csv(tmp_path / "labels.csv", "path,label", [(f"images/{n}.png", text.format(i % 3)) for i, n in enumerate(NAMES)])
    assert classes(open_source(str(tmp_path))) == {n: str(i % 3) for i, n in enumerate(NAMES)}


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


REFUSED |= {
    "two columns of labels": (
        "id,category,breed",
        [(name, label, i % 4) for i, (name, label) in enumerate(zip(NAMES, CLASSES, strict=True))],
        r"which of its other columns has the labels \(category, breed\)",
    ),
    "no header": (
        "images/000.png,cat",
        [(f"images/{name}.png", label) for name, label in zip(NAMES, CLASSES, strict=True)][1:],
        r"labels.csv begins with an image \('images/000.png'\); put the names of the columns first: path,label",
    ),
    "most images missing": (
        "id,label",
        [(f"images/{i:03}.png", i % 2) for i in range(60)],
        "row 20: there is no image 'images/020.png'",
    ),
    "one column twice": (
        "id,label,label",
        [(n, 1, i % 2) for i, n in enumerate(NAMES)],
        "two of its columns are named",
    ),
    "a row too long": (
        "id,label",
        [*zip(NAMES, CLASSES, strict=True), ("003", "cat", "big")],
        "line 22 has 3 columns, and the first one 2",
    ),
    "not a number": (
        "id,label",
        [(n, ["cat", "nan"][i % 2]) for i, n in enumerate(NAMES)],
        "row 1: the label is missing",
    ),
    "no label as -1": ("id,label", [(n, i % 3 - 1) for i, n in enumerate(NAMES)], "row 0: label -1 is out of range"),
    "fractions": (
        "id,label",
        [(n, f"{i % 2}.5") for i, n in enumerate(NAMES)],
        "row 0: the label is 0.5, which is no whole number",
    ),
    "thousands of digits": (
        "id,label",
        [(n, "9" * 5000 if i == 3 else i % 2) for i, n in enumerate(NAMES)],
        "row 3: the label is a number of 5,000 digits, which is no class",
    ),
    "several labels": (
        "id,label",
        [(n, ["a", "b", "a|b"][i % 3]) for i, n in enumerate(NAMES)],
        r"row 2: 'a\|b' is several labels",
    ),
    "a part of another name": (
        "id,label,split",
        [(n, i % 2, ["train", "test", "extra"][i % 3]) for i, n in enumerate(NAMES)],
        "row 2: 'split' is 'extra', which is no part; write train, validation or test",
    ),
    "no part": (
        "id,label,set",
        [(n, i % 2, ["train", ""][i % 2]) for i, n in enumerate(NAMES)],
        "row 1: 'set' is '', which is no part",
    ),
    "parts as numbers": ("id,label,split", [(n, i % 2, i % 3) for i, n in enumerate(NAMES)], "row 0: 'split' is '0'"),
    "parts as yes and no": (
        "id,label,is_train",
        [(n, i % 2, i % 3) for i, n in enumerate(NAMES)],
        "'is_train' seems to say parts",
    ),
    "train as true and false": (
        "id,label,train",
        [(n, i % 2, i < 15) for i, n in enumerate(NAMES)],
        "'train' seems to say parts; write a column split with train, validation and test, or take it out",
    ),
    "test as 1 and nothing": (
        "id,label,Test Set",
        [(n, i % 2, "1" if i > 15 else "") for i, n in enumerate(NAMES)],
        "'Test Set' seems to say parts",
    ),
    "two columns of parts": (
        "id,label,subset,split",
        [(n, i % 2, ["train", "test"][i >= 10], ["train", "val"][i >= 8]) for i, n in enumerate(NAMES)],
        "row 8: 'subset' says training and 'split' says validation; keep the column that says the parts",
    ),
    "two columns of images": (
        "id,label,partner",
        [(n, i % 2, NAMES[-i]) for i, n in enumerate(NAMES)],
        "columns 'id' and 'partner' name different images; set split.image_column",
    ),
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


COLUMNS = {
    # the header, the row of image i of class c, and what is said
    "the numbers of rows": (",path,label", "{other},images/{i}.png,{c}", "paths in 'path', labels in 'label'"),
    "the numbers of rows beside numbers": (",id,kind", "{other},{i},{c}", "paths in 'id', labels in 'kind'"),
    "labels that could be names": ("code,file", "{number},{i}.png", "paths in 'file', labels in 'code'"),
    "labels twice": ("id,label,class_name", "{i},{number},{c}", "labels in 'class_name'; not used: label"),
    "more columns": ("id,label,width,fold", "{i},{c},9,{number}", "labels in 'label'; not used: width, fold"),
    "spaces": ("id, label", "{i}, {c}", "labels in 'label'"),
    "somebody's folders": ("path,label", "/home/me/pets/images/{i}.png,{c}", "labels in 'label'"),
    "a folder above": ("path,label", "../images/{i}.png,{c}", "labels in 'label'"),
    "the same parts twice": ("id,label,set,split", "{i},{c},{part},{part}", "parts in 'set'; not used: split"),
    "a column called like a part": ("id,label,test", "{i},{c},{number}7", "labels in 'label'; not used: test"),
    "labels called like a part": ("id,label,train", "{i},{c},{number}7", "labels in 'label'; not used: train"),
    "other capitals": ("path,label", "Images/{i}.PNG,{c}", "labels in 'label'"),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_columns_are_taken_for_what_they_are(tmp_path, case):
    header, row, said = COLUMNS[case]
    tree(tmp_path, *[f"images/{i}.png" for i in range(20)])
    rows = [
        (row.format(i=i, other=(7 * i + 3) % 20, c=label, number=int(label == "dog"), part=["train", "test"][i % 2]),)
        for i, label in enumerate(CLASSES)
    ]
    csv(tmp_path / "labels.csv", header, rows)
    source = open_source(str(tmp_path))
    assert said in source.notes[0]
    named = [source.class_names[label] for label in source.labels]
    found = {
        int(path.rpartition("/")[2][:-4]): name for path, name in zip(source.names.to_pylist(), named, strict=True)
    }
    expected = {i: label if "{c}" in row else str(int(label == "dog")) for i, label in enumerate(CLASSES)}
    assert found == expected


FORMS = {
    "semicolons": (";", "utf-8", None),
    "tabs": ("\t", "utf-8", None),
    "a byte order mark": (",", "utf-8-sig", None),
    "UTF-16": ("\t", "utf-16", None),
    "Latin-1": (",", "latin-1", "not UTF-8; save it as UTF-8"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_list_is_read_as_spreadsheets_write_it(tmp_path, form):
    """The folders could be classes; they are not because a list says others."""
    delimiter, encoding, refused = FORMS[form]
    tree(tmp_path, *[f"batch{i % 2}/{name}.png" for i, name in enumerate(NAMES)])
    rows = [
        "path,label",
        *(f"batch{i % 2}/{n}.png,{c}\u00e9" for i, (n, c) in enumerate(zip(NAMES, CLASSES, strict=True))),
    ]
    text = "\r\n".join(rows).replace(",", delimiter)
    (tmp_path / "labels.csv").write_bytes(text.encode(encoding))
    if refused:
        with pytest.raises(UserError, match=refused):
            open_source(str(tmp_path))
        return
    assert classes(open_source(str(tmp_path))) == {n: f"{c}\u00e9" for n, c in zip(NAMES, CLASSES, strict=True)}


def test_a_name_of_several_images_is_refused(tmp_path):
    tree(tmp_path, *[f"batch{i // 10}/{i % 10}.png" for i in range(20)])
    csv(tmp_path / "labels.csv", "file,label", [(f"{i % 10}.png", i % 2) for i in range(20)])
    with pytest.raises(UserError, match=r"row 0: several images are called '0.png'; write their paths"):
        open_source(str(tmp_path))
    csv(tmp_path / "labels.csv", "file,label", [(f"/mine/batch{i // 10}/{i % 10}.png", i % 2) for i in range(20)])
    assert open_source(str(tmp_path)).class_names == ["0", "1"]


def test_a_list_of_some_images_of_a_part_leaves_the_others_out(tmp_path):
    paths = [
        f"{part}/{label}/{part}{name}.png"
        for part in ("train", "test")
        for name, label in zip(NAMES, CLASSES, strict=True)
    ]
    tree(tmp_path, *paths)
    rows = [(path, path.split("/")[1]) for path in paths]
    csv(tmp_path / "train.csv", "path,label", rows[:20])
    assert (len(open_source(str(tmp_path))), open_source(str(tmp_path)).is_test.sum()) == (40, 20)
    csv(tmp_path / "train.csv", "path,label", rows[:15])
    assert (len(open_source(str(tmp_path))), open_source(str(tmp_path)).left_out[0].files) == (15, 25)


def test_a_list_of_other_parts_than_the_folders_is_taken(tmp_path):
    paths = [f"{'test' if i < 4 else 'train'}/{c}/{n}.png" for i, (n, c) in enumerate(zip(NAMES, CLASSES, strict=True))]
    tree(tmp_path, *paths)
    rows = [(path, path.split("/")[1], "test" if i < 8 else "train") for i, path in enumerate(paths)]
    csv(tmp_path / "labels.csv", "path,label,split", rows)
    source = open_source(str(tmp_path))
    assert source.is_test.sum() == 8
    assert "parts in 'split'" in source.notes[0]


@pytest.mark.parametrize("folder", ["", "images/"])
@pytest.mark.parametrize("below", ["", "0/"])
def test_folders_of_images_in_a_list_say_the_parts(tmp_path, folder, below):
    parts = ["train"] * 12 + ["val"] * 3 + ["Test"] * 5
    paths = [f"{folder}{part}/{below}{name}.png" for part, name in zip(parts, NAMES, strict=True)]
    tree(tmp_path / "data", *paths)
    csv(tmp_path / "data" / "labels.csv", "id,label", zip(NAMES, CLASSES, strict=True))
    info = split_dataset(str(tmp_path / "data"), tmp_path / "split")
    assert info.rows == {"train": 12, "validation": 3, "test": 5}
    assert "parts by folders" in info.notes[0]


def test_images_of_a_list_in_folders_of_parts_and_others_are_refused(tmp_path):
    tree(tmp_path, *[f"{['train', 'test', 'extra'][i % 3]}/{name}.png" for i, name in enumerate(NAMES)])
    csv(tmp_path / "labels.csv", "id,label", zip(NAMES, CLASSES, strict=True))
    with pytest.raises(UserError, match="names images in folders named like parts and in extra/; write a column split"):
        open_source(str(tmp_path))


def test_a_file_that_is_no_list_of_the_images_is_named(tmp_path):
    tree(tmp_path, *[f"{i:06}.png" for i in range(9)])
    csv(tmp_path / "labels.csv", "id,label", [(1000 + i, i % 2) for i in range(9)])
    with pytest.raises(
        UserError, match=r"lies in no class folder; .*; labels.csv has no column of their names and one"
    ):
        open_source(str(tmp_path))
