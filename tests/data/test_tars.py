"""Members of a tar belong together by their key, in whatever order they are; what has no label says what is there."""

import random
import tarfile

import pytest
import torch

from pfs_core.config.stages import SplitConfig
from pfs_core.data.open import open_source
from pfs_core.errors import UserError
from tests.data.folders import decoded, images, png
from tests.data.test_shards import shard

PIXELS = images(9)
IMAGES = [(f"{i}.png", png(image)) for i, image in enumerate(PIXELS)]
LABELS = [(f"{i}.cls", str(i % 2).encode()) for i in range(9)]
ORDERS = {
    "labels first": [*LABELS, *IMAGES],
    "images first": [*IMAGES, *LABELS],
    "by chance": random.Random(0).sample([*LABELS, *IMAGES], 18),
}


@pytest.mark.parametrize("order", ORDERS)
def test_members_of_a_key_need_not_follow_each_other(tmp_path, order):
    shard(tmp_path / "a.tar", ORDERS[order])
    source = open_source(str(tmp_path))
    numbers = [int(name.removesuffix(".png")) for name in source.names.to_pylist()]
    assert sorted(numbers) == list(range(9))
    assert source.labels.tolist() == [number % 2 for number in numbers]
    assert torch.equal(decoded(tmp_path), PIXELS[numbers])
    assert source.left_out == ()


def test_a_file_that_is_in_a_tar_twice_is_refused(tmp_path):
    shard(tmp_path / "a.tar", [*IMAGES, *LABELS, IMAGES[3]])
    with pytest.raises(UserError, match="several files are named like 3.png"):
        open_source(str(tmp_path))


def test_a_tar_without_labels_says_which_extensions_it_has(tmp_path):
    """As img2dataset writes them: the texts can be labels, if that is said."""
    texts = [(f"{i}.txt", ["cat", "dog"][i % 2].encode()) for i in range(9)]
    shard(tmp_path / "a.tar", [*IMAGES, *texts, *((f"{i}.json", b"{}") for i in range(9))])
    said = r"expected KEY.jpg and KEY.cls with one KEY, and there are .png, .txt, .json; .*split.label_column"
    with pytest.raises(UserError, match=said):
        open_source(str(tmp_path))
    with pytest.raises(UserError, match=r"expected KEY.jpg and KEY.class with one KEY"):
        open_source(str(tmp_path), SplitConfig(label_column="class"))
    assert open_source(str(tmp_path), SplitConfig(label_column="txt")).class_names == ["cat", "dog"]


@pytest.mark.parametrize("members", [1, 5, 17])
@pytest.mark.parametrize("more", [0, 100])
def test_a_tar_that_is_cut_short_is_refused(tmp_path, members, more):
    """Also between two members and within a header, where Python's library takes it for whole."""
    shard(tmp_path / "a.tar", ORDERS["by chance"])
    with tarfile.open(tmp_path / "a.tar") as tar:
        end = tar.getmembers()[members].offset
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[: end + more])
    with pytest.raises(UserError, match="a.tar is no whole tar file: it is cut short or damaged; make or download"):
        open_source(str(tmp_path))
