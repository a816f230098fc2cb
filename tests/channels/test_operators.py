"""What is not understood is frozen, with a reason that names it; what cannot be gated is not pruned."""

import pytest
import torch
from torch import nn

from pfs_core.channels import ChannelSlice, resize, trace
from tests.channels.masking import proved
from tests.channels.networks import INPUT, chain, conv3, grouped, head
from tests.channels.zoo import scaled


class Between(nn.Module):
    """conv, BN, ReLU, then ``operation(self, x)``, then a second convolution."""

    def __init__(self, operation):
        super().__init__()
        self.conv1 = conv3(2, 8)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.group_norm = nn.GroupNorm(1, 8)
        self.layer_norm = nn.LayerNorm(8)
        self.scale = nn.Parameter(torch.ones(1, 8, 1, 1))
        self.operation = operation
        self.conv2 = conv3(8, 6)
        self.head = chain(bn=nn.BatchNorm2d(6), head=head(6))

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        return self.head(self.conv2(self.operation(self, x)))


class Joined(nn.Module):
    """``operation(self, x)``, with a convolution that keeps the width."""

    def __init__(self, operation):
        super().__init__()
        self.conv2, self.operation = conv3(8, 8), operation

    def forward(self, x):
        return self.operation(self, x)


def between(*modules):
    """A chain with ``modules`` between the first convolution and the second."""
    return nn.Sequential(conv3(2, 8), *modules, conv3(8, 6), nn.BatchNorm2d(6), head(6))


UNKNOWN = {
    "roll": lambda self, x: torch.roll(x, 1, 1),
    "einsum": lambda self, x: torch.einsum("nchw,ndhw->ncdhw", x, x).mean(2),
    "flip": lambda self, x: torch.flip(x, [1]),
    "cumsum": lambda self, x: x.cumsum(1),
    "padding of the channels": lambda self, x: nn.functional.pad(x, (0, 0, 0, 0, 1, 1))[:, 1:-1],
    "matmul": lambda self, x: torch.matmul(torch.ones(8, 8), x.flatten(2)).view(x.shape),
    "index_select": lambda self, x: x.index_select(1, torch.arange(8)),
    "slice": lambda self, x: torch.cat([x[:, 1:], x[:, :1]], 1),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_operators_freeze_their_channels_and_are_named(name):
    for policy in ("inner", "all"):
        group = trace(Between(UNKNOWN[name]), INPUT, policy).group("conv1")
        assert not group.resizable
        assert not group.prunable
        assert name in group.reason
        assert "test_operators.py, line" in group.reason


@pytest.mark.parametrize("name", UNKNOWN)
def test_channels_that_come_out_of_unknown_operators_are_frozen(name):
    graph = trace(Between(UNKNOWN[name]), INPUT)
    (read,) = [axis.segments for axis in graph.axes if (axis.module, axis.role) == ("conv2", "reads")]
    assert not any(graph.group(segment.group).resizable for segment in read)
    assert [g.name for g in graph.prunable()] == ["conv2"]


KEEPING = {
    "number": lambda self, x: x * 2 / 3,
    "negative": lambda self, x: -x,
    "interpolation": lambda self, x: nn.functional.interpolate(x, scale_factor=2),
    "spatial padding": lambda self, x: nn.functional.pad(x, (1, 1, 1, 1)),
    "spatial slice": lambda self, x: x[:, :, ::2, 1:],
    "there and back": lambda self, x: x.permute(0, 2, 3, 1).transpose(1, 3).transpose(2, 3),
    "unsqueezed": lambda self, x: x.unsqueeze(1).squeeze(1),
    "mean": lambda self, x: x.mean((2, 3), keepdim=True),
    "square": lambda self, x: x * x,
    "folded": lambda self, x: x.view(x.size(0), x.size(1), -1, 1),
    "shape": lambda self, x: x.reshape(x.shape[0], x.shape[1], 64, 1),
    "along space": lambda self, x: torch.cat([x, x], 2),
    "threshold": lambda self, x: nn.functional.threshold(x, 0.1, 0.0),
    "threshold below zero": lambda self, x: nn.functional.threshold(x, -0.1, 1.0),
    "expanded": lambda self, x: x.mean((2, 3), keepdim=True).expand_as(x),
}


@pytest.mark.parametrize("name", KEEPING)
def test_operators_that_keep_channels_and_zeros(name):
    group = trace(Between(KEEPING[name]), INPUT).group("conv1")
    assert group.prunable
    assert group.gates == ("bn1",)


def test_a_threshold_that_replaces_zero_moves_it():
    group = trace(Between(lambda self, x: nn.functional.threshold(x, 0.1, 1.0)), INPUT).group("conv1")
    assert not group.prunable
    assert group.resizable


JOINING = {
    "lerp": (lambda self, x: torch.lerp(x, self.conv2(x), 0.3), {"bn1", "conv2"}),
    "lerp by weights": (lambda self, x: torch.lerp(x, self.conv2(x), torch.sigmoid(x)), {"bn1", "conv2"}),
    "addcmul": (lambda self, x: torch.addcmul(x, self.conv2(x), torch.sigmoid(x)), {"bn1", "conv2"}),
    "addcmul of a sigmoid": (lambda self, x: torch.addcmul(self.conv2(x), torch.sigmoid(x), x), {"bn1", "conv2"}),
}


@pytest.mark.parametrize("name", JOINING)
def test_what_adds_channels_is_gated_where_everything_that_it_adds_is(name):
    operation, gates = JOINING[name]
    model = chain(conv1=conv3(2, 8), bn1=nn.BatchNorm2d(8), block=Joined(operation), head=head(8))
    for policy in ("inner", "all"):
        graph = trace(model, INPUT, policy)
        assert graph.group("conv1").stream
        assert graph.group("conv1").prunable == (policy == "all")
    assert {gate.removeprefix("block.") for gate in graph.group("conv1").gates} == gates
    assert proved(model, graph) == graph


def test_spatial_padding_with_another_number_moves_zero():
    group = trace(Between(lambda self, x: nn.functional.pad(x, (1, 1, 1, 1), value=1.0)), INPUT).group("conv1")
    assert not group.prunable
    assert group.resizable


@pytest.mark.parametrize("name", ["group_norm", "layer_norm"])
def test_a_normalisation_over_channels_is_resized_and_not_pruned(name):
    operations = {
        "group_norm": lambda self, x: self.group_norm(x),
        "layer_norm": lambda self, x: self.layer_norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    }
    group = trace(Between(operations[name]), INPUT).group("conv1")
    assert not group.prunable
    assert group.resizable
    assert f"{name} normalises over its channels" in group.reason
    assert group.per_gate == 1


def test_a_grouped_convolution_ties_the_channels_at_one_place_of_its_groups():
    graph = trace(grouped(), INPUT)
    assert [(g.name, g.width, g.per_gate, g.gate_count) for g in graph.prunable()] == [
        ("conv1", 8, 2, 4),
        ("conv2", 8, 2, 4),
    ]


def test_a_depthwise_multiplier_repeats_the_channels():
    graph = trace(
        nn.Sequential(conv3(2, 4), nn.BatchNorm2d(4), conv3(4, 8, groups=4), nn.BatchNorm2d(8), head(8)), INPUT
    )
    assert [(g.name, g.gates) for g in graph.prunable()] == [("0", ("3",))]
    assert next(axis.segments for axis in graph.axes if (axis.module, axis.role) == ("4.fc", "reads")) == (
        ChannelSlice("0", 2),
    )


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.Hardsigmoid(), nn.Softplus()], ids=lambda m: type(m).__name__)
def test_an_activation_that_moves_zero_is_gated_at_its_own_output(activation):
    assert trace(between(nn.BatchNorm2d(8), activation), INPUT).group("0").gates == ("2",)
    assert trace(between(activation), INPUT).group("0").gates == ("1",)


