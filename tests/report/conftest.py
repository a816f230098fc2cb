"""A small run that the tests of its pages share; only to be read."""

import importlib

import pytest

from pfs_core.extraction import FILES
from pfs_core.latency import benchmark
from pfs_core.recipes import LatencyRecipe, RetrainRecipe
from pfs_core.report import load_results
from pfs_core.structure import Structure
from pfs_core.training.retrain import retrain

BRIEF = RetrainRecipe(epochs=1, schedule="cosine", scratch_b=False, train_on_validation=False)
QUICK = LatencyRecipe(warmup_seconds=0, warmup_rounds=1, min_rounds=64, max_seconds=0.01, threads=1)


@pytest.fixture(scope="session")
def models(structures, digits, tmp_path_factory):
    """``model`` folders of the pruned and the dense network."""
    folder = tmp_path_factory.mktemp("models")
    for network in ("pruned", "dense"):
        retrain(Structure.load(structures / FILES[network]), digits, folder / network, BRIEF)
    return [folder / "pruned", folder / "dense"]


@pytest.fixture(scope="session")
def latency(structures, tmp_path_factory):
    """Measured but for the memory, which takes a process that imports every runtime."""
    folder = tmp_path_factory.mktemp("latency") / "latency"
    networks = [Structure.load(structures / FILES[network]) for network in ("pruned", "uniform")]
    with pytest.MonkeyPatch.context() as patch:
        module = importlib.import_module("pfs_core.latency.benchmark")
        patch.setattr(module, "peak_memory", lambda jobs: [12.5] * len(jobs))
        benchmark(networks, folder, QUICK)
    return folder


@pytest.fixture(scope="session")
def results(digits, gates, structures, models, latency):
    return load_results(digits, gates, structures, models, latency)
