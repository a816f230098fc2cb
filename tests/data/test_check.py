"""``pfs data check`` finds what is wrong with a dataset before anything is trained on it."""

import json
import shutil

import pytest
from pfs_pipelines.cli import main

from pfs_core.data.check import check
from pfs_core.data.open import open_source
from pfs_core.storage.artifacts import read_json
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


def test_few_faults_are_printed_and_all_are_on_the_page(tmp_path, capsys):
    root = tree(tmp_path / "tree", *[f"{c}/{i:03}.png" for c in "ab" for i in range(40)])
    for path in (root / "a").iterdir():
        path.write_bytes(b"broken")
    (root / "b" / "1.heic").write_bytes(b"x")
    assert main(["data", "check", str(root), "--html", str(tmp_path / "page.html")]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert sum("cannot be decoded" in line for line in lines) == 20
    assert lines[-1] == "and 20 more; --html FILE writes a page with all"
    assert "40 cannot be read" in lines
    assert "left out: 1 .heic (images of this format are not read; convert them to PNG or JPEG)" in lines
    assert (tmp_path / "page.html").read_text().count("cannot be decoded") == 40


def test_a_check_counts_what_is_odd(tmp_path, capsys):
    root = tree(
        tmp_path / "tree", *[f"{p}/{c}/{i}.png" for p in ("train", "val", "test") for c in "ab" for i in range(3)]
    )
    (root / "val" / "a" / "0.png").write_bytes(encode(picture(0, mode="RGBA").convert("LA").resize((4, 4))))
    (root / "val" / "b" / "0.png").write_bytes((root / "test" / "b" / "1.png").read_bytes())
    assert main(["data", "check", str(root), "--json", "--set", "split.image_size=8"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["rows_per_class"] == {"train": [3, 3], "validation": [3, 3], "test": [3, 3]}
    assert record["in_training_and_test"] == [[f"{root}/val/b/0.png", f"{root}/test/b/1.png"]]
    assert record["notes"][0].startswith("taken: train/ (6 images) as training, val/ (6 images) as validation")


DIFFERENT = {
    "sizes": ((12, 11), "RGB", "split.image_size=8", "images differ in size; set split.image_size"),
    "colours": ((12, 10), "L", "split.channels=3", "images are grey and RGB; set split.channels=3"),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_a_check_says_which_setting_the_split_would_ask_for(tmp_path, capsys, case):
    size, mode, setting, message = DIFFERENT[case]
    root = tree(tmp_path / "tree", *[f"{c}/{i}.png" for c in "ab" for i in range(20)])
    (root / "a" / "0.png").write_bytes(encode(picture(0, size, mode)))
    assert main(["data", "check", str(root)]) == main(["split", str(root), str(tmp_path / "split")]) == 2
    assert message in capsys.readouterr().out
    assert main(["data", "check", str(root), "--set", setting]) == 0


def test_a_check_says_what_else_the_split_would_refuse(tmp_path, capsys, monkeypatch):
    two, many = (tree(tmp_path / str(n), *[f"{c}/{i}.png" for c in "ab" for i in range(n)]) for n in (1, 10))
    assert main(["data", "check", str(two)]) == main(["split", str(two), str(tmp_path / "split")]) == 2
    said = capsys.readouterr()
    assert "the dataset's 2 rows are too few" in said.out
    assert "the dataset's 2 rows are too few" in said.err
    monkeypatch.setattr("pfs_core.data.reading.memory_size", lambda device: 2**12)
    assert main(["data", "check", str(many)]) == 2
    assert "too much to keep in 0.0 GiB of memory; set split.image_size" in capsys.readouterr().out
    assert main(["data", "check", str(many), "--set", "split.image_size=8"]) == 0


@pytest.mark.parametrize("settings", [[], ["split.channels=3"], ["split.image_size=8"]])
def test_a_check_leaves_out_what_the_split_leaves_out(folder, tmp_path, capsys, settings):
    settings = [word for one in ["split.on_bad=skip", *settings] for word in ("--set", one)]
    assert main(["split", str(folder), str(tmp_path / "split"), *settings]) == 0
    skipped = len(read_json(tmp_path / "split" / "split.json")["skipped"])
    capsys.readouterr()
    assert main(["data", "check", str(folder), *settings]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "1 cannot be read and are left out" in out
    assert skipped == 1 + ("1 differ from most in size or colours and are left out" in out)
    assert f"{folder}/train/a/3.png: the image cannot be decoded (neither PNG nor JPEG)" in out


@pytest.mark.parametrize("size", [[], ["--set", "split.image_size=8"]])
def test_a_class_that_is_left_out_as_a_whole_is_said(tmp_path, capsys, size):
    root = tree(tmp_path / "tree", *[f"{p}/{c}/{i}.png" for p in ("train", "test") for c in "abc" for i in range(12)])
    for path in (root / "train" / "b").iterdir():
        path.write_bytes(b"broken")
    said = "1 of 3 classes have no training images: b"
    for command in (["split", str(root), str(tmp_path / "split")], ["data", "check", str(root)]):
        assert main([*command, "--set", "split.on_bad=skip", *size]) == 0
        assert said in capsys.readouterr().out
    assert said in read_json(tmp_path / "split" / "split.json")["notes"]


def test_a_check_of_nothing_that_can_be_used_ends_with_2_as_the_split_does(tmp_path, capsys):
    root = tree(tmp_path / "tree", *[f"{c}/{i}.png" for c in "ab" for i in range(12)])
    for path in root.rglob("*.png"):
        path.write_bytes(b"broken")
    for command in (["split", str(root), str(tmp_path / "split")], ["data", "check", str(root)]):
        assert main([*command, "--set", "split.on_bad=skip"]) == 2


def test_a_check_takes_columns(tmp_path, capsys):
    write(tmp_path / "train.parquet", [png(image) for image in images(20)], [0, 1] * 10)
    assert main(["data", "check", str(tmp_path), "--set", "split.label_column=fine"]) == 2
    assert "has no column 'fine'" in capsys.readouterr().err
