"""Whether the texts of a column say parts, whatever the column is called."""

from collections.abc import Collection

import pyarrow.parquet as pq

from pfs_core.data.parts import parts_in

_MOST = 12


def parts_said(texts: Collection[str]) -> set[str]:
    """Return the parts that the different texts of a column say; none unless each of them says one.

    >>> sorted(parts_said(["Training", "PublicTest", "PrivateTest"])), parts_said(["train", "bus"])
    (['test', 'training'], set())
    """
    said = [parts_in(text) for text in texts] if len(texts) <= _MOST else []
    return {part for one in said for part in one} if all(len(one) == 1 for one in said) else set()


def may_say_parts(metadata: pq.FileMetaData, column: str) -> bool:
    """Whether the first and the last text of a Parquet file's column say parts, by its statistics; false without."""
    for group in range(metadata.num_row_groups):
        chunks = (metadata.row_group(group).column(i) for i in range(metadata.num_columns))
        found = next((one.statistics for one in chunks if one.path_in_schema == column), None)
        if found is None or not found.has_min_max or not (parts_in(str(found.min)) and parts_in(str(found.max))):
            return False
    return True
