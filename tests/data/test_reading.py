"""Files of a tree are read several at once wherever images are read in order."""

import threading

import numpy as np
import pytest
import torch

from pfs_core.data.crop import Crop
from pfs_core.data.open import open_source
from pfs_core.data.reading import FILES, check_images, each_image, read_together
from pfs_core.data.stream import Streamed
from pfs_core.storage import LocalStorage
from tests.data.folders import tree

AT_ONCE = 8
"""Threads of a reader."""


@pytest.fixture
def source(tmp_path):
    names = (f"{kind}/{i:03}.png" for kind in ("cat", "dog") for i in range(FILES))
    return open_source(str(tree(tmp_path / "tree", *names)))


@pytest.fixture
def meeting(monkeypatch):
    """Let every reading of a file wait until seven others are under way too."""
    barrier, read = threading.Barrier(AT_ONCE, timeout=30), LocalStorage.read

    def together(*arguments):
        barrier.wait()
        return read(*arguments)

    monkeypatch.setattr(LocalStorage, "read", together)


def test_all_images_are_checked(source, meeting):
    assert check_images(source, skip=False).skipped == {}


def test_all_images_are_evaluated(source, meeting):
    images = Streamed(source, np.arange(len(source)), Crop((8, 8), 3), False, torch.device("cpu"), workers=0)
    assert sum(map(len, images.in_order(FILES))) == len(source)


def test_images_come_in_the_order_of_their_rows(source):
    rows = [row for row, _ in each_image(source, len, "reading")]
    assert rows == list(range(len(source)))
    assert [len(group) for group in read_together(source, np.arange(2, 100))] == [FILES, 98 - FILES]
    assert read_together(source, np.arange(0)) == []
