"""Cutting by blocks, multiples and floors."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pfs_core.channels import trace
from pfs_core.config.spec import Budget
from pfs_core.errors import UserError
from pfs_core.structure.budget_cut import check_gates, check_reachable, equal_gates, prune_to_budget
from pfs_core.structure.cut_rules import CutRules
from tests.budgets import SPEC, graph, random_gates
from tests.channels.networks import INPUT, chain, conv3, head


def blocks():
    """A graph whose groups are of 1, 2 and 6 blocks and 32, 24 and 48 channels."""
    model = chain(
        conv0=conv3(2, 32),
        conv1=conv3(32, 24),
        conv2=conv3(24, 48, groups=2),
        conv3=conv3(48, 12, groups=3),
        head=head(12),
    )
    return trace(model, INPUT)


BLOCKS = blocks()


def gates_of(traced, seed):
    random = torch.Generator().manual_seed(seed)
    return {g.name: torch.rand(g.gate_count, generator=random) for g in traced.prunable()}


def test_the_groups_have_the_blocks_of_their_convolutions():
    assert {g.name: g.per_gate for g in BLOCKS.prunable()} == {"conv0": 1, "conv1": 2, "conv2": 6, "conv3": 3}


@given(st.integers(0, 1000), st.sampled_from([1, 2, 4]), st.floats(0.35, 1.0))
def test_kept_widths_are_multiples_of_blocks_and_of_the_channel_multiple(seed, multiple, target):
    widths, _ = prune_to_budget(
        BLOCKS, gates_of(BLOCKS, seed), Budget(target=target), BLOCKS.widths(), CutRules(multiple)
    )
    BLOCKS.check(widths)
    assert BLOCKS.cost(widths).macs <= target * BLOCKS.cost().macs + 1e-6
    for group in BLOCKS.prunable():
        assert widths[group.name] % math.lcm(multiple, group.per_gate) == 0 or widths[group.name] == group.width


@given(st.integers(0, 1000), st.floats(0.2, 1.0))
def test_within_the_budget_and_one_more_gate_is_not(seed, target):
    gates = gates_of(BLOCKS, seed)
    widths, threshold = prune_to_budget(BLOCKS, gates, Budget(target=target), BLOCKS.widths())
    dropped = [
        (gate, group)
        for group in BLOCKS.prunable()
        for gate in gates[group.name].tolist()
        if gate < threshold and gate < sorted(gates[group.name].tolist())[-1]
    ]
    if dropped:
        _, group = max(dropped, key=lambda pair: pair[0])
        more = {**widths, group.name: widths[group.name] + group.per_gate}
        assert BLOCKS.cost(more).macs > target * BLOCKS.cost().macs


@given(st.integers(0, 1000), st.sampled_from([0.1, 0.25, 0.3, 0.5]), st.sampled_from([1, 4]))
def test_every_prunable_group_keeps_its_floor(seed, floor, multiple):
    gates = {name: values**8 for name, values in random_gates(seed).items()}
    expanded = graph().expanded(SPEC.expand)
    widths, _ = prune_to_budget(graph(), gates, Budget(target=0.7), expanded, CutRules(multiple, floor))
    for group in graph().prunable():
        assert widths[group.name] >= floor * group.width
        assert widths[group.name] % multiple == 0


@given(st.integers(0, 1000))
def test_the_floor_is_of_the_unexpanded_width_and_no_higher(seed):
    gates = {name: torch.zeros_like(values) for name, values in random_gates(seed).items()}
    first = next(iter(gates))
    gates[first] += 1
    expanded = graph().expanded(SPEC.expand)
    least = CutRules(floor=0.25).least(graph(), expanded)
    assert all(least[g.name] == g.width // 4 for g in graph().prunable())
    assert all(least[g.name] == expanded[g.name] for g in graph().groups if not g.prunable)
    widths, _ = prune_to_budget(graph(), gates, Budget(target=0.35), expanded, CutRules(floor=0.25))
    assert widths[first] >= least[first]


def test_without_a_floor_a_group_may_fall_to_one_gate():
    least = CutRules().least(BLOCKS, BLOCKS.widths())
    assert all(least[g.name] == g.per_gate for g in BLOCKS.prunable())


def test_a_floor_with_blocks_and_multiples_is_rounded_up():
    least = CutRules(channel_multiple=4, floor=0.5).least(BLOCKS, BLOCKS.widths())
    assert [least[name] for name in ("conv0", "conv1", "conv2", "conv3")] == [16, 12, 24, 12]


def test_a_floor_that_makes_the_budget_unreachable_says_so():
    with pytest.raises(UserError, match="cannot be reached; the smallest structure has"):
        prune_to_budget(
            BLOCKS,
            equal_gates(BLOCKS, BLOCKS.widths()),
            Budget(target=0.3),
            BLOCKS.widths(),
            CutRules(floor=0.9),
        )


class MostlyStream(nn.Module):
    """Nearly all that it computes is of a residual stream, which a search may widen and does not prune."""

    def __init__(self):
        super().__init__()
        self.first, self.wide = conv3(2, 16), conv3(16, 16)
        self.inner, self.outer, self.head = conv3(16, 4), conv3(4, 16), head(16)

    def forward(self, x):
        x = self.first(x).relu()
        x = x + self.wide(x)
        return self.head(x + self.outer(self.inner(x).relu()))


@pytest.mark.parametrize(
    ("rules", "settings"),
    [
        (CutRules(), "search.expand or search.expand_stream"),
        (CutRules(channel_multiple=16), "extract.channel_multiple, search.expand or search.expand_stream"),
        (CutRules(floor=1.0, block=8), "extract.floor, extract.blocks, search.expand or search.expand_stream"),
    ],
)
def test_where_no_budget_can_be_reached_the_settings_to_lower_are_those_that_are_raised(rules, settings):
    stream = trace(MostlyStream(), INPUT)
    with pytest.raises(UserError, match=rf"nor can macs=1: .*; lower {settings}$"):
        check_reachable(stream, stream.expanded(2.0, 2.0), Budget(target=1.0), rules)


def test_there_must_be_a_gate_a_block():
    gates = equal_gates(BLOCKS, BLOCKS.widths())
    check_gates(BLOCKS, gates, BLOCKS.widths())
    assert len(gates["conv2"]) == 8
    with pytest.raises(UserError, match="gates of 'conv2' must be 8 finite numbers"):
        check_gates(BLOCKS, {**gates, "conv2": torch.ones(48)}, BLOCKS.widths())


class Mixed(nn.Module):
    """Channels in the frequencies of Fourier's transform, which nothing can be said of."""

    def forward(self, x):
        return torch.fft.irfft(torch.fft.rfft(x, dim=1), n=x.shape[1], dim=1)


@pytest.mark.parametrize("target", [0.6, 1.0])
def test_where_nothing_can_be_pruned_that_is_what_is_wrong_and_not_the_budget(target):
    """It is said with the reasons, which a network of many groups has too many of."""
    layers = {f"{kind}{i}": layer for i in range(8) for kind, layer in (("conv", conv3(2, 2)), ("mix", Mixed()))}
    graph = trace(chain(**layers, head=head(2)), INPUT)
    said = r"no channel group of the network can be pruned \(input: the network's input; .*fft.*; and \d+ more\)"
    with pytest.raises(UserError, match=said):
        check_reachable(graph, graph.widths(), Budget(target=target))
