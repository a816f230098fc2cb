"""The ONNX file computes what the network computes, is the same every time, and can be quantised."""

import re

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from torch.nn.functional import conv2d

from pfs_core.config.spec import ModelSpec
from pfs_core.data.split_info import SplitInfo
from pfs_core.errors import UserError
from pfs_core.export.deployable import try_onnx
from pfs_core.export.onnx_file import INPUT, agree, check_onnx, onnx_session, write_onnx
from pfs_core.models import build_model

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_model(ModelSpec(name="resnet20", kwargs={"width": 4})).eval()


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(network, SHAPE, path)
    return path


def test_it_computes_what_the_network_computes(file, network):
    check_onnx(file, network, SHAPE)


def test_another_network_is_noticed(file, network):
    other = build_model(ModelSpec(name="resnet20", kwargs={"width": 4})).eval()
    with pytest.raises(UserError, match=r"model.onnx does not compute"):
        check_onnx(file, other, SHAPE)


def test_it_is_valid_and_has_no_batchnorm_left(file):
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    (images,) = model.graph.input
    (logits,) = model.graph.output
    assert (images.name, logits.name) == ("images", "logits")
    assert images.type.tensor_type.shape.dim[0].dim_param


def test_the_same_network_gives_the_same_bytes(file, network, tmp_path):
    write_onnx(network, SHAPE, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == file.read_bytes()


def test_it_says_nothing_of_where_it_was_made(file):
    assert not re.findall(rb"/[\w.-]+/[\w.-]+\.py", file.read_bytes())


def test_what_onnx_cannot_say_is_refused_in_a_line(tmp_path):
    class Odd(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.eigvals(x).real.sum(dim=(1, 2))

    for model, operator in ((Odd(), "aten.linalg_eig"), (torch.nn.AdaptiveMaxPool2d(3), "aten.adaptive_max_pool2d")):
        with pytest.raises(UserError) as error:
            write_onnx(model.eval(), SHAPE, tmp_path / "model.onnx")
        assert str(error.value) == f"this network cannot be written as ONNX: no counterpart of {operator}"
    assert list(tmp_path.iterdir()) == []


def by_image(network, x):
    return torch.cat([network.conv(x[i : i + 1]) for i in range(x.shape[0])])


UNUSABLE = {
    "in double precision": (lambda network, x: conv2d(x.double(), network.conv.weight.double()).float(), "cannot run"),
    "image by image": (by_image, "cannot run"),
    "at random": (lambda network, x: network.conv(x) + torch.rand(1), "computes something else each time"),
    "not finite": (lambda network, x: network.conv(x).sqrt(), "values that are not finite"),
}


class Unusable(torch.nn.Module):
    """A convolution that ``compute`` calls."""

    def __init__(self, compute):
        super().__init__()
        self.conv, self.compute = torch.nn.Conv2d(3, 4, 3), compute

    def forward(self, x):
        return self.compute(self, x).mean((2, 3))


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_network_that_onnx_runtime_does_not_compute_has_no_file_and_a_reason(name, tmp_path):
    compute, said = UNUSABLE[name]
    split = SplitInfo.model_construct(input_shape=SHAPE, mean=[0.0] * 3, std=[1.0] * 3)
    why = try_onnx(Unusable(compute).eval(), split, tmp_path / "model.onnx")
    assert said in why
    assert "\n" not in why
    assert list(tmp_path.iterdir()) == []


class Noise(CalibrationDataReader):
    def __init__(self):
        self.left = iter(np.random.default_rng(0).standard_normal((8, 4, *SHAPE), dtype=np.float32))

    def get_next(self):
        batch = next(self.left, None)
        return None if batch is None else {INPUT: batch}


def test_an_exporter_that_fails_in_a_way_of_its_own_leaves_the_training_its_result(network, tmp_path, monkeypatch):
    def broken(*given, **named):
        raise AttributeError("'NoneType' object has no attribute 'shape'")

    monkeypatch.setattr(torch.onnx, "export", broken)
    with pytest.raises(UserError, match="cannot be written as ONNX: 'NoneType' object has no attribute 'shape'$"):
        write_onnx(network, SHAPE, tmp_path / "model.onnx")


def test_it_can_be_quantised(file, network, tmp_path):
    quantize_static(file, tmp_path / "int8.onnx", Noise(), per_channel=True)
    images = torch.randn(64, *SHAPE)
    with torch.inference_mode():
        expected = network(images).numpy()
    logits = onnx_session(tmp_path / "int8.onnx").run(None, {INPUT: images.numpy()})[0]
    assert np.corrcoef(logits.ravel(), expected.ravel())[0, 1] > 0.95
    assert not agree(logits, expected)
