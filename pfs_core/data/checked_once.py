"""Whether the images of a dataset can be used, found out once on a machine for as long as its files stay the same."""

import hashlib
from collections import Counter

import PIL

from pfs_core.config.made_once import cache_file, made_once
from pfs_core.config.spec import Config
from pfs_core.data.dataset import Source
from pfs_core.data.reading import Readings, bad_image, check_images


class _Checked(Config):
    """What :func:`pfs_core.data.reading.check_images` found."""

    skipped: dict[int, str]
    remarks: dict[str, int]
    pixels: int
    in_two_parts: tuple[int, ...]


def images_checked_once(source: Source, skip: bool) -> Readings:
    """Decode all images of a dataset, or take what an earlier call found.

    Args:
        source: the dataset, of encoded images.
        skip: as for :func:`pfs_core.data.reading.check_images`.

    Raises:
        UserError: an image cannot be decoded, and ``skip`` is not set.
    """

    def check() -> _Checked:
        readings = check_images(source, skip)
        return _Checked(
            skipped=readings.skipped,
            remarks=dict(readings.remarks),
            pixels=readings.pixels,
            in_two_parts=readings.in_two_parts,
        )

    tags = hashlib.sha256()
    for files in source.files.chunks():
        tags.update("\n".join(files.tags.to_pylist()).encode())
    key = [source.fingerprint, tags.hexdigest(), source.image_column, len(source), PIL.__version__]
    found = made_once(cache_file("decoded", *key), _Checked, check)
    for row, reason in [] if skip else list(found.skipped.items())[:1]:
        raise bad_image(source, row, reason)
    return Readings(None, found.skipped, Counter(found.remarks), found.pixels, found.in_two_parts)
