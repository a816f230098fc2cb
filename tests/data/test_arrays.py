"""IDX and CIFAR files come out as they went in; what is broken or dangerous is refused in one line."""

import gzip
import pickle
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from pfs_core.config.stages import SplitConfig
from pfs_core.data import load_split, split_dataset
from pfs_core.data.open import open_source
from pfs_core.errors import UserError

RANDOM = np.random.default_rng(0)


def refused(folder, message):
    with pytest.raises(UserError, match=message) as error:
        open_source(str(folder))
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


def idx(array, kind=8):
    """The bytes of an IDX file."""
    return struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def digits_like():
    """The four files of an IDX set of 20 and 8 images."""
    files = {}
    for part, count in (("train", 20), ("t10k", 8)):
        files[f"{part}-images-idx3-ubyte"] = RANDOM.integers(256, size=(count, 6, 5), dtype=np.uint8)
        files[f"{part}-labels-idx1-ubyte"] = (np.arange(count) % 4).astype(np.uint8)
    return files


@pytest.mark.parametrize("name", ["{}", "{}.gz", "dotted", "{0}/{0}"])
def test_idx_files_are_read_plain_and_packed(tmp_path, digits_like, name):
    for path, array in digits_like.items():
        data = gzip.compress(idx(array)) if name.endswith(".gz") else idx(array)
        file = tmp_path / (path.replace("-idx", ".idx") if name == "dotted" else name.format(path))
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
    source = open_source(str(tmp_path))
    expected = np.concatenate([digits_like[f"{part}-images-idx3-ubyte"] for part in ("train", "t10k")])
    assert torch.equal(source.images[:, 0], torch.from_numpy(expected))
    assert source.labels.tolist() == [*(np.arange(20) % 4), *(np.arange(8) % 4)]
    assert source.is_test.tolist() == [False] * 20 + [True] * 8
    assert source.class_names == ["0", "1", "2", "3"]
    assert not source.flip


@pytest.mark.parametrize("first", [0, 1])
def test_idx_labels_count_from_0_or_from_1_and_name_the_classes(tmp_path, digits_like, first):
    for path, array in digits_like.items():
        labels = "labels" in path
        (tmp_path / f"emnist-letters-{path}").write_bytes(idx(array + np.uint8(first) if labels else array))
    source = open_source(str(tmp_path))
    assert source.class_names == [str(i + first) for i in range(4)]
    assert source.labels.tolist() == [*(np.arange(20) % 4), *(np.arange(8) % 4)]
    assert source.notes[1:] == (("labels count from 1: classes are 1 to 4",) if first else ())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2, 2, 0], "train-labels-idx1-ubyte, row 1: label 2 is out of range; 1 classes .* without a gap"),
        ([1, 2, 4, 1], "train-labels-idx1-ubyte, row 0: labels count from 1 to 4, but must count from 0"),
        ([3, 8, 3, 8], "train-labels-idx1-ubyte, row 0: labels count from 3 to 8, but must count from 0"),
    ],
)
def test_idx_labels_with_a_gap_are_refused(tmp_path, labels, message):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((4, 6, 5), np.uint8)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.array(labels, np.uint8)))
    refused(tmp_path, message)


def test_an_idx_set_may_have_no_test_files(tmp_path, digits_like):
    for path in list(digits_like)[:2]:
        (tmp_path / path).write_bytes(idx(digits_like[path]))
    assert not open_source(str(tmp_path)).is_test.any()


BROKEN = {
    "missing": (None, "has no train-labels-idx1-ubyte"),
    "cut short": (lambda data: data[:-1], "holds 27 bytes, but its header says 28"),
    "header cut short": (lambda data: data[:3], "is no IDX file"),
    "empty": (lambda data: b"", "is no IDX file"),
    "of floats": (lambda data: data[:2] + b"\x0d" + data[3:], "unsigned bytes in 1 dimension"),
    "of images": (lambda data: idx(np.zeros((20, 2, 2), np.uint8)), "unsigned bytes in 1 dimension"),
    "of fewer labels": (lambda data: idx(np.zeros(19, np.uint8)), "20 images but 19 labels for train"),
}


@pytest.mark.parametrize("spoil", BROKEN)
def test_a_broken_idx_file_is_refused(tmp_path, digits_like, spoil):
    for path, array in digits_like.items():
        (tmp_path / path).write_bytes(idx(array))
    change, message = BROKEN[spoil]
    file = tmp_path / "train-labels-idx1-ubyte"
    if change:
        file.write_bytes(change(file.read_bytes()))
    else:
        file.unlink()
    refused(tmp_path, message)


@pytest.mark.parametrize("spoil", [lambda data: data[:-9], lambda data: data[:12] + b"\xff\xff" + data[14:], idx])
def test_a_broken_packed_idx_file_is_refused(tmp_path, digits_like, spoil):
    for path, array in digits_like.items():
        (tmp_path / f"{path}.gz").write_bytes(gzip.compress(idx(array)))
    file = tmp_path / "train-labels-idx1-ubyte.gz"
    file.write_bytes(idx(digits_like["train-labels-idx1-ubyte"]) if spoil is idx else spoil(file.read_bytes()))
    refused(tmp_path, "train-labels-idx1-ubyte.gz is no IDX file")


