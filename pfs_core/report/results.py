"""The results of one pipeline run, and the figures that follow from them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from pfs_core.config.spec import ModelSpec
from pfs_core.data.split_info import SplitInfo
from pfs_core.latency.model import LatencyModel
from pfs_core.latency.results import LatencyResult, Measurement
from pfs_core.methods.registry import METHODS
from pfs_core.methods.search_info import SearchInfo
from pfs_core.report.network_row import NetworkRow
from pfs_core.structure import Structure
from pfs_core.training.metrics import TrainingMetrics
from pfs_core.training.mistakes import load_mistakes

NETWORKS = ("dense", "uniform", "pruned")
"""Order of the table's rows."""

RUNTIME_NAMES = {
    "onnxruntime": "ONNX Runtime",
    "eager": "PyTorch",
    "aotinductor": "AOTInductor",
    "openvino": "OpenVINO",
}


@dataclass(frozen=True)
class Results:
    """One pipeline run: what each step wrote, by network name (``dense``, ``uniform``, ``pruned``) where it applies.

    Attributes:
        split: of the split.
        split_seconds: None in older runs, like ``extract_seconds``.
        search: of the search.
        search_history: one row per evaluation, epoch or episode.
        pretraining: one row per epoch of the training before the search; empty where there was none.
        gates: float32 [gates] of each channel group.
        structures: all three.
        extract_seconds: of the extraction.
        latency_model: that the widths were chosen with; None where the budget is no latency.
        metrics: of the networks that were trained; the pruned one always is.
        histories: one row per epoch, of the networks that were trained.
        latency: of the benchmark.
        samples_table: ``samples.parquet`` of the benchmark.
        model_dir: the folder of the pruned network.
    """

    split: SplitInfo
    split_seconds: float | None
    search: SearchInfo
    search_history: pd.DataFrame
    pretraining: pd.DataFrame
    gates: dict[str, Tensor]
    structures: dict[str, Structure]
    extract_seconds: float | None
    latency_model: LatencyModel | None
    metrics: dict[str, TrainingMetrics]
    histories: dict[str, pd.DataFrame]
    latency: LatencyResult
    samples_table: pd.DataFrame
    model_dir: Path

    @property
    def mistakes(self) -> list[tuple[Tensor, str, str]]:
        """Some test images of the pruned network, uint8 [C, H, W], with what they are and what they were taken for."""
        names = self.pruned.class_names
        return [(image, names[label], names[found]) for image, label, found in load_mistakes(self.model_dir)]

    @property
    def structure(self) -> Structure:
        """The pruned structure."""
        return self.structures["pruned"]

    @property
    def pruned(self) -> TrainingMetrics:
        """The training of the pruned network."""
        return self.metrics["pruned"]

    @property
    def dense(self) -> TrainingMetrics | None:
        """The training of the dense network, if it was trained."""
        return self.metrics.get("dense")

    @property
    def spec(self) -> ModelSpec:
        """The network that was searched."""
        return self.structure.model

    @property
    def method(self) -> str:
        """How the structure was chosen, in words."""
        return METHODS[self.search.method].title

    @property
    def training(self) -> str:
        """How the pruned network was trained, in words."""
        inherited = self.pruned.config.start == "inherited"
        return "fine-tuned from the weights that it keeps" if inherited else "trained from scratch"

    @property
    def title(self) -> str:
        """The network and the budget that it was cut to."""
        return self.structure.title

    @property
    def quoted(self) -> Measurement:
        """The latency measurement that the table and the verdict are about."""
        return self.latency.quoted

    def samples(self, measurement: Measurement) -> dict[str, np.ndarray]:
        """Milliseconds of every round of a measurement, by network."""
        rows = self.samples_table
        rows = rows[rows.runtime == measurement.runtime]
        rows = rows[(rows.threads == measurement.threads) & (rows.batch == measurement.batch)]
        return {str(name): found.nanoseconds.to_numpy() / 1e6 for name, found in rows.groupby("model", sort=False)}

    def row(self, network: str) -> NetworkRow:
        """The figures of a network."""
        cost, trained = self.structures[network].cost, self.metrics.get(network)
        stats, ratio = self.quoted.models.get(network), self.quoted.ratios_to_dense.get(network)
        size = self.latency.models.get(network)
        return NetworkRow(
            network=network,
            macs=cost.macs,
            params=cost.params,
            test_accuracy=trained.test_accuracy if trained else None,
            test_accuracy_interval=trained.test_accuracy_interval if trained else None,
            epochs=trained.epochs if trained else None,
            p50_ms=stats.p50_ms if stats else None,
            p50_interval_ms=stats.p50_interval_ms if stats else None,
            latency_ratio=ratio.ratio if ratio else None,
            latency_ratio_interval=ratio.interval if ratio else None,
            latency_verdict=ratio.verdict if ratio else None,
            latency_flags=stats.flags if stats else (),
            file_mib=size.file_mib if size else None,
            peak_memory_mib=stats.peak_memory_mib if stats else None,
        )

    def table(self) -> list[NetworkRow]:
        """One row per network."""
        return [self.row(network) for network in NETWORKS]

    @property
    def accuracy_drop(self) -> float | None:
        """Test accuracy that was lost to the dense network, if that was trained."""
        return self.dense.test_accuracy - self.pruned.test_accuracy if self.dense else None

    def figures(self) -> dict[str, int | float]:
        """The final figures by a flat name, as the run table of MLflow sorts and compares them."""
        out: dict[str, int | float] = {f"{stage}_seconds": s for stage, s in self.search.stage_seconds.items()}
        for row in self.table():
            for key in ("macs", "params", "test_accuracy", "p50_ms", "latency_ratio"):
                if (value := getattr(row, key)) is not None:
                    out[f"{row.network}_{key}"] = value
        for found in self.latency.beside_quoted:
            for name, stats in found.models.items():
                out[f"{name}_{found.runtime}_p50_ms"] = stats.p50_ms
            for name, ratio in found.ratios_to_dense.items():
                out[f"{name}_{found.runtime}_latency_ratio"] = ratio.ratio
        if self.accuracy_drop is not None:
            out["accuracy_drop"] = self.accuracy_drop
        return out
