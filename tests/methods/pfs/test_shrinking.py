"""Channels whose gate is 0 for good leave the search, and it computes what it would have computed."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pfs_core.channels import resize, trace
from pfs_core.config.spec import ModelSpec
from pfs_core.methods.pfs import network as module
from pfs_core.methods.pfs.network import GatedNetwork
from pfs_core.models import build_model
from pfs_core.structure import unexpanded_graph

SHAPE = (3, 32, 32)
NETWORKS = {"resnet20": {"width": 12}, "vgg11": {}, "mobilenet_v2": {}}


def gated(name="resnet20", policy="inner", lr=0.05, placement="last"):
    """A gated network with weights in float64."""
    torch.manual_seed(0)
    spec = ModelSpec(name=name, input_shape=SHAPE, num_classes=10, kwargs=NETWORKS[name])
    model, graph = build_model(spec), unexpanded_graph(spec, policy, placement)
    widths = graph.expanded(1.25)
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0  # what it draws depends on the width
    return GatedNetwork(resize(model, graph, widths).double(), graph.with_widths(widths), "fp32", lr)


def batch(seed):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(4, *SHAPE, generator=random, dtype=torch.float64), torch.randint(10, (4,), generator=random)


def loss_of(network, seed):
    images, labels = batch(seed)
    return F.cross_entropy(network(images), labels) + 0.5 * (network.mean() - 0.3) ** 2


def joined(network):
    return torch.cat(list(network.by_group().values()))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_gate_that_reached_0_has_no_gradient_and_stays(monkeypatch, name):
    monkeypatch.setattr(module, "SHRINK_EVERY", 10**9)
    network = gated(name, lr=0.2)
    dead = torch.zeros(len(network.remaining), dtype=torch.bool)
    for step in range(12):
        network.step(loss_of(network, step))
        assert (network.gates.values[dead] == 0).all()
        assert (network.gates.values.grad[dead] == 0).all()
        dead |= network.gates.values.detach() == 0
    assert 0.05 < dead.double().mean() < 1


@pytest.mark.parametrize("name", NETWORKS)
def test_a_shrunken_network_computes_the_same(monkeypatch, name):
    monkeypatch.setattr(module, "SHRINK_EVERY", 10**9)
    whole, shrunken = gated(name, lr=0.2), gated(name, lr=0.2)
    for network in (whole, shrunken):
        for step in range(8):
            network.step(loss_of(network, step))
    shrunken.shrink()
    assert len(shrunken.remaining) < len(whole.remaining)
    losses = [loss_of(network, 100) for network in (whole, shrunken)]
    for network, loss in zip((whole, shrunken), losses, strict=True):
        network.gates.values.grad = None
        loss.backward()
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(
        shrunken.gates.values.grad, whole.gates.values.grad[shrunken.remaining], rtol=1e-4, atol=1e-7
    )
    assert (shrunken.mean().item(), shrunken.nonzero()) == (pytest.approx(whole.mean().item()), whole.nonzero())
    assert torch.equal(joined(shrunken), joined(whole))
    images, _ = batch(101)
    for network in (whole, shrunken):
        network.module.eval()
    torch.testing.assert_close(shrunken(images), whole(images), rtol=1e-5, atol=1e-6)


def test_the_course_of_a_search_is_the_same(monkeypatch):
    courses = []
    for every in (3, 10**9):
        monkeypatch.setattr(module, "SHRINK_EVERY", every)
        network = gated(lr=0.1)
        courses.append([])
        for step in range(20):
            network.step(loss_of(network, step % 2))
            courses[-1].append(joined(network))
    assert len(network.remaining) > int((joined(network) > 0).sum())
    torch.testing.assert_close(torch.stack(courses[0]), torch.stack(courses[1]), rtol=0, atol=0.01)


def test_widths_shrink_to_multiples_and_every_group_keeps_some(monkeypatch):
    monkeypatch.setattr(module, "MULTIPLE", 4)
    network = gated()
    with torch.no_grad():
        network.gates.values[1:] = 0
    network.shrink()
    groups = [len(part) for part in network.gates.by_group().values()]
    assert groups == [4] * 9
    assert network.remaining[:5].tolist() == [0, 1, 2, 3, 15]
    assert network.nonzero() == 1 / sum(network.sizes)


def test_what_may_come_back_stays(monkeypatch):
    """Behind an addition or a smooth activation a gate of 0 has a gradient."""
    network = gated(policy="all")
    with torch.no_grad():
        network.gates.values.zero_()
    network.shrink()
    streams = {group.name for group in network.graph.prunable() if group.stream}
    left = {name: len(part) for name, part in network.gates.by_group().items()}
    assert all(left[name] == size for name, size in zip(left, network.sizes, strict=True) if name in streams)
    assert all(left[name] == module.MULTIPLE for name in left if name not in streams)


class Net(nn.Module):
    """Two convolutions with an activation between."""

    def __init__(self, act, calls=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.act, self.calls = act, calls
        self.conv2 = nn.Conv2d(8, 4, 3)

    def forward(self, x):
        y = self.bn1(self.conv1(x))
        for _ in range(self.calls):
            z = self.act(y)
        return self.conv2(z if self.calls == 1 else z + y).mean((2, 3))


@pytest.mark.parametrize(
    ("net", "rectified"),
    [
        (Net(nn.ReLU()), True),
        (Net(nn.ReLU6()), True),
        (Net(nn.functional.relu), True),
        (Net(lambda y: y.relu()), True),
        (Net(nn.SiLU()), False),
        (Net(nn.LeakyReLU()), False),
        (Net(nn.Dropout()), False),
        (Net(nn.ReLU(), calls=2), False),
    ],
)
def test_rectified_groups_are_those_that_only_rectifiers_read(net, rectified):
    group = trace(net, SHAPE, "all").group("conv1")
    assert group.prunable
    assert group.rectified == rectified


@pytest.mark.parametrize("act", [nn.ReLU(), nn.ReLU6(), nn.ReLU(inplace=True)])
def test_the_derivative_of_rectifiers_at_0_is_0(act):
    x = torch.zeros(3, requires_grad=True)
    act(x * 1).sum().backward()
    assert (x.grad == 0).all()


def test_the_official_placement_keeps_all_channels():
    network = gated(placement="official")
    assert not any(group.rectified for group in network.graph.groups)


def test_a_state_restores_the_shrunken_network(monkeypatch):
    monkeypatch.setattr(module, "SHRINK_EVERY", 4)
    whole = gated(lr=0.2)
    for step in range(9):
        whole.step(loss_of(whole, step))
    again = gated(lr=0.2)
    again.load_state_dict(copy.deepcopy(whole.state_dict()))
    assert torch.equal(again.remaining, whole.remaining)
    for step in range(9, 14):
        for network in (whole, again):
            network.step(loss_of(network, step))
    assert torch.equal(joined(again), joined(whole))
    assert torch.equal(again.remaining, whole.remaining)


def test_a_compiled_network_keeps_all_channels(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, mode: function)
    monkeypatch.setattr(module, "SHRINK_EVERY", 1)
    torch.manual_seed(0)
    model = build_model("resnet20")
    network = GatedNetwork(model, trace(model, SHAPE), "fp32", 0.5, compile=True)
    network.step(loss_of_float(network))
    network.step(loss_of_float(network))
    assert (joined(network) == 0).any()
    assert len(network.remaining) == sum(network.sizes)


def loss_of_float(network):
    images, labels = batch(0)
    return F.cross_entropy(network(images.float()), labels) + 10 * network.mean()
