"""Which rows train, validate and test: a choice that neither the order of files nor their number changes."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfs_core.config.stages import SplitConfig
from pfs_core.data.choice import TEST, VALIDATION, choose_rows, drawn_away
from pfs_core.data.formats.tree import open_tree
from pfs_core.data.open import open_source
from pfs_core.data.pack import _shards
from pfs_core.data.split import write_index
from pfs_core.data.split_info import PARTS
from pfs_core.errors import UserError
from pfs_core.storage import S3Storage
from pfs_core.storage.listing import Entry, Listing
from tests.data.folders import encode, picture, source, tree


def per_class(made, parts, part):
    return np.bincount(made.labels[parts == part], minlength=len(made.class_names)).tolist()


@given(st.integers(20, 2000), st.integers(0, 5), st.sampled_from([0, 5]))
def test_parts_of_any_set(rows, seed, test_rows):
    made = source(rows, test_rows=test_rows)
    parts = choose_rows(made, SplitConfig(), seed)
    assert set(parts) == set(range(3))
    test = test_rows or round(0.2 * rows)
    assert (parts == TEST).sum() == test
    assert (parts == VALIDATION).sum() == round(0.1 * (rows - test))
    if test_rows:
        assert (parts[-test_rows:] == TEST).all()
    assert (parts == choose_rows(made, SplitConfig(), seed)).all()


def test_a_large_set_validates_on_5000_rows():
    parts = choose_rows(source(60_000, test_rows=10_000), SplitConfig(), 0)
    assert np.bincount(parts).tolist() == [45_000, 5000, 10_000]


def test_a_class_whose_images_all_went_to_the_test_is_said():
    made = source(100, classes=2)
    made.labels[:] = 0
    made.labels[7] = 1
    said = {
        bool(drawn_away(made, parts)): parts[7] for parts in (choose_rows(made, SplitConfig(), s) for s in range(20))
    }
    assert said.keys() == {False, True}
    assert said[True] == TEST != said[False]
    given = source(100, test_rows=10)
    given.labels[:] = np.arange(100) >= 90
    assert drawn_away(given, choose_rows(given, SplitConfig(), 0)) == []  # which the dataset itself decides


def test_rows_are_chosen_at_random():
    parts = choose_rows(source(10_000), SplitConfig(), 0)
    for part, share in ((TEST, 0.2), (VALIDATION, 0.08)):
        first_half = (parts[:5000] == part).sum()
        assert first_half == pytest.approx(5000 * share, rel=0.2)


@pytest.mark.parametrize("rows", [2, 3])
def test_too_few_rows_are_refused(rows):
    with pytest.raises(UserError, match="too few"):
        choose_rows(source(rows), SplitConfig(), 0)


@given(st.integers(60, 500), st.integers(2, 6), st.integers(1, 4), st.integers(0, 3))
def test_so_many_rows_of_each_class_validate(rows, classes, count, seed):
    made = source(rows, classes, test_rows=10)
    recipe = SplitConfig(validation_per_class=count)
    parts = choose_rows(made, recipe, seed)
    assert per_class(made, parts, VALIDATION) == [count] * classes
    assert (parts[-10:] == TEST).all()
    assert (parts == choose_rows(made, recipe, seed)).all()
    assert (parts != choose_rows(made, recipe, seed + 1)).any()


def test_a_class_with_too_few_rows_is_named():
    with pytest.raises(UserError, match=r"split.validation_per_class is 30, but class '0' has 30 training images"):
        choose_rows(source(70, test_rows=10), SplitConfig(validation_per_class=30), 0)


@given(st.integers(100, 800), st.integers(0, 3), st.integers(5, 60))
def test_stratified_shares_are_those_of_the_classes(rows, seed, validation):
    made = source(rows, 7, test_rows=10)
    made.labels[: rows // 3] = 0
    parts = choose_rows(made, SplitConfig(validation=validation, stratified=True), seed)
    training = np.bincount(made.labels[:-10], minlength=7)
    count = min(validation, round(0.1 * (rows - 10)))
    found = np.array(per_class(made, parts, VALIDATION))
    assert found.sum() == count
    assert (np.abs(found - count * training / (rows - 10)) < 1).all()


def test_within_a_class_rows_are_chosen_at_random():
    made = source(10_000, 4, test_rows=2)
    for recipe in (SplitConfig(validation_per_class=500), SplitConfig(validation=2000, stratified=True)):
        rows = np.flatnonzero(
            choose_rows(made, recipe.model_copy(update={"max_validation_fraction": 0.5}), 0) == VALIDATION
        )
        assert (rows < 5000).mean() == pytest.approx(0.5, abs=0.05)


def test_bad_rows_are_in_no_part():
    usable = np.arange(200) % 10 > 0
    parts = choose_rows(source(200), SplitConfig(), 0, usable)
    assert (parts[~usable] == -1).all()
    assert set(parts[usable]) == set(range(3))
    assert (parts == TEST).sum() == 36


NAMES = [f"{c}/{i:02}.png" for c in ("cat", "dog", "frog") for i in range(20)]
HELD_OUT = [f"val/{c}/{i}.png" for c in ("cat", "dog", "frog") for i in range(3)]


def shards(folder, names, count, order, prefix="train"):
    """Parquet files of images with names, spread over ``count`` files in some order."""
    folder.mkdir(exist_ok=True)
    names = [names[i] for i in order]
    for i in range(count):
        some = names[i::count]
        labels = [["cat", "dog", "frog"].index(name.split("/")[-2]) for name in some]
        image = encode(picture(0))
        table = pa.table({"image": pa.array([image] * len(some), pa.binary()), "label": labels, "name": some})
        pq.write_table(table, folder / f"{prefix}-{i}.parquet", row_group_size=4)
    return folder


def chosen(folder, recipe, seed):
    """The names in each part."""
    opened = open_source(str(folder))
    parts = choose_rows(opened, recipe, seed)
    names = np.array(opened.names.to_pylist())
    return {part: sorted(names[parts == i]) for i, part in enumerate(PARTS)}


@pytest.mark.parametrize(
    "recipe",
    [SplitConfig(), SplitConfig(validation_per_class=3), SplitConfig(stratified=True)],
    ids=["a total", "a class", "shares"],
)
@pytest.mark.parametrize("given", [False, True])
def test_the_same_names_are_chosen_however_they_are_stored(tmp_path, recipe, given):
    names = [f"train/{name}" for name in NAMES] if given else NAMES
    tree(tmp_path / "tree", *names, *(HELD_OUT if given else []))
    random = np.random.default_rng(0)
    folders = [tmp_path / "tree"]
    for count in (1, 7):
        folders.append(shards(tmp_path / str(count), names, count, random.permutation(len(names))))
        if given:
            shards(folders[-1], HELD_OUT, 2, range(len(HELD_OUT)), "test")
    first, *others = [chosen(folder, recipe, 5) for folder in folders]
    assert first["test"] == (HELD_OUT if given else first["test"])
    assert others == [first, first]
    assert chosen(folders[0], recipe, 6) != first


def test_the_order_in_which_files_are_listed_changes_nothing(tmp_path, monkeypatch):
    from pfs_core.storage import LocalStorage

    tree(tmp_path, *NAMES)
    first = chosen(tmp_path, SplitConfig(), 0)
    files = LocalStorage.files
    monkeypatch.setattr(LocalStorage, "files", lambda self: files(self)[::-1])
    assert chosen(tmp_path, SplitConfig(), 0) == first


def test_a_tree_of_the_size_of_imagenet_is_split_and_cut_into_shards(tmp_path):
    rows = 1_281_167
    files = Listing.of(Entry(f"n{i * 1000 // rows:08}/{i:07}.JPEG", 110_000, "") for i in range(rows))
    made = open_tree(S3Storage("bucket", "imagenet"), files)
    parts = choose_rows(made, SplitConfig(validation_per_class=50, test_fraction=0.04), 0)
    assert per_class(made, parts, VALIDATION) == [50] * 1000
    assert (parts == TEST).sum() == round(0.04 * rows)
    write_index(tmp_path, made, parts)
    index = pq.read_table(tmp_path / "split.parquet")
    assert index.column("file").combine_chunks().equals(files.paths)
    assert index.column("split").value_counts().to_pylist() == [
        {"values": part, "counts": int((parts == i).sum())} for i, part in enumerate(PARTS)
    ]
    shards = [shard.rows for shard in _shards(made, 128 * 2**20)]
    assert (np.sort(np.concatenate(shards)) == np.arange(rows)).all()
    assert {len(some) for some in shards[:-1]} <= {1220, 1221}
