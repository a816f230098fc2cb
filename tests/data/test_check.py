"""``pfs data check`` finds what is wrong with a dataset before anything is trained on it."""

import json
import shutil

import pytest
from pfs_pipelines.cli import main

from pfs_core.data.check import check
from pfs_core.data.open import open_source
from tests.data.folders import encode, images, picture, png, tree, write


@pytest.fixture
def folder(tmp_path):
    """A tree with a broken image, a grey one, a repeated one and one that is in both parts."""
    root = tree(
        tmp_path / "tree", *[f"{part}/{c}/{i}.png" for part in ("train", "val") for c in "ab" for i in range(12)]
    )
    (root / "train" / "a" / "3.png").write_bytes(b"broken")
    (root / "train" / "a" / "4.png").write_bytes(encode(picture(99, (600, 500), "L")))
    shutil.copy(root / "train" / "b" / "1.png", root / "train" / "b" / "2.png")
    shutil.copy(root / "train" / "b" / "5.png", root / "val" / "b" / "6.png")
    return root


def test_every_fault_is_found(folder):
    found = check(open_source(str(folder)))
    assert found.rows_per_class == {"train": [12, 12], "test": [12, 12]}
    assert found.bad == [(f"{folder}/train/a/3.png", "the image cannot be decoded (neither PNG nor JPEG)")]
    assert found.sizes == {(12, 10): 46, (600, 500): 1}
    assert found.channels == {1: 1, 3: 46}
    assert found.repeated == 1
    assert found.leaked == [(f"{folder}/train/b/5.png", f"{folder}/val/b/6.png")]


def test_samples_are_few_and_small(folder):
    samples = check(open_source(str(folder))).samples
    assert [label for label, _ in samples] == [0] * 8 + [1] * 8
    assert max(max(image.shape[1:]) for _, image in samples) <= 300


def test_samples_are_of_the_first_classes(tmp_path):
    write(tmp_path / "train.parquet", [png(image) for image in images(50)], range(50))
    assert {label for label, _ in check(open_source(str(tmp_path))).samples} == set(range(20))


def test_the_command_lists_the_faults_and_ends_with_2(folder, tmp_path, capsys):
    page = tmp_path / "pages" / "check.html"
    assert main(["data", "check", str(folder), "--json", "--html", str(page)]) == 2
    record = json.loads(capsys.readouterr().out)
    assert record["bad"] == [[f"{folder}/train/a/3.png", "the image cannot be decoded (neither PNG nor JPEG)"]]
    assert record["in_training_and_test"] == [[f"{folder}/train/b/5.png", f"{folder}/val/b/6.png"]]
    assert "train/a/3.png" in page.read_text()


def test_a_set_without_faults_ends_with_0(capsys):
    assert main(["data", "check", "digits"]) == 0
    assert "1,797 training and 0 test images of 10 classes" in capsys.readouterr().out
