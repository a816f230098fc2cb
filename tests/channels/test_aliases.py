"""Memory, parameters and layers with two names count once, and a layer without a name is a constant."""

import pytest
from torch import nn

from pfs_core.channels import resize, trace
from tests.channels.masking import proved
from tests.channels.networks import INPUT, conv3
from tests.channels.unusual import Unusual, check_costs


def aliased(self, x):
    alias = x
    x.sigmoid_()
    return alias


def augmented(self, x):
    alias = nn.Identity()(x)
    x += 1
    return alias


def aliased_view(self, x):
    alias = x.flatten(2)
    x.sigmoid_()
    return alias.view(alias.shape[0], -1, 8, 8)


@pytest.mark.parametrize("operation", [aliased, aliased_view, augmented], ids=["same tensor", "view", "y += 1"])
def test_who_reads_changed_memory_by_another_name_reads_the_change(operation):
    model = Unusual(operation)
    graph = trace(model, INPUT)
    assert not graph.group("conv1").prunable
    assert graph.group("conv1").resizable
    assert proved(model, graph) == graph


@pytest.mark.parametrize("between", [lambda x: x, lambda x: x.roll(1, 1)], ids=["channels", "fixed"])
def test_what_reads_a_tensor_that_was_filled_in_parts_is_in_the_graph(between):
    def filled(self, x):
        out = x.new_zeros(x.shape[0], 16, *x.shape[2:])
        x = between(x)
        out[:, :8], out[:, 8:] = x, 2 * x
        return self.narrow(out)

    model = Unusual(filled, narrow=conv3(16, 8))
    graph = trace(model, INPUT)
    assert {group.name for group in graph.prunable()} == {"narrow", "conv2"}
    assert "passes through" in graph.group("conv1").reason
    assert proved(model, graph) == graph
    check_costs(model, graph)


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


def test_a_layer_that_is_not_registered_is_a_constant():
    hidden = [conv3(8, 8)]
    graph = trace(Unusual(lambda self, x: hidden[0](x)), INPUT)
    assert not graph.group("conv1").resizable
    assert "unusual.py, line" in graph.group("conv1").reason


def test_a_layer_that_is_never_called_is_counted():
    model = Unusual(lambda self, x: x, unused=conv3(3, 3))
    assert trace(model, INPUT).cost().params == sum(p.numel() for p in model.parameters())
