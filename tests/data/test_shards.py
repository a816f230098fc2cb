"""What other tools write: Hub layouts, ClassLabel names, save_to_disk folders, DuckDB's and polars' types, tars."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyarrow import feather

from pfs_core.config.stages import SplitConfig
from pfs_core.data import load_split, split_dataset
from pfs_core.data.open import open_source
from pfs_core.data.reading import Reader, row_groups
from pfs_core.errors import UserError
from pfs_core.storage import open_storage
from tests.data.folders import decoded, images, png, tree

ROWS = 30
PIXELS = images(ROWS)
PNGS = [png(image) for image in PIXELS]
LABELS = [i % 2 for i in range(ROWS)]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def features(**labels):
    """Hugging Face's metadata of a schema with an image and these columns of labels."""
    described = {name: {"names": list(names), "_type": "ClassLabel"} for name, names in labels.items()}
    return {"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}, **described}}})}


def table(rows=range(ROWS), **columns):
    made = {"image": pa.array([{"bytes": PNGS[i], "path": f"{i}.png"} for i in rows], STRUCT)}
    made["label"] = pa.array([LABELS[i] for i in rows])
    return pa.table({**made, **columns})


def hub(folder, where="data"):
    """A repository of the Hub: 20 rows to train on, 4 to validate, 6 to test."""
    for part, rows in (("train", range(20)), ("validation", range(20, 24)), ("test", range(24, 30))):
        path = folder / where.format(part) / f"{part}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(rows).replace_schema_metadata(features(label=["cat", "dog"])), path)
    return folder


def saved_to_disk(folder, batch=7):
    """A DatasetDict as ``save_to_disk`` writes it."""
    (folder).mkdir(parents=True, exist_ok=True)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation", "test"]}))
    for part, rows in (("train", range(20)), ("validation", range(20, 24)), ("test", range(24, 30))):
        (folder / part).mkdir()
        made = table(rows).replace_schema_metadata(features(label=["cat", "dog"]))
        name = "data-00000-of-00001.arrow"
        with pa.ipc.new_stream(str(folder / part / name), made.schema) as writer:
            writer.write_table(made, max_chunksize=batch)
        (folder / part / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
        (folder / part / "dataset_info.json").write_text("{}")
        (folder / part / "cache-1.arrow").write_bytes(b"")
    return folder


def shard(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def webdataset(folder, names=("cat", "dog")):
    """Shards of 10 rows to train on, two of them; 4 rows to validate and 6 to test."""
    shards = {"train-000000": range(10), "train-000001": range(10, 20)}
    shards |= {"val-000000": range(20, 24), "test-000000": range(24, 30)}
    for name, rows in shards.items():
        members = []
        for i in rows:
            label = names[LABELS[i]] if names else str(LABELS[i])
            members += [(f"{i:04}.png", PNGS[i]), (f"{i:04}.cls", label.encode()), (f"{i:04}.json", b"{}")]
        shard(folder / f"{name}.tar", members)
    return folder


MADE = {
    "hub": hub,
    "converted hub": lambda folder: hub(folder, "default/{}"),
    "save_to_disk": saved_to_disk,
    "webdataset": webdataset,
}


@pytest.mark.parametrize("where", ["folder", "bucket"])
@pytest.mark.parametrize("made", MADE)
def test_every_row_is_read_with_its_class_and_its_part(made, where, tmp_path, request):
    uri = str(MADE[made](tmp_path / "data"))
    if where == "bucket":
        uri = f"{request.getfixturevalue('bucket')}/set"
        for path in sorted((tmp_path / "data").rglob("*.*")):
            if path.is_file():
                open_storage(uri).write(str(path.relative_to(tmp_path / "data")), path)
    info = split_dataset(uri, tmp_path / "split")
    assert info.class_names == ["cat", "dog"]
    assert info.rows == {"train": 20, "validation": 4, "test": 6}
    split = load_split(tmp_path / "split")
    for part, rows in (("train", range(20)), ("validation", range(20, 24)), ("test", range(24, 30))):
        found = split.part(part)
        order = sorted(range(len(rows)), key=lambda i: found.images[i].numpy().tobytes())
        expected = sorted(rows, key=lambda i: PIXELS[i].numpy().tobytes())
        assert torch.equal(found.images[order], PIXELS[expected])
        assert found.labels[order].tolist() == [LABELS[i] for i in expected]


@pytest.mark.parametrize("made", ["save_to_disk", "webdataset"])
def test_what_is_streamed_from_shards_is_what_is_in_memory(made, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    uri = str(MADE[made](tmp_path / "data"))
    split_dataset(uri, tmp_path / "split", SplitConfig(image_size=8))
    streamed = load_split(tmp_path / "split").part("train")
    labels = torch.cat([target for _, target in streamed.epoch(5, torch.Generator().manual_seed(0))])
    assert sorted(labels.tolist()) == [0] * 10 + [1] * 10
    assert sum(len(batch) for batch in streamed.in_order(7)) == 20


KINDS = {
    "binary": pa.binary(),
    "large_binary": pa.large_binary(),
    "binary_view": pa.binary_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.binary()),
    "struct": STRUCT,
    "struct of views": pa.struct([("bytes", pa.binary_view()), ("path", pa.string_view())]),
}


@pytest.mark.parametrize("column", ["image", "img"])
@pytest.mark.parametrize("kind", KINDS)
def test_images_of_every_type_of_column_are_read(kind, column, tmp_path):
    values = [{"bytes": data, "path": "x"} for data in PNGS] if "struct" in kind else PNGS
    array = pa.array(values).dictionary_encode() if kind == "dictionary" else pa.array(values, KINDS[kind])
    pq.write_table(
        pa.table({column: array, "label": LABELS}),
        tmp_path / "train.parquet",
        row_group_size=100 if "views" in kind else 8,
    )
    source = open_source(str(tmp_path))
    assert source.image_column == column
    assert torch.equal(decoded(tmp_path), PIXELS)


def test_columns_are_named_by_settings(tmp_path):
    fine, coarse = [i % 3 for i in range(ROWS)], [i % 2 for i in range(ROWS)]
    made = pa.table({"image": PNGS, "photo": PNGS[::-1], "fine_label": fine, "coarse_label": coarse})
    metadata = features(fine_label=["a", "b", "c"], coarse_label=["x", "y"])
    (tmp_path / "data").mkdir()
    pq.write_table(made.replace_schema_metadata(metadata), tmp_path / "data" / "train.parquet")
    with pytest.raises(UserError, match=r"several columns of labels .*fine_label, coarse_label; .*split.label_column"):
        open_source(str(tmp_path / "data"))
    prints = set()
    for column, labels, names in (("fine_label", fine, ["a", "b", "c"]), ("coarse_label", coarse, ["x", "y"])):
        source = open_source(str(tmp_path / "data"), SplitConfig(label_column=column))
        assert source.labels.tolist() == labels
        assert source.class_names == names
        prints.add(source.fingerprint)
    assert len(prints) == 2
    config = SplitConfig(label_column="fine_label", image_column="photo")
    split_dataset(str(tmp_path / "data"), tmp_path / "split", config)
    assert torch.equal(load_split(tmp_path / "split").images, PIXELS.flip(0))


def test_columns_that_are_set_must_exist(tmp_path):
    pq.write_table(pa.table({"image": PNGS, "label": LABELS}), tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"train.parquet has no column 'photo' .*its columns: image, label"):
        open_source(str(tmp_path), SplitConfig(image_column="photo"))


def test_several_configurations_of_a_repository_are_refused(tmp_path):
    hub(tmp_path, "full")
    hub(tmp_path, "small")
    with pytest.raises(UserError, match=r"Parquet files in several folders \(full, small\); name one of them"):
        open_source(str(tmp_path))


def test_a_picture_beside_a_folder_of_shards_names_the_folder(tmp_path):
    (hub(tmp_path) / "banner.png").write_bytes(PNGS[0])
    with pytest.raises(UserError, match=f"banner.png lies in no class folder.*or name {tmp_path}/data"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("names", [None, ("cat", "dog")])
def test_labels_of_tars_are_numbers_or_names(tmp_path, names):
    source = open_source(str(webdataset(tmp_path, names)))
    assert source.class_names == list(names or ("0", "1"))
    assert [source.class_names[i] for i in source.labels] == [
        (names or "01")[int(n[:4]) % 2] for n in source.names.to_pylist()
    ]
    assert source.left_out == ((".json", "neither image nor label", ROWS, "0024.json"),)


def test_members_of_a_tar_that_are_no_rows_are_counted(tmp_path):
    members = [("a/1.jpg", PNGS[0]), ("a/1.cls", b"0"), ("a/2.jpg", PNGS[1]), ("a/2.cls", b"1\n"), ("a/3.jpg", PNGS[2])]
    members += [("a/4.cls", b"1"), ("a/5.png", PNGS[3]), ("a/5.seg.png", PNGS[3]), ("a/5.cls", b"0"), ("README", b"")]
    shard(tmp_path / "train.tar", members)
    source = open_source(str(tmp_path))
    assert source.names.to_pylist() == ["a/1.jpg", "a/2.jpg", "a/5.png"]
    assert {(one.suffix, one.reason) for one in source.left_out} == {
        (".jpg", "has no label"),
        (".cls", "has no image"),
        (".seg.png", "neither image nor label"),
        ("", "neither image nor label"),
    }
    assert torch.equal(decoded(tmp_path), PIXELS[[0, 1, 3]])


def test_hidden_members_of_a_tar_are_passed_over_and_links_counted(tmp_path):
    """A Mac puts a file of its own beside every file."""
    members = [(f"1/{i}.{kind}", data) for i in range(4) for kind, data in (("png", PNGS[i]), ("cls", b"%d" % (i % 2)))]
    shard(
        tmp_path / "train.tar",
        [m for name, data in members for m in ((f"./{name[:2]}._{name[2:]}", b"x"), (f"./{name}", data))],
    )
    with tarfile.open(tmp_path / "train.tar", "a") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo("1/9.png")
            link.type, link.linkname = kind, "1/0.png"
            tar.addfile(link)
    source = open_source(str(tmp_path))
    assert source.names.to_pylist() == [f"./1/{i}.png" for i in range(4)]
    assert source.left_out == ((".png", "links are not followed", 2, "1/9.png"),)


BROKEN_TARS = {
    "cut short": (lambda data: data[:5000], "train.tar is no whole tar file"),
    "cut in an image": (lambda data: data[:700], "train.tar is no whole tar file"),
    "no tar": (lambda data: b"no tar" * 200, "train.tar is no whole tar file"),
}


@pytest.mark.parametrize("case", BROKEN_TARS)
def test_a_broken_tar_is_refused(tmp_path, case):
    spoil, message = BROKEN_TARS[case]
    members = [m for i in range(9) for m in ((f"{i}.png", PNGS[i] * 9), (f"{i}.cls", b"0"))]
    shard(tmp_path / "train.tar", members)
    path = tmp_path / "train.tar"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match=message) as error:
        open_source(str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("1.png", PNGS[0]), ("1.json", b"{}")], r"has no image with a label; expected KEY.jpg and KEY.cls"),
        ([("1.png", PNGS[0]), ("1.cls", b"0"), ("2.png", PNGS[1]), ("2.cls", b"dog")], "is a number and others are"),
        ([("1.png", PNGS[0]), ("1.cls", b"cat"), ("2.png", PNGS[1]), ("2.cls", b"")], "2.cls: the label is missing"),
        ([("1.png", PNGS[0]), ("1.cls", b"0.0")], "1.cls: the label is 0.0, which is no whole number"),
        ([("1.png", PNGS[0]), ("1.cls", b'{"label": 1}')], "1.cls: the label is '{\"label\": 1}', which is no name"),
        ([("1.png", PNGS[0]), ("1.cls", b"\x01\x00\x00\x00")], "1.cls: the label is no text"),
        ([("1.png", PNGS[0]), ("1.cls", b"caf\xe9")], "1.cls: the label is not UTF-8"),
        ([("1.png", PNGS[0]), ("1.cls", b"a" * 2000)], "1.cls: the label has 2,000 bytes, too many for a class"),
        ([("1.png", PNGS[0]), ("1.cls", b"0")] * 2, "several files are named like 1.png; give every image a key"),
        ([("1.png", PNGS[0]), ("1.cls", b"1"), ("2.png", PNGS[1]), ("2.cls", b"2")], "labels count from 1 to 2"),
    ],
)
def test_labels_of_a_tar_that_say_nothing_are_refused(tmp_path, members, message):
    shard(tmp_path / "train.tar", members)
    with pytest.raises(UserError, match=message):
        open_source(str(tmp_path))


