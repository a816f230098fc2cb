"""Statistics on samples whose truth is known."""

import numpy as np
import pytest

from pfs_core.latency.statistics import flags, median_interval, paired_ratio, summary


def samples(seed, median=1e6, spread=0.05, rounds=200):
    """Log-normal nanoseconds with this median."""
    return np.exp(np.random.default_rng(seed).normal(np.log(median), spread, rounds)).astype(np.int64)


def test_the_interval_covers_the_median_as_often_as_it_says():
    covered = 0
    for seed in range(100):
        low, high = median_interval(samples(seed, rounds=80) / 1e6, resamples=300)
        covered += low <= 1.0 <= high
    assert 88 <= covered <= 100


def test_the_interval_narrows_with_more_rounds():
    def width(rounds):
        low, high = median_interval(samples(0, rounds=rounds))
        return high - low

    assert width(2000) < width(200) < width(50)


def test_the_interval_is_repeatable_and_holds_the_median():
    values = samples(0)
    assert median_interval(values) == median_interval(values)
    low, high = median_interval(values)
    assert low <= np.median(values) <= high


@pytest.mark.parametrize(("factor", "verdict"), [(0.8, "faster"), (1.25, "slower"), (1.0, "no measurable difference")])
def test_the_ratio_says_what_its_interval_allows(factor, verdict):
    found = paired_ratio(samples(1, 1e6 * factor), samples(2))
    low, high = found.interval
    assert found.verdict == verdict
    assert low <= found.ratio <= high
    assert found.ratio == pytest.approx(factor, rel=0.03)


def test_the_ratio_is_paired():
    """A slow phase that hits both networks alike does not hide a difference of 3%."""
    phase = np.where(np.arange(200) < 100, 1, 4)
    reference = samples(0, spread=0.002) * phase
    found = paired_ratio((samples(1, spread=0.002) * phase * 0.97).astype(np.int64), reference)
    assert found.verdict == "faster"
    assert found.ratio == pytest.approx(0.97, abs=0.005)


def test_the_summary_is_in_milliseconds():
    values = np.arange(1, 101, dtype=np.int64) * 1_000_000
    found = summary(values)
    assert found.rounds == 100
    assert found.min_ms == 1.0
    assert found.p50_ms == 50.5
    assert found.p90_ms == pytest.approx(90.1)
    assert found.p99_ms == pytest.approx(99.01)
    low, high = found.p50_interval_ms
    assert low < 50.5 < high


@pytest.mark.parametrize("seed", range(5))
def test_clean_samples_are_not_flagged(seed):
    assert flags(samples(seed, rounds=300) / 1e6) == []


def test_the_few_samples_of_a_slow_network_have_no_second_mode_by_chance():
    found = [flags(samples(seed, rounds=25) / 1e6) for seed in range(200)]
    assert sum("bimodal" in signs for signs in found) <= 4


@pytest.mark.parametrize("rounds", [24, 300])
@pytest.mark.parametrize("seed", range(5))
def test_two_modes_are_flagged(seed, rounds):
    half = rounds // 2
    ms = np.concatenate([samples(seed, 1e6, 0.01, half), samples(seed, 1.2e6, 0.01, half)]) / 1e6
    assert "bimodal" in flags(ms)
    assert "noisy" not in flags(ms)


@pytest.mark.parametrize("seed", range(5))
def test_a_slow_tail_is_noisy(seed):
    ms = np.concatenate([samples(seed, rounds=240), samples(seed, 3e6, rounds=60)]) / 1e6
    assert "noisy" in flags(ms)


@pytest.mark.parametrize("seed", range(5))
def test_a_few_outliers_are_neither(seed):
    ms = samples(seed, rounds=400) / 1e6
    ms[:3] *= 20
    assert flags(ms) == []


def test_constant_samples_are_accepted():
    found = summary(np.full(100, 10**6))
    assert found.p50_interval_ms == (1.0, 1.0)
    assert found.flags == []


@pytest.mark.parametrize("seed", range(5))
def test_what_differs_from_load_to_load_is_in_the_interval(seed):
    """Two alike networks, each faster or slower by where it was loaded, look different in every single load."""
    rng = np.random.default_rng(seed)
    loads = np.repeat(np.arange(5), 40)
    placed = [1 + rng.normal(0, 0.01, 5)[loads] for _ in range(2)]
    one, other = ((samples(seed + i, spread=0.001) * place).astype(np.int64) for i, place in enumerate(placed))
    assert paired_ratio(one, other, loads).verdict == "no measurable difference"
    slower = (one * 1.1).astype(np.int64)
    assert paired_ratio(slower, other, loads).verdict == "slower"


@pytest.mark.parametrize("seed", range(5))
def test_what_differs_from_load_to_load_is_in_the_medians_interval_too(seed):
    """Loads that are 1% apart, where the rounds of each say 0.1%."""
    loads = np.repeat(np.arange(5), 40)
    place = 1 + np.random.default_rng(seed).normal(0, 0.01, 5)
    low, high = summary((samples(seed, spread=0.001) * place[loads]).astype(np.int64), loads).p50_interval_ms
    medians = place * 1.0
    assert low <= medians.mean() <= high
    assert high - low > 2 * medians.std(ddof=1)


@pytest.mark.parametrize(("ratio", "verdict"), [(0.9993, "faster"), (0.9997, "no measurable difference")])
def test_nothing_is_faster_whose_interval_is_printed_with_1(ratio, verdict):
    reference = np.full(100, 10**9)
    found = paired_ratio((reference * ratio).astype(np.int64), reference)
    assert found.interval[1] < 1
    assert (f"{found.interval[1]:.3f}", found.verdict) == (f"{ratio:.3f}", verdict)


def test_loads_never_narrow_the_interval():
    loads = np.repeat(np.arange(5), 40)
    rounds = paired_ratio(samples(1), samples(2)).interval
    both = paired_ratio(samples(1), samples(2), loads).interval
    assert both[0] <= rounds[0] < rounds[1] <= both[1]
