"""Layers that start at 0 keep no gate from learning."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pfs_core.channels import resize, trace
from pfs_core.config.spec import ModelSpec
from pfs_core.methods.pfs.network import GatedNetwork
from pfs_core.models import build_model

SHAPE = (3, 16, 16)


class Residual(nn.Module):
    """A stem, a residual branch of two convolutions, and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.fc, self.scale = nn.Linear(8, 5), 1.0

    def forward(self, x):
        x = self.bn(self.stem(x)).relu()
        branch = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return self.fc((x + self.scale * branch).relu().mean((2, 3)))


def zeroed(*names):
    torch.manual_seed(0)
    model = Residual()
    for name in names:
        nn.init.zeros_(model.get_parameter(name))
    return model


def gradients(model):
    """The gradients of the gates by group, and the network under search."""
    network = GatedNetwork(model, trace(model, SHAPE), "fp32", 0.1)
    images = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1))
    F.cross_entropy(network(images.contiguous(memory_format=network.layout)), torch.arange(4)).backward()
    parts = network.gates.values.grad.split(network.gates.sizes)
    return dict(zip(network.gates.groups, parts, strict=True))


@pytest.mark.parametrize("names", [("bn2.weight",), ("fc.weight",), ("conv2.weight", "bn2.weight", "fc.weight")])
def test_gates_before_a_layer_that_starts_at_zero_get_a_gradient(names, caplog):
    caplog.set_level("INFO")
    assert all(gradient.any() for gradient in gradients(zeroed(*names)).values())
    assert f"search: {len(names)} layer(s) start at 0" in caplog.text
    assert "nothing is learned" not in caplog.text


def test_a_network_whose_gates_all_learn_stays_as_it_is(caplog):
    caplog.set_level("INFO")
    model = zeroed("bn1.bias", "fc.bias")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    GatedNetwork(model, trace(model, SHAPE), "fp32", 0.1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not caplog.messages


def test_gates_that_the_loss_does_not_depend_on_are_named(caplog):
    model = zeroed()
    model.scale = 0.0
    gradients(model)
    (said,) = [message for message in caplog.messages if "nothing is learned" in message]
    assert "the gates of conv1," in said


def test_a_resnet_of_timm_learns_its_gates():
    torch.manual_seed(0)
    spec = ModelSpec(name="timm:resnet18", num_classes=10, input_shape=(3, 32, 32))
    model = build_model(spec)
    graph = trace(model, spec.input_shape)
    network = GatedNetwork(resize(model, graph, graph.widths()), graph, "fp32", 0.01)
    images = torch.randn(4, *spec.input_shape).contiguous(memory_format=network.layout)
    F.cross_entropy(network(images), torch.arange(4)).backward()
    assert all(gradient.any() for gradient in network.gates.values.grad.split(network.gates.sizes))
