"""The latency step end to end: what it writes, and that it leaves the process as it found it."""

import gc
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pfs_core.errors import UserError
from pfs_core.files import read_json
from pfs_core.latency import benchmark
from pfs_core.latency.benchmark import _quiet, with_dense
from pfs_core.latency.machine import machine
from pfs_core.latency.statistics import paired_ratio, summary
from pfs_core.recipes import LatencyRecipe
from pfs_core.spec import Budget, ModelSpec
from pfs_core.structure import Structure, extract, unexpanded_graph

BRIEF = LatencyRecipe(warmup_seconds=0, warmup_rounds=1, min_rounds=64, max_seconds=0.01)


def load(structures, *names):
    return [Structure.load(structures / f"{name}.json") for name in names]


def process():
    """What a measurement changes."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    return torch.get_num_threads(), cores, gc.isenabled(), torch.is_inference_mode_enabled()


@pytest.fixture(scope="module")
def measured(structures, tmp_path_factory):
    """A ``latency`` folder of the pruned and the uniform structure."""
    folder = tmp_path_factory.mktemp("latency") / "latency"
    benchmark(load(structures, "structure", "uniform"), folder, BRIEF)
    return folder


def test_samples_have_a_row_a_measurement(measured):
    table = pq.read_table(measured / "samples.parquet")
    assert table.column_names == ["model", "runtime", "round", "nanoseconds"]
    rows = table.to_pylist()
    for name in ("dense", "pruned", "uniform"):
        assert [row["round"] for row in rows if row["model"] == name] == list(range(64))
    assert {row["runtime"] for row in rows} == {"eager"}
    assert min(row["nanoseconds"] for row in rows) > 0


def test_the_statistics_are_those_of_the_samples(measured, structures):
    rows = pq.read_table(measured / "samples.parquet").to_pylist()
    info = read_json(measured / "latency.json")
    assert list(info["models"]) == ["dense", "pruned", "uniform"]
    assert list(info["ratios_to_dense"]) == ["pruned", "uniform"]
    series = {n: np.array([row["nanoseconds"] for row in rows if row["model"] == n]) for n in info["models"]}
    for name, file in (("dense", "dense"), ("pruned", "structure"), ("uniform", "uniform")):
        cost = Structure.load(structures / f"{file}.json").cost.model_dump()
        assert info["models"][name] == {**cost, **summary(series[name])}
    for name, ratio in info["ratios_to_dense"].items():
        assert ratio == paired_ratio(series[name], series["dense"])


def test_the_conditions_are_recorded(measured):
    info = read_json(measured / "latency.json")
    assert (info["runtime"], info["batch"], info["dtype"], info["threads"]) == ("eager", 1, "float32", 1)
    assert set(machine()) <= set(info["machine"])
    assert info["machine"]["torch"] == torch.__version__
    assert LatencyRecipe.parse(info["recipe"], "recipe") == BRIEF


def test_the_process_is_left_as_it_was(structures, tmp_path):
    before = process()
    benchmark(load(structures, "structure"), tmp_path / "out", BRIEF)
    assert process() == before


@pytest.mark.parametrize("collecting", [True, False])
def test_the_process_is_left_as_it_was_after_an_error(collecting):
    (gc.enable if collecting else gc.disable)()
    before = process()

    def fail():
        with _quiet(1):
            assert not gc.isenabled()
            assert torch.get_num_threads() == 1
            raise ZeroDivisionError

    try:
        with pytest.raises(ZeroDivisionError):
            fail()
        assert process() == before
    finally:
        gc.enable()


def test_dense_comes_first_and_once(structures):
    assert list(with_dense(load(structures, "structure"))) == ["dense", "pruned"]
    assert list(with_dense(load(structures, "uniform", "dense", "structure"))) == ["dense", "uniform", "pruned"]
    dense = with_dense(load(structures, "structure"))["dense"]
    assert dense.widths == Structure.load(structures / "dense.json").widths


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
    assert "batch 1" not in capsys.readouterr().out
