"""How long training takes and how its rate falls."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pfs_core.config.recipes import recipe
from pfs_core.config.spec import Budget
from pfs_core.config.stages import RetrainConfig
from pfs_core.structure.references import dense, uniform
from pfs_core.training.schedule import planned_epochs, schedule
from tests.budgets import SPEC, graph

DENSE = dense(graph(), model=SPEC)


def rates(steps, **settings):
    """The learning rate of each step."""
    config = RetrainConfig(**{"epochs": 1, **settings})
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=config.lr)
    scheduler = schedule(optimiser, config, steps)
    found = []
    for _ in range(steps):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return [*found, optimiser.param_groups[0]["lr"]]


@given(st.floats(0.4, 1.0), st.integers(1, 300))
def test_scratch_b_spends_the_dense_networks_compute(target, epochs):
    structure = uniform(graph(), Budget(target=target), model=SPEC)
    planned = planned_epochs(RetrainConfig(epochs=epochs, scratch_b=True), structure.cost.macs / DENSE.cost.macs)
    assert abs(planned * structure.cost.macs - epochs * DENSE.cost.macs) <= 0.5 * structure.cost.macs
    assert planned >= epochs


def test_half_the_macs_train_twice_as_long():
    assert planned_epochs(recipe("cifar-sfp").retrain, 0.5) == 400
    assert planned_epochs(recipe("cifar-sfp").retrain, 1.0) == 200


def test_scratch_e_trains_as_long_as_the_dense_network():
    assert planned_epochs(RetrainConfig(epochs=7, scratch_b=False), 0.5) == 7


def test_a_network_above_the_dense_cost_is_not_trained_shorter():
    assert planned_epochs(RetrainConfig(epochs=10), 1.3) == 10


@pytest.mark.parametrize("steps", [7, 200, 1234])
def test_the_rate_falls_at_the_milestones(steps):
    found = rates(steps, lr=0.1, milestones=(0.3, 0.6, 0.8), factor=0.2)
    for step, rate in enumerate(found[:-1]):
        passed = sum(step >= round(m * steps) for m in (0.3, 0.6, 0.8))
        assert rate == pytest.approx(0.1 * 0.2**passed)


def test_without_milestones_the_rate_stays():
    assert set(rates(10, lr=0.05)) == {0.05}


def test_the_cosine_falls_from_the_rate_to_0():
    found = rates(100, lr=0.1, schedule="cosine")
    assert found[0] == 0.1
    assert found[50] == pytest.approx(0.05)
    assert found[-1] == pytest.approx(0.0, abs=1e-9)
    assert found == sorted(found, reverse=True)


def test_a_warm_up_rises_evenly_to_where_the_cosine_begins():
    found = rates(100, epochs=10, lr=0.1, schedule="cosine", warmup_epochs=1.5)
    rising = [0.1 * (step + 1) / 16 for step in range(15)]
    falling = [0.05 * (1 + math.cos(math.pi * step / 85)) for step in range(86)]
    assert found == pytest.approx([*rising, *falling], abs=1e-9)


def test_a_warm_up_leaves_the_milestones_where_they_are():
    found = rates(200, epochs=10, lr=0.1, milestones=(0.3, 0.6), factor=0.2, warmup_epochs=1)
    rising = [0.1 * (step + 1) / 21 for step in range(20)]
    assert found == pytest.approx([*rising, *[0.1] * 40, *[0.02] * 60, *[0.004] * 81])


def test_a_warm_up_is_stretched_with_the_training():
    for steps in (100, 300):
        found = rates(steps, epochs=10, lr=0.1, warmup_epochs=2)
        assert found.index(pytest.approx(0.1)) == steps // 5


@pytest.mark.parametrize("schedule_", ["cosine", "multistep"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_training_of_a_few_steps_has_a_rate(schedule_, steps):
    found = rates(steps, epochs=2, lr=0.1, schedule=schedule_, warmup_epochs=1.9)
    assert all(0 < rate <= 0.1 for rate in found[:-1])
