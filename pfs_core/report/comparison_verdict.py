"""A comparison in a few lines: who is most accurate, who is fastest, and which is the smallest that is good enough."""

from collections.abc import Sequence

from pfs_core.latency.results import Ratio
from pfs_core.report.comparison_rows import ComparisonRow
from pfs_core.report.verdict import difference_interval, speed_text

_POINT = 0.01 + 1e-9
"""Up to so much lost accuracy is called within a point; 0.93 - 0.92 is 0.010000000000000009 in floating point."""


def comparison_verdict(rows: Sequence[ComparisonRow]) -> list[str]:
    """Return the lines; dense networks are among the rows, but are none that can be chosen.

    The smallest network is named only where the dense one was trained, for otherwise nobody knows what was lost.
    """
    chosen = [row for row in rows if not row.dense]
    best = max(chosen, key=_accuracy)
    alike = [row.label for row in chosen if row is not best and not _worse(row, best)]
    doubt = f"; its interval does not tell it apart from {', '.join(alike)}" if alike else ""
    lines = [f"Most accurate: {best.label}, {_accuracy(best):.2%}{doubt}."]
    if timed := [row for row in chosen if row.network.latency_ratio]:
        fastest = min(timed, key=lambda row: row.network.latency_ratio or 0.0)
        lines.append(f"Fastest: {fastest.label}, {_speed(fastest)}, accuracy {_accuracy(fastest):.2%}.")
    known = [(row, row.accuracy_drop) for row in chosen if row.accuracy_drop is not None]
    if near := [row for row, drop in known if drop <= _POINT]:
        smallest = min(near, key=lambda row: row.network.macs)
        lines.append(f"Smallest within a point of the dense network: {smallest.label}, {smallest.network.macs:,} MACs.")
    elif known:
        lines.append("None is within a point of the dense network's accuracy.")
    return lines


def _accuracy(row: ComparisonRow) -> float:
    return row.network.test_accuracy or 0.0


def _worse(one: ComparisonRow, best: ComparisonRow) -> bool:
    """Whether the interval of the difference of two accuracies excludes 0."""
    intervals = (row.network.test_accuracy_interval or (0.0, 1.0) for row in (one, best))
    return difference_interval(_accuracy(one), _accuracy(best), *intervals)[1] < 0


def _speed(row: ComparisonRow) -> str:
    ratio = row.network.latency_ratio or 0.0
    interval = row.network.latency_ratio_interval or (ratio, ratio)
    return speed_text(Ratio(ratio=ratio, interval=interval, verdict=row.network.latency_verdict or ""))
