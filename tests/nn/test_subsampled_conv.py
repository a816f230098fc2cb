"""Narrow 1x1 convolutions with a stride are computed without the step in which oneDNN writes over other memory."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pfs_core.config.spec import ModelSpec
from pfs_core.config.stages import RetrainConfig
from pfs_core.models import build_model
from pfs_core.nn.subsampled_conv import SubsampledConv2d, subsample_first
from pfs_core.training.fit import prepared


@given(
    channels=st.integers(1, 15),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    stride=st.tuples(st.integers(1, 3), st.integers(2, 3)),
    bias=st.booleans(),
)
def test_it_computes_what_torchs_does(channels, size, stride, bias):
    theirs = nn.Conv2d(channels, 5, 1, stride, bias=bias).double()
    ours = subsample_first(copy.deepcopy(theirs))
    assert type(ours) is SubsampledConv2d
    x = torch.randn(3, channels, *size, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outs = [conv(given) for conv, given in zip((theirs, ours), inputs, strict=True)]
    torch.testing.assert_close(outs[1], outs[0])
    for out in outs:
        out.square().sum().backward()
    for one, other in zip([inputs[0], *theirs.parameters()], [inputs[1], *ours.parameters()], strict=True):
        torch.testing.assert_close(other.grad, one.grad)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(16, 32, 1, 2),
        nn.Conv2d(4, 8, 3, 2),
        nn.Conv2d(4, 8, 1),
        nn.Conv2d(4, 8, 1, 2, padding=1),
        nn.Conv2d(4, 8, 1, 2, groups=2),
    ],
)
def test_other_convolutions_stay_what_they_are(conv):
    assert type(subsample_first(nn.Sequential(conv))[0]) is nn.Conv2d


def test_retraining_keeps_away_from_the_fault(digits_data):
    model = build_model(ModelSpec(name="resnet20", input_shape=(1, 8, 8), kwargs={"width": 4}))
    trained, _ = prepared(model, digits_data, RetrainConfig(epochs=1))
    strided = [conv for conv in trained.modules() if isinstance(conv, nn.Conv2d) and conv.stride == (2, 2)]
    narrow = [conv for conv in strided if conv.kernel_size == (1, 1)]
    assert [conv.in_channels for conv in narrow] == [4, 8]
    assert all(type(conv) is SubsampledConv2d for conv in narrow)
    assert list(trained.state_dict()) == list(model.state_dict())
    assert not any(isinstance(module, SubsampledConv2d) for module in model.modules())
