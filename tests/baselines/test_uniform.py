"""The baselines: one factor for every width, and the network as it is."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pfs_core.baselines import dense, uniform
from pfs_core.errors import UserError
from pfs_core.spec import Budget
from tests import budgets
from tests.budgets import SPEC, cost_of, graph


def scaled(factor, spec=SPEC):
    """Widths at ``factor`` of the expanded network."""
    widths = graph().expanded(spec.expand)
    return widths | {g.name: max(1, round(widths[g.name] * factor)) for g in graph().prunable()}


@given(budgets.budgets)
def test_within_the_budget_and_the_next_factor_is_not(budget):
    try:
        structure = uniform(graph(), budget, model=SPEC)
    except UserError:
        assume(False)
    factor = structure.chosen_by["factor"]
    cost, limit = cost_of(structure.widths, budget)
    assert cost <= limit
    assert structure.widths == scaled(factor)
    wider = {k / 1000 for k in range(1001) if scaled(k / 1000) != structure.widths and k / 1000 > factor}
    assert all(cost_of(scaled(f), budget)[0] > limit for f in wider)
    assert structure.network == "uniform"


@given(st.integers(1_000_000, 10_000_000), st.floats(1.0, 2.0), st.sampled_from([2, 4, 8, 16]))
def test_kept_widths_are_multiples(target, expand, multiple):
    spec = SPEC.updated({"expand": expand}, "model")
    try:
        structure = uniform(graph(), Budget(target=target), model=spec, channel_multiple=multiple)
    except UserError:
        assume(False)
    assert all(structure.widths[group.name] % multiple == 0 for group in graph().prunable())


def test_widths_shrink_by_the_same_factor():
    structure = uniform(graph(), Budget(target=0.5), model=SPEC)
    expanded = graph().expanded(SPEC.expand)
    factor = structure.chosen_by["factor"]
    assert 0 < factor < 1
    for group in graph().prunable():
        assert abs(structure.widths[group.name] - factor * expanded[group.name]) <= 0.5
    frozen = [group.name for group in graph().groups if not group.prunable]
    assert all(structure.widths[name] == expanded[name] for name in frozen)


def test_a_budget_for_everything_keeps_the_expanded_network():
    assert uniform(graph(), Budget(target=10**8), model=SPEC).widths == graph().expanded(SPEC.expand)


def test_an_unreachable_budget_is_refused():
    with pytest.raises(UserError, match="cannot be reached"):
        uniform(graph(), Budget(target=0.01), model=SPEC)


@pytest.mark.parametrize("metric", ["macs", "params"])
def test_dense_equals_the_reference(metric):
    structure = dense(graph(), Budget(metric=metric, target=0.3), model=SPEC)
    assert structure.widths == graph().widths()
    assert structure.cost == structure.reference
    assert structure.budget.model_dump() == {"metric": metric, "target": 1.0, "achieved": 1.0, "gap": 0.0}
    assert structure.network == "dense"
