"""Folders that are no classes are called what they are, and what is advised can be read."""

import pytest

from pfs_core.data.open import open_source
from pfs_core.errors import UserError
from pfs_core.storage import open_storage
from tests.data.folders import encode, picture, tree

IMAGE = encode(picture(0))


@pytest.fixture(params=["folder", "bucket"])
def address(request, tmp_path):
    """An empty place for a dataset, as it can be named."""
    return str(tmp_path) if request.param == "folder" else f"{request.getfixturevalue('bucket')}/set"


def refused(address, *paths):
    """The line that refuses files of a dataset at these paths."""
    for path in paths:
        open_storage(address).write(path, IMAGE if path.endswith(".png") else b"0 .5 .5 .1 .1")
    with pytest.raises(UserError) as error:
        open_source(address)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_list_in_a_folder_is_named_by_its_folder(address):
    line = refused(address, "data/labels.csv", *(f"data/images/{i}.png" for i in range(4)))
    assert line.endswith(f"has no classes; if data/labels.csv is the list of its images, name {address}/data")
    open_storage(address).write("data/labels.csv", b"path,label\n0.png,a\n1.png,b\n2.png,a\n3.png,b\n")
    assert open_source(f"{address}/data").class_names == ["a", "b"]


def test_a_folder_of_images_in_a_folder_has_no_classes_to_be_named(address):
    line = refused(address, "data/images/0.png", "data/images/1.png")
    assert line.endswith("has a single class, data/images/; at least 2 are needed")


def test_a_folder_of_classes_in_a_folder_is_named_also_beside_a_list_elsewhere(address):
    line = refused(address, "data/images/a/0.png", "data/images/b/1.png", "data/about/labels.csv")
    assert line.endswith(f"if the folders in it are the classes, name {address}/data/images")
    assert open_source(f"{address}/data/images").class_names == ["a", "b"]


def test_parts_within_parts_are_called_so(address):
    line = refused(address, *(f"{part}/{part}/{c}/0.png" for part in ("train", "test") for c in "ab"))
    assert "has folders named like parts within parts (test/test/, train/train/); expected train/CLASS/" in line


def test_a_single_class_beside_texts_is_a_single_class(address):
    """As YOLO's tools export them."""
    line = refused(
        address, *(f"{part}/{end}" for part in ("train", "valid") for end in ("images/0.png", "labels/0.txt"))
    )
    assert "has a single class, images/ (train/labels/ holds no images, but files such as 0.txt); expected" in line
    assert "remove" not in line


def test_the_images_of_voc_are_a_single_class_beside_annotations(address):
    line = refused(address, "JPEGImages/0.png", "JPEGImages/1.png", "Annotations/0.xml")
    assert "a single class, JPEGImages/ (Annotations/ holds no images, but files such as 0.xml)" in line


def test_parts_of_nothing_but_images_below_a_folder_are_not_to_be_named(address):
    line = refused(address, "images/train/0.png", "images/val/0.png", "labels/train/0.txt")
    assert "named like parts below images/, and no class folders in them (images/train/0.png); expected" in line
    assert "name " not in line


def test_a_folder_of_texts_beside_classes_is_refused_wherever_it_is(address):
    line = refused(address, "cat/0.png", "dog/0.png", "labels/0.txt")
    assert f"class folder {address}/labels holds no training images, but files such as 0.txt; move it out" in line


@pytest.mark.parametrize("shard", ["a.tar", "a.arrow"])
def test_a_picture_beside_shards_says_that_they_are_not_read(address, shard):
    line = refused(address, "preview.png", shard)
    assert "preview.png lies in no class folder; expected CLASS/image.jpg, or a list such as labels.csv" in line
    assert line.endswith(f"; {shard} and the like are read where no images are beside them")


def test_folders_that_hold_texts_for_a_part_only_are_let_pass(tmp_path):
    tree(tmp_path, *(f"train/{c}/0.png" for c in "ab"), "val/a/0.png")
    (tmp_path / "val" / "b").mkdir()
    (tmp_path / "val" / "b" / "none.txt").write_text("no images of b")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("")
    assert open_source(str(tmp_path)).class_names == ["a", "b"]
