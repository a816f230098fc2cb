"""Whatever a dataset looks like: no row is in two parts, no class changes its meaning, every file is accounted for."""

import io
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pfs_core.config.stages import SplitConfig
from pfs_core.data.choice import choose_rows
from pfs_core.data.decode import BadImageError, decode
from pfs_core.data.open import open_source
from pfs_core.errors import UserError
from tests.data.folders import encode, picture
from tests.data.test_parts import classes
from tests.data.test_shards import shard

IMAGE = encode(picture(0, (2, 2)))
PARTS = st.sampled_from(["train", "Train", "training_set", "val", "Validation", "test", "TEST", "eval", "dev"])
CLASSES = st.sampled_from(["cat", "dog", "fox", "bullet_train", "Cat"])
FILES = st.sampled_from(["1.png", "2.PNG", "3.gif", "4.jfif", "5.heic", "6.txt", "7", "8.tar.gz", "9.avif"])
PATHS = st.one_of(
    st.builds("{}/{}".format, CLASSES, FILES),
    st.builds("{}/{}/{}".format, PARTS, CLASSES, FILES),
    st.builds("{}/{}/{}".format, CLASSES, PARTS, FILES),
    st.builds("{}/{}".format, PARTS, FILES),
)
IN_PARTS = st.builds("{}/{}/{}".format, PARTS, CLASSES, FILES)
IN_CLASSES = st.builds("{}/{}".format, CLASSES, FILES)


def opened(make):
    """What ``make`` wrote into a folder, or None if it is refused in a line."""
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        try:
            return open_source(folder)
        except UserError as error:
            assert "\n" not in str(error)
            return None


def check_parts(source):
    """No row is in two parts, also after the rest is drawn; and what is said of parts adds up."""
    validation = np.zeros(len(source), dtype=bool) if source.is_validation is None else source.is_validation
    assert not (validation & source.is_test).any()
    try:
        parts = choose_rows(source, SplitConfig(), 0)
    except UserError as error:
        assert "too few" in str(error)
        return
    assert set(parts) <= {0, 1, 2}
    if source.is_test.any():
        assert ((parts == 2) == source.is_test).all()
    if source.is_validation is not None:
        assert ((parts == 1) == validation).all()


@given(
    st.lists(st.one_of(PATHS, IN_PARTS), unique=True, min_size=2, max_size=14)
    | st.lists(IN_PARTS, unique=True, min_size=6, max_size=24)
    | st.lists(IN_CLASSES, unique=True, min_size=2, max_size=14)
)
def test_every_file_of_a_tree_is_a_row_or_counted(paths):
    def make(folder):
        for path in paths:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(IMAGE)

    source = opened(make)
    if source is None:
        return
    assert len(source) + sum(files.files for files in source.left_out) == len(paths)
    assert len(set(source.names.to_pylist())) == len(source)
    check_parts(source)
    for name, label, test in zip(source.names.to_pylist(), source.labels, source.is_test, strict=True):
        folders = name.split("/")[:-1]
        assert source.class_names[label] in folders[:2]
        if test:
            assert not folders[0].lower().startswith("train")
    depth = {
        name.split("/").index(source.class_names[label])
        for name, label in zip(source.names.to_pylist(), source.labels, strict=True)
    }
    assert len(depth) == 1


LISTS = st.lists(st.sampled_from(["cat", "dog", "fox", "owl"]), unique=True, min_size=1, max_size=4)
SHARDS = st.dictionaries(st.sampled_from(["train-0", "train-1", "Valid-0", "test-0", "x-0"]), LISTS, min_size=1)


@given(SHARDS, st.sampled_from(["names in the schema", "texts", "tar"]), st.integers(0, 99))
def test_a_row_keeps_its_class_in_every_file(shards, form, seed):
    draw = random.Random(seed)
    rows = {name: [draw.choice(names) for _ in range(6)] for name, names in shards.items()}

    def make(folder):
        for name, meant in rows.items():
            names = [f"{name}/{i}/{label}" for i, label in enumerate(meant)]
            if form == "tar":
                members = [
                    (f"{n}.{kind}", data)
                    for n, label in zip(names, meant, strict=True)
                    for kind, data in (("png", IMAGE), ("cls", label.encode()))
                ]
                shard(folder / f"{name}.tar", members)
                continue
            labels = meant if form == "texts" else [shards[name].index(label) for label in meant]
            table = pa.table({"image": [IMAGE] * len(meant), "label": labels, "name": names})
            metadata = None if form == "texts" else classes(*shards[name])
            pq.write_table(table.replace_schema_metadata(metadata), folder / f"{name}.parquet")

    source = opened(make)
    if source is None:
        return
    assert len(source) == sum(map(len, rows.values()))
    check_parts(source)
    for name, label in zip(source.names.to_pylist(), source.labels, strict=True):
        assert name.removesuffix(".png").endswith(f"/{source.class_names[label]}")


KINDS = ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "AVIF", "JPEG2000"]
MODES = {"PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"], "TIFF": ["1", "L", "RGB", "RGBA", "CMYK", "I;16", "F"]}


def damaged(data, draw):
    """Some bytes with one to eight of them changed, some cut off or some repeated."""
    data = bytearray(data)
    for _ in range(draw.randint(1, 8)):
        data[draw.randrange(len(data))] = draw.randrange(256)
    if draw.random() < 0.3:
        del data[draw.randrange(len(data)) :]
    elif draw.random() < 0.1:
        data[draw.randrange(len(data)) :] = data[: draw.randrange(len(data))]
    return bytes(data)


def fuzzed(count, seed):
    draw = random.Random(seed)
    wholes = []
    for kind in KINDS:
        for mode in MODES.get(kind, ["L", "RGB"]):
            image = picture(len(wholes), (24, 20))
            image = Image.new(mode, (24, 20)) if mode in ("I;16", "F") else image.convert(mode)
            out = io.BytesIO()
            exif = Image.Exif()
            exif[0x0112] = 6
            image.save(out, kind, **({"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "AVIF") else {}))
            wholes.append(out.getvalue())
    for _ in range(count):
        data = damaged(draw.choice(wholes), draw)
        started = time.process_time()
        try:
            found = decode(data, draw.choice([None, 1, 3]))
        except BadImageError as error:
            assert "\n" not in str(error)
        else:
            assert found.ndim == 3
        assert time.process_time() - started < 5  # an image of 89 million pixels takes 2


def test_damaged_images_are_read_or_refused_in_a_line():
    fuzzed(300, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_many_damaged_images_are_read_or_refused_in_a_line(seed):
    fuzzed(2000, seed)
