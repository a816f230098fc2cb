"""A gate of 0 in front of a root spoils no gradient."""

import pytest
import torch
from torch import nn

from pfs_core.channels import slice_weights, trace
from pfs_core.methods.pfs.network import GatedNetwork
from pfs_core.methods.pfs.roots import spoilt_at_zero

SHAPE = (2, 8, 8)
ROOTS = {
    "sqrt": lambda x: x.sqrt(),
    "torch.sqrt": lambda x: torch.sqrt(input=x),
    "in place": lambda x: x.sqrt_(),
    "power": lambda x: x**0.5,
    "pow": lambda x: x.pow(exponent=0.5),
    "torch.pow": lambda x: torch.pow(x, 1 / 3),
    "pow in place": lambda x: x.pow_(0.5),
}


class Pooled(nn.Module):
    """The squares of every channel are averaged, and ``root`` of that goes to the classifier."""

    def __init__(self, root, attention=False):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.fc, self.root, self.attention = nn.Linear(8, 5), root, attention

    def forward(self, x):
        x = nn.functional.silu(self.bn1(self.conv1(x)))
        x = nn.functional.silu(self.bn2(self.conv2(x)))
        if self.attention:
            x = x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.fc(self.root(x.pow(2).mean((2, 3))))


def gradients(model, graph, images, closed=()):
    """The gradients of the gates by group, after the gates of ``bn2`` at the places ``closed`` are set to 0."""
    network = GatedNetwork(model, graph, "fp32", 0.1)
    start = 0
    for group, size in zip(network.gates.groups, network.gates.sizes, strict=True):
        if group == "conv2":
            network.gates.values.data[[start + place for place in closed]] = 0.0
        start += size
    network(images).square().sum().backward()
    return dict(zip(network.gates.groups, network.gates.values.grad.split(network.gates.sizes), strict=True))


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("root", ROOTS)
def test_gradients_are_those_of_the_network_without_the_closed_channels(root, attention):
    torch.manual_seed(0)
    model = Pooled(ROOTS[root], attention).double()
    graph, images = trace(model, SHAPE), torch.randn(4, *SHAPE, dtype=torch.float64)
    kept = {"conv2": torch.tensor([0, 3, 4, 7])}
    cut = slice_weights(model, graph, kept)
    masked = gradients(model, graph, images, closed=[1, 2, 5, 6])
    removed = gradients(cut, graph.with_widths(graph.widths() | {"conv2": 4}), images)
    if not attention:  # through which a closed gate could still open again
        assert (masked["conv2"][[1, 2, 5, 6]] == 0).all()
    masked["conv2"] = masked["conv2"][kept["conv2"]]
    assert masked.keys() == removed.keys() >= {"conv1", "conv2"}
    for group, gradient in masked.items():
        torch.testing.assert_close(gradient, removed[group], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("root", "spoilt"), [
    (lambda x: x.sqrt(), True), (lambda x: (x + 1e-5).sqrt(), False), (lambda x: x.pow(1.5), False), (torch.abs, False),
])  # fmt: skip
def test_only_roots_of_zero_spoil_gradients(root, spoilt):
    model = Pooled(root)
    before, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    assert spoilt_at_zero(model, trace(model, SHAPE), torch.channels_last, "fp32") is spoilt
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_gates_that_reach_zero_stay_there_and_the_others_learn_on():
    torch.manual_seed(0)
    model = Pooled(torch.sqrt)
    network = GatedNetwork(model, trace(model, SHAPE), "fp32", 0.2)
    for _ in range(12):
        network.step(network(torch.randn(8, *SHAPE)).square().sum() + 10 * network.mean())
    assert network.gates.values.isfinite().all()
    assert 0 < network.nonzero() < 1
