"""The latency step end to end: what it writes, and that it leaves the process as it found it."""

import gc
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch

from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.config.stages import LatencyConfig
from pfs_core.errors import UserError
from pfs_core.latency import benchmark, runtimes
from pfs_core.latency.benchmarking import measured_settings, with_references
from pfs_core.latency.machine import machine
from pfs_core.latency.memory import peak_memory
from pfs_core.latency.networks import write_network
from pfs_core.latency.protocol import LOADS, quiet
from pfs_core.latency.results import LatencyResult
from pfs_core.latency.statistics import paired_ratio, summary
from pfs_core.structure import Structure, extract, unexpanded_graph
from pfs_core.structure.references import dense

BRIEF = LatencyConfig(
    patience_seconds=0,
    warmup_seconds=0,
    warmup_rounds=1,
    max_seconds=0.001,  # so that each load has its fewest rounds
    runtimes="eager",
    threads=1,
    batches=(1, 2),
)
LOADED = [load for load in range(LOADS) for _ in range(5)]
ROUNDS = len(LOADED)
NETWORKS = ["dense", "expanded", "pruned", "uniform"]


def load(structures, *names):
    return [Structure.load(structures / f"{name}.json") for name in names]


def process():
    """What a measurement changes."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    return torch.get_num_threads(), cores, gc.isenabled(), torch.is_inference_mode_enabled()


pytestmark = pytest.mark.usefixtures("no_memory")  # but of what several tests read, which is measured before


@pytest.fixture(scope="module")
def measured(structures, tmp_path_factory):
    """A ``latency`` folder of the pruned and the uniform structure."""
    folder = tmp_path_factory.mktemp("latency") / "latency"
    benchmark(load(structures, "structure", "uniform"), folder, BRIEF)
    return folder


def series(folder, name, **setting):
    """The samples of a network in one measurement, in the order of the rounds."""
    rows = pq.read_table(folder / "samples.parquet").to_pylist()
    taken = [row for row in rows if row["model"] == name and all(row[key] == value for key, value in setting.items())]
    assert [row["round"] for row in taken] == list(range(ROUNDS))
    assert [row["load"] for row in taken] == LOADED
    return np.array([row["nanoseconds"] for row in taken])


def settings(result):
    return [found.model_dump(include={"runtime", "threads", "batch"}) for found in result.measurements]


def test_all_cores_are_measured_before_one_of_them_and_told_in_the_order_asked(structures, tmp_path, monkeypatch):
    module = sys.modules[with_references.__module__]
    measure, order = module._measured, []

    def noted(runtime, folders, images, threads, recipe, seed):
        order.append(threads)
        return measure(runtime, folders, images, 1, recipe, seed)  # several threads only wait for each other here

    monkeypatch.setattr(module, "_measured", noted)
    monkeypatch.setattr(module, "core_count", lambda: 2)
    recipe = BRIEF.model_copy(update={"threads": (1, 0), "batches": (1,)})
    result = benchmark(load(structures, "structure"), tmp_path / "latency", recipe)
    assert order == [2, 1]
    assert [found.threads for found in result.measurements] == [1, 2]


def test_every_setting_is_measured_once(measured):
    expected = [{"runtime": "eager", "threads": 1, "batch": batch} for batch in (1, 2)]
    assert settings(LatencyResult.load(measured / "latency.json")) == expected


def test_all_cores_are_as_many_as_there_are(structures):
    found = measured_settings(LatencyConfig(threads=(1, 0, 2, 8), runtimes="eager"), load(structures, "dense"), 3)
    assert found == [("eager", threads, 1) for threads in (1, 3, 2)]


def test_where_a_latency_was_asked_for_is_measured_and_quoted_first(structures):
    (pruned,) = load(structures, "structure")
    provenance = {**pruned.provenance, "latency_model": {"runtime": "openvino", "threads": 8}}
    asked = pruned.model_copy(update={"provenance": provenance})
    config = LatencyConfig(threads=1, runtimes=("eager", "openvino"))
    assert measured_settings(config, [asked], 4) == [("openvino", 4, 1), ("eager", 1, 1), ("openvino", 1, 1)]
    assert measured_settings(config, [asked], 1) == [("openvino", 1, 1), ("eager", 1, 1)]


def test_samples_have_a_row_a_run(measured):
    table = pq.read_table(measured / "samples.parquet")
    assert table.column_names == ["model", "runtime", "threads", "batch", "load", "round", "nanoseconds"]
    result = LatencyResult.load(measured / "latency.json")
    assert table.num_rows == ROUNDS * len(NETWORKS) * len(result.measurements)
    assert min(table["nanoseconds"].to_pylist()) > 0


def test_the_statistics_are_those_of_the_samples(measured, structures):
    result = LatencyResult.load(measured / "latency.json")
    assert list(result.models) == NETWORKS
    for name, file in (("dense", "dense"), ("pruned", "structure"), ("uniform", "uniform")):
        cost = Structure.load(structures / f"{file}.json").cost.model_dump()
        assert result.models[name].model_dump(include=set(cost)) == cost
    for found, setting in zip(result.measurements, settings(result), strict=True):
        dense = series(measured, "dense", **setting)
        for name in NETWORKS:
            expected = summary(series(measured, name, **setting), np.array(LOADED))
            assert found.models[name].model_dump(exclude={"peak_memory_mib"}) == expected.model_dump()
            assert (found.models[name].peak_memory_mib is not None) == Path("/proc/self/clear_refs").exists()
        for name, ratio in found.ratios_to_dense.items():
            assert ratio == paired_ratio(series(measured, name, **setting), dense, np.array(LOADED))


def test_peak_memory_grows_with_the_batch(tmp_path):
    """By a few tensors of activations; 16 channels fill oneDNN's blocks, of fewer it takes as much."""
    spec = ModelSpec(name="resnet20", input_shape=(1, 8, 8))
    write_network(dense(unexpanded_graph(spec), model=spec), tmp_path / "dense", 0)
    job = {"runtime": "eager", "folder": str(tmp_path / "dense"), "threads": 1}
    one, many = peak_memory([{**job, "batch": batch} for batch in (1, 1024)])
    if one is None:
        pytest.skip("the system has no counter of a process's peak memory")
    stream = 16 * 8 * 8 * 4 / 2**20
    """MiB of an image's first activations: 16 channels of 8x8 float32; the input and the output are held at once."""
    assert 0 < one < 100
    assert 2 * 1023 * stream < many - one < 12 * 1023 * stream


