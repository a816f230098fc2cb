"""The tables of a report as text: a header and the cells below it."""

from collections.abc import Mapping, Sequence

from pfs_core.latency.results import Interval, Measurement
from pfs_core.report.lost_classes import LostClass
from pfs_core.report.network_row import NetworkRow
from pfs_core.report.results import RUNTIME_NAMES, Results
from pfs_core.runtime.cost import StageCost

_TRAINED = ("network", "MACs", "parameters", "test accuracy [95%]", "epochs")
_RATIO = "ratio to dense [95%]"
HEADER = (*_TRAINED, "p50 latency", _RATIO)
TERMINAL_HEADER = ("network", "MACs", "params", "accuracy, % [95%]", "p50, ms", "to dense [95%]")
"""A table of at most 80 columns."""
PAGE_HEADER = (*_TRAINED, "p50 latency, ms [95%]", _RATIO, "file, MiB")
"""A page has room for more than a terminal."""
MEASUREMENT_HEADER = (
    *("runtime", "threads", "batch", "network", "p50, ms [95%]", "p90, ms", "p99, ms"),
    *(_RATIO, "verdict", "MiB"),
)
STEP_HEADER = ("step", "time", "of processors or GPU", "images forward", "and backward", "on", "peak memory")

Cells = tuple[str, ...]


def table_cells(table: Sequence[NetworkRow]) -> list[Cells]:
    """The columns of ``HEADER``."""
    return [
        (*_trained_cells(row), f"{row.p50_ms:.3f} ms" if row.p50_ms else "not measured", _ratio_cell(row))
        for row in table
    ]


def terminal_cells(table: Sequence[NetworkRow]) -> list[Cells]:
    """The columns of ``TERMINAL_HEADER``."""
    return [
        (
            row.network,
            short(row.macs),
            short(row.params),
            _percent(row) or "not trained",
            f"{row.p50_ms:.3f}" if row.p50_ms else "-",
            _ratio_cell(row),
        )
        for row in table
    ]


def short(count: float) -> str:
    """Return a number with three digits.

    >>> short(2_532_992), short(272_186), short(4_089_184_256), short(64)
    ('2.53M', '272k', '4.09G', '64')
    """
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit * 0.9995:
            value = count / unit
            return f"{value:.{max(0, 2 - (value >= 9.995) - (value >= 99.95))}f}{sign}"
    return f"{count:.0f}"


def page_cells(table: Sequence[NetworkRow]) -> list[Cells]:
    """The columns of ``PAGE_HEADER``."""
    return [
        (
            *_trained_cells(row),
            _with_interval(row.p50_ms, row.p50_interval_ms, ".3f") or "not measured",
            _ratio_cell(row),
            f"{row.file_mib:.2f}" if row.file_mib else "-",
        )
        for row in table
    ]


def measurement_cells(found: Measurement) -> list[Cells]:
    """The columns of ``MEASUREMENT_HEADER``, one row per network."""
    rows: list[Cells] = []
    for name, stats in found.models.items():
        ratio = found.ratios_to_dense.get(name)
        rows.append(
            (
                RUNTIME_NAMES[found.runtime],
                str(found.threads),
                str(found.batch),
                name,
                _with_interval(stats.p50_ms, stats.p50_interval_ms, ".3f"),
                f"{stats.p90_ms:.3f}",
                f"{stats.p99_ms:.3f}",
                _with_interval(ratio.ratio, ratio.interval, ".3f") if ratio else "1",
                ratio.verdict if ratio else "",
                f"{stats.peak_memory_mib:.1f}" if stats.peak_memory_mib else "-",
            )
        )
    return rows


def step_cells(results: Results) -> list[Cells]:
    """The columns of ``STEP_HEADER``, one row per step; some are not known of older runs."""
    search, latency = results.search, results.latency
    rows: list[Cells] = [("split", _seconds(results.split_seconds), "-", "-", "-", "cpu", "-")]
    where, memory = f"{search.device}, {search.precision}", _memory(search.peak_memory_mib)
    if not search.cost:
        rows.append(("search", _seconds(search.seconds), "-", "-", "-", where, memory))
    for stage, cost in search.cost.items():
        name = "training before the search" if stage == "pretrain" else "search"
        rows.append((name, *_cost_cells(cost), where, memory))
    rows.append(("extraction", _seconds(results.extract_seconds), "-", "-", "-", "cpu", "-"))
    for name, trained in results.metrics.items():
        where, memory = f"{trained.device}, {trained.precision}", _memory(trained.peak_memory_mib)
        cost_cells = (_seconds(trained.seconds), "-", "-", "-")
        if "retrain" in trained.cost:
            cost_cells = _cost_cells(trained.cost["retrain"])
        rows.append((f"retraining, {name}", *cost_cells, where, memory))
    return [*rows, ("benchmark", _seconds(latency.seconds), "-", "-", "-", "cpu, float32", "-")]


def lost_cells(row: LostClass) -> Cells:
    """A class that lost: its name, test images, both accuracies and the loss.

    The images that the loss comes to are counted, since a few of them mean little.
    """
    images = round(row.lost * row.images)
    lost = f"{100 * row.lost:.1f} points ({images} {'image' if images <= 1 else 'images'})"
    return row.name, f"{row.images:,}", f"{row.dense:.1%}", f"{row.pruned:.1%}", lost


def _trained_cells(row: NetworkRow) -> tuple[str, str, str, str, str]:
    accuracy = _with_interval(row.test_accuracy, row.test_accuracy_interval, ".2%") or "not trained"
    return row.network, f"{row.macs:,}", f"{row.params:,}", accuracy, str(row.epochs or "-")


def _percent(row: NetworkRow) -> str:
    """The test accuracy in percent, without the sign."""
    if row.test_accuracy is None or row.test_accuracy_interval is None:
        return ""
    low, high = row.test_accuracy_interval
    return f"{100 * row.test_accuracy:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def _ratio_cell(row: NetworkRow) -> str:
    alone = "1" if row.network == "dense" else "-"
    return _with_interval(row.latency_ratio, row.latency_ratio_interval, ".3f") or alone


def _cost_cells(cost: StageCost) -> tuple[str, str, str, str]:
    return (
        _seconds(cost.seconds),
        _seconds(cost.device_seconds),
        f"{cost.forward_images:,}",
        f"{cost.backward_images:,}",
    )


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f} s" if value >= 10 else f"{value:.1f} s"


def _memory(peak: Mapping[str, int]) -> str:
    return ", ".join(f"{mib:,} MiB {where}" for where, mib in peak.items()) or "-"


def _with_interval(value: float | None, interval: Interval | None, form: str) -> str:
    if value is None or interval is None:
        return ""
    low, high = interval
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"
