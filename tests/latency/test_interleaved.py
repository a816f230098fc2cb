"""Every network runs once a round, in an order that changes."""

import time
from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from pfs_core.config.stages import LatencyConfig
from pfs_core.latency.protocol import LOADS, interleaved, loaded_and_interleaved, timed

NAMES = ["dense", "pruned", "uniform"]


def recipe(**changes):
    """Settings by which a measurement ends after its smallest number of rounds."""
    settings = {"warmup_seconds": 0, "warmup_rounds": 3, "min_rounds": 64, "max_seconds": 60, "relative_width": 1e9}
    return LatencyConfig(**{**settings, **changes})


def called(settings, seed=0):
    """The calls in order, those of the warm-up first, and the samples."""
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in NAMES}
    return calls, interleaved(runs, settings, seed)


def turns(settings, seed=0):
    """Whose turn it was in each round that was measured: a turn is two runs."""
    measured = called(settings, seed)[0][3 * settings.warmup_rounds :]
    assert measured[::2] == measured[1::2]
    return [tuple(measured[start : start + 6 : 2]) for start in range(0, len(measured), 6)]


def test_the_second_run_of_a_turn_is_timed():
    """The first one brings back into the cache what the networks before drove out of it."""
    waits = iter([0.05])
    assert timed(lambda: time.sleep(next(waits, 0))) < 5e7
    assert next(waits, None) is None


def test_all_run_in_every_round_at_least_as_often_as_asked():
    _, samples = called(recipe(min_rounds=70))
    assert list(samples) == NAMES
    assert [len(values) for values in samples.values()] == [70] * 3
    rounds = turns(recipe(min_rounds=70))
    assert len(rounds) == 70
    assert all(sorted(order) == NAMES for order in rounds)


def test_every_load_and_its_warm_up_have_an_order_of_their_own():
    """What is loaded first is slower, by a few tenths of a percent: no network is to be it every time."""
    loaded, calls = [], []

    def load(name):
        loaded.append(name)
        return lambda: calls.append(name)

    samples, loads = loaded_and_interleaved({name: partial(load, name) for name in NAMES}, recipe(), 0)
    assert list(samples) == NAMES
    assert sorted(set(loads)) == list(range(LOADS))
    orders = [tuple(loaded[i : i + 3]) for i in range(0, len(loaded), 3)]
    assert len(orders) == LOADS
    assert all(sorted(order) == NAMES for order in orders)
    assert len({order[0] for order in orders}) > 1
    assert len({tuple(calls[i : i + 3]) for i in range(0, 9, 3)}) > 1


def test_warm_up_rounds_are_not_measured():
    for rounds in (1, 5):
        calls, samples = called(recipe(warmup_rounds=rounds))
        assert len(calls) == 3 * (rounds + 2 * len(samples["dense"]))


def test_the_order_changes_between_rounds():
    rounds = turns(recipe())
    assert sum(a != b for a, b in pairwise(rounds)) > 30
    assert len(set(rounds)) == 6
    firsts = [order[0] for order in rounds]
    assert min(firsts.count(name) for name in NAMES) >= 10


def test_the_seed_decides_the_order():
    assert called(recipe(), seed=1)[0] == called(recipe(), seed=1)[0]
    assert called(recipe(), seed=1)[0] != called(recipe(), seed=2)[0]


def test_samples_are_nanoseconds():
    _, samples = called(recipe())
    for values in samples.values():
        assert values.dtype == np.int64
        assert (values >= 0).all()


def test_wide_intervals_ask_for_more_rounds():
    _, samples = called(recipe(max_seconds=0.5, relative_width=1e-9))
    assert len(samples["dense"]) > 64


def test_networks_that_are_slow_do_not_take_longer_than_is_allowed():
    """Five rounds of a load are measured at least."""
    _, samples = called(recipe(max_seconds=1e-9))
    assert len(samples["dense"]) == 5
    loaders = {name: lambda: lambda: None for name in NAMES}
    samples, loads = loaded_and_interleaved(loaders, recipe(max_seconds=1e-9), 0)
    assert len(samples["dense"]) == 5 * LOADS
    assert np.bincount(loads).tolist() == [5] * LOADS


def test_loads_share_the_rounds_of_the_warm_up():
    for rounds, of_a_load in ((1, 1), (10, 2), (12, 3)):
        calls = []
        loaders = {"dense": lambda: lambda: calls.append("dense")}  # noqa: B023 - called in the same turn of the loop
        samples, _ = loaded_and_interleaved(loaders, recipe(warmup_rounds=rounds), 0)
        assert len(calls) == LOADS * of_a_load + 2 * len(samples["dense"])


def test_an_error_of_a_network_is_not_swallowed():
    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interleaved({"dense": fail}, recipe(), 0)
