"""A cut at a latency is measured and corrected until it lands, and says what is nearest where it cannot."""

import contextlib
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pfs_core.config.spec import Budget
from pfs_core.errors import UserError
from pfs_core.latency import aiming
from pfs_core.latency.aiming import MEASURED, WITHIN, MeasuredRatios, cut_to_latency
from pfs_core.structure import Structure, extract
from pfs_core.structure.budget_cut import CostModel
from pfs_core.structure.cut_rules import CutRules
from tests.budgets import SPEC, graph, random_gates

GATES = random_gates(0)
INNER = graph().prunable()[0].name


def predicted(widths):
    """The MACs, as a fraction of the dense network's."""
    return graph().cost(widths).macs / graph().cost().macs


def cut(aim):
    """The paper's cut where the prediction is at most ``aim``."""
    model = CostModel(predicted, 1.0, str)
    return extract(graph(), GATES, Budget(metric="latency", target=aim), model=SPEC, cost_model=model)


SMALLEST = predicted(CutRules().least(graph(), graph().expanded(SPEC.expand, SPEC.expand_stream)))


class Measured:
    """A machine on which everything takes longer than predicted, by a constant and a factor; it counts."""

    def __init__(self, constant, factor):
        self.constant, self.factor, self.calls = constant, factor, 0

    def __call__(self, widths):
        self.calls += 1
        return self.constant + self.factor * predicted(widths)


@given(st.floats(0.0, 0.15), st.floats(0.85, 1.2), st.floats(0.55, 0.75))
def test_it_lands_within_two_percent_whatever_the_prediction_is_off_by(constant, factor, target):
    measured = Measured(constant, factor)
    found = cut_to_latency("pruned", cut, measured, target)
    assert abs(found.budget.achieved / target - 1) <= WITHIN
    assert found.budget.achieved == measured(found.widths)
    assert (found.budget.metric, found.budget.target) == ("latency", target)


def test_a_prediction_that_holds_is_measured_once():
    measured = Measured(0.0, 1.0)
    cut_to_latency("pruned", cut, measured, 0.6)
    assert measured.calls == 1


def test_the_nearest_is_returned_and_said_where_none_lands(capsys):
    """With a constant of 0.5, even the smallest structure takes longer than 0.5 of the dense network's time."""
    measured = Measured(0.5, 1.0)
    found = cut_to_latency("pruned", cut, measured, 0.5)
    assert found.budget.achieved == measured(found.widths)
    assert measured.calls - 1 <= MEASURED
    said = capsys.readouterr().out
    assert f"no pruned structure lands within 2% of latency=0.5; the nearest has {found.budget.achieved:.3f}" in said
    assert "latency pruned measured " in said


@example(0.04, -0.0845, 1.1984, 0.75)
@given(st.floats(0.04, 0.12), st.floats(-0.1, 0.1), st.floats(0.85, 1.2), st.floats(0.4, 0.75))
def test_where_structures_are_far_apart_the_one_that_lands_is_found(step, constant, factor, target):
    """Corrected aims lead to one structure again and again; what is within two percent is found all the same."""
    times = {number: constant + factor * number * step for number in range(1, int(1 / step) + 1)}

    def coarse(aim):
        number = int(aim / step)
        if number < 1:
            raise UserError("the budget cannot be reached")
        whole = graph().widths() | {INNER: number}
        return Structure.from_widths(SPEC, graph(), whole, Budget(target=1e9), {"method": "pfs"})

    found = cut_to_latency("pruned", coarse, lambda widths: times[widths[INNER]], target)
    nearest = min(abs(time / target - 1) for time in times.values())
    assert abs(found.budget.achieved / target - 1) <= max(WITHIN, nearest + 1e-9)


def test_a_target_that_cannot_even_be_predicted_is_refused():
    with pytest.raises(UserError, match="latency=0.001 cannot be reached"):
        cut_to_latency("pruned", cut, Measured(0.0, 1.0), 0.001)


def test_a_target_that_is_only_just_not_predicted_is_measured():
    smallest = SMALLEST / 1.05
    found = cut_to_latency("pruned", cut, Measured(0.0, smallest / SMALLEST), smallest)
    assert found.budget.achieved == pytest.approx(smallest)
    with pytest.raises(UserError, match="cannot be reached"):
        cut_to_latency("pruned", cut, Measured(0.0, 1.0), smallest)


def test_nothing_slower_than_the_dense_network_is_aimed_at():
    """A little above 0.95 of its time is more than all of it, which is no budget."""
    aims = []

    def always_slower(aim):
        aims.append(Budget(metric="latency", target=aim).target)
        raise UserError("latency=0.95 cannot be reached")

    with pytest.raises(UserError, match="latency=0.95 cannot be reached"):
        cut_to_latency("pruned", always_slower, Measured(0.0, 1.0), 0.95)
    assert aims == [0.95, 1.0]


def test_the_middle_of_loads_counts_more_where_they_differ_and_is_not_measured_again(monkeypatch, tmp_path):
    planted = iter([0.601, 0.6, 0.602, *[0.2, 0.9] * 4, 0.2])

    @contextlib.contextmanager
    def timer(*network):
        yield SimpleNamespace(ratio=lambda widths: next(planted))

    monkeypatch.setattr(aiming, "pair_timer", timer)
    monkeypatch.setenv("PFS_CACHE", str(tmp_path))
    ratios = MeasuredRatios(SPEC, graph(), "eager", 1)
    widths = graph().widths()
    assert ratios(widths) == ratios(widths) == 0.601
    assert MeasuredRatios(SPEC, graph(), "eager", 1)(widths) == 0.601
    assert ratios({**widths, INNER: 3}) == 0.2
    assert not list(planted)
