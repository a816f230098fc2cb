"""Arrow files as Hugging Face's caches and polars write them: what is read, what is left out, what is refused."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pfs_core.config.stages import SplitConfig
from pfs_core.data import load_split, split_dataset
from pfs_core.data.left_out import LeftOut
from pfs_core.data.open import open_source
from pfs_core.errors import UserError
from tests.data.folders import decoded, images, png

ROWS = 30
PIXELS = images(ROWS)
PNGS = [png(image) for image in PIXELS]
NAMES = [["cat", "dog", "fox"][i % 3] for i in range(ROWS)]
CACHE = "a cache of Hugging Face's map or filter, which repeats rows"


def stream(path, *tables, chunk=7):
    """An IPC stream of tables, each with dictionaries of its own."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table, max_chunksize=chunk)


def ipc_file(path, table):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def rows(start, stop, **columns):
    return pa.table({"image": PNGS[start:stop], "label": NAMES[start:stop], **columns})


def views(texts):
    """A Categorical as polars' write_ipc writes it."""
    names = sorted(set(texts))
    indices = pa.array([names.index(text) for text in texts], pa.uint32())
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string_view()))


def meanings(folder):
    source = open_source(str(folder))
    return [source.class_names[label] for label in source.labels]


@pytest.mark.parametrize("name", ["cache-424d67317fa68955.arrow", "cache-1b_00001_of_00004.arrow", "sub/cache-1.arrow"])
def test_caches_of_hugging_face_are_left_out_and_counted(tmp_path, name):
    stream(tmp_path / "mnist-train.arrow", rows(0, 20))
    stream(tmp_path / "mnist-test.arrow", rows(20, 30))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    for table in (rows(20, 30), pa.table({"indices": pa.array(range(20), pa.uint64())})):
        stream(tmp_path / name, table)
        source = open_source(str(tmp_path))
        assert (len(source), source.is_test.sum()) == (30, 10)
        assert source.left_out == (LeftOut(".arrow", CACHE, 1, name),)


def test_a_folder_of_nothing_but_a_cache_is_refused(tmp_path):
    stream(tmp_path / "cache-1.arrow", rows(0, 9))
    with pytest.raises(UserError, match="no Arrow file but cache-1.arrow, a cache of Hugging Face's map"):
        open_source(str(tmp_path))


def test_a_file_that_is_called_otherwise_is_no_cache(tmp_path):
    stream(tmp_path / "my-cache-1.arrow", rows(0, 9))
    assert len(open_source(str(tmp_path))) == 9


@pytest.mark.parametrize("write", [ipc_file, stream])
def test_categories_of_polars_are_classes_by_name(tmp_path, write):
    write(tmp_path / "train.arrow", rows(0, 30).set_column(1, "label", views(NAMES)))
    assert meanings(tmp_path) == NAMES


@pytest.mark.parametrize("write", [ipc_file, stream])
def test_categories_of_polars_may_say_the_part(tmp_path, write):
    write(tmp_path / "train.arrow", rows(0, 20, split=views(["train"] * 20), name=views([f"{i}" for i in range(20)])))
    assert len(open_source(str(tmp_path))) == 20
    write(tmp_path / "train.arrow", rows(0, 20, split=views(["train", "test"] * 10)))
    with pytest.raises(UserError, match=r"column 'split' says parts \(train, test\)"):
        open_source(str(tmp_path))


def test_a_stream_with_dictionaries_that_change_is_read_row_by_row(tmp_path):
    (tmp_path / "data").mkdir()
    tables = [rows(start, stop).set_column(1, "label", pa.array(NAMES[start:stop]).dictionary_encode())
              for start, stop in ((0, 16), (16, 30))]  # fmt: skip
    stream(tmp_path / "data" / "train.arrow", *tables)
    assert meanings(tmp_path / "data") == NAMES
    assert torch.equal(decoded(tmp_path / "data"), PIXELS)
    split_dataset(str(tmp_path / "data"), tmp_path / "split", SplitConfig(image_size=8))
    assert sum(len(batch) for batch in load_split(tmp_path / "split").part("train").in_order(7)) > 10


def test_images_in_a_dictionary_of_a_stream_are_refused(tmp_path):
    stream(tmp_path / "train.arrow", rows(0, 30).set_column(0, "image", pa.array(PNGS).dictionary_encode()))
    with pytest.raises(UserError, match="column 'image' of a stream holds images or lists by a dictionary"):
        open_source(str(tmp_path))


def test_images_in_a_dictionary_of_structures_are_read(tmp_path):
    values = pa.array([{"bytes": data} for data in PNGS], pa.struct([("bytes", pa.binary_view())]))
    array = pa.DictionaryArray.from_arrays(pa.array(range(ROWS), pa.int32()), values)
    ipc_file(tmp_path / "train.arrow", rows(0, 30).set_column(0, "image", array))
    assert torch.equal(decoded(tmp_path), PIXELS)


@pytest.mark.parametrize("column", ["set", "dataset", "split"])
@pytest.mark.parametrize("value", [["a"], {"a": 1}, b"train"])
def test_lists_and_structures_say_no_parts(tmp_path, column, value):
    pq.write_table(rows(0, 30, **{column: [value] * 30}), tmp_path / "train.parquet")
    assert f"columns that are not used: {column}" in open_source(str(tmp_path)).notes


@pytest.mark.parametrize("cut", ["the mark of the end", "a record batch"])
def test_a_stream_that_is_cut_short_is_refused(tmp_path, cut):
    """Also between two record batches, where Arrow takes it for whole."""
    stream(tmp_path / "train.arrow", rows(0, 21))
    whole = (tmp_path / "train.arrow").read_bytes()
    with pa.OSFile(str(tmp_path / "train.arrow")) as file:
        reader = pa.ipc.open_stream(file)
        for _ in range(2):
            reader.read_next_batch()
        end = len(whole) - 8 if cut == "the mark of the end" else file.tell()
    assert open_source(str(tmp_path)).labels.size == 21
    (tmp_path / "train.arrow").write_bytes(whole[:end])
    with pytest.raises(
        UserError, match="train.arrow is no whole Arrow file: it is cut short; make or download it again"
    ):
        open_source(str(tmp_path))
