"""A pack holds every image of its tree, byte for byte, and can be taken up where it was stopped."""

import itertools
import json
import re

import pyarrow.parquet as pq
import pytest
from pfs_pipelines.cli import main
from PIL import Image

from pfs_core.config.stages import SplitConfig
from pfs_core.data import split_dataset
from pfs_core.data.decode import decode
from pfs_core.data.open import open_source
from pfs_core.data.pack import COMPLETE, pack
from pfs_core.errors import UserError
from pfs_core.storage import LocalStorage, open_storage
from tests.data.folders import encode, tree

TRAINING = [f"train/{name}/{i}.png" for name in ("cat", "dog") for i in range(20)]
HELD_OUT = [f"val/{name}/{i}.png" for name in ("cat", "dog") for i in range(3)]
SMALL = 4 / 1024
"""Shards of 4 KiB: ten images."""


def packed_rows(folder):
    """``{name: (bytes, label)}`` over all shards."""
    rows = {}
    for path in sorted(folder.glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            assert row["name"] not in rows
            rows[row["name"]] = (row["image"], row["label"])
    return rows


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def images(tmp_path):
    return tree(tmp_path / "tree", *TRAINING, *HELD_OUT)


def test_every_image_is_in_one_shard_as_it_was(images, tmp_path):
    pack(str(images), str(tmp_path / "out"), SMALL)
    rows = packed_rows(tmp_path / "out")
    assert set(rows) == {*TRAINING, *HELD_OUT}
    for name, (data, label) in rows.items():
        assert data == (images / name).read_bytes()
        assert label == ("dog" in name)
    shards = sorted(path.name for path in (tmp_path / "out").glob("*.parquet"))
    assert len(shards) > 3
    assert shards[0].startswith("test-00000-of-")


def test_a_pack_is_a_dataset_with_the_trees_classes_and_held_out_part(images, tmp_path):
    pack(str(images), str(tmp_path / "out"))
    source = open_source(str(tmp_path / "out"))
    assert source.class_names == ["cat", "dog"]
    assert (len(source), source.is_test.sum()) == (46, 6)


def test_classes_are_mixed_within_a_row_group(images, tmp_path):
    pack(str(images), str(tmp_path / "out"), SMALL)
    for path in (tmp_path / "out").glob("train-*.parquet"):
        labels = pq.read_table(path).column("label").to_pylist()
        assert len(labels) < 5 or len(set(labels)) == 2


@pytest.mark.parametrize("workers", [1, 4])
def test_the_same_tree_gives_the_same_bytes(images, tmp_path, workers):
    pack(str(images), str(tmp_path / "a"), SMALL, workers)
    pack(str(images), str(tmp_path / "b"), SMALL, 2)
    a, b = content(tmp_path / "a"), content(tmp_path / "b")
    assert a == b


def test_packed_or_not_the_same_images_are_chosen(images, tmp_path):
    pack(str(images), str(tmp_path / "out"), SMALL)
    chosen = []
    for uri in (images, tmp_path / "out"):
        split_dataset(str(uri), tmp_path / "split", SplitConfig(stratified=True), seed=3)
        index = pq.read_table(tmp_path / "split" / "split.parquet").to_pylist()
        source = open_source(str(uri))
        names = {
            (source.files[f].path, r): n
            for f, r, n in zip(source.file, source.row, source.names.to_pylist(), strict=True)
        }
        chosen.append({names[row["file"], row["row"]]: row["split"] for row in index})
    assert chosen[0] == chosen[1]


def stop_after(monkeypatch, shards):
    """Make the write of one shard too many fail."""
    write, written = LocalStorage.write, []

    def failing(self, path, source):
        if path.endswith(".parquet"):
            if len(written) == shards:
                raise KeyboardInterrupt
            written.append(path)
        write(self, path, source)

    monkeypatch.setattr(LocalStorage, "write", failing)
    return written


def test_a_stopped_pack_is_no_dataset_and_is_taken_up_again(images, tmp_path, monkeypatch):
    out, whole = tmp_path / "out", tmp_path / "whole"
    pack(str(images), str(whole), SMALL)
    with monkeypatch.context() as patch:
        first = stop_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            pack(str(images), str(out), SMALL, workers=1)
    with pytest.raises(UserError, match="is a pack that was stopped; finish it with pfs pack"):
        open_source(str(out))
    with monkeypatch.context() as patch:
        second = stop_after(patch, 1000)
        pack(str(images), str(out), SMALL, workers=1)
    assert len(first) == 2
    assert not {*first} & {*second}
    assert content(out) == content(whole)


def test_a_finished_pack_stays_as_it_is(images, tmp_path, monkeypatch):
    out = tmp_path / "out"
    pack(str(images), str(out), SMALL)
    before = content(out)
    written = stop_after(monkeypatch, 0)
    pack(str(images), str(out), SMALL)
    assert written == []
    assert content(out) == before


def test_another_folder_is_not_written_to(images, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else than this pack"):
        pack(str(images), str(tmp_path / "out"))
    assert list(content(tmp_path / "out")) == ["notes.txt"]


def test_a_tree_that_changed_is_not_mixed_with_an_earlier_pack(images, tmp_path):
    pack(str(images), str(tmp_path / "out"))
    tree(images, "train/cat/more.png")
    with pytest.raises(UserError, match="holds something else than this pack"):
        pack(str(images), str(tmp_path / "out"))


@pytest.mark.parametrize("uri", ["digits", "packed"])
def test_what_is_no_tree_is_refused(images, tmp_path, uri):
    pack(str(images), str(tmp_path / "packed"))
    with pytest.raises(UserError, match="is not a tree of image files"):
        pack("digits" if uri == "digits" else str(tmp_path / uri), str(tmp_path / "out"))


def test_a_list_is_packed_by_the_columns_that_are_set(tmp_path):
    root = tree(tmp_path / "data", *[f"i/{i}.png" for i in range(24)])
    rows = [f"i/{i}.png,{'ab'[i % 2]},{i % 3}" for i in range(24)]
    (root / "l.csv").write_text("\n".join(["path,dx,site", *rows]))
    assert main(["pack", str(root), str(tmp_path / "out")]) == 2
    assert main(["pack", str(root), str(tmp_path / "out"), "--set", "split.label_column=dx"]) == 0
    config = SplitConfig(label_column="dx")
    packed, plain = open_source(str(tmp_path / "out")), open_source(str(root), config)
    assert packed.class_names == plain.class_names == ["a", "b"]
    assert {name: label for name, (_, label) in packed_rows(tmp_path / "out").items()} == dict(
        zip(plain.names.to_pylist(), plain.labels.tolist(), strict=True)
    )
    with pytest.raises(UserError, match="holds something else than this pack"):
        pack(str(root), str(tmp_path / "out"), config=SplitConfig(label_column="site"))


def test_links_to_nothing_are_left_out_of_a_pack_that_skips(images, tmp_path, caplog):
    (images / "train" / "cat" / "x.png").symlink_to("/nowhere.png")
    assert main(["pack", str(images), str(tmp_path / "out")]) == 2
    assert main(["pack", str(images), str(tmp_path / "out"), "--set", "split.on_bad=skip"]) == 0
    assert len(packed_rows(tmp_path / "out")) == 46
    assert "left out: 1 .png (links to what is not there)" in caplog.text
    assert "pack taken: train/ (40 images) as training" in caplog.text


UNUSED = {
    "split.image_size=8": "split.image_size changes nothing in a pack, which takes split.label_column, .*; set it when",
    "split.background=red": "split.background changes nothing in a pack",
    "split.labels=dx": "labels",
    "search.epochs=1": "expected split.NAME=VALUE",
}


@pytest.mark.parametrize("setting", UNUSED)
def test_settings_that_change_nothing_in_a_pack_are_refused(images, tmp_path, capsys, setting):
    assert main(["pack", str(images), str(tmp_path / "out"), "--set", setting]) == 2
    assert re.search(UNUSED[setting], capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_pictures_that_are_shrunk_are_laid_over_the_background_that_is_set(tmp_path):
    root = tree(tmp_path / "data", "a/0.png", "b/0.png")
    (root / "a" / "0.png").write_bytes(encode(Image.new("RGBA", (40, 40), (0, 0, 0, 0))))
    command = ["pack", str(root), str(tmp_path / "out"), "--max-side", "8", "--set", "split.background=red"]
    assert main(command) == 0
    assert decode(packed_rows(tmp_path / "out")["a/0.png"][0]).float().mean((1, 2)).round().tolist() == [254, 0, 0]


def shards_of(uri):
    there = open_storage(uri)
    return {entry.path: there.read(entry) for entry in there.files() if entry.path.endswith(".parquet")}


def test_from_and_to_a_bucket(images, tmp_path, bucket):
    for path in [*TRAINING, *HELD_OUT]:
        open_storage(f"{bucket}/tree").write(path, images / path)
    pack(f"{bucket}/tree", f"{bucket}/packed", SMALL)
    pack(str(images), str(tmp_path / "local"), SMALL)
    assert shards_of(f"{bucket}/packed") == shards_of(tmp_path / "local")
    there = open_storage(f"{bucket}/packed")
    (complete,) = [entry for entry in there.files() if entry.path == COMPLETE]
    assert json.loads(there.read(complete))["rows"].keys() == shards_of(tmp_path / "local").keys()


def test_a_pack_through_failures_is_the_same(images, tmp_path, faulty, bucket):
    pack(str(images), str(tmp_path / "local"), SMALL)
    plan = itertools.cycle(["500", None, "cut", "503", None, "reset", None, None])
    faulty.plan = lambda method, path: next(plan)
    pack(str(images), f"{bucket}/packed", SMALL, workers=1)
    faulty.plan = lambda method, path: None
    assert shards_of(f"{bucket}/packed") == shards_of(tmp_path / "local")
