"""Behind a constant whose value the code says, a masked channel is 0 or not, as it is behind a number."""

import pytest
import torch

from pfs_core.channels import trace
from tests.channels.masking import CHANGED, EXACT, both_ways, proved, random_kept
from tests.channels.networks import INPUT, conv3
from tests.channels.unusual import Unusual


def changed_in_place(x, change):
    zero = torch.zeros(1)
    change(zero)
    return torch.maximum(x, zero)


STAYS_ZERO = {
    "the larger one, or 0": lambda net, x: torch.maximum(x, torch.tensor(0.0)),
    "the larger one, or 0, by max": lambda net, x: torch.max(x, torch.tensor(0.0)),
    "the smaller one, or 6": lambda net, x: torch.minimum(x, torch.tensor(6.0)),
    "a choice": lambda net, x: torch.where(x > 0, x, torch.tensor(0.0)),
    "a choice of a constant in an attribute": lambda net, x: torch.where(x > 0, x, net.zero),
    "a choice of zeros of one value": lambda net, x: torch.where(x > 0, x, torch.zeros(1)),
    "a choice of new zeros": lambda net, x: torch.where(x > 0, x, x.new_zeros(())),
    "a choice of a full tensor": lambda net, x: torch.where(x > 0, x, x.new_full((1, 1, 1, 1), 0.0)),
    "a range": lambda net, x: x.clamp(torch.tensor(0.0), torch.tensor(6.0)),
    "a sum with 0": lambda net, x: torch.full((1,), 0.0) + x,
    "a difference from 0": lambda net, x: torch.tensor(0.0) - x,
    "a copy of 0": lambda net, x: torch.maximum(x, torch.tensor(0).to(x.dtype).view(1, 1).clone()),
}
CHANGES = {
    "the larger one, or 1": lambda net, x: torch.maximum(x, torch.tensor(1.0)),
    "the smaller one, or -1": lambda net, x: torch.minimum(x, torch.tensor(-1.0)),
    "a range above 0": lambda net, x: x.clamp(torch.tensor(0.5)),
    "a choice of 1": lambda net, x: torch.where(x > 0, x, torch.ones(1)),
    "a sum": lambda net, x: x + torch.tensor(0.25),
    "zeros that are changed": lambda net, x: changed_in_place(x, lambda zero: zero.add_(1)),
    "zeros of which a view is changed": lambda net, x: changed_in_place(x, lambda zero: zero.view(1, 1).add_(1)),
    "zeros that are changed by the images": lambda net, x: changed_in_place(x, lambda zero: zero.add_(x.amax())),
}


def network(operation):
    torch.manual_seed(0)
    model = Unusual(operation, 8, conv=conv3(8, 8))
    model.zero = torch.tensor(0.0)
    return model


@pytest.mark.parametrize("name", STAYS_ZERO)
def test_a_channel_is_masked_where_a_constant_leaves_its_zero(name):
    model = network(STAYS_ZERO[name])
    graph = trace(model, INPUT, "all")
    (segment,) = next(axis.segments for axis in graph.axes if (axis.module, axis.role) == ("conv1", "writes"))
    assert graph.group(segment.group).prunable
    assert proved(model, graph) == graph
    for outputs in both_ways(model, graph, random_kept(graph), INPUT):
        assert outputs.error() < EXACT
        assert outputs.effect() > CHANGED


@pytest.mark.parametrize("name", CHANGES)
def test_a_constant_that_changes_a_zero_takes_the_gates(name):
    model = network(CHANGES[name])
    graph = trace(model, INPUT, "all")
    (segment,) = next(axis.segments for axis in graph.axes if (axis.module, axis.role) == ("conv1", "writes"))
    assert graph.group(segment.group).reason.startswith("cannot be gated")
