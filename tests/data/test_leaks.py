"""Images that a dataset has in two of its parts are said by the split, however they are stored."""

import shutil

import numpy as np
import pytest

from pfs_core.config.stages import SplitConfig
from pfs_core.data import split_dataset
from pfs_core.data.leaks import in_two_parts
from pfs_core.data.open import open_source
from tests.data.folders import images, png, tree, write

SAID = "what is tested should not be trained on"


def said(folder, out, **settings):
    return [note for note in split_dataset(str(folder), out, SplitConfig(**settings)).notes if SAID in note]


@pytest.mark.parametrize("settings", [{}, {"image_size": 8}])
def test_files_in_two_parts_are_said(tmp_path, settings):
    root = tree(tmp_path / "pets", *[f"{p}/{c}/{i}.png" for p in ("train", "test") for c in "ab" for i in range(6)])
    assert said(root, tmp_path / "without", **settings) == []
    for i in range(2):
        shutil.copy(root / "train" / "a" / f"{i}.png", root / "test" / "b" / f"{i}.png")
    pair = f"2 images are in two parts, such as {root}/train/a/0.png and {root}/test/b/0.png"
    for out in ("read", "known"):  # the second time it is kept
        assert said(root, tmp_path / out, **settings) == [f"{pair}: {SAID}"]


def test_rows_of_tables_in_two_parts_are_said(tmp_path):
    (tmp_path / "data").mkdir()
    pictures = [png(image) for image in images(30)]
    write(tmp_path / "data" / "train.parquet", pictures[:20], [0, 1] * 10)
    write(tmp_path / "data" / "test.parquet", pictures[19:], [0, 1] * 5 + [0])
    (line,) = said(tmp_path / "data", tmp_path / "split")
    assert line.startswith("1 image is in two parts, such as ")


def test_a_set_that_is_not_in_parts_is_not_looked_at(tmp_path):
    (tmp_path / "data").mkdir()
    pictures = [png(image) for image in images(10)]
    write(tmp_path / "data" / "all.parquet", pictures * 2, [0, 1] * 10)
    assert said(tmp_path / "data", tmp_path / "split") == []


def test_each_row_of_a_later_part_counts_once(tmp_path):
    root = tree(tmp_path, *[f"{p}/{c}/{i}.png" for p in ("train", "val", "test") for c in "ab" for i in range(2)])
    source = open_source(str(root))
    order = [source.place(i).removeprefix(f"{root}/") for i in range(len(source))]
    digests = np.arange(1, len(source) + 1, dtype=np.uint64)
    assert in_two_parts(source, digests) == ()
    same = ["train/a/0.png", "train/a/1.png", "val/b/0.png", "test/a/0.png", "test/a/1.png"]
    digests[[order.index(path) for path in same]] = 99
    count, one, other = in_two_parts(source, digests)
    assert count == 3
    assert order[one].startswith("train/a/")
    assert order[other] in same[2:]
    digests[[order.index(path) for path in same[:2]]] = 0  # not usable
    count, one, _ = in_two_parts(source, digests)
    assert (count, order[one]) == (2, "val/b/0.png")
