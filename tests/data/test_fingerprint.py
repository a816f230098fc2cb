"""A dataset's fingerprint is of its files: what they are called and hold, not the order in which they are listed."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfs_core.data import dataset as source
from pfs_core.data.dataset import fingerprint
from pfs_core.data.formats.idx import IDX
from pfs_core.data.formats.parquet import AT_ROOT, PARQUET
from pfs_core.data.formats.tree import IMAGES
from pfs_core.storage import LocalStorage, S3Storage
from pfs_core.storage.listing import Entry, Listing

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
ENTRIES = st.lists(st.builds(Entry, TEXTS, st.integers(0, 2**40), TEXTS), max_size=9, unique_by=lambda e: e.path)


def digest(lines):
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


@given(ENTRIES, st.randoms())
def test_a_buckets_is_of_paths_sizes_and_tags(entries, random):
    expected = digest(f"{entry.path} {entry.size} {entry.tag}" for entry in sorted(entries))
    random.shuffle(entries)
    assert fingerprint(S3Storage("bucket", ""), Listing.of(entries)) == expected


@pytest.mark.parametrize("hashed", [True, False])
def test_a_folders_is_of_the_content_where_that_is_not_too_much(tmp_path, monkeypatch, hashed):
    monkeypatch.setattr(source, "_HASHED_BYTES", 5 if hashed else 4)
    names = {"b/\u00fc.png": b"12", "a.png": b"345"}
    for name, content in names.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    storage = LocalStorage(tmp_path)
    found = {fingerprint(storage, files) for files in (storage.files(), storage.files()[::-1])}
    lines = [f"{n} {len(c)} {hashlib.sha256(c).hexdigest() if hashed else ''}" for n, c in sorted(names.items())]
    assert found == {digest(lines)}


ENDS = ["train.parquet", "x-ubyte", "x-ubyte.gz", "1.JPEG", "1.jpg", "1.Tif", "1.tiff", "1.gif", "parquet", "1.jpg.gz"]
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff", ".gif")


@given(
    st.builds(
        "{}{}{}".format, st.sampled_from(["", "a/", "/", "\n"]), st.sampled_from(ENDS), st.sampled_from(["", "\n"])
    )
)
def test_kinds_are_told_by_the_ends_of_names(path):
    files = Listing.of([Entry(path, 1, "")])
    assert bool(files.matching(PARQUET)) == path.endswith(".parquet")
    assert bool(files.matching(AT_ROOT)) == (path.endswith(".parquet") and "/" not in path)
    assert bool(files.matching(IDX)) == path.removesuffix(".gz").endswith("-ubyte")
    assert bool(files.matching(IMAGES)) == path.lower().endswith(SUFFIXES)
