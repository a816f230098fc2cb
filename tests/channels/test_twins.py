"""A widened network has no channels that are copies of others."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from pfs_core.channels import resize, slice_weights, trace
from tests.channels.networks import INPUT, conv3, head


class Own(nn.Module):
    """A convolution of one's own, whose weight is drawn where it is made."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))

    def forward(self, x):
        return F.conv2d(x, self.weight, padding=1)


class Depthwise(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, 1, 3, 3))

    def forward(self, x):
        return F.conv2d(x, self.weight, padding=1, groups=len(self.weight))


class Blur(nn.Module):
    """The same kernel for every channel."""

    def __init__(self, channels):
        super().__init__()
        self.kernel = nn.Parameter(torch.outer(*[torch.tensor([1.0, 2.0, 1.0])] * 2).repeat(channels, 1, 1, 1) / 16)

    def forward(self, x):
        return F.conv2d(x, self.kernel, groups=len(self.kernel))


class Table(nn.Module):
    """A learnt table of positions, and a fixed factor a channel."""

    def __init__(self, channels):
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, channels, 8, 8))
        self.register_buffer("factor", torch.rand(channels, 1, 1))

    def forward(self, x):
        return x * self.factor + self.table


def network(first, *others):
    torch.manual_seed(0)
    return nn.Sequential(first(), nn.BatchNorm2d(8), nn.ReLU(), *(other() for other in others), conv3(8, 4), head(4))


def widened(model, width=20):
    graph = trace(model, INPUT)
    return resize(model, graph, graph.widths() | {"0": width})


@pytest.mark.parametrize("width", [9, 12, 20])
def test_weights_that_are_drawn_where_they_are_made_have_no_copies(width):
    model = network(lambda: Own(2, 8))
    wide = widened(model, width)
    rows = wide[0].weight.flatten(1)
    assert torch.equal(wide[0].weight[:8], model[0].weight)
    assert len(rows.unique(dim=0)) == width
    for row, source in zip(rows[8:], model[0].weight.flatten(1).repeat(3, 1), strict=False):
        assert torch.equal(row.sort().values, source.sort().values)
        assert (row != source).all()


def test_weights_behind_a_parametrization_have_no_copies():
    wide = widened(network(lambda: weight_norm(nn.Conv2d(2, 8, 3, padding=1))))
    assert len(wide[0].weight.flatten(1).unique(dim=0)) == wide[0].weight.shape[0] == 20


def test_inputs_have_no_copies_either():
    torch.manual_seed(0)
    model = nn.Sequential(conv3(2, 8), nn.BatchNorm2d(8), nn.ReLU(), Own(8, 8), nn.BatchNorm2d(8), nn.ReLU(), head(8))
    graph = trace(model, INPUT)
    wide = resize(model, graph, graph.widths() | {"0": 12, "3": 12})
    weight = wide[3].weight
    assert weight.shape == (12, 12, 3, 3)
    assert torch.equal(weight[:8, :8], model[3].weight)
    assert len(weight.flatten(1).unique(dim=0)) == len(weight.movedim(1, 0).flatten(1).unique(dim=0)) == 12


def test_a_depthwise_kernel_has_no_copies():
    wide = widened(network(lambda: conv3(2, 8), lambda: Depthwise(8)))
    assert len(wide[3].weight.flatten(1).unique(dim=0)) == len(wide[3].weight) == 20


def test_what_is_the_same_for_all_channels_or_has_a_value_for_each_stays_as_it_is():
    model = network(lambda: Own(2, 8), lambda: Table(8), lambda: Blur(8))
    wide = widened(model, 12)
    assert wide[0].weight.shape[0] == 12
    table, blur = wide[3], wide[4]
    assert torch.equal(blur.kernel, model[4].kernel[:1].expand(12, -1, -1, -1))
    assert torch.equal(table.factor, torch.cat([model[3].factor, model[3].factor[:4]]))
    assert torch.equal(table.table, torch.cat([model[3].table, model[3].table[:, :4]], 1))
    assert (wide[1].weight == 1).all()


def test_what_is_drawn_follows_from_the_network_alone_and_takes_no_random_numbers_of_others():
    model = network(lambda: Own(2, 8))
    first = widened(model)
    torch.manual_seed(5)
    assert torch.equal(widened(model)[0].weight, first[0].weight)
    own = nn.Sequential(Own(2, 8), Own(8, 4))
    before = torch.get_rng_state()
    widened(own)
    assert torch.equal(torch.get_rng_state(), before)


def test_inherited_weights_are_those_of_the_kept_channels():
    model = network(lambda: Own(2, 8))
    cut = slice_weights(model, trace(model, INPUT), {"0": torch.tensor([1, 5])})
    assert torch.equal(cut[0].weight, model[0].weight[[1, 5]])


def test_training_tells_the_channels_apart():
    wide = widened(network(lambda: Own(2, 8)))
    optimiser = torch.optim.SGD(wide.parameters(), 0.05)
    for _ in range(3):
        optimiser.zero_grad()
        wide(torch.randn(8, *INPUT)).square().sum().backward()
        optimiser.step()
    maps = wide[0](torch.randn(4, *INPUT)).movedim(1, 0).flatten(1)
    assert torch.pdist(maps).min() > 1e-2
