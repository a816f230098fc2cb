"""A cut in a runtime's blocks: within the budget, full blocks, monotone, and the paper's cut where blocks are of 1."""

import math
from functools import cache
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.errors import UserError
from pfs_core.structure import extract, unexpanded_graph
from pfs_core.structure.blocks import fast_widths
from pfs_core.structure.budget_cut import CostModel
from pfs_core.structure.references import uniform
from tests import budgets
from tests.budgets import SPEC, cost_of, graph, random_gates

BLOCKS = st.sampled_from([4, 8, 16, 32])


BOTTLENECKS = ModelSpec(name="resnet50", input_shape=(3, 32, 32), num_classes=10, expand=1.25)


def cut(gates, budget, block):
    return try_cut(graph(), gates, budget, SPEC, block)


def try_cut(traced, gates, budget, spec, block):
    try:
        return extract(traced, gates, budget, model=spec, block=block)
    except UserError:
        assume(False)


def branches_of(traced):
    return {name for branch in traced.branches for name in branch.groups}


@given(budgets.seeds, budgets.levels, budgets.budgets, BLOCKS)
def test_a_budget_is_never_exceeded_and_widths_are_fast(seed, levels, budget, block):
    structure = cut(random_gates(seed, levels), budget, block)
    cost, limit = cost_of(structure.widths, budget)
    assert cost <= limit
    expanded = graph().expanded(SPEC.expand)
    optional = branches_of(graph())
    for group in graph().prunable():
        width = structure.widths[group.name]
        assert width in fast_widths(expanded[group.name], block) or (group.name in optional and not width)
    assert structure.chosen_by["block"] == block


@given(budgets.seeds, budgets.levels, budgets.budgets)
def test_in_blocks_of_one_it_is_the_papers_cut(seed, levels, budget):
    gates = random_gates(seed, levels)
    try:
        paper = extract(graph(), gates, budget, model=SPEC)
    except UserError:
        assume(False)
    assert extract(graph(), gates, budget, model=SPEC, block=1) == paper
    assert "block" not in paper.chosen_by


@given(budgets.seeds, budgets.levels, st.floats(0.35, 0.9), st.floats(0.0, 0.1), BLOCKS)
def test_no_group_gets_narrower_when_the_budget_grows(seed, levels, target, more, block):
    gates = random_gates(seed, levels)
    small = cut(gates, Budget(target=target), block)
    large = cut(gates, Budget(target=target + more), block)
    assert all(small.widths[name] <= large.widths[name] for name in small.widths)


@cache
def bottlenecks():
    """The graph of a network whose residual branches have two groups."""
    return unexpanded_graph(BOTTLENECKS)


@pytest.mark.parametrize(("spec", "traced"), [(SPEC, graph), (BOTTLENECKS, bottlenecks)], ids=["resnet20", "resnet50"])
@given(budgets.seeds, st.floats(0.2, 1.0), BLOCKS)
def test_of_a_latency_nothing_is_left_that_a_group_could_use(spec, traced, seed, target, block):
    """Not only the next gate does not fit: no group's next width does. What the budget in MACs keeps is kept."""
    traced, random = traced(), torch.Generator().manual_seed(seed)
    expanded = traced.expanded(spec.expand)
    gates = {group.name: torch.rand(expanded[group.name], generator=random) for group in traced.prunable()}
    narrow = try_cut(traced, gates, Budget(target=target), spec, block).widths
    planted = CostModel(lambda widths: traced.cost(widths).macs, traced.cost().macs, str)
    budget = Budget(metric="latency", target=target)
    filled = extract(traced, gates, budget, model=spec, block=block, cost_model=planted).widths
    limit = budget.limit(traced.cost().macs)
    assert traced.cost(filled).macs <= limit
    assert all(narrow[name] <= filled[name] for name in filled)
    for group in traced.prunable():
        wider = [width for width in fast_widths(expanded[group.name], block) if width > filled[group.name] > 0]
        if group.name in branches_of(traced):  # these are whole blocks wide, or half a one
            wider = [width for width in wider if width >= block] or wider[-1:]
        if wider:
            assert traced.cost(filled | {group.name: wider[0]}).macs > limit
    for branch in traced.branches:
        if not filled[branch.groups[0]]:
            halves = {name: min(block // 2, expanded[name]) for name in branch.groups}
            assert traced.cost(filled | halves).macs > limit


@given(st.integers(1, 700), st.sampled_from([1, 2, 4, 8, 16, 32]), st.sampled_from([1, 2, 3, 8]))
def test_fast_widths_rise_to_at_most_the_widest(widest, block, multiple):
    fast = fast_widths(widest, block, multiple)
    assert fast == sorted(set(fast))
    assert fast[0] >= 1
    assert fast[-1] <= widest
    assert all(width % multiple == 0 for width in fast) or fast == [widest]
    if multiple == 1 and widest >= block:
        full = [width for width in fast if width % block == 0]
        assert full == list(range(block, widest + 1, block))
        assert widest - fast[-1] < block / 2 or widest == fast[-1]


@given(st.integers(4, 700), st.sampled_from([8, 16, 32]))
def test_filling_a_block_costs_no_time(widest, block):
    """Between two fast widths that are at least a block, every width takes the time of the wider one."""
    for low, high in pairwise(fast_widths(widest, block)):
        if low >= block and high % block == 0:
            assert {math.ceil(width / block) for width in range(low + 1, high + 1)} == {high // block}


@given(budgets.budgets, BLOCKS)
def test_uniform_widths_are_cut_in_the_same_blocks(budget, block):
    try:
        structure = uniform(graph(), budget, model=SPEC, block=block)
    except UserError:
        assume(False)
    cost, limit = cost_of(structure.widths, budget)
    assert cost <= limit
    assert structure.chosen_by["block"] == block


def test_a_budget_out_of_reach_in_blocks_names_them():
    wide = SPEC.updated({"expand": 4.0}, "model")
    with pytest.raises(UserError, match=r"extract\.blocks"):
        extract(graph(), random_gates(0, spec=wide), Budget(target=0.01), model=wide, block=64, floor=1.0)
