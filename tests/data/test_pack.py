"""Packing keeps every image as it is, and a pack that was stopped is finished, not begun again."""

import json
import signal
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from pfs_core.data.pack import pack
from pfs_core.data.reading import Reader, row_groups
from pfs_core.data.source import open_source
from pfs_core.errors import UserError
from pfs_core.storage import LocalStorage, open_storage
from tests.data.folders import tree

PATHS = [f"{part}/{c}/{i:02}.png" for part, n in (("train", 40), ("val", 5)) for c in ("cat", "dog") for i in range(n)]


@pytest.fixture(params=["local", "s3"])
def out(request, tmp_path):
    """Where to pack to."""
    return str(tmp_path / "packed") if request.param == "local" else request.getfixturevalue("bucket") + "/packed"


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of about 64 KiB where 1 MiB is asked for, and row groups of 4 images."""
    import pfs_core.data.pack as module

    shards = module._shards
    monkeypatch.setattr(module, "_shards", lambda source, size: shards(source, size // 16))
    monkeypatch.setattr(module, "_GROUP", 4)


def contents(uri):
    """Bytes, class and part of every image, by name."""
    source, found = open_source(uri), {}
    reader, names = Reader(source), source.names.to_pylist()
    for rows in row_groups(source, np.arange(len(source))):
        for row, data in zip(rows.tolist(), reader.read(rows), strict=True):
            found[names[row]] = (data, source.class_names[source.labels[row]], bool(source.is_test[row]))
    return found


def test_every_image_is_as_it_was(tmp_path, out, small_shards):
    folder = str(tree(tmp_path / "tree", *PATHS, size=(40, 40)))
    pack(folder, out, shard_mib=1, workers=2)
    assert contents(out) == contents(folder)
    assert len(contents(out)) == 90
    shards = [entry.path for entry in open_storage(out).files() if entry.path.endswith(".parquet")]
    assert len(shards) > 4
    assert {name.split("-")[0] for name in shards} == {"train", "test"}


def test_a_row_group_holds_a_mixture_of_classes(tmp_path, small_shards):
    pack(str(tree(tmp_path / "tree", *PATHS)), str(tmp_path / "packed"))
    (train,) = (tmp_path / "packed").glob("train-*")
    file = pq.ParquetFile(train)
    groups = [file.read_row_group(i).column("label").to_pylist() for i in range(file.num_row_groups)]
    assert sum(len(set(labels)) > 1 for labels in groups) > len(groups) / 2


KILLED = """
import os, signal, sys
import pfs_core.data.pack as module
from pfs_core.storage import LocalStorage

write, count = LocalStorage.write, []

def counted(self, path, source):
    count.append(path)
    if len(count) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, path, source)

shards = module._shards
module._shards = lambda source, size: shards(source, size // 16)
LocalStorage.write = counted
module.pack(sys.argv[1], sys.argv[2], shard_mib=1, workers=1)
"""


def test_a_pack_that_was_killed_is_refused_until_it_is_finished(tmp_path, small_shards, monkeypatch):
    folder, out = tree(tmp_path / "tree", *PATHS, size=(40, 40)), tmp_path / "packed"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(out)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(UserError, match="is a pack that was stopped; finish it with pfs pack"):
        open_source(str(out))
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    assert len(before) == 2
    pack(str(folder), str(out), shard_mib=1)
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert contents(str(out)) == contents(str(folder))
    monkeypatch.setattr(LocalStorage, "write", lambda self, path, source: pytest.fail(path) if "parquet" in path else 0)
    pack(str(folder), str(out), shard_mib=1)


def test_another_tree_is_not_mixed_in(tmp_path, out):
    folder = tree(tmp_path / "tree", *PATHS)
    pack(str(folder), out)
    (folder / "train" / "cat" / "00.png").unlink()
    with pytest.raises(UserError, match="holds something else than this pack; name an empty folder or prefix"):
        pack(str(folder), out)


def test_what_is_no_tree_is_not_packed(tmp_path):
    for dataset in ("digits", str(tmp_path / "packed")):
        pack(str(tree(tmp_path / "tree", *PATHS)), str(tmp_path / "packed"))
        with pytest.raises(UserError, match="is not a tree of image files; there is nothing to pack"):
            pack(dataset, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_record_says_what_is_where(tmp_path):
    pack(str(tree(tmp_path / "tree", *PATHS)), str(tmp_path / "packed"))
    record = json.loads((tmp_path / "packed" / "complete.json").read_text())
    assert record["rows"] == {"train-00000-of-00001.parquet": 80, "test-00000-of-00001.parquet": 10}
    assert record["source"] == str(tmp_path / "tree")
