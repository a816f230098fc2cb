"""An image that cannot be read stops the split in one line, or is left out and listed; never does it train as noise."""

import re

import pyarrow.parquet as pq
import pytest
from pfs_pipelines.cli import main
from PIL import Image

from pfs_core.config.stages import SplitConfig
from pfs_core.data import load_split, split_dataset
from pfs_core.errors import UserError
from pfs_core.runtime.progress import ImageProgress
from pfs_core.storage.artifacts import read_json
from tests.data.folders import encode, images, picture, png, tree, write

BAD = {
    "floats": (encode(Image.new("F", (12, 10), 0.5), "TIFF"), "it has 32 bits a channel"),
    "truncated": (encode(picture(0, (60, 50)), "JPEG")[:2000], "the image cannot be decoded (image file is truncated"),
    "header only": (encode(picture(0))[:20], "the image cannot be decoded"),
    "empty": (b"", "the image is empty"),
    "text": (b"<html>", "neither PNG nor JPEG"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS in place of the file; git lfs"),
    "flipped bits": (encode(picture(0))[:60] + b"\xff" * 40 + encode(picture(0))[100:], "the image cannot be decoded"),
}


@pytest.fixture(params=BAD)
def spoiled(request, tmp_path):
    """A tree of 40 images, the 12th of which is bad, and what is wrong with it."""
    tree(tmp_path / "data", *[f"{'ab'[i % 2]}/{i:02}.png" for i in range(40)])
    data, reason = BAD[request.param]
    (tmp_path / "data" / "b" / "11.png").write_bytes(data)
    return tmp_path / "data", reason


def test_it_stops_the_split_of_images_in_memory(spoiled, tmp_path):
    with pytest.raises(UserError) as error:
        split_dataset(str(spoiled[0]), tmp_path / "split")
    assert str(error.value).startswith(f"{spoiled[0]}/b/11.png: ")
    assert spoiled[1] in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "split").exists()


@pytest.mark.parametrize("size", [None, 8])
def test_it_is_left_out_and_listed(spoiled, tmp_path, size):
    info = split_dataset(str(spoiled[0]), tmp_path / "split", SplitConfig(on_bad="skip", image_size=size))
    (skipped,) = read_json(tmp_path / "split" / "split.json")["skipped"]
    assert skipped["image"] == f"{spoiled[0]}/b/11.png"
    assert spoiled[1] in skipped["reason"]
    assert sum(info.rows.values()) == 39
    index = pq.read_table(tmp_path / "split" / "split.parquet")
    assert len(index) == 39
    assert "b/11.png" not in index.column("file").to_pylist()
    data = load_split(tmp_path / "split")
    for part, rows in info.rows.items():
        images = data.part(part)
        assert sum(len(batch) for batch in images.in_order(7)) == len(images) == rows


@pytest.mark.parametrize(("on_bad", "copies"), [("stop", 2), ("skip", 3)])
def test_images_that_do_not_fit_in_memory_once_decoded_are_refused(tmp_path, monkeypatch, on_bad, copies):
    flat = encode(Image.new("RGB", (90, 80)), "JPEG")
    write(tmp_path / "train.parquet", [flat] * 40, [0, 1] * 20)
    needed = copies * 40 * 90 * 80 * 3
    config = SplitConfig(on_bad=on_bad)
    monkeypatch.setattr("pfs_core.data.reading.memory_size", lambda device: needed - 1)
    with pytest.raises(UserError, match=rf"^dataset {tmp_path} takes 0.0 GiB decoded.*; set split.image_size [^\n]*$"):
        split_dataset(str(tmp_path), tmp_path / "split", config)
    monkeypatch.setattr("pfs_core.data.reading.memory_size", lambda device: needed)
    assert sum(split_dataset(str(tmp_path), tmp_path / "split", config).rows.values()) == 40


def test_images_of_another_size_are_left_out_too(tmp_path):
    encoded = [png(image) for image in images(40)]
    encoded[17] = png(images(1, (3, 9, 9))[0])
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train.parquet", encoded, [0, 1] * 20)
    info = split_dataset(str(tmp_path / "data"), tmp_path / "split", SplitConfig(on_bad="skip"))
    assert [skipped.image for skipped in info.skipped] == [f"{tmp_path}/data/train.parquet, row 17"]
    assert load_split(tmp_path / "split").images.shape == (39, 3, 6, 5)


@pytest.mark.parametrize("odd", [picture(0, (9, 9)), picture(0, mode="L")], ids=["size", "grey"])
@pytest.mark.parametrize("command", [["split"], ["data", "check"]], ids=["split", "check"])
def test_what_most_images_are_is_kept_wherever_the_odd_one_is(tmp_path, odd, command, capsys):
    root = tree(tmp_path / "data", *[f"{c}/{i}.png" for c in "ab" for i in range(12)])
    (root / "a" / "0.png").write_bytes(encode(odd))
    out = [str(tmp_path / "split")] if command == ["split"] else []
    assert main([*command, str(root), *out, "--set", "split.on_bad=skip"]) == 0
    said = capsys.readouterr().out
    assert ("1 images left out" if out else "1 differ from most in size or colours and are left out") in said
    if out:
        (skipped,) = read_json(tmp_path / "split" / "split.json")["skipped"]
        assert skipped["image"] == f"{root}/a/0.png"
        assert ", most are " in skipped["reason"]
        assert len(load_split(tmp_path / "split").images) == 23


