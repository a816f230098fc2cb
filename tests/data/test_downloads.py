"""What torchvision downloads is read by the readers here."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from pfs_core.data.open import check_dataset, open_source
from pfs_core.errors import UserError


def half(root, download):
    """A download that fails after the first file."""
    folder = Path(root) / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"half")
    raise OSError("no network")


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """Makes torchvision's MNIST a download of two tiny files; the list of what was asked for."""
    asked = []

    def mnist(root, download):
        asked.append((root, download))
        folder = Path(root) / "MNIST" / "raw"
        folder.mkdir(parents=True)
        images = np.arange(4 * 6, dtype=np.uint8).tobytes()
        (folder / "train-images-idx3-ubyte.gz").write_bytes(
            gzip.compress(struct.pack(">HBBIII", 0, 8, 3, 4, 2, 3) + images)
        )
        (folder / "train-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 4) + bytes([0, 1, 1, 0]))

    monkeypatch.setenv("PFS_DATA", str(tmp_path))
    monkeypatch.setattr(datasets, "MNIST", mnist)
    return asked


def test_a_dataset_is_downloaded_once(downloads, tmp_path):
    for _ in range(2):
        source = open_source("torchvision:MNIST")
        assert source.uri == "torchvision:MNIST", "another machine has it elsewhere"
        assert source.labels.tolist() == [0, 1, 1, 0]
        assert source.images.shape == (4, 1, 2, 3)
    assert [download for _, download in downloads] == [True]
    assert [path.name for path in tmp_path.iterdir()] == ["MNIST"]


def test_a_download_that_fails_leaves_nothing_and_is_tried_again(downloads, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(datasets, "MNIST", half)
        with pytest.raises(UserError, match="torchvision:MNIST cannot be downloaded"):
            open_source("torchvision:MNIST")
    assert [path.name for path in tmp_path.rglob("*")] == ["MNIST"]
    assert open_source("torchvision:MNIST").labels.tolist() == [0, 1, 1, 0]


def test_an_empty_folder_of_a_download_that_failed_is_filled(downloads, tmp_path):
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    assert open_source("torchvision:MNIST").labels.tolist() == [0, 1, 1, 0]


def test_two_processes_that_download_at_once_find_the_same(downloads, tmp_path, monkeypatch):
    mnist = datasets.MNIST

    def slow(root, download):
        mnist(root, download)
        mnist(tmp_path, download)

    monkeypatch.setattr(datasets, "MNIST", slow)
    assert open_source("torchvision:MNIST").labels.tolist() == [0, 1, 1, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["MNIST"]


def test_asking_for_a_name_downloads_nothing(downloads):
    check_dataset("torchvision:MNIST")
    assert downloads == []


def test_an_unknown_name_is_refused_with_the_nearest():
    for call in (open_source, check_dataset):
        with pytest.raises(UserError, match=r"unknown dataset 'torchvision:CIFAR1' \(did you mean torchvision:CIFAR10"):
            call("torchvision:CIFAR1")


def test_no_network_is_one_line(downloads, monkeypatch):
    def unreachable(root, download):
        raise RuntimeError("Error downloading train-images\nbecause of that")

    monkeypatch.setattr(datasets, "MNIST", unreachable)
    with pytest.raises(UserError, match="torchvision:MNIST cannot be downloaded to .*Error downloading") as error:
        open_source("torchvision:MNIST")
    assert "\n" not in str(error.value)
