"""Convolutions whose stride is larger than their map: the right gradients, whatever is in memory."""

import pytest
import torch
from torch import nn

from pfs_core.nn.padded_conv import pad_first
from pfs_core.runtime.device import native_bf16

SHAPES = [
    *((3, 2, 1, 1, 1), (5, 3, 2, 2, 1), (2, 3, 1, 2, 1), (3, 2, 2, 1, 4), (3, 2, 1, 8, 1)),
    ((3, 5), (2, 1), (1, 2), 1, 1),
]
"""Kernel, stride, padding, size of the map, and groups."""
PRECISIONS = [
    torch.float32,
    pytest.param(torch.bfloat16, marks=pytest.mark.skipif(not native_bf16(torch.device("cpu")), reason="no bf16")),
]


def gradients(conv, images):
    images = images.clone().requires_grad_()
    out = conv(images)
    return out, *torch.autograd.grad(out.float().square().sum(), (images, conv.weight, conv.bias))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_and_gradients_are_those_of_a_convolution(shape, dtype, layout):
    kernel, stride, padding, size, groups = shape
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 32, kernel, stride, padding, groups=groups).to(dtype)
    images = torch.randn(6, 16, size, size).to(dtype)
    (padded,) = pad_first(nn.Sequential(conv)).to(memory_format=layout)
    assert type(padded) is not nn.Conv2d
    whole = nn.Conv2d(16, 32, kernel, stride, padding, groups=groups, dtype=torch.float64)
    whole.load_state_dict({name: value.double() for name, value in conv.state_dict().items()})
    expected = gradients(whole, images.double())
    for _ in range(5):
        junk = [torch.full((count,), torch.nan) for count in (100, 1_000, 5_000, 20_000, 100_000)]
        del junk  # what is left in memory
        for one, other in zip(gradients(padded, images.contiguous(memory_format=layout)), expected, strict=True):
            assert (one.double() - other).abs().max() <= 0.02 * other.abs().max()


def test_others_stay():
    convs = [nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 2), nn.Conv2d(4, 4, 3, 2, 1, padding_mode="reflect")]
    assert [type(conv) for conv in pad_first(nn.Sequential(*convs))] == [nn.Conv2d] * 3
