"""What is not understood is frozen, with a reason that names it; what cannot be gated is not pruned."""

import pytest
import torch
from torch import nn

from pfs_core.channels import resize, trace
from tests.channels.networks import INPUT, chain, conv3, grouped, head


class Between(nn.Module):
    """conv, BN, ReLU, then ``operation(self, x)``, then a second convolution."""

    def __init__(self, operation):
        super().__init__()
        self.conv1 = conv3(2, 8)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.group_norm = nn.GroupNorm(2, 8)
        self.scale = nn.Parameter(torch.ones(1, 8, 1, 1))
        self.operation = operation
        self.conv2 = conv3(8, 6)
        self.head = chain(bn=nn.BatchNorm2d(6), head=head(6))

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        return self.head(self.conv2(self.operation(self, x)))


def between(*modules):
    """A chain with ``modules`` between the first convolution and the second."""
    return nn.Sequential(conv3(2, 8), *modules, conv3(8, 6), nn.BatchNorm2d(6), head(6))


UNKNOWN = {
    "GroupNorm": lambda self, x: self.group_norm(x),
    "roll": lambda self, x: torch.roll(x, 1, 1),
    ".roll()": lambda self, x: x.roll(1, 1),
    "cat": lambda self, x: torch.cat([x, x], 1)[:, ::2],
    "getitem": lambda self, x: x[:, :8],
    "mul": lambda self, x: x * 2,
    "add": lambda self, x: x + self.scale,
    "softmax": lambda self, x: torch.softmax(x, 1),
    "interpolate": lambda self, x: nn.functional.interpolate(x, scale_factor=2),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_operators_freeze_their_channels_and_are_named(name):
    for policy in ("inner", "all"):
        group = trace(Between(UNKNOWN[name]), INPUT, policy).group("conv1")
        assert not group.resizable
        assert not group.prunable
        assert name in group.reason


@pytest.mark.parametrize("name", UNKNOWN)
def test_channels_that_come_out_of_unknown_operators_are_frozen(name):
    graph = trace(Between(UNKNOWN[name]), INPUT)
    (read,) = [g for g in graph.groups for m in g.members if (m.module, m.role) == ("conv2", "reads")]
    assert not read.resizable
    assert [g.name for g in graph.prunable()] == ["conv2"]


@pytest.mark.parametrize("policy", ["inner", "all"])
def test_grouped_convolution_freezes_both_sides(policy):
    graph = trace(grouped(), INPUT, policy)
    assert graph.prunable() == []
    assert "Conv2d (conv2)" in graph.group("conv1").reason
    assert not graph.group("conv2").resizable


def test_depthwise_convolution_with_a_multiplier_is_frozen():
    graph = trace(nn.Sequential(conv3(2, 4), nn.BatchNorm2d(4), conv3(4, 8, groups=4), head(8)), INPUT)
    assert not any(group.resizable for group in graph.groups)


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.Hardsigmoid(), nn.Softplus()], ids=lambda m: type(m).__name__)
def test_activation_that_moves_zero_prevents_gating(activation):
    model = between(nn.BatchNorm2d(8), activation)
    group = trace(model, INPUT).group("0")
    assert not group.prunable
    assert group.resizable
    assert "does not map 0 to 0" in group.reason


@pytest.mark.parametrize("function", [torch.sigmoid, nn.functional.softplus, lambda x: x.sigmoid()])
def test_function_that_moves_zero_prevents_gating(function):
    group = trace(Between(lambda self, x: function(x)), INPUT).group("conv1")
    assert not group.prunable


def test_an_activation_that_may_move_zero_is_not_pruned_through():
    assert not trace(between(nn.BatchNorm2d(8), nn.Hardtanh(0.5, 2.0)), INPUT).group("0").prunable


def test_batch_norm_behind_a_sigmoid_gates_again():
    model = between(nn.BatchNorm2d(8), nn.Sigmoid(), nn.BatchNorm2d(8))
    assert trace(model, INPUT).group("0").gates == ("3",)


def test_convolution_without_batch_norm_is_not_prunable():
    group = trace(between(nn.ReLU()), INPUT).group("0")
    assert not group.prunable
    assert group.resizable
    assert group.reason == "cannot be gated: no BatchNorm between 0 and the next layer"


def test_batch_norm_without_scale_cannot_gate():
    group = trace(between(nn.BatchNorm2d(8, affine=False), nn.ReLU()), INPUT).group("0")
    assert not group.prunable
    assert "no scale" in group.reason


def test_depthwise_bias_without_batch_norm_prevents_gating():
    group = trace(between(nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1, groups=8)), INPUT).group("0")
    assert not group.prunable
    assert "bias" in group.reason


def test_a_layer_that_reads_channels_in_two_ways_freezes_them():
    class TwoWays(nn.Module):
        def __init__(self):
            super().__init__()
            self.few, self.many, self.fc = conv3(2, 8), conv3(2, 512), nn.Linear(512, 5)
            self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()

        def forward(self, x):
            return self.fc(self.flatten(self.few(x))) + self.fc(self.flatten(self.pool(self.many(x))))

    graph = trace(TwoWays(), INPUT)
    for name in ("few", "many"):
        assert not graph.group(name).resizable
        assert "fc" in graph.group(name).reason


def test_an_operation_named_as_a_layer_has_a_group_of_its_own():
    class SameName(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.roll, self.head = conv3(2, 8), conv3(8, 6), head(6)

        def forward(self, x):
            return self.head(self.roll(torch.roll(self.conv(x), 1, 1)))

    graph = trace(SameName(), INPUT)
    names = [group.name for group in graph.groups]
    assert len(set(names)) == len(names)
    assert graph.group("roll").width == 6


@pytest.mark.parametrize(
    "operation",
    [lambda self, x: self.relu(input=x), lambda self, x: torch.add(x, other=x), lambda self, x: torch.relu(input=x)],
    ids=["module", "addition", "function"],
)
def test_an_operation_called_by_keyword_is_traced(operation):
    model = Between(operation)
    graph = trace(model, INPUT)
    assert resize(model, graph, graph.expanded(2.0))(torch.randn(2, *INPUT)).shape == (2, 5)


@pytest.mark.parametrize(
    "flatten",
    [
        lambda x: x.view(-1, 512),
        lambda x: x.view(x.size(0), 512),
        lambda x: x.reshape(-1, 512),
        lambda x: x.view(x.size(0), -1),
        lambda x: x.flatten(1),
        lambda x: x.view(x.shape[0], x.shape[1] * 64),
        lambda x: x.flatten(1).flatten(1),
        lambda x: x.reshape(shape=(-1, 512)),
    ],
    ids=[
        "view(-1, 512)",
        "view(n, 512)",
        "reshape(-1, 512)",
        "view(n, -1)",
        "flatten(1)",
        "view(n, c * 64)",
        "twice",
        "named",
    ],
)
def test_a_network_with_a_flatten_runs_at_every_width_its_graph_allows(flatten):
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn, self.fc = conv3(2, 8), nn.BatchNorm2d(8), nn.Linear(512, 5)

        def forward(self, x):
            return self.fc(flatten(self.bn(self.conv(x))))

    model = Flat()
    graph = trace(model, INPUT)
    assert resize(model, graph, graph.expanded(0.5))(torch.randn(2, *INPUT)).shape == (2, 5)
