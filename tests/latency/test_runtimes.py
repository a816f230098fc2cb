"""Every runtime computes what PyTorch computes, or is left out with its reason."""

import importlib.util
import shutil

import numpy as np
import pytest
import torch

from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.config.stages import LatencyConfig
from pfs_core.errors import UserError
from pfs_core.export.onnx_file import agree
from pfs_core.latency import benchmark, benchmarking, runtimes
from pfs_core.latency.networks import read_network, write_network
from pfs_core.latency.runtimes import RUNTIMES, missing
from pfs_core.models import build_model
from pfs_core.nn.fuse import fuse_batchnorm
from pfs_core.structure import unexpanded_graph
from pfs_core.structure.references import uniform

NAMES = [
    "onnxruntime",
    "eager",
    pytest.param("openvino", marks=pytest.mark.skipif(not importlib.util.find_spec("openvino"), reason="optional")),
    pytest.param("aotinductor", marks=[pytest.mark.slow, pytest.mark.skipif(not shutil.which("g++"), reason="no g++")]),
]
BRIEF = {
    "patience_seconds": 0,
    "warmup_seconds": 0,
    "warmup_rounds": 1,
    "min_rounds": 64,
    "max_seconds": 0.01,
    "threads": 1,
}


pytestmark = pytest.mark.usefixtures("no_memory")


@pytest.fixture(scope="module")
def structure():
    spec = ModelSpec(name="resnet20", kwargs={"width": 4}, expand=1.25)
    return uniform(unexpanded_graph(spec), Budget(target=0.5), model=spec)


@pytest.fixture(scope="module")
def network(structure, tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks") / "uniform"
    write_network(structure, folder, seed=0)
    return folder


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_a_runtime_computes_what_pytorch_computes(name, threads, network):
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32), dtype=np.float32)
    with torch.inference_mode():
        expected = read_network(network)(torch.from_numpy(images)).numpy()
    assert np.abs(expected).max() > 0.1
    run = RUNTIMES[name](network, images, threads)
    for _ in range(2):
        assert agree(np.asarray(run()), expected)
    torch.set_num_threads(1)


def test_batchnorm_is_folded_away(network):
    model = read_network(network)
    fused = fuse_batchnorm(model, torch.randn(1, 3, 32, 32))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in fused.modules())
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())


def test_a_batchnorm_that_follows_no_convolution_stays():
    model = build_model(ModelSpec(name="torchvision:densenet121", input_shape=(3, 64, 64))).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(fuse_batchnorm(model, images)(images), model(images), rtol=1e-3, atol=1e-5)


def test_a_runtime_that_computes_something_else_is_left_out(structure, tmp_path, monkeypatch):
    right = RUNTIMES["onnxruntime"]
    wrong = lambda folder, images, threads: right(folder, images * 1.01, threads)  # noqa: E731
    monkeypatch.setitem(runtimes.RUNTIMES, "onnxruntime", wrong)
    info = benchmark([structure], tmp_path / "out", LatencyConfig(**BRIEF, runtimes=("onnxruntime", "eager")))
    assert [found.runtime for found in info.measurements] == ["eager"]
    assert info.skipped == {"onnxruntime": "it computes something else than PyTorch for the dense network"}


def test_a_runtime_that_fails_is_left_out_with_its_reason(structure, tmp_path, monkeypatch):
    def fail(folder, images, threads):
        raise RuntimeError("no kernel for this\nlong explanation")

    monkeypatch.setitem(runtimes.RUNTIMES, "onnxruntime", fail)
    info = benchmark([structure], tmp_path / "out", LatencyConfig(**BRIEF, runtimes=("onnxruntime", "eager")))
    assert info.skipped == {"onnxruntime": "no kernel for this"}
    with pytest.raises(UserError, match="no runtime can measure: onnxruntime: no kernel for this"):
        benchmark([structure], tmp_path / "none", LatencyConfig(**BRIEF, runtimes="onnxruntime"))
    assert not (tmp_path / "none").exists()


def test_runtimes_of_which_none_is_installed_are_refused_before_the_machine_is_waited_for(
    structure, tmp_path, monkeypatch
):
    monkeypatch.setattr(benchmarking, "missing", lambda runtime: "not installed")
    monkeypatch.setattr(benchmarking, "wait_until_quiet", lambda patience: pytest.fail("it waited"))
    with pytest.raises(UserError, match="no runtime can measure: openvino: not installed"):
        benchmark([structure], tmp_path / "out", LatencyConfig(**BRIEF, runtimes="openvino"))


def test_a_setting_that_fails_leaves_the_others(structure, tmp_path, monkeypatch):
    right = RUNTIMES["eager"]

    def limited(folder, images, threads):
        if len(images) > 1:
            raise MemoryError("there is no memory for this")
        return right(folder, images, threads)

    monkeypatch.setitem(runtimes.RUNTIMES, "eager", limited)
    info = benchmark([structure], tmp_path / "out", LatencyConfig(**BRIEF, runtimes=("eager",), batches=(4, 1)))
    assert [(found.threads, found.batch) for found in info.measurements] == [(1, 1)]
    assert info.skipped == {"eager, batch 4, threads 1": "there is no memory for this"}


def test_random_numbers_of_the_caller_stay_as_they_were(structure, tmp_path):
    before = torch.get_rng_state()
    write_network(structure, tmp_path / "network", seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert missing("openvino") == "not installed (pip install openvino)"
    assert missing("aotinductor") == "there is no C++ compiler"
    assert missing("eager") == ""
