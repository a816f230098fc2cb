"""From the address of a dataset to its rows: finds out the format, and whether there is a dataset at all."""

import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pfs_core.config.stages import SplitConfig
from pfs_core.data.classes import differing_in_capitals
from pfs_core.data.dataset import Source, fingerprint
from pfs_core.data.formats.arrow import ARROW, open_arrow
from pfs_core.data.formats.cifar import load_cifar
from pfs_core.data.formats.digits import load_digits
from pfs_core.data.formats.downloads import FOLDERS, PREFIX, check_name, downloaded
from pfs_core.data.formats.folder_levels import listed
from pfs_core.data.formats.idx import IDX, load_idx
from pfs_core.data.formats.list_or_tree import open_folders, open_listed, unused_columns
from pfs_core.data.formats.lists import Lists, is_submission, read_lists
from pfs_core.data.formats.parquet import AT_ROOT, PARQUET, open_parquet
from pfs_core.data.formats.webdataset import TARS, open_tars
from pfs_core.data.left_out import left_out, no_files, summary
from pfs_core.data.parts import TEST, TRAINING, VALIDATION
from pfs_core.data.passed_over import dataset_files
from pfs_core.data.unread_parts import check_no_part_empty, check_no_part_unread
from pfs_core.errors import UserError, did_you_mean
from pfs_core.storage import LocalStorage, Storage, open_storage
from pfs_core.storage.listing import Listing
from pfs_core.storage.local import is_there

_ARCHIVE = r"(?i)\.(zip|7z|rar|tgz|tar\.[a-z0-9]+)$"
_SHARDS = ((PARQUET, open_parquet), (ARROW, open_arrow), (TARS, open_tars))


def open_source(uri: str, config: SplitConfig = SplitConfig()) -> Source:
    """Index the rows of the dataset at ``uri``.

    Args:
        uri: ``digits``, or a folder, ``file://`` or ``s3://`` address with files in one of the formats of
            :mod:`pfs_core.data.formats`: Parquet or Arrow files, one folder of images per class, a list of images,
            WebDataset tars, IDX files or CIFAR's Python files; or ``torchvision:NAME``, which is downloaded first.
        config: its settings say which columns have the images and the labels.

    Raises:
        UserError: there is no such dataset, its format is not known, or it is broken.
    """
    source = _opened(uri, config)
    unused = unused_columns(config) if source.kind == "arrays" else []
    said = (*source.notes, *unused, *_classes_without_images(source), *_capitals(source))
    return replace(source, notes=said)


def _opened(uri: str, config: SplitConfig) -> Source:
    if uri == "digits":
        return load_digits()
    if uri.startswith(PREFIX):
        return replace(_opened(str(downloaded(uri.removeprefix(PREFIX))), config), uri=uri)
    storage = _storage(uri)
    files = dataset_files(storage)
    beside = no_files(storage, skip=config.on_bad == "skip")
    lists = read_lists(storage, files, config)
    source = _from_files(storage, files, lists, config)
    tables = pa.array([table.path for table in lists.tables], pa.string())
    check_no_part_unread(source, files.filter(pc.invert(pc.is_in(files.paths, value_set=tables))))
    check_no_part_empty(source, storage, files)
    return replace(source, left_out=source.left_out + beside)


def _from_files(storage: Storage, files: Listing, lists: Lists, config: SplitConfig) -> Source:
    """Find out which format the files of a dataset are of, and index their rows."""
    if lists.choice.sure:
        return open_listed(storage, files, lists, config)
    if _holds_images(files.matching(AT_ROOT), lists):
        return _parquet(storage, files, lists, config)
    if files.matching(IDX):
        return load_idx(storage, files)
    if files.named("data_batch_1", "train") and files.named("batches.meta", "meta"):
        return load_cifar(storage, files)
    shards = next((found for found in _SHARDS if files.matching(found[0])), None)
    if lists.images:
        try:
            return open_folders(storage, files, lists, config)
        except UserError as e:
            if shards and (folder := _folder(files.matching(shards[0]))):
                hint = f"{storage.uri}/{folder}, which has Parquet, Arrow or tar files"
                raise UserError(f"{e}; or name {hint}") from None
            raise
    if shards:
        return shards[1](storage, files, config)
    if cifar := files.matching(r"/(batches\.meta|data_batch_1)$"):
        raise UserError(f"dataset {storage.uri} has CIFAR's files in a folder; name {storage.uri}/{_folder(cifar)}")
    beside = f"; {summary(left_out(files, []))}" if files else ""
    raise UserError(
        f"dataset {storage.uri} holds no *.parquet file, no class folders with images, no tar or Arrow files, no "
        f"IDX and no CIFAR Python files{beside}"
    )


