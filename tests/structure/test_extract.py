"""Algorithm 1, solved exactly: nothing more fits into the budget in the order of the gates."""

import re
from collections import Counter

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from pfs_core.channels import trace
from pfs_core.config.spec import Budget
from pfs_core.errors import UserError
from pfs_core.structure import extract
from pfs_core.structure.budget_cut import prune_to_budget
from pfs_core.structure.cut_rules import CutRules
from pfs_core.structure.ranking import ranked_channels
from tests import budgets
from tests.budgets import SPEC, cost_of, graph, random_gates
from tests.channels.networks import INPUT, grouped


def cut(gates, budget, policy="inner", multiple=1, spec=SPEC):
    return extract(graph(policy), gates, budget, model=spec, policy=policy, channel_multiple=multiple)


def cut_or_skip(*args, **kwargs):
    try:
        return cut(*args, **kwargs)
    except UserError:
        assume(False)


def prefixes(gates, policy="inner", multiple=1):
    """Widths with the first 0, 1, 2, ... channels of the ranked order."""
    widths = graph(policy).expanded(SPEC.expand)
    kept = Counter()
    names = list(gates)
    for owner in [None, *ranked_channels(gates)[1]]:
        kept[owner if owner is None else names[owner]] += 1
        floor = {name: min(multiple, len(scores)) for name, scores in gates.items()}
        yield widths | {name: max(kept[name] // multiple * multiple, floor[name]) for name in gates}


@given(budgets.seeds, budgets.levels, budgets.budgets, budgets.policies)
def test_within_the_budget_and_one_more_channel_is_not(seed, levels, budget, policy):
    gates = random_gates(seed, levels, policy)
    structure = cut_or_skip(gates, budget, policy)
    cost, limit = cost_of(structure.widths, budget, policy)
    assert cost <= limit
    walk = list(prefixes(gates, policy))
    kept = max(k for k, widths in enumerate(walk) if widths == structure.widths)
    if kept + 1 < len(walk):
        more, limit = cost_of(walk[kept + 1], budget, policy)
        assert more > limit


@given(budgets.seeds, budgets.levels, budgets.budgets, st.sampled_from([1, 4, 8]))
def test_equals_the_longest_prefix_found_by_walking(seed, levels, budget, multiple):
    gates = random_gates(seed, levels)
    structure = cut_or_skip(gates, budget, multiple=multiple)
    fitting = None
    for widths in prefixes(gates, multiple=multiple):
        cost, limit = cost_of(widths, budget)
        if cost > limit:
            break
        fitting = widths
    assert structure.widths == fitting


@given(budgets.seeds, budgets.levels)
def test_channels_are_ranked_by_their_gates(seed, levels):
    gates = random_gates(seed, levels)
    values, owners = ranked_channels(gates)
    assert values.tolist() == sorted(values, reverse=True)
    for i, scores in enumerate(gates.values()):
        assert values[owners == i].tolist() == sorted(scores.double().tolist(), reverse=True)


@given(budgets.seeds, budgets.budgets, budgets.policies)
def test_the_threshold_separates_kept_from_dropped(seed, budget, policy):
    gates = random_gates(seed, None, policy)
    structure = cut_or_skip(gates, budget, policy)
    threshold = structure.chosen_by["threshold"]
    for group, scores in gates.items():
        assert structure.widths[group] == max(1, int((scores.double() >= threshold).sum()))


@given(budgets.budgets)
def test_ties_are_spent_evenly(budget):
    """Where all gates are equal, no group is a whole channel ahead of the share of another."""
    gates = random_gates(0, levels=1)
    structure = cut_or_skip(gates, budget)
    shares = {group: (structure.widths[group], len(scores)) for group, scores in gates.items()}
    behind = min((kept + 1) / width for kept, width in shares.values())
    assert all(kept == 1 or kept / width <= behind for kept, width in shares.values())


@given(budgets.seeds, budgets.levels, budgets.policies)
def test_every_group_keeps_a_channel(seed, levels, policy):
    gates = {name: torch.zeros_like(scores) for name, scores in random_gates(seed, levels, policy).items()}
    first = next(iter(gates))
    gates[first] += 1
    structure = cut(gates, Budget(target=0.5), policy)
    assert min(structure.widths.values()) >= 1
    assert all(type(width) is int for width in structure.widths.values())


@given(budgets.seeds, st.sampled_from([2, 3, 8, 16]), st.floats(0.45, 1.0))
def test_kept_widths_are_multiples(seed, multiple, target):
    structure = cut_or_skip(random_gates(seed), Budget(target=target), multiple=multiple)
    for group in graph().prunable():
        assert structure.widths[group.name] % multiple == 0


def test_a_group_narrower_than_the_multiple_keeps_all_its_channels():
    spec = SPEC.updated({"expand": 1.0}, "model")
    structure = cut(random_gates(0, spec=spec), Budget(target=0.9), multiple=24, spec=spec)
    for group in graph().prunable():
        width = structure.widths[group.name]
        assert width == 16 if group.width == 16 else width % 24 == 0


def test_a_budget_over_the_dense_network_is_refused():
    with pytest.raises(UserError, match="over the dense network"):
        cut(random_gates(0), Budget(target=2 * graph().cost().macs))


def smallest_named(message):
    (named,) = re.findall(r"ask for ((?:macs|params)=\S+) or more", message)
    return Budget.from_text(named)


@given(
    budgets.seeds,
    st.sampled_from(["macs", "params"]),
    st.floats(1e-6, 0.02),
    st.sampled_from([1, 8]),
    st.floats(1.0, 2.0),
)
def test_an_unreachable_budget_names_one_that_works(seed, metric, target, multiple, expand):
    spec = SPEC.updated({"expand": expand}, "model")
    gates = random_gates(seed, spec=spec)
    with pytest.raises(UserError, match="cannot be reached") as error:
        cut(gates, Budget(metric=metric, target=target), multiple=multiple, spec=spec)
    budget = smallest_named(str(error.value))
    assert cut(gates, budget, multiple=multiple, spec=spec).budget.gap >= 0
    tighter = Budget(metric=metric, target=budget.target - 2e-4)
    with pytest.raises(UserError):
        cut(gates, tighter, multiple=multiple, spec=spec)


def test_no_impossible_budget_is_named_where_none_can_be_reached():
    """At four times its width, in steps of 64 channels, even the smallest network is above the dense one."""
    spec = SPEC.updated({"expand": 4.0}, "model")
    with pytest.raises(UserError, match="cannot be reached") as error:
        cut(random_gates(0, spec=spec), Budget(target=0.5), multiple=64, spec=spec)
    assert "ask for macs=" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda gates: {**gates, "conv1": torch.ones(20)}, "other channel groups"),
        (lambda gates: dict(list(gates.items())[1:]), "other channel groups"),
        (lambda gates: {**gates, "layer1.0.conv1": torch.ones(16)}, "must be 20 finite numbers"),
        (lambda gates: {**gates, "layer1.0.conv1": torch.full((20,), torch.nan)}, "must be 20 finite numbers"),
    ],
    ids=["frozen group", "missing group", "unexpanded", "not finite"],
)
def test_gates_of_another_network_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        cut(change(random_gates(0)), Budget(target=0.5))