@pytest.mark.parametrize("function", [torch.sigmoid, nn.functional.softplus, lambda x: x.sigmoid()])
def test_function_that_moves_zero_prevents_gating(function):
    group = trace(Between(lambda self, x: function(x)), INPUT).group("conv1")
    assert not group.prunable
    assert group.resizable
    assert "does not map 0 to 0 (test_operators.py, line" in group.reason


def test_batch_norm_behind_a_sigmoid_gates_again():
    model = between(nn.BatchNorm2d(8), nn.Sigmoid(), nn.BatchNorm2d(8))
    assert trace(model, INPUT).group("0").gates == ("3",)


def test_a_convolution_without_batch_norm_is_gated_at_its_own_output():
    assert trace(between(nn.ReLU()), INPUT).group("0").gates == ("0",)


def test_batch_norm_without_scale_gates_at_its_output():
    assert trace(between(nn.BatchNorm2d(8, affine=False), nn.ReLU()), INPUT).group("0").gates == ("1",)


def test_a_depthwise_convolution_with_a_bias_gates_at_its_output():
    model = between(nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1, groups=8))
    assert trace(model, INPUT).group("0").gates == ("2",)


def test_a_hook_is_part_of_its_layer():
    model = between(nn.ReLU())
    model[1].register_forward_hook(lambda module, inputs, output: output + 1)
    assert trace(model, INPUT).group("0").gates == ("1",)


@pytest.mark.parametrize(("low", "high", "prunable"), [(-1.0, 1.0, True), (0.0, 6.0, True), (0.5, 2.0, False)])
def test_a_clipped_range_keeps_zero_if_it_holds_it(low, high, prunable):
    assert trace(Between(lambda self, x: x.clamp(low, high)), INPUT).group("conv1").prunable == prunable


def test_channels_of_two_layers_that_a_third_reads_come_and_go_together():
    class TwoWays(nn.Module):
        def __init__(self):
            super().__init__()
            self.few, self.many, self.fc = conv3(2, 8), conv3(2, 512), nn.Linear(512, 5)
            self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()

        def forward(self, x):
            return self.fc(self.flatten(self.few(x))) + self.fc(self.flatten(self.pool(self.many(x))))

    model = TwoWays()
    graph = trace(model, INPUT)
    (written,) = [axis.segments for axis in graph.axes if (axis.module, axis.role) == ("many", "writes")]
    assert written == (ChannelSlice("few", 64),)
    assert proved(model, graph) == graph


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
    assert resize(model, graph, scaled(graph, 2.0))(torch.randn(2, *INPUT)).shape == (2, 5)


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
        lambda x: x.flatten(2).flatten(1),
        lambda x: x.flatten(2, 3).unsqueeze(1).flatten(1, 2).flatten(start_dim=1),
        lambda x: x.view(x.size(0), x.size(1), -1).view(x.size(0), -1),
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
        "space first",
        "in steps",
        "view in steps",
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
    graph = proved(model, trace(model, INPUT))
    assert graph.group("conv").resizable or "resized, the network fails: shape" in graph.group("conv").reason
    for factor in (0.01, 0.5, 2.0):
        resized = resize(model, graph, scaled(graph, factor))
        assert resized(torch.randn(2, *INPUT)).shape == (2, 5)
        assert trace(resized, INPUT).widths() == scaled(graph, factor)
