"""Whether a dataset has a part in a form that is not read: its test images would be drawn from training instead."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pfs_core.data.dataset import Source
from pfs_core.data.formats.tree import IMAGES
from pfs_core.data.left_out import reason_of
from pfs_core.data.parts import EVALUATION, TEST, VALIDATION, is_held_out, part_named, parts_in
from pfs_core.data.passed_over import folders_in
from pfs_core.errors import UserError
from pfs_core.storage import LocalStorage, Storage
from pfs_core.storage.listing import Listing

_ABOUT = r"(?i)\.(csv|tsv|txt|json|jsonl|md|rst|html?|xml|ya?ml|toml|py|ipynb|log|sh|cfg|ini|pdf|docx?|xlsx?|ods)$"


def check_no_part_unread(source: Source, files: Listing) -> None:
    """Raise UserError if a file that is not read is named like a held-out part, or is in its folder, and no other is.

    Texts may describe a part, and images that no list names may be a test set without labels: these are only counted.

    Args:
        source: what was read.
        files: all files of the dataset but tables of texts, which may describe a part, too.
    """
    used = pa.concat_arrays([source.files.paths, pa.array(source.lists, pa.string())])
    others = files.filter(pc.invert(pc.is_in(files.paths, value_set=used)))
    known = rf"{_ABOUT}|{IMAGES}" if source.lists else _ABOUT
    others = others.filter(pc.invert(pc.match_substring_regex(others.paths, known)))
    if not others:
        return
    folders = _folders(source)
    # In a folder of a class, names of files say nothing.
    named = {""} if source.kind == "tree" else {"", *folders}
    whole = _whole(source)
    there = _parts_read(source, folders)
    for path in others.paths.to_pylist():
        folder, slash, name = path.rpartition("/")
        said = {part_named(one) for one in _levels(folder, whole)} - {""} or (
            parts_in(_stem(name)) if f"{folder}{slash}" in named else set()
        )
        part = said.pop() if len(said) == 1 else ""
        if is_held_out(part) and part not in there:
            raise UserError(
                f"{source.uri}/{path} is named like a {part} part and is not read ({reason_of(path)}), so the part "
                "would be missing; give it in the form of the others, or move it out of the dataset"
            )


def check_no_part_empty(source: Source, storage: Storage, files: Listing) -> None:
    """Raise UserError if a folder without files is named like a held-out part, and no other is.

    S3 has no empty folders.

    Args:
        source: what was read.
        storage: where it is.
        files: all files of the dataset.
    """
    if not isinstance(storage, LocalStorage):
        return
    folders = _folders(source)
    there = _parts_read(source, folders)
    for folder in _folders_beside(storage.root, folders if _whole(source) else set()):
        part, path = part_named(folder.name), folder.relative_to(storage.root).as_posix()
        if not is_held_out(part) or part in there:
            continue
        if not pc.any(pc.starts_with(files.paths, f"{path}/")).as_py():
            raise UserError(
                f"{source.uri}/{path} is named like a {part} part and holds no files, so the part would be missing; "
                "fill it, or remove it"
            )


def _folders_beside(root: Path, folders: Iterable[str]) -> list[Path]:
    """Return the folders at the root, and those beside one of ``folders`` or beside one above it."""
    above = {root} | {root.joinpath(*folder.split("/")[:i]) for folder in folders for i in range(folder.count("/"))}
    return sorted(one for folder in above for one in folders_in(folder))


def _folders(source: Source) -> set[str]:
    """Return the folders of the files that are read, each with a slash at its end; the root is empty."""
    return set(pc.replace_substring_regex(source.files.paths, r"[^/]*$", "").unique().to_pylist())


def _parts_read(source: Source, folders: Iterable[str]) -> set[str]:
    """Return the parts that are read, as names of files and folders say them."""
    whole = _whole(source)
    there = {part for folder in folders for name in _levels(folder, whole) for part in parts_in(name)}
    there |= {part for path in _names(source) for part in parts_in(_stem(path))}
    there |= {TEST, EVALUATION} if source.is_test.any() and VALIDATION not in there else set()
    there |= {VALIDATION, EVALUATION} if source.is_validation is not None else set()
    return there


def _whole(source: Source) -> bool:
    """Whether folders at any level may be parts; in a tree those below folders of classes may not."""
    return source.kind != "tree" or bool(source.lists)


def _names(source: Source) -> Iterable[str]:
    """Return the paths of files whose names can say a part."""
    return source.lists if source.kind == "tree" else (*source.lists, *source.files.paths.to_pylist())


def _levels(folder: str, whole: bool) -> list[str]:
    """Return the names of the folders above a file that may say a part; those below folders of classes may not."""
    return folder.split("/")[: None if whole else 1]


def _stem(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0]
