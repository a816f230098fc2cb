"""The channels that a GroupNorm normalises at once come and go together: what is left computes what it did."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pfs_core.channels import resize, slice_weights, trace
from tests.channels.masking import CHANGED, EXACT, both_ways, proved, random_kept
from tests.channels.networks import INPUT, chain, conv3, head
from tests.channels.unusual import check_costs


class Joined(nn.Module):
    """Two convolutions with GroupNorms of other sizes, put together, then normalised once more."""

    def __init__(self, together, norm):
        super().__init__()
        self.a, self.norm_a = conv3(2, 12), nn.GroupNorm(6, 12)
        self.b, self.norm_b = conv3(2, 12), nn.GroupNorm(4, 12)
        self.together, self.norm = together, norm

    def forward(self, x):
        return F.relu(self.norm(self.together(self.norm_a(self.a(x)), self.norm_b(self.b(x)))))


class Blocks(nn.Module):
    """A residual block of GroupNorms behind another one."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = conv3(2, 8), nn.GroupNorm(4, 8)
        self.conv2, self.norm2 = conv3(8, 12), nn.GroupNorm(3, 12)
        self.conv3, self.norm3 = conv3(12, 8), nn.GroupNorm(2, 8)

    def forward(self, x):
        x = F.silu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm3(self.conv3(F.relu(self.norm2(self.conv2(x))))))


class Own(nn.Module):
    """A GroupNorm of one's own class, which has the number of its groups by another name."""

    def __init__(self, parts, channels):
        super().__init__()
        self.parts, self.channels, self.gain = parts, channels, nn.Parameter(torch.rand(channels) + 0.5)

    def forward(self, x):
        return F.group_norm(x, self.parts, self.gain)


def plain(norm, **between):
    return chain(conv=conv3(2, 12), norm=norm, **between, conv2=conv3(12, 6), bn=nn.BatchNorm2d(6), head=head(6))


NETWORKS = {
    "a chain": (lambda: plain(nn.GroupNorm(4, 12)), {"conv": (1, 3)}),
    "without an affine": (lambda: plain(nn.GroupNorm(4, 12, affine=False)), {"conv": (1, 3)}),
    "a class of one's own": (lambda: plain(Own(4, 12)), {"conv": (1, 3)}),
    "groups of one channel": (lambda: plain(nn.GroupNorm(12, 12)), {"conv": (1, 1)}),
    "two norms": (lambda: plain(nn.GroupNorm(4, 12), again=nn.GroupNorm(2, 12)), {"conv": (1, 6)}),
    "a grouped layer behind it": (
        lambda: plain(nn.GroupNorm(4, 12), grouped=conv3(12, 12, groups=2), again=nn.GroupNorm(6, 12)),
        {"conv": (2, 3), "grouped": (2, 2)},
    ),
    "a depthwise layer behind it": (
        lambda: plain(nn.GroupNorm(4, 12), depthwise=conv3(12, 12, groups=12), again=nn.GroupNorm(6, 12)),
        {"conv": (1, 6)},
    ),
    "several features a channel": (
        lambda: chain(conv=conv3(2, 4), up=conv3(4, 12, groups=4), norm=nn.GroupNorm(2, 12), head=head(12)),
        {"conv": (1, 2)},
    ),
    "fewer features than a channel has": (
        lambda: chain(conv=conv3(2, 4), up=conv3(4, 16, groups=4), norm=nn.GroupNorm(8, 16), head=head(16)),
        {"conv": (1, 1)},
    ),
    "a shuffle behind it": (
        lambda: plain(nn.GroupNorm(6, 12), shuffle=nn.ChannelShuffle(2)),
        {"conv": (2, 2)},
    ),
    "features": (
        lambda: chain(flatten=nn.Flatten(), fc=nn.Linear(128, 12), norm=nn.GroupNorm(4, 12), out=nn.Linear(12, 5)),
        {"fc": (1, 3)},
    ),
    "a concatenation": (
        lambda: chain(joined=Joined(lambda a, b: torch.cat([a, b], 1), nn.GroupNorm(4, 24)), head=head(24)),
        {"joined.a": (1, 6), "joined.b": (1, 6)},
    ),
    "a sum": (lambda: chain(joined=Joined(torch.add, nn.GroupNorm(2, 12)), head=head(12)), {"joined.a": (1, 6)}),
    "a residual block": (lambda: chain(block=Blocks(), head=head(8)), {"block.conv1": (1, 4), "block.conv2": (1, 4)}),
}
"""Networks, and ``{group: (blocks, unit)}`` of the groups before their norms."""


