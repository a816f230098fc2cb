"""A small run that the tests of its pages share; only to be read."""

import numpy as np
import pandas as pd
import pytest

from pfs_core.config.stages import LatencyConfig, RetrainConfig
from pfs_core.latency.benchmarking import with_references
from pfs_core.latency.machine import machine
from pfs_core.latency.results import Disturbance, LatencyResult, Machine, Measurement, NetworkSize
from pfs_core.latency.statistics import paired_ratio, summary
from pfs_core.report import load_results
from pfs_core.storage.artifacts import publish
from pfs_core.structure import FILES, Structure
from pfs_core.training.retrain import retrain

BRIEF = RetrainConfig(epochs=1, schedule="cosine", scratch_b=False, train_on_validation=False)
MEDIANS = {"dense": 0.5, "expanded": 0.6, "pruned": 0.4, "uniform": 0.45}
"""Milliseconds in ONNX Runtime; PyTorch takes four times as many."""


@pytest.fixture(scope="session")
def models(structures, digits, tmp_path_factory):
    """``model`` folders of the pruned and the dense network."""
    folder = tmp_path_factory.mktemp("models")
    for network in ("pruned", "dense"):
        retrain(Structure.load(structures / FILES[network]), digits, folder / network, BRIEF)
    return [folder / "pruned", folder / "dense"]


@pytest.fixture(scope="session")
def latency(structures, tmp_path_factory):
    """A ``latency`` folder as the benchmark writes it, of made-up times: measuring takes longer than all tests here."""
    networks = with_references([Structure.load(structures / FILES[network]) for network in ("pruned", "uniform")])
    rng, rounds = np.random.default_rng(0), 200
    measurements, tables = [], []
    for runtime, times in (("onnxruntime", 1), ("eager", 4)):
        setting = {"runtime": runtime, "threads": 1, "batch": 1}
        samples = {name: (rng.gamma(400, MEDIANS[name] * times / 400, rounds) * 1e6).astype(int) for name in networks}
        models = {
            name: summary(values).model_copy(update={"peak_memory_mib": 12.5}) for name, values in samples.items()
        }
        ratios = {name: paired_ratio(values, samples["dense"]) for name, values in samples.items() if name != "dense"}
        measurements.append(Measurement(**setting, models=models, ratios_to_dense=ratios))
        for name, values in samples.items():
            tables.append(
                pd.DataFrame({"model": name, **setting, "load": 0, "round": range(rounds), "nanoseconds": values})
            )
    result = LatencyResult(
        models={
            name: NetworkSize(**structure.cost.model_dump(), file_mib=structure.cost.params / 2**18)
            for name, structure in networks.items()
        },
        measurements=measurements,
        skipped={"openvino": "not installed"},
        dtype="float32",
        pinned=True,
        machine=Machine(**machine()),
        disturbance_cores=Disturbance(others=0.1, stolen=0.0),
        seconds=75.4,
        noisy=[],
        config=LatencyConfig(),
        seed=0,
    )
    out = tmp_path_factory.mktemp("latency") / "latency"
    with publish(out, "latency") as folder:
        pd.concat(tables).to_parquet(folder / "samples.parquet", index=False)
        result.save(folder / "latency.json")
    return out


@pytest.fixture(scope="session")
def results(digits, gates, structures, models, latency):
    return load_results(digits, gates, structures, models, latency)


@pytest.fixture
def undrawn(monkeypatch):
    """A report of each run goes with a comparison; their figures are not drawn."""
    monkeypatch.setattr("pfs_core.report.figures.draw", lambda plot, results, size: ("", ""))
    monkeypatch.setattr("pfs_core.report.page.svg_text", lambda figure: "")
