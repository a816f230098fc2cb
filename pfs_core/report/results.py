"""Everything a pipeline run found, read back from its folders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from torch import Tensor

from pfs_core.config.spec import ModelSpec
from pfs_core.errors import UserError
from pfs_core.latency.benchmarking import SCHEMA as LATENCY_SCHEMA
from pfs_core.methods.gates_folder import PRETRAINING, load_gates
from pfs_core.methods.registry import METHODS
from pfs_core.runtime.cost import seconds_of
from pfs_core.storage.artifacts import read_json, require_result
from pfs_core.structure import FILES, Structure

NETWORKS = ("dense", "uniform", "pruned")
"""Order of the table's rows."""

RUNTIME_NAMES = {
    "onnxruntime": "ONNX Runtime",
    "eager": "PyTorch",
    "aotinductor": "AOTInductor",
    "openvino": "OpenVINO",
}

History = list[dict[str, Any]]


@dataclass(frozen=True)
class Results:
    """One pipeline run: what each step wrote, by network name (``dense``, ``uniform``, ``pruned``) where it applies."""

    split: dict[str, Any]
    split_seconds: float | None
    search: dict[str, Any]
    search_history: History
    pretraining: History
    gates: dict[str, Tensor]
    structures: dict[str, Structure]
    extract_seconds: float | None
    metrics: dict[str, dict[str, Any]]
    histories: dict[str, History]
    latency: dict[str, Any]
    samples_table: pd.DataFrame
    model_dir: Path

    @property
    def spec(self) -> ModelSpec:
        """The network that was searched."""
        return self.structures["pruned"].model

    @property
    def method(self) -> str:
        """How the structure was chosen, in words."""
        return METHODS[self.search["method"]].title

    @property
    def training(self) -> str:
        """How the pruned network was trained, in words."""
        kept = self.metrics["pruned"]["recipe"].get("start") in ("inherited", "kept")
        return "fine-tuned from the weights that it keeps" if kept else "trained from scratch"

    @property
    def title(self) -> str:
        """The network and the budget that it was cut to."""
        return self.structures["pruned"].title

    @property
    def stage_seconds(self) -> dict[str, float]:
        """What ``search``, and ``pretrain`` where a method trains before it, took."""
        return {"search": self.search["seconds"]} | {s: cost["seconds"] for s, cost in self.search["cost"].items()}

    @property
    def quoted(self) -> dict[str, Any]:
        """The latency measurement that the table and the verdict are about."""
        return self.latency["measurements"][0]

    def samples(self, measurement: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Milliseconds of every round of a measurement, by network."""
        rows = self.samples_table
        for key in ("runtime", "threads", "batch"):
            rows = rows[rows[key] == measurement[key]]
        return {str(name): found.nanoseconds.to_numpy() / 1e6 for name, found in rows.groupby("model", sort=False)}

    def lost_most(self, count: int = 8) -> list[dict[str, Any]]:
        """The classes on which the pruned network lost most to the dense one, by the share of their test images."""
        if "dense" not in self.metrics:
            return []
        counts = {name: np.array(self.metrics[name]["confusion_matrix"]) for name in ("dense", "pruned")}
        images = counts["dense"].sum(axis=1)
        right = {name: np.diag(matrix) / np.maximum(images, 1) for name, matrix in counts.items()}
        names = self.metrics["pruned"]["class_names"]
        rows = [
            {"class": n, "images": int(i), "dense": float(d), "pruned": float(p), "lost": float(d - p)}
            for n, i, d, p in zip(names, images, right["dense"], right["pruned"], strict=True)
        ]
        return sorted((row for row in rows if row["lost"] > 0), key=lambda row: -row["lost"])[:count]

    def table(self) -> list[dict[str, Any]]:
        """A row a network; ``test_accuracy`` is None where it was not trained."""
        rows = []
        for name in NETWORKS:
            cost, stats = self.structures[name].cost, self.quoted["models"].get(name, {})
            trained = self.metrics.get(name, {})
            ratio = self.quoted["ratios_to_dense"].get(name, {})
            rows.append(
                {
                    "network": name,
                    "macs": cost.macs,
                    "params": cost.params,
                    "test_accuracy": trained.get("test_accuracy"),
                    "test_accuracy_interval": trained.get("test_accuracy_interval"),
                    "epochs": trained.get("epochs"),
                    "p50_ms": stats.get("p50_ms"),
                    "p50_interval_ms": stats.get("p50_interval_ms"),
                    "latency_ratio": ratio.get("ratio"),
                    "latency_ratio_interval": ratio.get("interval"),
                    "latency_verdict": ratio.get("verdict"),
                    "latency_flags": stats.get("flags", []),
                    "file_mib": self.latency["models"].get(name, {}).get("file_mib"),
                    "peak_memory_mib": stats.get("peak_memory_mib"),
                }
            )
        return rows

    def figures(self) -> dict[str, Any]:
        """The final figures by a flat name, as the run table of MLflow sorts and compares them."""
        out: dict[str, Any] = {f"{stage}_seconds": seconds for stage, seconds in self.stage_seconds.items()}
        for row in self.table():
            for key in ("macs", "params", "test_accuracy", "p50_ms", "latency_ratio"):
                if row[key] is not None:
                    out[f"{row['network']}_{key}"] = row[key]
        for found in self.latency["measurements"][1:]:
            if (found["threads"], found["batch"]) == (self.quoted["threads"], self.quoted["batch"]):
                for name, stats in found["models"].items():
                    out[f"{name}_{found['runtime']}_p50_ms"] = stats["p50_ms"]
                for name, ratio in found["ratios_to_dense"].items():
                    out[f"{name}_{found['runtime']}_latency_ratio"] = ratio["ratio"]
        if "dense" in self.metrics:
            out["accuracy_drop"] = out["dense_test_accuracy"] - out["pruned_test_accuracy"]
        return out

    def verdict(self) -> str:
        """The run in one sentence, and one more where its latency is in doubt."""
        rows = {row["network"]: row for row in self.table()}
        pruned = rows["pruned"]
        parts = [
            f"{self.spec.name} pruned by {self.method} to {pruned['macs']:,} MACs, "
            f"{pruned['macs'] / rows['dense']['macs']:.1%} of the dense network's {rows['dense']['macs']:,}",
            f"test accuracy {_accuracy(pruned)} on {self.metrics['pruned']['test_rows']:,} images"
            + "".join(f", {n} {_accuracy(rows[n])}" for n in ("dense", "uniform") if n in self.metrics),
        ]
        low, high = pruned["latency_ratio_interval"]
        parts.append(
            f"CPU latency in {RUNTIME_NAMES[self.quoted['runtime']]} {pruned['latency_ratio']:.3f} times the dense "
            f"network's [{low:.3f}, {high:.3f}]: {pruned['latency_verdict']}"
        )
        noisy = f" The machine was noisy while latency was measured: {'; '.join(self.latency['noisy'])}."
        return "; ".join(parts) + "." + noisy * bool(self.latency["noisy"])


def load_results(
    split_dir: str | Path,
    gates_dir: str | Path,
    structures_dir: str | Path,
    model_dirs: Sequence[str | Path],
    latency_dir: str | Path,
) -> Results:
    """Read the folders of one pipeline run; UserError if one is missing, or no model is the pruned one."""
    split_dir = require_result(split_dir, "split", "pfs split DATASET OUT")
    split = read_json(split_dir / "split.json")
    gates, search = load_gates(gates_dir)
    structures_dir = require_result(structures_dir, "structure", "pfs extract --gates DIR OUT")
    latency_dir = require_result(latency_dir, "latency", "pfs benchmark --structure FILE OUT")
    structures = {name: Structure.load(structures_dir / file) for name, file in FILES.items()}
    metrics, histories, model_dir = {}, {}, None
    for path in model_dirs:
        folder = require_result(path, "metrics", "pfs retrain --structure FILE --split DIR OUT")
        found = read_json(folder / "metrics.json")
        metrics[found["network"]] = found
        histories[found["network"]] = pq.read_table(folder / "history.parquet").to_pylist()
        if found["network"] == "pruned":
            model_dir = folder
        if Structure.load(folder / "structure.json").widths != structures[found["network"]].widths:
            raise UserError(f"{folder} was trained for another structure than {structures_dir} has; retrain it")
        if found["split_fingerprint"] != split["fingerprint"]:
            raise UserError(f"{folder} was trained on another dataset than {split_dir} is of; retrain it")
    latency = read_json(latency_dir / "latency.json")
    if latency["schema"] != LATENCY_SCHEMA:
        raise UserError(f"{latency_dir} is of an older pfs; benchmark it again")
    for network, stats in latency["models"].items():
        cost = structures[network].cost if network in structures else None
        if cost and [stats["macs"], stats["params"]] != [cost.macs, cost.params]:
            raise UserError(f"{latency_dir} was measured on another {network} structure; benchmark it again")
    if model_dir is None or "pruned" not in latency["models"]:
        raise UserError("the run has no trained and measured pruned network; retrain and benchmark structure.json")
    samples = pq.read_table(latency_dir / "samples.parquet").to_pandas()
    return Results(
        split=split,
        split_seconds=seconds_of(split_dir),
        search=search,
        search_history=pq.read_table(Path(gates_dir) / "history.parquet").to_pylist(),
        pretraining=pq.read_table(first).to_pylist() if (first := Path(gates_dir) / PRETRAINING).exists() else [],
        gates=gates,
        structures=structures,
        extract_seconds=seconds_of(structures_dir),
        metrics=metrics,
        histories=histories,
        latency=latency,
        samples_table=samples,
        model_dir=model_dir,
    )


def _accuracy(row: dict[str, Any]) -> str:
    low, high = row["test_accuracy_interval"]
    return f"{row['test_accuracy']:.2%} [{low:.2%}, {high:.2%}]"