@pytest.mark.parametrize("name", NETWORKS)
def test_a_masked_group_of_a_norm_is_a_removed_one(name):
    torch.manual_seed(0)
    make, expected = NETWORKS[name]
    model = make()
    for module in model.modules():
        if isinstance(module, nn.GroupNorm) and module.affine:
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    graph = trace(model, INPUT, "all")
    assert {group: (graph.group(group).blocks, graph.group(group).unit) for group in expected} == expected
    assert proved(model, graph) == graph
    check_costs(model, graph)
    assert all(graph.group(group).prunable for group in expected)
    for outputs in both_ways(model, graph, random_kept(graph), INPUT):
        assert outputs.error() < EXACT
        assert outputs.effect() > CHANGED


def test_whole_groups_of_a_norm_are_kept():
    model = plain(nn.GroupNorm(4, 12))
    nn.init.normal_(model.norm.weight)
    pruned = slice_weights(model, trace(model, INPUT), {"conv": torch.tensor([0, 2])})
    stay = [0, 1, 2, 6, 7, 8]
    assert torch.equal(pruned.conv.weight, model.conv.weight[stay])
    assert torch.equal(pruned.norm.weight, model.norm.weight[stay])
    assert torch.equal(pruned.conv2.weight, model.conv2.weight[:, stay])
    assert (pruned.norm.num_groups, pruned.norm.num_channels) == (2, 6)


def test_a_wider_norm_has_more_groups_of_the_same_size():
    model = plain(nn.GroupNorm(4, 12))
    graph = trace(model, INPUT)
    widths = graph.expanded(1.5)
    assert widths["conv"] == 18
    wider = resize(model, graph, widths)
    assert (wider.norm.num_groups, wider.norm.num_channels) == (6, 18)
    assert sum(p.numel() for p in wider.parameters()) == graph.cost(widths).params


def test_a_single_group_is_resized_and_not_pruned():
    group = trace(plain(nn.GroupNorm(1, 12)), INPUT).group("conv")
    assert (group.prunable, group.resizable, group.per_gate) == (False, True, 1)
    assert "normalises over its channels" in group.reason


class Functional(nn.Module):
    def forward(self, x):
        return F.group_norm(x, 4)


def test_a_number_of_groups_that_no_norm_has_is_kept():
    model = plain(Functional())
    graph = trace(model, INPUT)
    group = graph.group("conv")
    assert (group.prunable, group.resizable, group.per_gate) == (False, True, 4)
    assert proved(model, graph) == graph


class Zeros(nn.Module):
    """Adds a tensor of its own, which is on no device but the processor."""

    def forward(self, x):
        return x + torch.zeros(1)


def test_a_norm_is_known_where_the_network_does_not_run_without_values():
    model = plain(nn.GroupNorm(4, 12), zeros=Zeros())
    graph = trace(model, INPUT)
    assert (graph.group("conv").unit, graph.group("conv").prunable) == (3, True)
    assert proved(model, graph) == graph


def test_norms_that_join_all_channels_leave_nothing_to_prune():
    model = chain(joined=Joined(torch.add, nn.GroupNorm(3, 12)), head=head(12))
    graph = trace(model, INPUT, "all")
    group = graph.group("joined.a")
    assert (group.unit, group.prunable, group.reason) == (12, False, "its norms join all of its channels")
    assert proved(model, graph) == graph
