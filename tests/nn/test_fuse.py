"""BatchNorm fused into convolutions: the same outputs, however often a layer is called."""

import copy

import pytest
import torch
from torch import nn

from pfs_core.nn.fuse import fuse_batchnorm


class Net(nn.Module):
    """Two convolutions and two BatchNorms, used as ``operation(self, x)`` says."""

    def __init__(self, operation):
        super().__init__()
        self.operation = operation
        self.conv, self.other = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.Conv2d(4, 4, 1)
        self.norm, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        for norm in (self.norm, self.second):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x, scale=None, features=False):
        y = self.operation(self, x)
        y = y if scale is None else y * scale
        return (y, x) if features else y


def in_place(x, f):
    earlier = [x]
    x += f(x)
    return earlier[0] + x


USES = {
    "once": (lambda net, x: net.norm(net.conv(x)).relu(), 0),
    "two pairs": (lambda net, x: net.second(net.other(net.norm(net.conv(x)).relu())), 0),
    "a pair called twice": (lambda net, x: net.norm(net.conv(net.norm(net.conv(x)).relu())), 1),
    "one convolution, two norms": (lambda net, x: net.norm(net.conv(x)) + net.second(net.conv(x)), 2),
    "one norm, two convolutions": (lambda net, x: net.norm(net.conv(x)) + net.norm(net.other(x)), 1),
    "a norm behind one of two calls": (lambda net, x: net.norm(net.conv(x)) + net.conv(x), 1),
    "a convolution read elsewhere": (lambda net, x: sum(f(net.conv(x)) for f in (net.norm, torch.relu)), 1),
    "two norms behind one convolution": (lambda net, x: net.second(net.norm(net.conv(x))).relu(), 0),
    "two pairs, the second with two norms": (lambda net, x: net.second(net.norm(net.other(net.conv(x)))), 0),
    "a question whether it is a tensor": (lambda net, x: net.norm(net.conv(x)) if torch.is_tensor(x) else x, 2),
    "a tensor that changes in place": (lambda net, x: in_place(net.norm(net.conv(x)), net.other), 2),
    "a weight read elsewhere": (lambda net, x: net.norm(net.conv(x)) * net.conv.weight.mean(), 1),
}


@pytest.mark.parametrize("use", USES)
def test_the_fused_network_computes_the_same(use):
    torch.manual_seed(0)
    operation, _ = USES[use]
    model = Net(operation).eval()
    x = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        whole, fused = model(x), fuse_batchnorm(copy.deepcopy(model), x)(x)
    assert (whole - fused).abs().max() / whole.abs().max() < 1e-5


def test_a_convolution_with_a_hook_is_not_fused():
    model = Net(lambda net, x: net.norm(net.conv(x))).eval()
    model.conv.register_forward_hook(lambda conv, inputs, output: output.relu())
    x = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        assert torch.allclose(model(x), fuse_batchnorm(copy.deepcopy(model), x)(x), atol=1e-5)


@pytest.mark.parametrize("use", USES)
def test_only_a_pair_that_is_called_once_is_fused(use):
    operation, left = USES[use]
    fused = fuse_batchnorm(Net(operation), torch.randn(2, 4, 8, 8))
    assert sum(isinstance(module, nn.BatchNorm2d) for module in fused.modules()) == left
