"""Folders of images beside folders of what is to be seen where in them: masks, boxes, depth. They are no classes."""

import re
from collections.abc import Collection, Iterable

import pyarrow as pa
import pyarrow.compute as pc

from pfs_core.data.formats.folder_levels import listed
from pfs_core.data.parts import parts_in, words_in
from pfs_core.errors import UserError
from pfs_core.storage.listing import Listing

_PICTURE = re.compile(
    "(?:jpe?g|png)?(?:images?|imgs?|pictures?|photos?|frames?|inputs?)|jpe?gs?|originals?|orig|raw|rgb|sources?|src"
)
_ANY_MARK = (
    "(?:png)?masks?|segmentations?|segm?|semantics?|annotations?|annots?|labels?|trimaps?|targets?|gts?|"
    "(?:ground)?truths?|b?box(?:es)?|instances?|objects?|class|depths?|disparity|edges?|contours?|mattes?|saliency"
)
_MARK = re.compile(_ANY_MARK)
_OF_MARKS = re.compile("binary|ground|bounding|png|maps?|colou?rs?|gr[ae]y")
_ABSENT = re.compile(f"(?:no|non|not|none|un|with|without)(?:{_ANY_MARK})?")
_AT_END = rf"(?i)[-_. ]+(?:{_ANY_MARK})$"


def check_no_masks(uri: str, names: Collection[str], images: Listing, folder: pa.DictionaryArray) -> None:
    """Raise UserError if folders are of pictures and of what is to be seen where in them.

    They are where each name says one of the two (``images``, ``masks``, ``bbox``; ``train``, ``train_masks``), and
    where all images of a folder that is called so have the names of images in the others. Numbers that count the images
    of a folder are no such names, as any two folders may have them; ``mask`` beside ``no_mask`` is a class.

    Args:
        uri: the address of the dataset.
        names: the folders.
        images: the images of the dataset.
        folder: the name of the folder of each.
    """
    shared = set.intersection(*(set(words_in(name)) for name in names)) if names else set()
    marks = [name for name in names if _says_marks(name, shared)]
    if 0 < len(marks) < len(names) and all(name in marks or _says_pictures(name, shared) for name in names):
        said = f"folders of images and of masks ({listed(names)})"
    elif alike := _named_alike(names, images, folder):
        said = f"a folder {alike}/ whose images have the names of those in other folders, as masks have"
    else:
        return
    raise UserError(
        f"dataset {uri} has {said}, not of classes; expected CLASS/image.jpg, or a list such as labels.csv (path,label)"
    )


def _says_pictures(name: str, shared: Collection[str]) -> bool:
    """Whether a name says pictures, or is that of a part; ``shared`` are words that all names have."""
    own = [word for word in words_in(name) if word not in shared]
    return all(_PICTURE.fullmatch(word) or parts_in(word) for word in own or words_in(name))


def _says_marks(name: str, others: Collection[str]) -> bool:
    """Whether a name says what is in pictures; besides it may say pictures, parts and the words of ``others``."""
    words = words_in(name)
    known = (word in others or parts_in(word) or any(p.fullmatch(word) for p in (_MARK, _OF_MARKS, _PICTURE))
             for word in words)  # fmt: skip
    return any(map(_MARK.fullmatch, words)) and all(known)


def _named_alike(names: Collection[str], images: Listing, folder: pa.DictionaryArray) -> str:
    """Return a folder that says what is in pictures, whose images have the names of those in others; empty if none."""
    words = {name: words_in(name) for name in names}
    pictures = [name for name in names if not any(map(_MARK.fullmatch, words[name]))]
    others = {word for name in pictures for word in words[name]}
    marks = [name for name in names if name not in pictures and _says_marks(name, others)]
    more = {word for name in names if name not in (*pictures, *marks) for word in words[name]}  # as of ``no_mask``
    marks = [name for name in marks if not any(_MARK.fullmatch(word) for word in more.intersection(words[name]))]
    if not pictures or not marks or any(_ABSENT.fullmatch(word) for word in others):
        return ""
    there = _stems(images, folder, pictures)
    return next((name for name in marks if (own := _stems(images, folder, [name])) <= there and not _count(own)), "")


def _stems(images: Listing, folder: pa.DictionaryArray, names: Collection[str]) -> set[str]:
    """Return the names of the images in some folders, without suffix and without a word for what is in pictures."""
    paths = images.paths.filter(pc.is_in(folder.cast(pa.string()), value_set=pa.array(names, pa.string())))
    stems = pc.replace_substring_regex(pc.replace_substring_regex(paths, r"^.*/|\.[^./]*$", ""), _AT_END, "")
    return set(stems.unique().to_pylist())


def _count(stems: Iterable[str]) -> bool:
    """Whether names only count, from anywhere on.

    >>> _count(["cat_8", "cat_9"]), _count(["2007_000032", "2011_003255"]), _count(["0cdf5b_01", "fff9b3_01"])
    (True, False, False)
    """
    stems = list(stems)
    if len({re.sub(r"\d+", "#", stem) for stem in stems}) > 1:
        return False
    numbers = [int("0" + "".join(re.findall(r"\d+", stem))) for stem in stems]
    return max(numbers) - min(numbers) < 2 * len(numbers)
