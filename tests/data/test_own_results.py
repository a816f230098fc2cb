"""Results that are written into the folder of the dataset are no part of it."""

import pytest
from pfs_pipelines.cli import main

from pfs_core.data.open import content_of, open_source
from pfs_core.errors import UserError
from tests.data.folders import tree


def classes_and_parts(root):
    return tree(root, *[f"{part}/{c}/{i}.png" for part in ("train", "test") for c in "ab" for i in range(12)])


@pytest.mark.parametrize("out", ["split", "work/split", "train/split", "train/a/split"])
@pytest.mark.parametrize(
    "dataset", [classes_and_parts, lambda root: tree(root, *[f"{c}/{i}.png" for c in "ab" for i in range(12)])]
)
def test_a_split_is_made_again_within_its_dataset(tmp_path, dataset, out):
    root = dataset(tmp_path / "pets")
    before, content = open_source(str(root)), content_of(str(root))
    for _ in range(2):
        assert main(["split", str(root), str(root / out)]) == 0
    after = open_source(str(root))
    assert (after.class_names, after.fingerprint, after.left_out) == (before.class_names, before.fingerprint, ())
    assert content_of(str(root)) == content


def test_the_folder_of_runs_is_no_class(tmp_path):
    root = tree(tmp_path, *[f"{c}/{i}.png" for c in "ab" for i in range(3)])
    tree(root, "pfs-runs/one/report/picture.png")
    assert open_source(str(root)).class_names == ["a", "b"]


def test_a_result_itself_is_no_dataset(tmp_path):
    root = tree(tmp_path / "pets", *[f"{c}/{i}.png" for c in "ab" for i in range(12)])
    assert main(["split", str(root), str(tmp_path / "split")]) == 0
    with pytest.raises(UserError):
        open_source(str(tmp_path / "split"))


def test_an_empty_folder_is_still_a_class_without_images(tmp_path):
    root = tree(tmp_path, *[f"{c}/{i}.png" for c in "ab" for i in range(3)])
    (root / "c" / "d").mkdir(parents=True)
    with pytest.raises(UserError, match="class folder .*/c holds no training images"):
        open_source(str(root))