def test_the_order_of_the_gates_dictionary_does_not_matter():
    gates = random_gates(0, levels=2)
    backwards = dict(reversed(gates.items()))
    assert cut(backwards, Budget(target=0.5)) == cut(gates, Budget(target=0.5))


@given(budgets.seeds, st.floats(0.1, 0.6), st.sampled_from([1, 4]))
def test_no_group_falls_below_its_floor(seed, floor, multiple):
    traced = graph()
    try:
        structure = extract(
            traced, random_gates(seed), Budget(target=0.6), model=SPEC, channel_multiple=multiple, floor=floor
        )
    except UserError as e:
        assert "extract.floor" in str(e) or "so ask for" in str(e)
        return
    for group in traced.prunable():
        assert structure.widths[group.name] >= floor * group.width
        assert structure.widths[group.name] % multiple == 0
    assert structure.chosen_by["floor"] == floor


@given(st.integers(0, 50), st.floats(0.65, 1.0), st.sampled_from([1, 3]))
def test_groups_of_grouped_convolutions_are_cut_by_whole_blocks(seed, target, multiple):
    torch.manual_seed(seed)
    traced = trace(grouped(), INPUT)
    gates = {group.name: torch.rand(group.gate_count) for group in traced.prunable()}
    widths, _ = prune_to_budget(traced, gates, Budget(target=target), traced.widths(), CutRules(multiple))
    assert traced.cost(widths).macs <= target * traced.cost().macs + 1e-6
    for group in traced.prunable():
        assert widths[group.name] % (multiple * group.per_gate) == 0 or widths[group.name] == group.width