@pytest.mark.parametrize("end", [10, 1000, -5])
def test_a_broken_arrow_stream_is_refused(tmp_path, end):
    saved_to_disk(tmp_path / "data")
    path = tmp_path / "data" / "test" / "data-00000-of-00001.arrow"
    path.write_bytes(path.read_bytes()[:end])
    try:
        open_source(str(tmp_path / "data"))
    except UserError as error:
        assert "test/data-00000-of-00001.arrow is no whole Arrow file" in str(error)
        assert "\n" not in str(error)
    else:
        assert end == -5  # only the mark of the end is missing


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_feather_has_the_rows_of_parquet(tmp_path, compression):
    for folder in ("feather", "parquet"):
        (tmp_path / folder).mkdir()
    for part, rows in (("train", range(20)), ("test", range(20, 26))):
        made = table(rows).replace_schema_metadata(features(label=["cat", "dog"]))
        feather.write_feather(made, tmp_path / "feather" / f"{part}.feather", compression, chunksize=7)
        pq.write_table(made, tmp_path / "parquet" / f"{part}.parquet")
    arrow, parquet = (open_source(str(tmp_path / folder)) for folder in ("feather", "parquet"))
    assert arrow.class_names == parquet.class_names == ["cat", "dog"]
    assert arrow.labels.tolist() == parquet.labels.tolist()
    assert arrow.is_test.tolist() == parquet.is_test.tolist()
    written = [*range(20, 26), *range(20)]  # test comes before train
    for rows in row_groups(arrow, np.arange(26)):
        assert Reader(arrow).read(rows) == [PNGS[written[i]] for i in rows]


