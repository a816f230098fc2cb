"""The ONNX file computes what the network computes, is the same every time, and can be quantised."""

import re

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from pfs_core.config.spec import ModelSpec
from pfs_core.errors import UserError
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


class Noise(CalibrationDataReader):
    def __init__(self):
        self.left = iter(np.random.default_rng(0).standard_normal((8, 4, *SHAPE), dtype=np.float32))

    def get_next(self):
        batch = next(self.left, None)
        return None if batch is None else {INPUT: batch}


def test_it_can_be_quantised(file, network, tmp_path):
    quantize_static(file, tmp_path / "int8.onnx", Noise(), per_channel=True)
    images = torch.randn(64, *SHAPE)
    with torch.inference_mode():
        expected = network(images).numpy()
    logits = onnx_session(tmp_path / "int8.onnx").run(None, {INPUT: images.numpy()})[0]
    assert np.corrcoef(logits.ravel(), expected.ravel())[0, 1] > 0.95
    assert not agree(logits, expected)
