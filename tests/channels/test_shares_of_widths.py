"""Attributes of which a network passes a share as a size, such as half of ``self.width``, go with the widths."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pfs_core.channels import trace
from tests.channels.masking import EXACT, both_ways, proved, random_kept
from tests.channels.networks import INPUT, conv3
from tests.channels.unusual import Unusual, check_costs


class Sharing(nn.Module):
    """Computes what ``use`` says with a width, a number of groups and a convolution of half the channels."""

    def __init__(self, use, width=8, groups=2):
        super().__init__()
        self.use, self.width, self.groups = use, width, groups
        self.conv = conv3(width // 2, width // 2)

    def forward(self, x):
        return self.use(self, x)


def split(net, x):
    a, b = x.split(net.width // 2, 1)
    return torch.cat([net.conv(a), b], 1)


def split_in_the_rest(net, x):
    first = net.width // 2
    a, b = torch.split(x, [first, net.width - first], 1)
    return torch.cat([b, net.conv(a)], 1)


def sliced(net, x):
    return torch.cat([net.conv(x[:, : net.width // 2]), x[:, net.width // 2 :]], 1)


def shuffled(net, x):
    count, _, *size = x.shape
    x = x.view(count, net.groups, net.width // net.groups, *size)
    return x.transpose(1, 2).reshape(count, net.width, *size)


def unflattened(net, x):
    return x.unflatten(-3, (net.groups, net.width // net.groups)).mean(1).repeat(1, 2, 1, 1)


def normalised(net, x):
    return F.group_norm(x, net.width // net.groups)


def halved(net, x):
    a, b = torch.cat([x, x], 1).split(2 * net.width // 2, 1)
    return a * b.sigmoid()


USES = {
    "split": split,
    "split in a share and the rest": split_in_the_rest,
    "sliced": sliced,
    "shuffled": shuffled,
    "unflattened": unflattened,
    "normalised": normalised,
    "multiplied and divided": halved,
}


@pytest.mark.parametrize("name", USES)
def test_an_attribute_of_which_a_share_is_passed_goes_with_the_width(name):
    torch.manual_seed(0)
    model = Unusual(lambda self, x: self.sharing(x), sharing=Sharing(USES[name]))
    graph = proved(model, trace(model, INPUT, "all"))
    assert graph.group("conv1").prunable
    assert "sharing.width" in [f"{sizes.module}.{sizes.attribute}" for sizes in graph.sizes]
    check_costs(model, graph)
    for outputs in both_ways(model, graph, random_kept(graph), INPUT):
        assert outputs.error() < EXACT


def test_a_width_that_is_equal_to_another_size_of_a_view_is_known_by_its_dimension():
    model = Unusual(lambda self, x: self.sharing(x), sharing=Sharing(lambda net, x: x.view(-1, net.width, 8, 8)))
    graph = proved(model, trace(model, INPUT))
    assert graph.group("conv1").prunable
    check_costs(model, graph)


BESIDE = {
    "plus a number": lambda net, x: x[:, : net.width - 3].repeat(1, 2, 1, 1)[:, :8],
    "of another attribute": lambda net, x: x.view(x.shape[0], net.groups * net.width, 4, 8),
}


@pytest.mark.parametrize("name", BESIDE)
def test_what_else_is_computed_of_an_attribute_does_not_go_with_it(name):
    model = Unusual(lambda self, x: self.sharing(x), 16 if "another" in name else 8, sharing=Sharing(BESIDE[name]))
    traced = trace(model, INPUT)
    assert not traced.sizes
    graph = proved(model, traced)
    assert graph.group("conv2").prunable
    check_costs(model, graph)
