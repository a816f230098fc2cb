"""A listing behaves as the list of its entries does."""

import pickle
from operator import attrgetter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfs_core.storage import listing
from pfs_core.storage.listing import Entry, Listing

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
ENTRIES = st.lists(st.builds(Entry, TEXTS, st.integers(0, 2**62), TEXTS), max_size=20, unique_by=attrgetter("path"))


@pytest.fixture(autouse=True, scope="module")
def small_chunks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "_CHUNK", 3)
        yield


def same(found, expected):
    assert len(found) == len(expected)
    assert list(found) == expected
    assert [found[i] for i in range(len(found))] == expected
    assert bool(found) == bool(expected)


@given(ENTRIES)
def test_a_listing_holds_its_entries(entries):
    found = Listing.of(iter(entries))
    same(found, entries)
    same(pickle.loads(pickle.dumps(found)), entries)
    assert [entry for some in found.chunks() for entry in some] == entries
    assert found.sizes.dtype == np.int64


@given(ENTRIES, st.slices(20), st.integers(-25, 25))
def test_places_and_slices_are_a_lists(entries, part, place):
    found = Listing.of(entries)
    same(found[part], entries[part])
    if -len(entries) <= place < len(entries):
        assert found[place] == found[np.int32(place)] == entries[place]
    else:
        with pytest.raises(IndexError):
            found[place]


@given(ENTRIES, st.data())
def test_some_of_the_files(entries, data):
    found = Listing.of(entries)
    mask = data.draw(st.lists(st.booleans(), min_size=len(entries), max_size=len(entries)))
    expected = [entry for entry, kept in zip(entries, mask, strict=True) if kept]
    same(found.filter(pa.array(mask, pa.bool_())), expected)
    rows = data.draw(st.lists(st.integers(0, len(entries) - 1))) if entries else []
    same(found.take(np.array(rows, dtype=np.int64)), [entries[i] for i in rows])
    names = data.draw(st.lists(TEXTS | st.sampled_from(entries).map(attrgetter("path")) if entries else TEXTS))
    same(found.named(*names), [entry for entry in entries if entry.path in names])


@given(ENTRIES)
def test_path_order_is_that_of_the_characters(entries):
    same(Listing.of(entries).in_path_order(), sorted(entries))
    same(Listing.of(sorted(entries)).in_path_order(), sorted(entries))


@given(st.lists(st.sampled_from(["a.png", "b.PNG", "c.png\n", "png", "d/e.Png", "f.png.txt"]), unique=True))
def test_files_are_found_by_an_expression(paths):
    entries = [Entry(path, 1, "") for path in paths]
    expected = [entry for entry in entries if entry.path.lower().endswith(".png")]
    same(Listing.of(entries).matching(r"(?i)\.png$"), expected)
