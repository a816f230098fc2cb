"""Channels whose number the network's own code depends on are not pruned, or at least not widened."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pfs_core.channels import refuted_groups, trace
from pfs_core.errors import UserError
from tests.channels.masking import EXACT, both_ways, proved, random_kept
from tests.channels.networks import INPUT, conv3, head
from tests.channels.unusual import Unusual, check_costs, layers


def two_sizes(x):
    return x.view(x.shape[0], -1, x.shape[1] * 1, 8)


UNKNOWABLE = {
    "features of an unknown operation times a number": lambda self, x: torch.roll(x, 1, 1) * 2,
    "features of an unknown operation plus a number": lambda self, x: 1 + torch.roll(x, 1, 1),
    "a width as a height": lambda self, x: F.interpolate(x, size=(x.shape[1], 4)),
    "a width as a border": lambda self, x: x[:, :, : x.shape[1]],
    "a width as a factor": lambda self, x: x / x.shape[1],
    "a width as a number": lambda self, x: x.view(-1, 8, 64).unflatten(2, (8, 8)),
    "a width times a number": lambda self, x: two_sizes(x),
    "a slice of a number of channels": lambda self, x: torch.cat([x, x], 1)[:, :8],
    "a squeeze that drops a single channel": lambda self, x: (
        x * x.mean((2, 3), True).squeeze().reshape(x.shape[0], x.shape[1], 1, 1)
    ),
    "a loop over the channels": lambda self, x: torch.stack([x[:, i] for i in range(8)], 1),
}


@pytest.mark.parametrize("name", UNKNOWABLE)
def test_what_depends_on_a_width_in_an_unknown_way_is_not_pruned(name):
    model = Unusual(UNKNOWABLE[name])
    graph = proved(model, trace(model, INPUT, "all"))
    assert not graph.group("conv1").prunable
    assert graph.group("conv1").reason
    assert graph.group("conv2").prunable
    check_costs(model, graph)


REPEATED = {
    "expanded": lambda self, x: x * self.single(x).expand(-1, 8, -1, -1),
    "repeated": lambda self, x: x + self.single(x).repeat(1, 8, 1, 1),
    "chosen by": lambda self, x: torch.where(self.single(x).expand_as(x) > 0, x, 0.1 * x),
}


@pytest.mark.parametrize("name", REPEATED)
def test_channels_that_meet_one_channel_as_often_as_a_number_says_are_not_pruned(name):
    model = Unusual(REPEATED[name], single=conv3(8, 1))
    traced = trace(model, INPUT, "all")
    assert traced.group("conv1").width == 8
    graph = proved(model, traced)
    assert not graph.group("conv1").prunable
    assert graph.group("conv1").reason
    assert graph.group("conv2").prunable
    check_costs(model, graph)


def test_one_channel_that_is_read_several_times_is_still_one():
    model = Unusual(lambda self, x: self.single(x).repeat(1, 3, 1, 1), 3, single=conv3(8, 1))
    graph = proved(model, trace(model, INPUT, "all"))
    assert graph.group("single").width == 1
    assert graph.group("conv1").prunable
    check_costs(model, graph)


BY_WIDTH = {
    "from half of the channels": lambda self, x: x.tanh() if x.shape[1] > 4 else F.relu(x),
    "from two channels": lambda self, x: x.tanh() if x.shape[1] > 1 else F.relu(x),
    "at all of the channels": lambda self, x: x.tanh() if x.shape[1] == 8 else F.relu(x),
}


@pytest.mark.parametrize("name", BY_WIDTH)
def test_what_does_something_else_from_some_width_on_is_not_pruned(name):
    model = Unusual(BY_WIDTH[name])
    graph = proved(model, trace(model, INPUT))
    assert "masked and removed channels differ" in graph.group("conv1").reason
    assert graph.group("conv1").reason.endswith(" (behind conv1)")
    assert graph.group("conv2").prunable


def test_channels_of_which_a_number_is_taken_can_lose_some_but_not_get_more():
    """PyTorch leaves out a slice that takes all there is, so that no graph tells of the number."""
    torch.manual_seed(0)
    model = Unusual(lambda self, x: self.by_end(x), 16, **layers())
    traced = trace(model, INPUT)
    refuted = refuted_groups(model, traced)
    assert refuted.frozen == {}
    assert set(refuted.no_wider) == {"conv1", "by_end.eight"}
    graph = refuted.corrected(traced)
    assert graph.group("conv1").prunable
    assert graph.expanded(1.5) == {**graph.widths(), "conv2": 9}
    with pytest.raises(UserError, match="channel group 'conv1' must not be wider than 8"):
        graph.cost({**graph.widths(), "conv1": 9})
    for outputs in both_ways(model, graph, random_kept(graph), INPUT):
        assert outputs.error() < EXACT


class Alike(nn.Module):
    """Passes what it has as attributes for something else than a width, which they happen to be equal to."""

    def __init__(self, use):
        super().__init__()
        self.use, self.eight, self.four, self.pair = use, 8, 4, (4, 4)
        self.conv = nn.Conv1d(8, 8, 17, padding=8, groups=8)
        self.kernel = nn.Parameter(torch.rand(8, 1, 17))

    def forward(self, x):
        return self.use(self, x)


def excited(net, x):
    squeezed = F.interpolate(x, size=(net.eight, net.eight)).mean((2, 3))
    return x * squeezed.view(x.shape[0], x.shape[1], 1, 1)


def shuffled(net, x):
    count, width, height = x.shape[:3]
    out = x.view(count, 2, width // 2, height, -1).transpose(1, 2).reshape(x.shape)
    return F.avg_pool2d(out, 2 * net.four + 1, 1, padding=net.four)


def split(net, x):
    first, second = x.split(x.shape[1] // 2, 1)
    return F.avg_pool2d(torch.cat([second, first], 1), 2 * net.four + 1, 1, padding=net.four)


def sliced(net, x):
    half = x.shape[1] // 2
    return F.interpolate(torch.cat([x[:, half:], x[:, :half]], 1), size=(net.four, net.four))


def split_by_list(net, x):
    widths = [x.shape[1] // 2, x.shape[1] // 2]
    return F.interpolate(torch.cat(x.split(widths, 1)[::-1], 1), size=net.pair)


ALIKE = {
    "radius beside a split": split,
    "size beside a slice": sliced,
    "sizes beside a split": split_by_list,
    "padding of a layer": lambda net, x: net.conv(x.flatten(2)).view(x.shape),
    "padding": lambda net, x: F.conv1d(
        x.flatten(2), net.kernel[: x.shape[1]], padding=net.eight, groups=x.shape[1]
    ).view(x.shape),
    "size of maps": excited,
    "radius of a pool": shuffled,
}


@pytest.mark.parametrize("name", ALIKE)
def test_an_attribute_that_happens_to_be_a_width_is_left_alone(name):
    model = Unusual(lambda self, x: self.alike(x), alike=Alike(ALIKE[name]))
    traced = trace(model, INPUT)
    assert not traced.sizes
    graph = proved(model, traced)
    assert graph.group("conv1").prunable or name == "padding"
    check_costs(model, graph)


def test_a_reason_without_a_line_of_the_users_own_names_a_layer():
    model = nn.Sequential(conv3(2, 8), nn.Flatten(), nn.Unflatten(1, (8, *INPUT[1:])), conv3(8, 6), head(6))
    graph = proved(model, trace(model, INPUT))
    assert graph.group("0").reason.startswith("resized, the network fails: ")
    assert graph.group("0").reason.endswith(" (behind 0)")
    assert graph.group("3").prunable
