"""Files without rows, as Spark writes them for empty partitions: left out, unless a part would be missing."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.feather import write_feather

from pfs_core.data.left_out import LeftOut
from pfs_core.data.open import open_source
from pfs_core.errors import UserError
from tests.data.folders import encode, picture
from tests.data.test_shards import shard

FULL = pa.table({"image": [encode(picture(i)) for i in range(6)], "label": [0, 1] * 3})


def as_tar(table, path):
    kinds = zip(table["image"].to_pylist(), table["label"].to_pylist(), strict=True)
    members = [((f"{i}.png", data), (f"{i}.cls", str(label).encode())) for i, (data, label) in enumerate(kinds)]
    shard(path, [member for pair in members for member in pair])


WRITE = {"parquet": pq.write_table, "feather": write_feather, "tar": as_tar}


@pytest.mark.parametrize("kind", WRITE)
@pytest.mark.parametrize("part", ["train", "test", "part"])
def test_a_file_without_rows_is_left_out_and_counted(tmp_path, kind, part):
    for name, table in (("train-1", FULL), ("test-1", FULL), (f"{part}-0", FULL[:0])):
        WRITE[kind](table, tmp_path / f"{name}.{kind}")
    source = open_source(str(tmp_path))
    assert (len(source), source.is_test.sum()) == (12, 6)
    assert source.left_out == (LeftOut(f".{kind}", "has no rows", 1, f"{part}-0.{kind}"),)
    assert [source.files[i].path for i in sorted(set(source.file))] == [f"test-1.{kind}", f"train-1.{kind}"]


@pytest.mark.parametrize("kind", WRITE)
@pytest.mark.parametrize("part", ["train", "test"])
def test_a_part_without_rows_is_refused_and_not_drawn_from_another(tmp_path, kind, part):
    for name, table in (("train", FULL), ("test", FULL), (part, FULL[:0])):
        WRITE[kind](table, tmp_path / f"{name}.{kind}")
    said = {"train": "training"}.get(part, part)
    with pytest.raises(UserError, match=f"{part}.{kind} holds no rows, and neither does another {said} file"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_columns_of_a_file_without_rows_do_not_matter(tmp_path, kind):
    """Pandas writes a table without rows with columns of no type, or without any."""
    WRITE[kind](FULL, tmp_path / f"train-0.{kind}")
    WRITE[kind](pa.table({"image": pa.nulls(0), "x": pa.nulls(0)}), tmp_path / f"train-1.{kind}")
    assert len(open_source(str(tmp_path))) == 6