def _folder(files: Listing) -> str:
    """Return the folder of the first file."""
    return files[0].path.rpartition("/")[0]


def _holds_images(parquet: Listing, lists: Lists) -> bool:
    """Whether some Parquet files may have images in them, not features or lists of the images beside them."""
    tables = {table.path for table in lists.tables}
    return any(entry.path not in tables and not is_submission(entry.path) for entry in parquet)


def _parquet(storage: Storage, files: Listing, lists: Lists, config: SplitConfig) -> Source:
    """Index Parquet files; where they are refused, say so of the folders beside them."""
    try:
        return open_parquet(storage, files, config)
    except UserError as e:
        if not lists.images:
            raise
        try:
            tree = open_folders(storage, files, lists, config)
        except UserError:
            raise e from None
        folders = listed(tree.class_names)
        raise UserError(f"{e}; or move it elsewhere, and the classes are the folders beside it ({folders})") from None


def notes_without(source: Source, usable: np.ndarray) -> list[str]:
    """Return the notes of a dataset once some of its rows are left out, which may be all of a class.

    Args:
        source: the dataset.
        usable: bool [N], the rows that are not.
    """
    if usable.all():
        return list(source.notes)
    before = _classes_without_images(source)
    return [*(note for note in source.notes if note not in before), *_classes_without_images(source, usable)]


def _classes_without_images(source: Source, usable: np.ndarray | bool = True) -> list[str]:
    """Say which classes no training image has, and which no image of a given part of those that are trained."""
    validation = np.zeros(len(source), dtype=bool) if source.is_validation is None else source.is_validation
    held_out = ((VALIDATION, validation), (TEST, source.is_test))
    said, known = [], np.ones(len(source.class_names), dtype=bool)
    for part, rows in ((TRAINING, ~(source.is_test | validation)), *(one for one in held_out if one[1].any())):
        has = np.bincount(source.labels[rows & usable], minlength=len(known)) > 0
        missing = [source.class_names[i] for i in np.flatnonzero(known & ~has)]
        if part == TRAINING:
            known = has
        if missing:
            more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
            said.append(f"{len(missing)} of {len(has)} classes have no {part} images: {', '.join(missing[:8])}{more}")
    return said


def _capitals(source: Source) -> list[str]:
    """Say which classes are named alike but for capitals."""
    pairs = differing_in_capitals(source.class_names)
    more = f" and {len(pairs) - 1} more" if len(pairs) > 1 else ""
    return [f"{one} and {other}{more} are different classes" for one, other in pairs[:1]]


def check_dataset(uri: str) -> None:
    """Raise UserError unless ``uri`` may be a dataset, without listing a bucket, downloading or reading rows."""
    if uri.startswith(PREFIX):
        check_name(uri.removeprefix(PREFIX))
    elif uri != "digits" and isinstance(storage := _storage(uri), LocalStorage) and not any(storage.root.iterdir()):
        raise UserError(f"dataset {uri} is an empty folder")


def content_of(uri: str) -> str:
    """Return a text that changes whenever the dataset at ``uri`` changes, from a listing of its files.

    It is the :func:`~pfs_core.data.dataset.fingerprint` of the files. Embedded and downloaded datasets never change, so
    their names are returned.

    Raises:
        UserError: there is nothing at ``uri``.
    """
    if uri == "digits" or uri.startswith(PREFIX):
        return uri
    storage = _storage(uri)
    return fingerprint(storage, dataset_files(storage))


def _storage(uri: str) -> Storage:
    """Open the address of a dataset; UserError if it is local and is not a folder."""
    storage = open_storage(uri)
    if isinstance(storage, LocalStorage):
        if not is_there(storage.root):
            beside = "" if "/" in uri or "." in uri else " and is no dataset that comes with pfs"
            alike = (f" (did you mean {PREFIX}{name}?)" for name in FOLDERS if name.lower() == uri.lower())
            hint = next(alike, did_you_mean(uri, ["digits", *(PREFIX + name for name in FOLDERS)]))
            right = "use digits, or a folder or s3:// prefix of images"
            raise UserError(f"dataset {uri!r} does not exist{beside}{hint}; {right}")
        if not storage.root.is_dir():
            if re.search(_ARCHIVE, uri):
                raise UserError(f"dataset {uri} is an archive; unpack it, and name the folder")
            raise UserError(f"dataset {uri} is a file; name the folder that holds it")
    return storage