def test_an_idx_set_without_rows_is_refused(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((0, 6, 5), np.uint8)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(0, np.uint8)))
    refused(tmp_path, "no images")


def batch(count, key, classes):
    return {
        b"data": RANDOM.integers(256, size=(count, 3072), dtype=np.uint8),
        key: [i % classes for i in range(count)],
        b"filenames": [b"x.png"] * count,
    }


@pytest.fixture(params=[10, 100])
def cifar(request, tmp_path):
    """A folder of CIFAR's files with few images, and what is in them."""
    if request.param == 10:
        names, key, meta = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"], b"labels", "batches.meta"
        names_key = b"label_names"
    else:
        names, key, meta, names_key = ["train", "test"], b"fine_labels", "meta", b"fine_label_names"
    batches = {name: batch(12, key, 4) for name in names}
    for name, values in batches.items():
        (tmp_path / name).write_bytes(pickle.dumps(values, protocol=2))
    (tmp_path / meta).write_bytes(pickle.dumps({names_key: [b"cat", b"dog", b"frog", b"ship"]}, protocol=2))
    return tmp_path, batches, key


def test_cifar_is_read_as_published(cifar):
    folder, batches, key = cifar
    source = open_source(str(folder))
    expected = np.concatenate([values[b"data"] for values in batches.values()]).reshape(-1, 3, 32, 32)
    assert torch.equal(source.images, torch.from_numpy(expected))
    assert source.labels.tolist() == [label for values in batches.values() for label in values[key]]
    assert source.is_test.sum() == 12
    assert source.is_test[-12:].all()
    assert source.class_names == ["cat", "dog", "frog", "ship"]
    assert source.flip


def test_cifar_is_split(cifar, tmp_path):
    info = split_dataset(str(cifar[0]), tmp_path / "split", SplitConfig(channels=1))
    grey = load_split(tmp_path / "split").part("test").images
    rgb = open_source(str(cifar[0])).images[-12:]
    for ours, image in zip(grey, rgb, strict=True):
        theirs = np.array(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L"))
        assert (ours[0].numpy() == theirs).all()
    assert info.input_shape == (1, 32, 32)
    assert info.augmentation.model_dump() == {"crop_padding": 4, "flip": True}


def test_a_missing_cifar_file_is_refused(cifar):
    folder, batches, _ = cifar
    (folder / list(batches)[-1]).unlink()
    refused(folder, f"has no {list(batches)[-1]}; unpack the whole archive")


class Malice:
    """Unpickled without care it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(cifar, tmp_path, protocol):
    folder, batches, _ = cifar
    name = next(iter(batches))
    (folder / name).write_bytes(pickle.dumps({b"data": Malice(tmp_path / "harm")}, protocol))
    refused(folder, f"{name} asks for .*open, which no CIFAR file needs; it was not read")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2], "it has no 'data'"),
        ({b"data": np.zeros((12, 3072), np.uint8)}, "it has no "),
        ({b"data": np.zeros((12, 3071), np.uint8)}, "does not hold 3072 bytes"),
        ({b"data": np.zeros((11, 3072), np.uint8)}, "does not hold 3072 bytes"),
        ({b"data": np.zeros((12, 3072), np.float32)}, "does not hold 3072 bytes"),
        (
            {b"data": np.zeros((12, 3072), np.uint8), b"labels": ["a"] * 12, b"fine_labels": ["a"] * 12},
            "an integer label per image",
        ),
        ({b"data": np.zeros((12, 3072), np.uint8), b"labels": [9] * 12, b"fine_labels": [9] * 12}, "outside 0 to 3"),
        ({b"data": [[1, 2], [3]]}, "is no CIFAR file: it does not hold 3072 bytes"),
        (
            {b"data": np.zeros((2, 3072), np.uint8), b"labels": [[0], [0, 1]], b"fine_labels": [[0], [0, 1]]},
            "an integer",
        ),
        (
            {b"data": np.zeros((0, 3072), np.uint8), b"labels": np.zeros(0, int), b"fine_labels": np.zeros(0, int)},
            "is no CIFAR file: it holds no images",
        ),
        ({10**5000: 1}, "it has no 'data'"),
    ],
)
def test_a_cifar_file_of_something_else_is_refused(cifar, values, message):
    folder, batches, key = cifar
    if "3072 bytes" in message:
        values = {**values, key: [0] * 12}
    (folder / next(iter(batches))).write_bytes(pickle.dumps(values, protocol=4))
    refused(folder, message)


@pytest.mark.parametrize("names", [None, 5, b"ab", {b"cat": 0}, [1, 2, 3, 4], [[b"cat"], b"dog"]])
def test_names_of_cifar_that_are_no_list_of_texts_are_refused(cifar, names):
    folder, _, key = cifar
    file, name = ("batches.meta", "label_names") if key == b"labels" else ("meta", "fine_label_names")
    (folder / file).write_bytes(pickle.dumps({name.encode(): names}, protocol=2))
    refused(folder, f"/{file} is no CIFAR file: its '{name}' are no list of texts")


@pytest.mark.parametrize("data", [b"", b"no pickle", b"\x80\x02}q"])
def test_a_cifar_file_that_is_no_pickle_is_refused(cifar, data):
    folder, batches, _ = cifar
    (folder / next(iter(batches))).write_bytes(data)
    refused(folder, "is no CIFAR file")
