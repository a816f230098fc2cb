"""What a table that names images says of them: its columns of paths, labels and parts.

What could be meant in two ways is refused; :mod:`~pfs_core.data.formats.list_choice` finds out whether that matters.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pfs_core.config.stages import SplitConfig
from pfs_core.data.formats.columns import without_zero_fractions
from pfs_core.data.formats.list_labels import check_labels, is_index, label_column, named_labels, names_by_label
from pfs_core.data.formats.list_parts import part_column, part_of_list, parts_of_rows
from pfs_core.data.formats.list_paths import ImageNames, Named
from pfs_core.data.formats.list_tables import ListTable
from pfs_core.errors import UserError


class Listed(NamedTuple):
    """A list: for each of its rows the position of the image, the label as text and the part.

    Attributes:
        path: the path of the list.
        images: int64 [n].
        labels: n texts.
        parts: n parts, empty where none is said.
        label: the column of labels.
        columns: which columns were taken for what, in words.
        names: the name of the class by the text of its label, in the order of the classes, if the list has names.
    """

    path: str
    images: np.ndarray
    labels: pa.Array
    parts: list[str]
    label: str
    columns: str
    names: dict[str, str] | None = None


class Candidate(NamedTuple):
    """A table that names images.

    Attributes:
        path: the path of the file.
        columns: its columns but that of paths.
        images: int64, the positions of the images that it names.
        wanted: whether a setting names one of its columns.
        named: whether a setting or a usual name says which of its columns has the labels.
        numbers: whether it names the images by numbers alone, which may be those of anything.
        listed: what it says; None if it has no labels or is refused.
        fault: why it is refused, if it is read.
    """

    path: str
    columns: tuple[str, ...]
    images: np.ndarray
    wanted: bool
    named: bool
    numbers: bool
    listed: Listed | None
    fault: UserError | None

    @property
    def has_labels(self) -> bool:
        """Whether it may be a list of labels: it is one, or is refused."""
        return self.listed is not None or self.fault is not None


def candidate_in(uri: str, table: ListTable, images: ImageNames, config: SplitConfig) -> Candidate | None:
    """Find out what a table says of the images; None if no column names them.

    Args:
        uri: the address of the dataset.
        table: the file.
        images: the images of the dataset.
        config: which columns have the paths and the labels.
    """
    found = _image_columns(table, images, config)
    if (part := part_of_list(table.path)) and any(named.several is not None for named in found.values()):
        inner = images.within(part)
        if of_part := _image_columns(table, inner, config):
            found, images = of_part, inner
    if not found:
        return None
    name, named = next(iter(found.items()))
    others = tuple(other for other in table.columns if other != name)
    known = named.images[named.images >= 0]
    wanted = bool(config.image_column) or config.label_column in others
    by_name = bool(named_labels(others, config.label_column))
    numbers = not wanted and _are_numbers(table.columns[name])
    listed, fault = None, None
    try:
        listed = _listed(f"{uri}/{table.path}", table, found, images, config)
    except UserError as e:
        fault = e
    return Candidate(table.path, others, images.rows[known], wanted, by_name, numbers, listed, fault)


def _listed(
    place: str, table: ListTable, found: dict[str, Named], images: ImageNames, config: SplitConfig
) -> Listed | None:
    """Return the rows of a table; None if it has no labels.

    Raises:
        UserError: a path is that of no image, a label is missing, or a column could be meant in two ways.
    """
    rows = _checked(place, table, found, images)
    name = next(iter(found))
    others = {other: texts for other, texts in table.columns.items() if other != name}
    part = part_column(place, others, named_labels(others, config.label_column))
    others.pop(part or "", None)
    label = label_column(place, others, config.label_column)
    if label is None:
        return None
    if table.fault:
        raise UserError(f"{place}: {table.fault}")
    labels = without_zero_fractions(table.columns[label])
    check_labels(place, labels)
    names = None if table.schema is None else names_by_label(place, table.schema, label, labels)
    unused = [other for other in others if other != label and not is_index(other)]
    also = f"; not used: {', '.join(unused)}" if unused else ""
    parts, by = parts_of_rows(place, table.path, table.columns, part, images.paths.take(pa.array(rows)))
    columns = f"paths in {name!r}, labels in {label!r}{by}{also}"
    return Listed(table.path, images.rows[rows], labels, parts, label, columns, names)


def _image_columns(table: ListTable, images: ImageNames, config: SplitConfig) -> dict[str, Named]:
    """Return the columns that name images: those whose texts say as much as any others do; empty if none names any."""
    if setting := config.image_column:
        texts = table.columns.get(setting, pa.array([], pa.string()))
        none = Named(np.full(len(texts), -1, dtype=np.int64), 0, None)
        return {setting: images.find(texts) or none} if len(texts) else {}
    known = [name for name in table.columns if not is_index(name)]
    found = {name: named for name in known if (named := images.find(table.columns[name])) is not None}
    # Numbers as labels may be names of images, too.
    labels = named_labels(found, config.label_column)
    found = {name: named for name, named in found.items() if name not in labels} or found
    if any(named.sure and named.share > 0.5 for named in found.values()):
        found = {name: named for name, named in found.items() if named.sure}
    whole = {name: named for name, named in found.items() if named.all_found}
    if not whole:
        name, named = max(found.items(), key=lambda item: item[1].share, default=("", None))
        return {name: named} if named and (named.sure or named.share > 0.5) else {}
    # Columns of which one image is named twice come last.
    rank = {name: (len(np.unique(one.images)) < len(one.images), one.level) for name, one in whole.items()}
    return {name: named for name, named in whole.items() if rank[name] == min(rank.values())}


def _checked(place: str, table: ListTable, found: dict[str, Named], images: ImageNames) -> np.ndarray:
    """Return the position of the image of each row, int64; UserError if it is not known which one is meant."""
    (name, named), *others = found.items()
    texts = table.columns[name]
    if not named.all_found:
        row = int(np.flatnonzero(named.images < 0)[0])
        raise UserError(f"{place}, row {row}: there is no image {texts[row].as_py()!r}")
    for other, one in others:
        if (one.images != named.images).any():
            raise UserError(
                f"{place}: columns {name!r} and {other!r} name different images; set split.image_column to one of them"
            )
    if named.several is not None:
        raise UserError(
            f"{place}, row {named.several}: several images are called {texts[named.several].as_py()!r}; "
            "write their paths below the dataset"
        )
    header = images.find(pa.array([name], pa.string()))
    if header is not None and header.images[0] not in named.images:
        raise UserError(f"{place} begins with an image ({name!r}); put the names of the columns first: path,label")
    return named.images


def _are_numbers(texts: pa.Array) -> bool:
    return bool(pc.all(pc.match_substring_regex(texts, r"^\d+$")).as_py())
