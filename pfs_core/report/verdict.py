"""A run in one sentence."""

from pfs_core.report.results import RUNTIME_NAMES, Results
from pfs_core.training.metrics import TrainingMetrics


def verdict(results: Results) -> str:
    """The run in one sentence, and one more where its latency is in doubt."""
    cost, dense = results.structure.cost, results.structures["dense"].cost
    others = [name for name in ("dense", "uniform") if name in results.metrics]
    ratio = results.quoted.ratios_to_dense["pruned"]
    low, high = ratio.interval
    parts = [
        f"{results.spec.name} pruned by {results.method} to {cost.macs:,} MACs, "
        f"{cost.macs / dense.macs:.1%} of the dense network's {dense.macs:,}",
        f"test accuracy {_accuracy(results.pruned)} on {results.pruned.test_rows:,} images"
        + "".join(f", {name} {_accuracy(results.metrics[name])}" for name in others),
        f"CPU latency in {RUNTIME_NAMES[results.quoted.runtime]} {ratio.ratio:.3f} times the dense network's "
        f"[{low:.3f}, {high:.3f}]: {ratio.verdict}",
    ]
    said = "; ".join(parts) + "."
    if results.latency.noisy:
        said += f" The machine was noisy while latency was measured: {'; '.join(results.latency.noisy)}."
    return said


def _accuracy(trained: TrainingMetrics) -> str:
    low, high = trained.test_accuracy_interval
    return f"{trained.test_accuracy:.2%} [{low:.2%}, {high:.2%}]"
