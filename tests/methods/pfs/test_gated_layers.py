"""Gates on layers without a BatchNorm of their own, on several groups at once and on grouped convolutions."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from pfs_core.channels import trace
from pfs_core.methods.pfs.gates import Gates
from tests.channels.masking import EXACT, by_gates, calibrated, random_kept
from tests.channels.networks import INPUT, chain, conv3, head, separable


class Dense(nn.Module):
    """Two layers whose outputs follow their inputs, BN first, as in DenseNet."""

    def __init__(self):
        super().__init__()
        self.stem = conv3(2, 4)
        self.bn1, self.conv1 = nn.BatchNorm2d(4), conv3(4, 3)
        self.bn2, self.conv2 = nn.BatchNorm2d(7), conv3(7, 3)
        self.bn3, self.head = nn.BatchNorm2d(10), head(10)

    def forward(self, x):
        x = self.stem(x)
        x = torch.cat([x, self.conv1(self.bn1(x).relu())], 1)
        x = torch.cat([x, self.conv2(self.bn2(x).relu())], 1)
        return self.head(self.bn3(x).relu())


def bare():
    return chain(conv=nn.Conv2d(2, 8, 3), relu=nn.ReLU(), conv2=conv3(8, 6), bn=nn.BatchNorm2d(6), head=head(6))


def perceptron():
    return chain(flatten=nn.Flatten(), fc1=nn.Linear(128, 7), relu=nn.ReLU(), fc2=nn.Linear(7, 5))


def grouped():
    return chain(conv1=conv3(2, 8), bn1=nn.BatchNorm2d(8), relu=nn.ReLU(), conv2=conv3(8, 12, groups=4), head=head(12))


def multiplied():
    return chain(conv1=conv3(2, 4), depthwise=nn.Conv2d(4, 12, 3, groups=4), bn=nn.BatchNorm2d(12), head=head(12))


def normless():
    return chain(conv=conv3(2, 6), bn=nn.BatchNorm2d(6, affine=False), relu=nn.ReLU(), head=head(6))


def set_to(gates, graph, **values):
    """Set single gates: ``group=(place, value)``."""
    start = 0
    for group in graph.prunable():
        if group.name in values:
            place, value = values[group.name]
            gates.values.data[start + place] = value
        start += group.gate_count


@pytest.mark.parametrize("build", [bare, perceptron, Dense, grouped, multiplied, normless])
def test_a_gate_of_zero_removes_its_channels(build):
    torch.manual_seed(0)
    model = calibrated(build(), INPUT)
    graph = trace(model, INPUT)
    outputs = by_gates(model, graph, random_kept(graph), torch.randn(4, *INPUT, dtype=torch.float64))
    assert outputs.error() < EXACT
    assert outputs.effect() > 1e-3


@pytest.mark.parametrize("build", [bare, perceptron, Dense, grouped, multiplied, normless])
def test_gates_of_one_change_nothing_and_learn(build):
    torch.manual_seed(0)
    model = build().eval()
    graph = trace(model, INPUT)
    images = torch.randn(4, *INPUT)
    before = model(images)
    gates = Gates(model, graph)
    after = functional_call(model, gates.scales(), (images,))
    assert torch.equal(after, before)
    after.square().sum().backward()
    assert all((part != 0).any() for part in gates.values.grad.split([g.gate_count for g in graph.prunable()]))


@torch.no_grad()
def test_the_output_of_a_convolution_without_norm_is_multiplied():
    model = bare()
    graph = trace(model, INPUT)
    images = torch.randn(2, *INPUT)
    whole = model.conv(images)
    gates = Gates(model, graph)
    set_to(gates, graph, conv=(3, 0.25))
    assert "conv.weight" not in gates.scales()
    gated = model.conv(images)
    assert torch.equal(gated[:, 3], 0.25 * whole[:, 3])
    assert torch.equal(gated[:, :3], whole[:, :3])


@torch.no_grad()
def test_the_scale_of_a_norm_over_several_groups_has_the_gates_of_each():
    model = Dense()
    graph = trace(model, INPUT)
    gates = Gates(model, graph)
    set_to(gates, graph, stem=(1, 0.5), conv1=(0, 0.25), conv2=(2, 0.125))
    scales = gates.scales()
    assert scales["bn1.weight"].tolist() == [1, 0.5, 1, 1]
    assert scales["bn2.weight"].tolist() == [1, 0.5, 1, 1, 0.25, 1, 1]
    assert scales["bn3.weight"].tolist() == [1, 0.5, 1, 1, 0.25, 1, 1, 1, 1, 0.125]


@torch.no_grad()
def test_a_gate_of_a_grouped_convolution_acts_in_every_group():
    model = grouped()
    graph = trace(model, INPUT)
    gates = Gates(model, graph)
    assert {name: len(values) for name, values in gates.by_group().items()} == {"conv1": 2, "conv2": 3}
    set_to(gates, graph, conv1=(1, 0.5))
    assert gates.scales()["bn1.weight"].tolist() == [1, 0.5] * 4


@torch.no_grad()
def test_a_gate_in_front_of_a_multiplier_acts_on_all_outputs_of_its_channel():
    model = multiplied()
    graph = trace(model, INPUT)
    gates = Gates(model, graph)
    set_to(gates, graph, conv1=(1, 0.5))
    assert gates.scales()["bn.weight"].tolist() == [1] * 3 + [0.5] * 3 + [1] * 6


@torch.no_grad()
def test_a_norm_does_not_gate_groups_that_are_not_prunable():
    class Frozen(Dense):
        def forward(self, x):
            x = torch.cat([torch.roll(self.stem(x), 1, 1), self.conv1(self.bn1(self.stem(x)))], 1)
            x = torch.cat([x, self.conv2(self.bn2(x))], 1)
            return self.head(self.bn3(x))

    model = Frozen()
    graph = trace(model, INPUT)
    gates = Gates(model, graph)
    assert gates.groups == ["conv1", "conv2"]
    gates.values.zero_()
    assert gates.scales()["bn3.weight"].tolist() == [1] * 4 + [0] * 6


@torch.no_grad()
def test_the_official_placement_gates_at_the_first_norm():
    model = separable()
    official, last = trace(model, INPUT, placement="official"), trace(model, INPUT)
    assert official.group("conv1").gates == ("bn1",)
    assert last.group("conv1").gates == ("bn2",)
    assert [g.name for g in official.prunable()] == [g.name for g in last.prunable()]
    gates = Gates(model, official)
    set_to(gates, official, conv1=(2, 0.0))
    scales = gates.scales()
    assert scales["bn1.weight"].tolist() == [1, 1, 0, 1, 1, 1, 1, 1]
    assert "bn2.weight" not in scales


def test_the_official_placement_is_the_same_where_a_group_has_one_norm():
    official, last = trace(Dense(), INPUT, placement="official"), trace(Dense(), INPUT)
    assert [group.gates for group in official.groups] == [group.gates for group in last.groups]
