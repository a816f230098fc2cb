"""Parquet and Arrow files in folders: named like files, as Spark and Dask write them, or by values of a column."""

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.feather import write_feather

from pfs_core.data.open import open_source
from pfs_core.errors import UserError
from tests.data.folders import encode, picture
from tests.data.test_parts import as_idx

TABLE = pa.table({"image": [encode(picture(i)) for i in range(6)], "label": [0, 1] * 3})
WRITE = {"parquet": pq.write_table, "feather": write_feather}


def files(root, kind, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        WRITE[kind](TABLE, root / path)


@pytest.mark.parametrize("kind", WRITE)
@pytest.mark.parametrize("above", ["", "data/"])
@pytest.mark.parametrize("names", ["{}", "pets_{}", "{}2017"])
def test_folders_that_are_named_like_files_of_parts_are_parts(tmp_path, kind, above, names):
    for part in ("train", "validation", "test"):
        folder = f"{above}{names.format(part)}.{kind}"
        files(tmp_path, kind, f"{folder}/part-00000-0d5e.snappy.{kind}", f"{folder}/part.1.{kind}")
        (tmp_path / folder / "_SUCCESS").write_bytes(b"")
    source = open_source(str(tmp_path))
    assert (len(source), source.is_test.sum(), source.is_validation.sum()) == (36, 12, 12)


def test_folders_that_are_named_like_files_of_no_part_are_refused(tmp_path):
    files(tmp_path, "parquet", "old.parquet/0.parquet", "new.parquet/0.parquet")
    with pytest.raises(UserError, match=r"several folders \(new.parquet, old.parquet\); name one of them"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("above", ["", "split=train/"])
def test_partitions_by_a_value_are_said_to_be_not_read(tmp_path, above):
    files(tmp_path, "parquet", f"{above}label=cat/part-0.parquet", f"{above}label=dog/part-0.parquet")
    said = rf"partitioned by a value in the names of folders \({above}label=cat, .*\), which is not read; write it as"
    with pytest.raises(UserError, match=said):
        open_source(str(tmp_path))


def test_partitions_by_part_are_parts(tmp_path):
    files(tmp_path, "parquet", "split=train/part-0.parquet", "split=test/part-0.parquet")
    assert open_source(str(tmp_path)).is_test.sum() == 6


def test_packed_idx_files_may_be_named_in_capitals(tmp_path):
    as_idx(tmp_path / "small", {"train": 4})
    (tmp_path / "LARGE").mkdir()
    for path in (tmp_path / "small").iterdir():
        (tmp_path / "LARGE" / f"{path.stem}.GZ").write_bytes(gzip.compress(gzip.decompress(path.read_bytes())))
    assert (open_source(str(tmp_path / "LARGE")).images == open_source(str(tmp_path / "small")).images).all()
