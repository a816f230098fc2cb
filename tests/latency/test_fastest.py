"""The runtime and the number of threads that a latency budget is about, chosen by planted times."""

import logging

import numpy as np
import pytest

from pfs_core.channels import trace
from pfs_core.config.spec import ModelSpec
from pfs_core.errors import UserError
from pfs_core.latency import fastest as chosen
from pfs_core.latency import runtimes
from pfs_core.latency.fastest import fastest
from pfs_core.models import build_model

SPEC = ModelSpec(name="resnet20", input_shape=(3, 32, 32))
GRAPH = trace(build_model(SPEC), SPEC.input_shape)
MILLISECONDS = {"onnxruntime": {1: 3.0, 4: 2.0}, "openvino": {1: 2.5, 4: 1.0}, "eager": {1: 9.0, 4: 9.5}}


@pytest.fixture
def planted(monkeypatch, tmp_path):
    """Times of three runtimes on one and four threads; the calls that measured them."""
    calls = []

    def interleaved(runs, config, seed, share):
        count = calls[-1]
        return {name: np.array([MILLISECONDS[name][count] * 1e6]) for name in runs}

    def prepared(network, images, runtime, threads):
        if MILLISECONDS[runtime] is None:
            raise UserError(f"{runtime} cannot run this network: an operator is not known")
        calls.append(threads)

    monkeypatch.setenv("PFS_CACHE", str(tmp_path))
    monkeypatch.setattr(chosen, "core_count", lambda: 4)
    monkeypatch.setattr(chosen, "missing", lambda runtime: "")
    monkeypatch.setattr(runtimes, "missing", lambda runtime: "")
    monkeypatch.setattr(chosen, "fuse_batchnorm", lambda network, images: network)
    monkeypatch.setattr(chosen, "prepared", prepared)
    monkeypatch.setattr(chosen, "interleaved", interleaved)
    return calls


@pytest.mark.parametrize(
    ("runtime", "threads", "right"),
    [
        ("auto", "auto", ("openvino", 4)),
        ("auto", 1, ("openvino", 1)),
        ("onnxruntime", "auto", ("onnxruntime", 4)),
        ("eager", "auto", ("eager", 1)),
    ],
)
def test_the_fastest_is_taken_and_said(planted, caplog, runtime, threads, right):
    with caplog.at_level(logging.INFO):
        assert fastest(SPEC, GRAPH, runtime, threads) == right
    assert f"latency in {right[0]} on {right[1]} thread(s)" in caplog.text


@pytest.mark.parametrize(("on_four", "threads"), [(2.8, 1), (2.7, 4)])
def test_threads_that_gain_less_than_a_tenth_are_not_taken(planted, monkeypatch, on_four, threads):
    monkeypatch.setitem(MILLISECONDS, "onnxruntime", {1: 3.0, 4: on_four})
    assert fastest(SPEC, GRAPH, "onnxruntime", "auto") == ("onnxruntime", threads)


def test_all_cores_are_measured_before_one(planted):
    fastest(SPEC, GRAPH, "openvino", "auto")
    assert planted == [4, 1]


def test_it_is_measured_once(planted):
    first = fastest(SPEC, GRAPH, "auto", "auto")
    assert fastest(SPEC, GRAPH, "auto", "auto") == first
    assert len(planted) == 6


def test_what_is_named_is_not_measured(planted):
    assert fastest(SPEC, GRAPH, "eager", 3) == ("eager", 3)
    assert planted == []


def test_a_runtime_that_is_missing_or_fails_is_not_taken(planted, monkeypatch, caplog):
    monkeypatch.setitem(MILLISECONDS, "openvino", None)
    for _ in range(2):  # measured, and from the cache
        caplog.clear()
        assert fastest(SPEC, GRAPH, "auto", "auto") == ("onnxruntime", 4)
        assert "openvino cannot run this network: an operator is not known; it is left out" in caplog.text
    monkeypatch.setattr(chosen, "missing", lambda runtime: "" if runtime == "eager" else "not installed")
    assert fastest(SPEC, GRAPH, "auto", "auto") == ("eager", 1)


def test_none_that_works_is_refused(planted, monkeypatch):
    monkeypatch.setitem(MILLISECONDS, "openvino", None)
    with pytest.raises(UserError, match="^openvino cannot run this network: an operator is not known$"):
        fastest(SPEC, GRAPH, "openvino", "auto")


def test_one_that_is_not_installed_is_called_so(planted, monkeypatch):
    monkeypatch.setattr(runtimes, "missing", lambda runtime: "not installed (pip install openvino)")
    with pytest.raises(UserError, match=r"^a latency budget cannot be measured in openvino here: not installed "):
        fastest(SPEC, GRAPH, "openvino", "auto")
    assert planted == []


def test_real_times_are_of_the_dense_network(monkeypatch, tmp_path):
    monkeypatch.setenv("PFS_CACHE", str(tmp_path))
    runtime, threads = fastest(SPEC, GRAPH, "onnxruntime", "auto")
    (file,) = tmp_path.glob("dense-*.json")
    times = chosen.DenseTimes.model_validate_json(file.read_text()).times
    best = min(times, key=lambda found: found.milliseconds * (1.1 if found.threads > 1 else 1))
    assert (runtime, threads) == (best.runtime, best.threads)
    assert all(0 < found.milliseconds < 1000 for found in times)
