"""Unusual networks: whatever their graph allows holds for them too, and what it cannot know it does not allow."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pfs_core.channels import resize, trace
from pfs_core.errors import UserError
from tests.channels.counting import counted
from tests.channels.masking import CHANGED, EXACT, both_ways, random_kept
from tests.channels.networks import INPUT, chain, conv3, head


class Unusual(nn.Module):
    """conv, BN, then ``operation(self, x)``, which gives ``out`` channels, then conv, BN and a head."""

    def __init__(self, operation, out=8, **layers):
        super().__init__()
        self.conv1, self.bn1 = conv3(2, 8), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = conv3(out, 6), nn.BatchNorm2d(6)
        self.operation = operation
        self.head = head(6)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.head(self.bn2(self.conv2(self.operation(self, self.bn1(self.conv1(x))))))


def two_sizes(x):
    return x.view(x.shape[0], -1, x.shape[1] * 1, 8)


def aliased(self, x):
    alias = x
    self.act(x)
    return alias


def aliased_view(self, x):
    alias = x.flatten(2)
    x.sigmoid_()
    return alias.view(alias.shape[0], -1, 8, 8)


UNKNOWABLE = {
    "features of an unknown operation times a number": lambda self, x: torch.roll(x, 1, 1) * 2,
    "features of an unknown operation plus a number": lambda self, x: 1 + torch.roll(x, 1, 1),
    "a width plus a number": lambda self, x: x.view(x.shape[0], x.shape[1] + 1 - 1, 8, 8),
    "a width times a number": lambda self, x: two_sizes(x),
    "a width as a height": lambda self, x: F.interpolate(x, size=(x.shape[1], 4)),
    "a width as a border": lambda self, x: x[:, :, : x.shape[1]],
    "another tensor's shape": lambda self, x: torch.relu(x).view(x.shape),
    "a squeeze that drops a single channel": lambda self, x: (
        x * x.mean((2, 3), True).squeeze().reshape(x.shape[0], x.shape[1], 1, 1)
    ),
    "the maximum's places": lambda self, x: self.pool(x)[0],
    "the maximum's places, as a function": lambda self, x: F.max_pool2d(x, 3, 1, 1, return_indices=True)[0],
    "a mean over the channels": lambda self, x: x * x.mean(1, keepdim=True),
    "one channel added to all": lambda self, x: x + self.single(x),
}


@pytest.mark.parametrize("name", UNKNOWABLE)
def test_what_depends_on_a_width_in_an_unknown_way_keeps_it(name):
    pool, single = nn.MaxPool2d(3, 1, 1, return_indices=True), conv3(8, 1)
    model = Unusual(UNKNOWABLE[name], pool=pool, single=single)
    graph = trace(model, INPUT, "all")
    assert not graph.group("conv1").resizable
    assert graph.group("conv1").reason
    assert graph.group("conv2").prunable
    check_costs(model, graph)


KNOWN = {
    "two halves of the batch": (lambda self, x: self.conv(torch.cat([x, -x])), 8),
    "the same channels twice": (lambda self, x: torch.cat([x, x], 1), 16),
    "channels twice with a norm": (lambda self, x: self.wide(torch.cat([x, torch.relu(x)], 1)), 16),
    "a layer on two groups": (lambda self, x: self.conv(self.conv(x)), 8),
    "a layer on two tensors": (lambda self, x: torch.cat([self.one(x), self.one(self.conv(x))], 1), 6),
    "a sum over space": (lambda self, x: x + x.mean((2, 3), keepdim=True), 8),
    "new dimensions": (lambda self, x: x * x.flatten(2).amax(2)[:, :, None, None], 8),
    "attention over channels": (
        lambda self, x: x * x.mean((2, 3)).unsqueeze(1).sigmoid().transpose(1, 2).unsqueeze(-1),
        8,
    ),
    "a linear layer over pixels": (lambda self, x: self.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 8),
    "a flag": (lambda self, x: F.dropout(x, 0.5, self.training and False), 8),
    "rows that are normalised": (lambda self, x: self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 8),
    "parts of a shape": (lambda self, x: F.interpolate(x[:, :, ::2], size=x.shape[-2:]), 8),
    "channels of depthwise groups, each more than once": (lambda self, x: self.repeat(x), 24),
    "depthwise upsampling": (lambda self, x: self.up(x), 8),
    "grouped upsampling": (lambda self, x: self.grouped(x), 8),
}


def layers():
    return {
        "conv": conv3(8, 8),
        "wide": nn.BatchNorm2d(16),
        "one": nn.Conv2d(8, 3, 1),
        "linear": nn.Linear(8, 8),
        "norm": nn.LayerNorm(8),
        "repeat": conv3(8, 24, groups=8),
        "up": nn.ConvTranspose2d(8, 8, 2, 2, groups=8),
        "grouped": nn.ConvTranspose2d(8, 8, 2, 2, groups=2),
    }


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known_is_counted_resized_and_masked(name):
    torch.manual_seed(0)
    operation, out = KNOWN[name]
    model = Unusual(operation, out, **layers())
    graph = trace(model, INPUT, "all")
    assert graph.group("conv1").resizable
    check_costs(model, graph)
    for outputs in both_ways(model, graph, random_kept(graph), INPUT):
        assert outputs.error() < EXACT
        assert outputs.effect() > CHANGED


def check_costs(model, graph):
    """At the traced widths, at one gate a group and at half of them."""
    for share in (1.0, 0.5, 0.0):
        widths = {
            g.name: max(1, int(g.gate_count * share)) * g.blocks if g.resizable else g.width for g in graph.groups
        }
        resized = resize(model, graph, widths)
        assert resized(torch.randn(2, *INPUT)).isfinite().all()
        assert graph.cost(widths) == counted(resized, INPUT)


@pytest.mark.parametrize("operation", [aliased, aliased_view], ids=["same tensor", "view"])
def test_who_reads_changed_memory_by_another_name_reads_the_change(operation):
    group = trace(Unusual(operation, act=nn.Hardsigmoid(inplace=True)), INPUT).group("conv1")
    assert not group.prunable
    assert group.resizable


def test_layers_that_share_a_parameter_keep_their_widths():
    model = Unusual(lambda self, x: self.second(self.first(x)), first=conv3(8, 8), second=conv3(8, 8))
    model.second.weight = model.first.weight
    graph = trace(model, INPUT)
    assert "shares a parameter" in graph.group("conv1").reason
    check_costs(model, graph)
    resized = resize(model, graph, {**graph.widths(), "conv2": 3})
    assert resized.second.weight is resized.first.weight


def test_a_layer_of_two_names_is_one_layer():
    model = Unusual(lambda self, x: self.again(self.once(x)), once=conv3(8, 8))
    model.again = model.once
    graph = trace(model, INPUT)
    assert graph.members("conv1")[-3:] == [("once", "writes"), ("once", "reads"), ("conv2", "reads")]
    check_costs(model, graph)


@pytest.mark.parametrize(
    "change",
    [
        torch.nn.utils.parametrizations.weight_norm,
        torch.nn.utils.parametrizations.spectral_norm,
        lambda layer: layer.register_forward_hook(lambda module, inputs, output: output + 1),
        lambda layer: layer.register_forward_pre_hook(lambda module, inputs: None),
    ],
    ids=["weight norm", "spectral norm", "hook", "pre-hook"],
)
def test_layers_that_do_more_than_their_class_says_keep_their_widths(change):
    model = Unusual(lambda self, x: self.layer(x), layer=conv3(8, 8))
    change(model.layer)
    graph = trace(model, INPUT)
    assert "Conv2d" in graph.group("conv1").reason
    assert not graph.group("conv1").resizable
    check_costs(model, graph)


def test_a_hook_on_a_block_is_part_of_the_network():
    model = Unusual(lambda self, x: self.block(x), block=chain(conv=conv3(8, 8)))
    model.block.register_forward_hook(lambda module, inputs, output: output + 1)
    assert "adds a number" in trace(model, INPUT).group("block.conv").reason


class Own(nn.Conv2d):
    """A class of its own."""


def test_a_convolution_of_ones_own_class_keeps_its_widths():
    model = Unusual(lambda self, x: self.layer(x), layer=Own(8, 8, 3, padding=1))
    graph = trace(model, INPUT)
    assert not graph.group("conv1").resizable
    assert graph.group("conv2").prunable
    check_costs(model, graph)


def test_a_layer_that_is_not_registered_is_refused_where_it_is_called():
    hidden = [conv3(8, 8)]
    with pytest.raises(UserError, match=r"not installed as a submodule \(test_unusual.py, line \d+"):
        trace(Unusual(lambda self, x: hidden[0](x)), INPUT)


def test_a_layer_that_is_never_called_is_counted():
    model = Unusual(lambda self, x: x, unused=conv3(3, 3))
    assert trace(model, INPUT).cost().params == sum(p.numel() for p in model.parameters())


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "layer",
    [lambda: nn.LazyConv2d(8, 3, padding=1), lambda: torch.nn.utils.weight_norm(conv3(8, 8))],
    ids=["lazy", "weight norm by a hook"],
)
def test_a_model_that_cannot_be_copied_is_refused_in_one_line(layer):
    with pytest.raises(UserError, match="Unusual cannot be copied") as error:
        trace(Unusual(lambda self, x: self.layer(x), layer=layer()), INPUT)
    assert "\n" not in str(error.value)
    assert "copy.py" not in str(error.value)


def test_several_outputs_keep_their_widths():
    class Several(Unusual):
        def forward(self, x):
            x = self.conv1(x)
            return {"features": x, "classes": (self.head(self.conv2(x)),)}

    graph = trace(Several(None), INPUT)
    assert "output" in graph.group("conv1").reason
    assert graph.group("conv2").prunable
