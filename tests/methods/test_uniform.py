"""The baselines: one factor for every width, and the network as it is."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pfs_core.config.spec import Budget
from pfs_core.errors import UserError
from pfs_core.structure import extract, unexpanded_graph
from pfs_core.structure.references import dense, uniform
from tests import budgets
from tests.budgets import SPEC, cost_of, graph, random_gates


def uniform_or_skip(budget, multiple=1):
    try:
        return uniform(graph(), budget, model=SPEC, channel_multiple=multiple)
    except UserError:
        assume(False)


@given(budgets.budgets, st.sampled_from([1, 4, 8]))
def test_equals_algorithm_1_on_equal_gates(budget, multiple):
    structure = uniform_or_skip(budget, multiple)
    equal = {name: torch.full_like(scores, 0.3) for name, scores in random_gates(0).items()}
    assert structure.widths == extract(graph(), equal, budget, model=SPEC, channel_multiple=multiple).widths
    assert structure.network == "uniform"


@given(budgets.budgets)
def test_widths_shrink_by_one_factor_within_the_budget(budget):
    structure = uniform_or_skip(budget)
    cost, limit = cost_of(structure.widths, budget)
    assert cost <= limit
    expanded = graph().expanded(SPEC.expand)
    names = [group.name for group in graph().prunable()]
    factor = max(structure.widths[name] / expanded[name] for name in names if structure.widths[name] > 1)
    for name in names:
        assert factor * expanded[name] - 1 <= structure.widths[name] <= max(1, factor * expanded[name])
    assert all(structure.widths[group.name] == expanded[group.name] for group in graph().groups if not group.prunable)


@given(budgets.budgets)
def test_a_channel_more_in_every_group_is_over_the_budget(budget):
    structure = uniform_or_skip(budget)
    wider = structure.widths | {group.name: structure.widths[group.name] + 1 for group in graph().prunable()}
    cost, limit = cost_of(wider, budget)
    assert cost > limit


@settings(max_examples=10)
@given(st.sampled_from([5, 12, 20]), st.floats(1.0, 1.25), st.floats(0.6, 1.0), st.sampled_from([2, 4, 8, 16]))
def test_kept_widths_are_multiples(width, expand, target, multiple):
    spec = SPEC.updated({"expand": expand, "kwargs": {"width": width}}, "model")
    traced = unexpanded_graph(spec)
    try:
        structure = uniform(traced, Budget(target=target), model=spec, channel_multiple=multiple)
    except UserError:
        assume(False)
    expanded = traced.expanded(expand)
    for group in traced.prunable():
        kept = structure.widths[group.name]
        assert kept % multiple == 0 or kept == expanded[group.name] < multiple


def test_without_expansion_the_whole_budget_keeps_the_whole_network():
    spec = SPEC.updated({"expand": 1.0}, "model")
    assert uniform(graph(), Budget(target=1.0), model=spec).widths == graph().widths()


def test_an_unreachable_budget_is_refused():
    with pytest.raises(UserError, match="cannot be reached"):
        uniform(graph(), Budget(target=0.01), model=SPEC)


@pytest.mark.parametrize("metric", ["macs", "params"])
def test_dense_equals_the_reference(metric):
    structure = dense(graph(), metric, model=SPEC)
    assert structure.widths == graph().widths()
    assert structure.cost == structure.reference
    assert structure.budget.model_dump() == {"metric": metric, "target": 1.0, "achieved": 1.0, "gap": 0.0}
    assert structure.network == "dense"