def test_a_runtime_that_computes_something_else_is_left_out(structures, tmp_path, monkeypatch):
    """PyTorch's own folded networks too: they are compared with the network as it was trained."""

    def twice(folder, images, threads):
        run = runtimes.eager(folder, images, threads)
        return lambda: 2 * run()

    monkeypatch.setitem(runtimes.RUNTIMES, "eager", twice)
    with pytest.raises(UserError, match="eager: it computes something else than PyTorch for the dense network"):
        benchmark(load(structures, "structure"), tmp_path / "out", BRIEF)


def test_the_size_of_a_file_is_that_of_its_weights(measured):
    for size in LatencyResult.load(measured / "latency.json").models.values():
        assert size.params * 4 < size.file_mib * 2**20 < size.params * 4 + 50_000


def test_it_is_recorded_which_structures_were_measured(measured, structures):
    models = LatencyResult.load(measured / "latency.json").models
    for structure in load(structures, "structure", "uniform"):
        assert models[structure.network].structure == structure.digest


def test_the_conditions_are_recorded(measured):
    result = LatencyResult.load(measured / "latency.json")
    assert (result.dtype, result.skipped) == ("float32", {})
    assert machine() == result.machine.model_dump()
    assert result.machine.versions["torch"] == torch.__version__
    assert result.machine.versions["onnxruntime"] == onnxruntime.__version__
    assert result.config == BRIEF


def test_the_process_is_left_as_it_was(structures, tmp_path):
    before = process()
    benchmark(load(structures, "structure"), tmp_path / "out", BRIEF)
    assert process() == before


@pytest.mark.parametrize("collecting", [True, False])
def test_the_process_is_left_as_it_was_after_an_error(collecting):
    (gc.enable if collecting else gc.disable)()
    before = process()

    def fail():
        with quiet(1):
            assert not gc.isenabled()
            assert torch.get_num_threads() == 1
            raise ZeroDivisionError

    try:
        with pytest.raises(ZeroDivisionError):
            fail()
        assert process() == before
    finally:
        gc.enable()


def test_dense_and_expanded_come_first_and_once(structures):
    assert list(with_references(load(structures, "structure"))) == ["dense", "expanded", "pruned"]
    named = with_references(load(structures, "uniform", "dense", "structure"))
    assert list(named) == ["dense", "expanded", "uniform", "pruned"]
    assert named["dense"].widths == Structure.load(structures / "dense.json").widths
    pruned = named["pruned"]
    assert named["expanded"].widths == pruned.graph().expanded(pruned.model.expand)


def test_two_structures_of_one_name_are_refused(structures, tmp_path):
    with pytest.raises(UserError, match="both 'pruned'"):
        benchmark(load(structures, "structure", "structure"), tmp_path / "out", BRIEF)


def test_structures_of_different_models_are_refused(structures, tmp_path):
    spec = ModelSpec(name="resnet20", input_shape=(1, 8, 8))
    graph = unexpanded_graph(spec)
    gates = {group.name: torch.ones(group.width) for group in graph.prunable()}
    other = extract(graph, gates, Budget(target=1.0), model=spec)
    with pytest.raises(UserError, match="different models"):
        benchmark([*load(structures, "uniform"), other], tmp_path / "out", BRIEF)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused_before_measuring(structures, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        benchmark(load(structures, "structure"), tmp_path, BRIEF)
    assert "latency in" not in capsys.readouterr().out
