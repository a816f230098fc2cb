"""Images of every mode, format and orientation give the pixels that a viewer shows."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from pfs_core.config.stages import SplitConfig
from pfs_core.data import load_split, split_dataset
from pfs_core.data.crop import Crop
from pfs_core.data.decode import ANIMATED, DEEP, TRANSPARENT, TURNED, BadImageError, Picture, decode
from pfs_core.errors import UserError
from tests.data.folders import encode, picture, tree

RED, GREEN, BLUE, WHITE = [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]


def of(mode, *values, size=(2, 2)):
    """An image with one value in all pixels, or with these in the order of the rows."""
    image = Image.new(mode, size)
    image.putdata(values if len(values) > 1 else list(values) * (size[0] * size[1]))
    return image


def palette(clear=None):
    image = of("P", 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    if clear is not None:
        image.info["transparency"] = clear
    return image


def deep(value, dtype=np.uint16):
    return Image.fromarray(np.full((2, 2), value, dtype))


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


MODES = {
    # the image, the formats that hold it without loss, the pixel of it, the remarks
    "1": (of("1", 255), ("PNG", "BMP", "PPM", "TIFF"), [255], set()),
    "L": (of("L", 77), ("PNG", "BMP", "PPM", "TIFF", "GIF"), [77], set()),
    "RGB": (of("RGB", (10, 20, 30)), ("PNG", "BMP", "PPM", "TIFF"), [10, 20, 30], set()),
    "palette": (palette(), ("PNG", "BMP", "TIFF", "GIF"), [10, 20, 30], set()),
    "clear palette": (palette(b"\xff\x80"), ("PNG",), [132, 137, 142], {TRANSPARENT}),
    "clear colour of a palette": (palette(1), ("GIF",), WHITE, {TRANSPARENT}),
    "RGBA": (of("RGBA", (10, 20, 30, 128)), ("PNG", "TIFF"), [132, 137, 142], {TRANSPARENT}),
    "clear RGBA": (of("RGBA", (10, 20, 30, 0)), ("PNG", "TIFF"), WHITE, {TRANSPARENT}),
    "opaque RGBA": (of("RGBA", (10, 20, 30, 255)), ("PNG", "TIFF"), [10, 20, 30], set()),
    "LA": (of("LA", (100, 51)), ("PNG", "TIFF"), [224, 224, 224], {TRANSPARENT}),
    "opaque LA": (of("LA", (100, 255)), ("PNG", "TIFF"), [100, 100, 100], set()),
    "CMYK": (of("CMYK", (0, 255, 255, 0)), ("TIFF",), RED, set()),
    "16 bits": (deep(0x80FF), ("PNG", "TIFF"), [128], {DEEP}),
    "16 bits, low": (deep(128), ("PNG", "TIFF"), [0], {DEEP}),
    "16 bits, high": (deep(65535), ("PNG", "TIFF"), [255], {DEEP}),
    "16 bits of PGM": (deep(0x80FF, np.int32), ("PPM",), [128], {DEEP}),
}
CASES = [(mode, kind) for mode, (_, kinds, _, _) in MODES.items() for kind in kinds]


@pytest.mark.parametrize(("mode", "kind"), CASES)
def test_a_mode_gives_its_colours(mode, kind):
    image, _, pixel, remarks = MODES[mode]
    opened = Picture(saved(image, kind))
    found = opened.pixels().permute(1, 2, 0).numpy()
    expected = pixel * 3 if mode == "L" and kind == "GIF" and found.shape[-1] == 3 else pixel
    assert (found == expected).all(), found
    assert opened.remarks == remarks


@pytest.mark.parametrize(("mode", "kind"), CASES)
@pytest.mark.parametrize("channels", [1, 3])
def test_any_mode_becomes_grey_or_colour(mode, kind, channels):
    image, _, pixel, _ = MODES[mode]
    found = decode(saved(image, kind), channels)
    colour = Image.new("RGB", (1, 1), tuple(pixel * (3 // len(pixel)))).convert("L" if channels == 1 else "RGB")
    assert found.shape == (channels, 2, 2)
    assert (found == torch.from_numpy(np.array(colour)).reshape(channels, 1, 1)).all()


CORNERS = [RED, GREEN, BLUE, WHITE, WHITE, WHITE]
SHOWN = {
    # the corners as stored: red, green / blue, white / white, white
    None: [[RED, GREEN], [BLUE, WHITE], [WHITE, WHITE]],
    1: [[RED, GREEN], [BLUE, WHITE], [WHITE, WHITE]],
    2: [[GREEN, RED], [WHITE, BLUE], [WHITE, WHITE]],
    3: [[WHITE, WHITE], [WHITE, BLUE], [GREEN, RED]],
    4: [[WHITE, WHITE], [BLUE, WHITE], [RED, GREEN]],
    5: [[RED, BLUE, WHITE], [GREEN, WHITE, WHITE]],
    6: [[WHITE, BLUE, RED], [WHITE, WHITE, GREEN]],
    7: [[WHITE, WHITE, GREEN], [WHITE, BLUE, RED]],
    8: [[GREEN, WHITE, WHITE], [RED, BLUE, WHITE]],
    9: [[RED, GREEN], [BLUE, WHITE], [WHITE, WHITE]],
}
KINDS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
BLOCK = 16


def turned(orientation, kind, options):
    """An image of six blocks with an orientation."""
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    image = of("RGB", *map(tuple, CORNERS), size=(2, 3)).resize((2 * BLOCK, 3 * BLOCK), Image.Resampling.NEAREST)
    return saved(image, kind, exif=exif, **options)


@pytest.mark.parametrize("kind", [*KINDS, "AVIF"])
@pytest.mark.parametrize("orientation", SHOWN)
def test_every_orientation_is_turned_upright(orientation, kind):
    options = KINDS.get(kind, {"quality": 100, "subsampling": "4:4:4"})
    if kind == "AVIF" and orientation == 9:
        pytest.skip("AVIF stores a turn and a mirror, which have eight values")
    opened = Picture(turned(orientation, kind, options))
    expected = np.array(SHOWN[orientation])
    height, width = expected.shape[:2]
    assert opened.size == (width * BLOCK, height * BLOCK)
    found = opened.pixels().permute(1, 2, 0).numpy()[BLOCK // 2 :: BLOCK, BLOCK // 2 :: BLOCK].astype(int)
    assert np.abs(found - expected).max() <= 6
    assert (TURNED in opened.remarks) == (orientation in range(2, 9))


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_crops_are_of_the_upright_image(orientation):
    """The centre of one twice as wide as high is its middle, also where a JPEG is decoded small."""
    stored = {1: 0, 3: 180, 6: 90}[orientation]
    upright = Image.new("RGB", (512, 256), "white")
    upright.paste((255, 0, 0), (0, 0, 256, 256))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(upright.rotate(stored, expand=True), "JPEG", exif=exif, quality=95)
    found = Crop((16, 16), 3, (0.08, 1.0)).evaluation(data).int()
    assert found[:, :, :6].float().mean((1, 2)).tolist() == pytest.approx(RED, abs=4)
    assert found[:, :, 10:].float().mean((1, 2)).tolist() == pytest.approx(WHITE, abs=4)
    torch.manual_seed(0)
    assert Crop((16, 16), 3, (1.0, 1.0)).training(data).shape == (3, 16, 16)


def test_an_exif_block_that_is_broken_turns_nothing():
    data = saved(picture(0), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff")
    assert Picture(data).remarks == set()
    assert Picture(data).pixels().shape == (3, 10, 12)


def test_transparency_is_laid_over_the_background():
    data = saved(of("RGBA", (10, 20, 30, 0)), "PNG")
    assert decode(data, background="#0000ff")[:, 0, 0].tolist() == BLUE
    assert decode(data, 1, "black")[:, 0, 0].tolist() == [0]
    deep_and_clear = saved(deep(1000), "PNG", transparency=1000)
    assert decode(deep_and_clear)[:, 0, 0].tolist() == [255]


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("PNG", {})])
def test_of_several_frames_the_first_is_used(kind, options):
    frames = [Image.new("RGB", (8, 8), tuple(colour)) for colour in (RED, BLUE)]
    opened = Picture(saved(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert opened.pixels()[:, 0, 0].tolist() == RED
    assert opened.remarks == {ANIMATED}


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_what_has_no_known_range_is_refused(dtype):
    with pytest.raises(BadImageError, match="32 bits a channel"):
        Picture(saved(deep(5, dtype), "TIFF"))


def tiff(levels):
    """A TIFF of a row of grey levels as NumPy has them; Pillow writes no signed ones."""
    depth, sample_format = levels.dtype.itemsize * 8, {"u": 1, "i": 2}[levels.dtype.kind]
    tags = [(256, levels.size), (257, 1), (258, depth), (259, 1), (262, 1), (273, 134), (277, 1), (278, 1)]
    tags += [(279, levels.nbytes), (339, sample_format)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + levels.tobytes()


@pytest.mark.parametrize("dtype", [np.int16, np.int8])
def test_signed_levels_are_refused_and_unsigned_ones_read(dtype):
    """Nothing says what the lowest and the highest level mean: 0 and 255, or those of a scanner of bones."""
    levels = np.array([-5, 0, 100], dtype)
    with pytest.raises(BadImageError, match="its levels are signed, in no known range"):
        Picture(tiff(levels))
    top = np.iinfo(levels.view(f"u{levels.itemsize}").dtype).max
    expected = [int(level) * 255 // top for level in levels.view(f"u{levels.itemsize}")]
    assert decode(tiff(levels.view(f"u{levels.itemsize}")))[0, 0].tolist() == pytest.approx(expected, abs=1)


def test_levels_of_16_bits_that_count_from_white_are_turned_around():
    """Scanners and DICOM converters write such TIFF files; Pillow turns only those of 8 bits around."""
    data = saved(deep(55 * 257), "TIFF", tiffinfo={262: 0})
    assert (Picture(data).pixels() == 255 - 55).all()


def test_colours_of_16_bits_a_channel_are_scaled():
    """Pillow writes none, so these are the chunks of a PNG of one pixel."""
    levels = zlib.compress(b"\x00" + bytes([0x0A, 0xFF, 0x14, 0x00, 0x1E, 0x80]))
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)), (b"IDAT", levels), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        data += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    opened = Picture(data)
    assert opened.pixels().permute(1, 2, 0).tolist() == [[[10, 20, 30]]]
    assert opened.remarks == {DEEP}


@pytest.mark.parametrize("most", [200, 1023, 4095, 65535])
@pytest.mark.parametrize("channels", [1, 3])
def test_levels_of_pgm_and_ppm_are_scaled(most, channels):
    level = (most // 2).to_bytes(1 if most < 256 else 2, "big")
    opened = Picture(f"P{5 if channels == 1 else 6}\n2 2\n{most}\n".encode() + level * 4 * channels)
    assert (opened.pixels().int() - 127).abs().max() <= 1
    assert opened.remarks == ({DEEP} if most > 255 else set())


def test_16_bits_of_all_channels_together_are_not_many():
    header = b"BM" + struct.pack("<IHHI", 58, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 16, 0, 4, 0, 0, 0, 0)
    assert Picture(header + struct.pack("<HH", 0x7C00, 0)).remarks == set()


def test_heic_is_named():
    with pytest.raises(BadImageError, match="HEIC is not read; convert it to JPEG"):
        Picture(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic")


def test_odd_images_are_counted_and_said(tmp_path, capsys):
    data = tree(tmp_path / "data", *[f"{c}/{i:02}.png" for c in "ab" for i in range(20)])
    rgba = of("RGBA", (1, 2, 3, 0), size=(12, 10))
    (data / "a" / "00.png").write_bytes(saved(rgba, "PNG"))
    (data / "a" / "21.gif").write_bytes(saved(picture(1), "GIF", save_all=True, append_images=[picture(2)]))
    (data / "a" / "22.JFIF").write_bytes(encode(picture(3), "JPEG"))
    for name in ("1.heic", "2.HEIC", "notes.txt"):
        (data / "b" / name).write_bytes(b"x")
    for size in (None, 8):
        config = SplitConfig(background="black", image_size=size)
        info = split_dataset(str(data), tmp_path / "split", config)
        assert sum(info.rows.values()) == 42
        assert info.notes == [
            "images: 1 with transparent pixels, laid over black, 1 of several frames, of which the first is used"
        ]
        assert [(files.suffix, files.files) for files in info.left_out] == [(".heic", 2), (".txt", 1)]
        line = capsys.readouterr().out.splitlines()[-1]
        assert line.endswith(
            "left out: 2 .heic (images of this format are not read; convert them to PNG or JPEG), 1 .txt (not an image)"
        )
        page = (tmp_path / "split" / "dataset.html").read_text()
        assert "2 .heic (images of this format" in page
        assert "laid over black" in page
        black = load_split(tmp_path / "split")
        if size is None:
            assert (black.images[0] == 0).all()


@pytest.mark.parametrize(("first", "other"), [("RGB", "L"), ("L", "RGB"), ("RGB", "1")])
def test_grey_among_colour_names_the_setting(tmp_path, first, other):
    data = tree(tmp_path / "data", *[f"{c}/{i}.png" for c in "ab" for i in range(10)])
    for path in data.rglob("*.png"):
        path.write_bytes(saved(picture(1, mode=first), "PNG"))
    (data / "a" / "3.png").write_bytes(saved(picture(1, mode=other), "PNG"))
    words = {"RGB": "RGB", "L": "grey", "1": "grey"}
    with pytest.raises(UserError, match=f"a/3.png: the image is {words[other]}, the first one {words[first]}; set "):
        split_dataset(str(data), tmp_path / "split")
    split_dataset(str(data), tmp_path / "split", SplitConfig(channels=3))


def test_classes_of_any_name_are_shown_without_a_warning(tmp_path, recwarn):
    names = ("\u732b", "\u72ac", "\u0643\u0644\u0628", "W" * 200)
    tree(tmp_path / "data", *[f"{c}/{i}.png" for c in names for i in range(9)])
    split_dataset(str(tmp_path / "data"), tmp_path / "split")
    assert [str(one.message) for one in recwarn] == []
    assert "\u732b" in (tmp_path / "split" / "dataset.html").read_text(encoding="utf-8")


def test_no_warning_of_a_library_reaches_a_user():
    code = """
import sys, io
from PIL import Image
from pfs_core.data.decode import Picture, BadImageError
image = Image.new("P", (4, 4)); image.putpalette([1, 2, 3] * 4)
out = io.BytesIO(); image.save(out, "PNG", transparency=b"\\x00\\x10"); Picture(out.getvalue()).pixels()
out = io.BytesIO(); Image.new("1", (10000, 9500)).save(out, "PNG"); Picture(out.getvalue()).pixels()
out = io.BytesIO(); Image.new("RGB", (40, 40)).save(out, "TIFF")
for end in range(8, len(out.getvalue()), 97):
    try: Picture(out.getvalue()[:end]).pixels()
    except BadImageError: pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout + done.stderr == ""
