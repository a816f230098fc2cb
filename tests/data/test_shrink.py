"""Pictures that are packed smaller are those that were larger, upright and in proportion."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from pfs_pipelines.cli import main
from PIL import Image

from pfs_core.data.decode import decode
from pfs_core.data.pack import Shrinking, pack
from pfs_core.data.shrink import shrink
from pfs_core.errors import UserError


def encoded(size, mode="RGB", form="JPEG", orientation=1):
    """A picture that gets brighter from its stored left to its stored right."""
    ramp = np.linspace(0, 255, size[0]).astype(np.uint8)[None, :].repeat(size[1], 0)
    image = Image.fromarray(ramp).convert(mode)
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(out, form, **({"exif": exif, "quality": 95} if form == "JPEG" else {}))
    return out.getvalue()


def opened(data):
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize(
    ("size", "then"), [((400, 300), (171, 128)), ((300, 400), (128, 171)), ((128, 4000), None), ((100, 100), None)]
)
def test_the_shorter_side_is_as_long_as_asked_and_smaller_ones_stay(size, then):
    data = encoded(size)
    out = shrink(data, 128, 90)
    if then is None:
        assert out == data
    else:
        assert opened(out).size == then
        assert len(out) < len(data)
        assert opened(out).format == "JPEG"


def test_what_is_seen_stays_the_same():
    before, after = decode(encoded((512, 384))), decode(shrink(encoded((512, 384)), 192, 90))
    halved = before[:, ::2, ::2].float()
    assert after.shape == (3, 192, 256)
    assert (after.float() - halved).abs().mean() < 2


def test_it_is_upright_then():
    """Turned by 90 degrees it gets brighter downwards, and its size is that of what a viewer shows."""
    out = shrink(encoded((400, 200), orientation=6), 100, 90)
    assert opened(out).size == (100, 200)
    assert opened(out).getexif().get(0x0112, 1) == 1
    rows = decode(out).float().mean((0, 2))
    assert rows[10] < rows[100] < rows[190]


@pytest.mark.parametrize(("mode", "form", "channels"), [("L", "PNG", 1), ("RGBA", "PNG", 3), ("CMYK", "JPEG", 3)])
def test_other_modes_keep_their_channels(mode, form, channels):
    assert decode(shrink(encoded((300, 300), mode, form), 64, 90)).shape == (channels, 64, 64)


@pytest.mark.parametrize("data", [None, b"", b"broken", encoded((400, 400))[:2000]])
def test_what_is_broken_stays_for_the_split_to_name(data):
    assert shrink(data, 64, 90) == data


def test_a_pack_holds_small_pictures_and_names_its_settings(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        for i, size in enumerate(((400, 300), (60, 60))):
            (tmp_path / "tree" / name / f"{i}.jpg").write_bytes(encoded(size))
    where = str(tmp_path / "tree"), str(tmp_path / "out")
    assert main(["pack", *where, "--max-side", "100"]) == 0
    (shard,) = (tmp_path / "out").glob("*.parquet")
    rows = {row["name"]: row["image"] for row in pq.read_table(shard).to_pylist()}
    assert {name: opened(data).size for name, data in rows.items()} == {
        **dict.fromkeys(("cat/0.jpg", "dog/0.jpg"), (133, 100)),
        **dict.fromkeys(("cat/1.jpg", "dog/1.jpg"), (60, 60)),
    }
    before = shard.read_bytes()
    pack(*where, shrinking=Shrinking(100, 90))
    assert shard.read_bytes() == before
    with pytest.raises(UserError, match="holds something else than this pack"):
        pack(*where, shrinking=Shrinking(100, 80))


@pytest.mark.parametrize(("flags", "says"), [(["--max-side", "4"], "at least 8"), (["--quality", "100"], "1 to 95")])
def test_what_makes_no_sense_is_refused(tmp_path, capsys, flags, says):
    assert main(["pack", str(tmp_path), str(tmp_path / "out"), *flags]) == 2
    assert says in capsys.readouterr().err