def test_categories_in_feather_are_classes_by_name(tmp_path):
    made = table(range(4))
    made = made.set_column(1, "label", pa.array(["dog", "cat"] * 2).dictionary_encode())
    feather.write_feather(made, tmp_path / "train.feather")
    source = open_source(str(tmp_path))
    assert [source.class_names[label] for label in source.labels] == ["dog", "cat"] * 2


def test_a_missing_arrow_file_is_named(tmp_path):
    saved_to_disk(tmp_path / "data")
    (tmp_path / "data" / "test" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(UserError, match=r"test/data-00000-of-00001.arrow is missing"):
        open_source(str(tmp_path / "data"))


def test_other_tools_types_are_read(tmp_path):
    """What pandas, polars and DuckDB write: an index, views, categories, wide integers in one row group."""
    made = {
        "image": pa.array(PNGS, pa.binary_view()),
        "label": pa.array([["cat", "dog"][i] for i in LABELS]).dictionary_encode(),
        "name": pa.array([f"{i}" for i in range(ROWS)], pa.string_view()),
        "__index_level_0__": pa.array(np.arange(ROWS)),
    }
    pq.write_table(pa.table(made), tmp_path / "part-0.parquet")
    source = open_source(str(tmp_path))
    assert source.class_names == ["cat", "dog"]
    assert source.labels.tolist() == LABELS
    assert source.names.to_pylist()[:2] == ["0", "1"]
    assert torch.equal(decoded(tmp_path), PIXELS)


UNREAD = {
    # the files beside those of the training part; the one that is named
    "a compressed shard": (["data/test-000000.tar.gz"], "data/test-000000.tar.gz"),
    "an archive": (["test.zip"], "test.zip"),
    "another format": (["val.h5"], "val.h5"),
    "a folder": (["test/a.heic", "test/b.heic"], "test/a.heic"),
}
HARMLESS = ["README.md", "test.csv", "train.zip", "test_notes.txt", "images.zip", "train_test.zip", "latest.zip"]


@pytest.mark.parametrize("kind", ["tree", "tar"])
@pytest.mark.parametrize("case", UNREAD)
def test_a_part_in_a_form_that_is_not_read_is_refused(tmp_path, kind, case):
    paths, named = UNREAD[case]
    if kind == "tree":
        tree(tmp_path, *[f"train/{c}/{i}.png" for c in "ab" for i in range(5)])
        paths, named = [path.removeprefix("data/") for path in paths], named.removeprefix("data/")
    else:
        shard(tmp_path / "data" / "train-0.tar", [(f"{i}.{end}", data) for i in range(4) for end, data in pair(i)])
    for path in (*paths, *HARMLESS):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    with pytest.raises(
        UserError, match=rf"/{named} is named like a (test|validation) part and is not read \("
    ) as error:
        open_source(str(tmp_path))
    assert "\n" not in str(error.value)
    for path in paths:
        (tmp_path / path).unlink()
    if case == "a folder":
        (tmp_path / "test").rmdir()
    assert len(open_source(str(tmp_path))) == (10 if kind == "tree" else 4)


def pair(i):
    return (("png", PNGS[i]), ("cls", str(i % 2).encode()))


@pytest.mark.parametrize("beside", ["test.zip", "val.zip", "test/x.heic"])
def test_an_archive_of_a_part_that_is_there_is_counted(tmp_path, beside):
    tree(tmp_path, *[f"{part}/{c}/{i}.png" for part in ("train", "val", "test") for c in "ab" for i in range(5)])
    (tmp_path / beside).write_bytes(b"x")
    assert open_source(str(tmp_path)).left_out[0].example == beside
