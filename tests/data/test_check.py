"""Every image is looked at, and what is wrong is named."""

import json

import pytest

from pfs_core.data.check import check
from pfs_core.data.source import open_source
from pipelines.cli import main
from tests.data.folders import encode, picture, tree


@pytest.fixture
def images(tmp_path):
    """Two classes; one image twice in training, one in training and test, one cut short."""
    root = tree(tmp_path / "tree", *[f"train/{c}/{i}.png" for c in ("cat", "dog") for i in range(4)])
    tree(root, "val/cat/a.png", "val/dog/b.png", size=(30, 20))
    (root / "train/cat/again.png").write_bytes((root / "train/cat/0.png").read_bytes())
    (root / "val/cat/leaked.png").write_bytes((root / "train/dog/1.png").read_bytes())
    (root / "train/dog/broken.jpg").write_bytes(encode(picture(7, (60, 50)), "JPEG")[:500])
    return root


def test_what_is_found(images):
    found = check(open_source(str(images)))
    assert found.rows_per_class == {"train": [5, 5], "test": [2, 1]}
    assert found.sizes == {(12, 10): 10, (30, 20): 2}
    assert found.channels == {3: 12}
    assert found.repeated == 1
    assert found.leaked == [(f"{images}/train/dog/1.png", f"{images}/val/cat/leaked.png")]
    ((place, reason),) = found.bad
    assert place == f"{images}/train/dog/broken.jpg"
    assert "cannot be decoded" in reason
    assert {label for label, _ in found.samples} == {0, 1}


def test_nothing_is_wrong_with_the_digits(capsys, tmp_path):
    assert main(["data", "check", "digits", "--html", str(tmp_path / "new" / "page.html")]) == 0
    assert "1,797 training and 0 test images of 10 classes" in capsys.readouterr().out
    page = (tmp_path / "new" / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 80
    assert "<svg" in page
    assert "What is wrong" not in page


def test_the_command_names_what_is_wrong_and_says_so_to_a_script(images, tmp_path, capsys):
    assert main(["data", "check", str(images), "--html", str(tmp_path / "page.html")]) == 2
    out = capsys.readouterr().out
    assert "1 repeated within a part, 1 in both" in out
    assert "broken.jpg: the image cannot be decoded" in out
    assert "the same image is in training and test: " in out
    assert "broken.jpg" in (tmp_path / "page.html").read_text()


def test_json(images, capsys):
    assert main(["data", "check", str(images), "--json"]) == 2
    out = capsys.readouterr().out
    record = json.loads(out[out.index("{\n") :])
    assert record["sizes"] == [[12, 10, 10], [30, 20, 2]]
    assert record["class_names"] == ["cat", "dog"]
    assert len(record["bad"]) == len(record["in_training_and_test"]) == 1


def test_what_is_no_dataset_is_one_line(tmp_path, capsys):
    assert main(["data", "check", str(tmp_path / "missing")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
