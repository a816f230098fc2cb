"""Folders of images: which are the classes, which the test set, and what is refused."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from pfs_core.config.stages import SplitConfig
from pfs_core.data import load_split, split_dataset
from pfs_core.data.formats.tree import open_tree
from pfs_core.data.left_out import LeftOut
from pfs_core.data.open import open_source
from pfs_core.errors import UserError
from pfs_core.storage import S3Storage, open_storage
from pfs_core.storage.artifacts import read_json
from pfs_core.storage.listing import Entry, Listing
from tests.data.folders import decoded, encode, picture, tree


def refused(root, message):
    with pytest.raises(UserError, match=message) as error:
        open_source(str(root))
    assert "\n" not in str(error.value)


def test_a_folder_is_a_class(tmp_path):
    source = open_source(str(tree(tmp_path, "cat/2.png", "dog/1.png", "cat/10.png")))
    assert source.kind == "tree"
    assert source.class_names == ["cat", "dog"]
    assert source.names.to_pylist() == ["cat/10.png", "cat/2.png", "dog/1.png"]
    assert source.labels.tolist() == [0, 0, 1]
    assert not source.is_test.any()
    assert source.is_validation is None
    assert source.notes == ()
    assert source.place(1) == f"{tmp_path}/cat/2.png"


@pytest.mark.parametrize("held_out", ["val", "valid", "validation", "test"])
def test_a_held_out_folder_is_the_test_set(tmp_path, held_out):
    source = open_source(str(tree(tmp_path, f"{held_out}/b/1.png", "train/a/1.png", "train/b/2.png")))
    assert source.class_names == ["a", "b"]
    found = zip(source.names.to_pylist(), source.labels.tolist(), source.is_test.tolist(), strict=True)
    expected = {(f"{held_out}/b/1.png", 1, True), ("train/a/1.png", 0, False), ("train/b/2.png", 1, False)}
    assert set(found) == expected


def test_a_training_folder_alone_has_no_test_set(tmp_path):
    source = open_source(str(tree(tmp_path, "train/a/1.png", "train/b/2.png")))
    assert (source.class_names, source.is_test.any()) == (["a", "b"], False)


def test_a_folder_named_train_among_classes_is_a_class(tmp_path):
    source = open_source(str(tree(tmp_path, "train/1.png", "plane/1.png")))
    assert source.class_names == ["plane", "train"]


def test_what_lies_deeper_belongs_to_the_class(tmp_path):
    source = open_source(str(tree(tmp_path, "a/x/y/1.png", "a/2.png", "b/z/1.png")))
    assert source.class_names == ["a", "b"]
    assert source.labels.tolist() == [0, 0, 1]


def test_suffixes_are_of_either_case_and_other_files_are_passed_over(tmp_path):
    tree(tmp_path, "a/1.PNG", "a/.2.png", "b/1.Png", ".c/1.png")
    (tmp_path / "b" / "labels.csv").write_text("1")
    source = open_source(str(tmp_path))
    assert source.names.to_pylist() == ["a/1.PNG", "b/1.Png"]
    assert source.left_out == ((".csv", "not an image", 1, "b/labels.csv"),)


@pytest.mark.parametrize("paths", [("a/1.png", "b/1.png", "1.png"), ("train/a/1.png", "train/b/1.png", "train/1.png")])
def test_an_image_outside_a_class_folder_is_refused(tmp_path, paths):
    refused(tree(tmp_path, *paths), "1.png lies in no class folder")


@pytest.mark.parametrize(
    ("paths", "empty"), [(("a/1.png", "b/1.png"), "c"), (("train/a/1.png", "train/b/1.png"), "train/c")]
)
def test_a_class_folder_without_images_is_refused(tmp_path, paths, empty):
    tree(tmp_path, *paths)
    (tmp_path / empty).mkdir()
    refused(tmp_path, f"class folder {tmp_path}/{empty} holds no training images")


@pytest.mark.parametrize("part", ["", "train/"])
def test_a_class_of_images_that_are_not_read_is_refused(bucket, part):
    there = open_storage(f"{bucket}/set")
    for path in ("a/1.png", "b/1.png", "c/1.HEIC", "c/2.heic"):
        there.write(part + path, encode(picture(0)))
    refused(there.uri, "class folder 'c' has no image that is read, but 2 of other formats; convert them")


def test_a_test_class_without_training_images_is_refused(tmp_path):
    refused(tree(tmp_path, "train/a/1.png", "train/b/1.png", "val/c/1.png"), "c")


def test_a_single_class_is_refused(tmp_path):
    refused(tree(tmp_path, "a/1.png", "a/2.png"), "a single class")


LEVELS = {
    # folders with three images each, and what is said
    "parts in another language": (
        ["entrenamiento/gato", "entrenamiento/perro", "prueba/gato", "prueba/perro"],
        r"has the same folders \(gato/, perro/\) in each of entrenamiento/, prueba/, so that either could be",
    ),
    "domains": (["art/cat", "art/dog", "photo/cat", "photo/dog", "photo/fox"], "either could be the classes"),
    "folds": (["fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog"], "either could be the classes"),
    "parts and domains in one name": (["trainA", "trainB", "testA", "testB"], "named like parts and classes at once"),
    "parts and classes in one name": (
        ["train_a", "train_b", "test_a", "test_b"],
        "named like parts and classes at once",
    ),
    "one folder": (
        ["images/cat", "images/dog"],
        "a single class, images/; if the folders in it are .*, name .*/images$",
    ),
    "one folder in one folder": (["a/b/train/cat", "a/b/test/cat"], "a single class, a/b/; if .*, name .*/a/b$"),
    "images and masks": (["images", "masks"], r"folders of images and of masks \(images/, masks/\), not of classes"),
    "images and masks in parts": (["train/imgs", "train/gt", "val/imgs", "val/gt"], "folders of images and of masks"),
    "names that differ in a space": (["cat", "cat ", "dog"], "has classes 'cat' and 'cat ', which differ in"),
    "names that differ in Unicode": (["caf\u00e9", "cafe\u0301"], "which differ in"),
    "no name": ([" ", "dog"], "has a class without a name"),
    "zeros in front in one part": (
        ["train/01", "train/02", "test/1"],
        "class '1' has no training images, but '01' has",
    ),
}


@pytest.mark.parametrize("case", LEVELS)
def test_folders_that_could_be_read_in_two_ways_are_refused(tmp_path, case):
    folders, message = LEVELS[case]
    refused(tree(tmp_path, *[f"{folder}/{i}.png" for folder in folders for i in range(3)]), message)


def test_folders_below_classes_are_said(tmp_path):
    source = open_source(str(tree(tmp_path, "cat/persian/1.png", "cat/siamese/1.png", "dog/pug/1.png", "dog/2.png")))
    assert source.class_names == ["cat", "dog"]
    said = "classes are the folders cat/, dog/; images in folders below (persian/, pug/, siamese/) belong to them"
    assert source.notes == (said,)


@pytest.mark.parametrize("system", ["__MACOSX", "@eaDir", "cat/@eaDir/0.png"])
def test_folders_of_systems_are_passed_over(tmp_path, system):
    source = open_source(str(tree(tmp_path, "cat/1.png", "dog/1.png", f"{system}/2.png")))
    assert (source.class_names, len(source), source.left_out) == (["cat", "dog"], 2, ())


@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_file_is_counted_and_not_read(tmp_path, linked):
    root = tree(tmp_path / "pets", "cat/1.png", "dog/1.png")
    os.mkfifo(tmp_path / "pipe.png" if linked else root / "cat" / "2.png")
    if linked:
        (root / "cat" / "2.png").symlink_to(tmp_path / "pipe.png")
    source = open_source(str(root))
    assert len(source) == 2
    assert source.left_out == (LeftOut(".png", "pipes, sockets and devices are not read", 1, "cat/2.png"),)


def test_links_to_what_is_not_there_are_refused_or_left_out(tmp_path):
    root = tree(tmp_path / "pets", "cat/1.png", "dog/1.png")
    for name in ("2.png", "3.png"):
        (root / "cat" / name).symlink_to(f"../fox/{name}")
    refused(root, "2 links lead to what is not there, such as cat/2.png to ../fox/2.png; copy what they lead to")
    source = open_source(str(root), SplitConfig(on_bad="skip"))
    assert len(source) == 2
    assert source.left_out == (LeftOut(".png", "links to what is not there", 2, "cat/2.png"),)


@pytest.mark.parametrize(("link", "to"), [("test", "train"), ("test/cat", "train/cat"), ("train/fox", "train/cat")])
def test_a_folder_that_is_there_twice_by_a_link_is_refused(tmp_path, link, to):
    tree(tmp_path, "train/cat/1.png", "train/dog/1.png")
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / to)
    refused(tmp_path, "are one folder by a link, so its images would be there twice")


def plainly(paths):
    """Classes, labels and held-out rows of a tree, one path after the other; or how it is refused."""
    parts = [path.split("/") for path in paths]
    tops = {part[0] for part in parts if len(part) > 1}
    split = "train" in tops and tops <= {"train", "val", "test"}
    if not split and tops & {"train", "val", "test"}:
        return "folders named like parts"  # unless none of them holds folders, which the caller knows to be rare
    for part in parts:
        if len(part) < 2 + split:
            return f"{'/'.join(part)} lies in no class folder"
    both = {"val", "test"} <= tops
    test = [split and part[0] != "train" and not (both and part[0] == "val") for part in parts]
    validation = [split and both and part[0] == "val" for part in parts]
    folders = [part[int(split)] for part in parts]
    training = [not (a or b) for a, b in zip(test, validation, strict=True)]
    names = sorted({folder for folder, trains in zip(folders, training, strict=True) if trains})
    for path, folder in zip(paths, folders, strict=True):
        if folder not in names:
            return f"{path}: class {folder!r} has no training images"
    return (
        (names, [names.index(folder) for folder in folders], test, validation) if len(names) > 1 else "a single class"
    )


FOLDERS = st.lists(st.sampled_from(["train", "val", "test", "a", "b", "\u00e9", "a\nb"]), max_size=3)
PATHS = st.lists(FOLDERS.map(lambda folders: "/".join([*folders, "1.png"])), min_size=1, max_size=9, unique=True)


@given(PATHS | PATHS.map(lambda paths: [f"train/{path}" for path in paths]))
@example(["train/a/1.png", "train/b/1.png", "val/\u00e9/1.png"])
@example(["train/a/1.png", "train/b/1.png", "val/b/1.png"])
@example(["train/a/1.png", "train/b/1.png", "val/b/1.png", "test/a/1.png"])
@example(["a/1.png", "b/2/1.png"])
def test_a_tree_is_what_its_paths_say_one_by_one(paths):
    expected = plainly(sorted(paths))
    files = Listing.of(Entry(path, 1, "") for path in sorted(paths))
    try:
        found = open_tree(S3Storage("bucket", "tree"), files)
    except UserError as error:
        if "could be the classes" in str(error):  # all hold the same folders, which plainly() lets pass
            assert all(path.count("/") > 1 for path in paths)
            return
        assert isinstance(expected, str)
        assert (
            expected in str(error) or "named like parts" in f"{error}{expected}" or "no training images" in str(error)
        )
    else:
        if expected == "folders named like parts":  # none of them holds what another folder holds: they are classes
            assert found.class_names == sorted({path.split("/")[0] for path in paths})
            return
        validation = np.zeros(len(paths), dtype=bool) if found.is_validation is None else found.is_validation
        assert (found.class_names, found.labels.tolist(), found.is_test.tolist(), validation.tolist()) == expected


SPLIT = """
import sys
from pfs_core.data import split_dataset
from pfs_core.config.stages import SplitConfig
split_dataset(sys.argv[1], sys.argv[2], SplitConfig(image_size=8))
sys.exit("torchvision" in sys.modules)
"""


def test_a_split_does_not_load_torchvision(tmp_path):
    tree(tmp_path / "tree", *[f"{c}/{i}.png" for c in "ab" for i in range(10)])
    command = [sys.executable, "-c", SPLIT, str(tmp_path / "tree"), str(tmp_path / "split")]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0


def test_a_bucket_is_read_as_a_folder_is(tmp_path, bucket):
    paths = ("train/a/x/1.png", "train/b/2.PNG", "val/b/1.png", "train/a/.3.png")
    here = open_source(str(tree(tmp_path, *paths)))
    for path in paths:
        open_storage(f"{bucket}/set").write(path, tmp_path / path)
    there = open_source(f"{bucket}/set")
    assert (there.names, there.class_names) == (here.names, here.class_names)
    assert (there.labels == here.labels).all()
    assert (there.is_test == here.is_test).all()
    assert torch.equal(decoded(f"{bucket}/set"), decoded(tmp_path))


@pytest.mark.parametrize(("stored", "channels"), [("L", 3), ("RGB", 1), ("L", 1), ("RGB", None), ("CMYK", None)])
def test_images_become_grey_or_colour(tmp_path, stored, channels):
    for i in range(12):
        (tmp_path / "data" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "ab"[i % 2] / f"{i:02}.jpg").write_bytes(encode(picture(i, mode=stored), "JPEG"))
    recipe = SplitConfig(channels=channels, max_validation_fraction=0.3)
    info = split_dataset(str(tmp_path / "data"), tmp_path / "split", recipe)
    expected = channels or (1 if stored == "L" else 3)
    assert info.input_shape == (expected, 10, 12)
    data = load_split(tmp_path / "split")
    assert data.images.shape == (12, expected, 10, 12)
    files = sorted((tmp_path / "data").glob("*/*.jpg"))
    for file, image in zip(files, data.images, strict=True):
        pixels = np.array(Image.open(file).convert("L" if expected == 1 else "RGB"))
        assert (image.permute(1, 2, 0).numpy() == pixels.reshape(10, 12, expected)).all()


def test_the_split_names_where_its_images_are(tmp_path):
    paths = [f"{c}/{i}.png" for c in "ab" for i in range(10)]
    split_dataset(str(tree(tmp_path / "data", *paths)), tmp_path / "split", SplitConfig(image_size=8))
    info = read_json(tmp_path / "split" / "split.json")
    assert (info["dataset"], info["kind"], info["in_memory"]) == (str(tmp_path / "data"), "tree", False)
    assert not (tmp_path / "split" / "images.safetensors").exists()


def test_statistics_of_streamed_files_are_of_all_classes(tmp_path, monkeypatch):
    """Files of a class lie beside each other, and one group of files would be of two classes."""
    monkeypatch.setattr("pfs_core.data.formats.tree.GROUP", 20)
    monkeypatch.setattr("pfs_core.data.inputs._SAMPLED_GROUPS", 2)
    monkeypatch.setattr("pfs_core.data.inputs._SAMPLED_ROWS", 32)
    for label in range(20):
        folder = tmp_path / f"data/{label:02}"
        folder.mkdir(parents=True)
        for i in range(12):
            Image.new("L", (8, 8), 12 * label).save(folder / f"{i}.png")
    for seed in range(3):
        split_dataset(str(tmp_path / "data"), tmp_path / f"{seed}", SplitConfig(image_size=8, channels=1), seed)
        (mean,) = read_json(tmp_path / f"{seed}/split.json")["mean"]
        # 64 rows drawn of levels from 0 to 228: the deviation of their mean is 69 / sqrt(64).
        assert abs(mean - 114) < 3 * 69 / 64**0.5
