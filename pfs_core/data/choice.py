"""Which rows of a dataset train, which validate and which test."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pyarrow.compute as pc

from pfs_core.config.stages import SplitConfig
from pfs_core.data.classes import few
from pfs_core.data.dataset import Source
from pfs_core.data.split_info import PARTS
from pfs_core.errors import UserError

TRAIN, VALIDATION, TEST = range(3)
LEFT_OUT = -1


def choose_rows(
    source: Source,
    config: SplitConfig,
    seed: int,
    usable: np.ndarray | None = None,
    reasons: Mapping[int, str] = {},
) -> np.ndarray:
    """The part of each row of ``source``, int8 [N] positions in ``PARTS``: at random unless the source determines it.

    Args:
        source: the dataset.
        config: how many rows the parts get.
        seed: of the random choice.
        usable: bool [N]; the other rows are -1.
        reasons: why rows are not usable, for messages.

    Raises:
        UserError: no row is left for a part, or a class has too few.
    """
    random = np.random.default_rng(seed)
    usable = np.ones(len(source), dtype=bool) if usable is None else usable
    parts = np.where(usable, TRAIN, LEFT_OUT).astype(np.int8)
    parts[source.is_test & usable] = TEST
    named = source.names is not None
    order = pc.sort_indices(source.names).to_numpy() if named else np.arange(len(source))
    if not source.is_test.any():
        rows = random.permutation(order[usable[order]])
        parts[rows[: round(config.test_fraction * len(rows))]] = TEST
    if source.is_validation is not None:
        parts[source.is_validation & usable] = VALIDATION
    else:
        rows = random.permutation(order[parts[order] == TRAIN])
        parts[_validation(source, config, rows)] = VALIDATION
    for i, part in enumerate(PARTS):
        if not (parts == i).any():
            why = _why_left_out(source, part, reasons)
            raise UserError(f"the dataset's {len(parts)} rows are too few: none is left for {part}{why}")
    return parts


def drawn_away(source: Source, parts: np.ndarray) -> list[str]:
    """Say which classes lost all of their images to a test part that was drawn.

    Args:
        source: the dataset.
        parts: the part of each row, as :func:`choose_rows` gives it.
    """
    in_test, others = (
        np.bincount(source.labels[rows], minlength=len(source.class_names))
        for rows in (parts == TEST, (parts == TRAIN) | (parts == VALIDATION))
    )
    lost = [source.class_names[i] for i in np.flatnonzero((in_test > 0) & (others == 0))]
    if not lost or source.is_test.any():
        return []
    return [
        f"all images of {few(lost)} were drawn for the test, so none trains; give a test part, or set another seed or "
        "a smaller split.test_fraction"
    ]


def _why_left_out(source: Source, part: str, reasons: Mapping[int, str]) -> str:
    """Say how many rows cannot be used, and the most frequent reason, in the part itself if it is given."""
    given = {PARTS[TEST]: source.is_test, PARTS[VALIDATION]: source.is_validation}.get(part)
    rows = [row for row in reasons if given is not None and given[row]] or list(reasons)
    if not rows:
        return ""
    ((reason, _),) = Counter(reasons[row] for row in rows).most_common(1)
    first = next(row for row in rows if reasons[row] == reason)
    are = "is" if len(reasons) == 1 else "are"
    return f"; {len(reasons):,} {are} left out that cannot be used, such as {source.place(first)}: {reason}"


def _validation(source: Source, config: SplitConfig, rows: np.ndarray) -> np.ndarray:
    """Those of ``rows``, training rows in random order, that validate."""
    count = min(config.validation, round(config.max_validation_fraction * len(rows)))
    if config.validation_per_class is None and not config.stratified:
        return rows[:count]
    labels = source.labels[rows]
    sizes = np.bincount(labels, minlength=len(source.class_names))
    if config.validation_per_class is not None:
        quota = np.full(len(sizes), config.validation_per_class)
        short = np.flatnonzero(sizes <= quota)
        if len(short):
            raise UserError(
                f"split.validation_per_class is {config.validation_per_class}, but class "
                f"{source.class_names[short[0]]!r} has {sizes[short[0]]} training images"
            )
    else:
        exact = count * sizes / len(rows)
        quota = np.floor(exact).astype(int)
        quota[np.argsort(quota - exact, kind="stable")[: count - quota.sum()]] += 1
    chosen: np.ndarray = rows[first_of_each_class(labels, quota)]
    return chosen


def first_of_each_class(labels: np.ndarray, quota: np.ndarray) -> np.ndarray:
    """The positions in ``labels`` of the first ``quota`` of each class, int64 [classes], class by class."""
    sizes = np.bincount(labels, minlength=len(quota))
    by_class = np.argsort(labels, kind="stable")
    place = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return by_class[place < np.repeat(quota, sizes)]