LOST = {
    # the images that are spoiled, by what, and what is said of them
    "those of a part": (
        [f"val/{c}/{i}.png" for c in "ab" for i in range(2)],
        (9, 9),
        "test; 4 are left out that cannot be used, such as .*/val/a/0.png: the image is 3x9x9, most are 3x10x12; set",
    ),
    "those of a part cannot be decoded": (
        ["train/a/3.png", *(f"val/{c}/{i}.png" for c in "ab" for i in range(2))],
        None,
        "test; 5 are left out that cannot be used, such as .*/val/a/0.png: the image cannot be decoded",
    ),
}


@pytest.mark.parametrize("command", ["split", "check"])
@pytest.mark.parametrize("case", LOST)
def test_a_part_of_which_nothing_is_left_says_what_was_left_out_and_why(tmp_path, case, command, capsys):
    paths, size, message = LOST[case]
    parts = (("train", 12), ("val", 2))
    root = tree(
        tmp_path / "data", *[f"{part}/{c}/{i}.png" for part, count in parts for c in "ab" for i in range(count)]
    )
    for path in paths:
        (root / path).write_bytes(encode(picture(0, size)) if size else b"bad")
    if command == "split":
        with pytest.raises(UserError, match=f"^the dataset's 28 rows are too few: none is left for {message}"):
            split_dataset(str(root), tmp_path / "split", SplitConfig(on_bad="skip"))
        assert not (tmp_path / "split").exists()
    else:
        assert main(["data", "check", str(root), "--set", "split.on_bad=skip"]) == 2
        assert re.search(f"the dataset's 28 rows are too few: none is left for {message}", capsys.readouterr().out)


def test_nothing_but_bad_images_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train.parquet", [b"bad"] * 40, [0, 1] * 20)
    for size in (None, 8):
        with pytest.raises(UserError, match=r"no image that can be decoded|too few"):
            split_dataset(str(tmp_path / "data"), tmp_path / "split", SplitConfig(on_bad="skip", image_size=size))


@pytest.mark.parametrize("size", [None, 8])
def test_a_page_that_fails_its_checksum_is_refused(tmp_path, size):
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "train.parquet"
    raw = [encode(picture(i, (40, 40)), "BMP") for i in range(40)]
    write(file, raw, [0, 1] * 20, write_page_checksum=True, compression="none", row_group_size=10, use_dictionary=False)
    data = bytearray(file.read_bytes())
    place = data.index(raw[27][100:200])
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"train.parquet, row group 2 cannot be read: .*CRC") as error:
        split_dataset(str(tmp_path / "data"), tmp_path / "split", SplitConfig(image_size=size))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_broken_image_of_any_part_is_known_at_the_split(tmp_path, part):
    root = tree(
        tmp_path / "data", *[f"{p}/{c}/{i}.jpg" for p in ("train", "val", "test") for c in "ab" for i in range(5)]
    )
    whole = encode(picture(0, (60, 50)), "JPEG")
    for path in root.rglob("*.jpg"):
        path.write_bytes(whole)
    (root / part / "b" / "3.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=rf"{part}/b/3.jpg: the image cannot be decoded .*split.on_bad=skip leaves"):
        split_dataset(str(root), tmp_path / "split", SplitConfig(image_size=8))
    assert not (tmp_path / "split").exists()
    info = split_dataset(str(root), tmp_path / "split", SplitConfig(image_size=8, on_bad="skip"))
    assert [one.image for one in info.skipped] == [f"{root}/{part}/b/3.jpg"]
    assert sum(info.rows.values()) == 29


def test_images_that_have_not_changed_are_not_decoded_again(tmp_path, monkeypatch):
    root = tree(tmp_path / "data", *[f"{c}/{i}.png" for c in "ab" for i in range(10)])
    (root / "b" / "3.png").write_bytes(b"bad")
    skip = SplitConfig(image_size=8, on_bad="skip")
    first = split_dataset(str(root), tmp_path / "split", skip)
    with monkeypatch.context() as patch:
        patch.setattr("pfs_core.data.checked_once.check_images", None)
        assert split_dataset(str(root), tmp_path / "again", skip) == first
        with pytest.raises(UserError, match=r"b/3.png: the image cannot be decoded"):
            split_dataset(str(root), tmp_path / "third", SplitConfig(image_size=8))
    (root / "b" / "3.png").write_bytes(encode(picture(3)))
    assert split_dataset(str(root), tmp_path / "fourth", skip).skipped == []


def test_progress_is_told_now_and_then(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("pfs_core.runtime.progress.time.monotonic", lambda: now[0])
    progress = ImageProgress("split reading", 1000)
    for second in range(1, 131):
        now[0] = float(second)
        progress(5)
    assert capsys.readouterr().out.splitlines() == [
        "split reading 300/1,000 images  5 images/s  left 2:20",
        "split reading 600/1,000 images  5 images/s  left 1:20",
    ]
