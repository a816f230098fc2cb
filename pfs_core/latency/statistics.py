"""Statistics of latency samples: quantiles, bootstrap intervals, and whether to trust them."""

import numpy as np
from scipy.stats import bootstrap, kurtosis, skew, t

from pfs_core.latency.results import NetworkLatency, Ratio

Samples = np.ndarray
"""Nanoseconds, one a round; int64 [rounds]."""


def median_interval(values: np.ndarray, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95% percentile-bootstrap interval of the median of ``values`` [n]."""
    result = bootstrap(
        (values,), np.median, n_resamples=resamples, batch=100, method="percentile", rng=np.random.default_rng(seed)
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def summary(samples: Samples, loads: np.ndarray | None = None) -> NetworkLatency:
    """Minimum, quantiles and median's interval in milliseconds, and ``flags`` for what looks wrong.

    Args:
        samples: of a network.
        loads: as in :func:`paired_ratio`.
    """
    ms = samples / 1e6
    low, high = _interval(ms, loads)
    p50, p90, p99 = np.quantile(ms, [0.5, 0.9, 0.99])
    return NetworkLatency(
        rounds=len(ms),
        min_ms=float(ms.min()),
        p50_ms=float(p50),
        p50_interval_ms=(low, high),
        p90_ms=float(p90),
        p99_ms=float(p99),
        flags=flags(ms),
    )


def paired_ratio(samples: Samples, reference: Samples, loads: np.ndarray | None = None) -> Ratio:
    """Median over rounds of ``samples / reference`` with its interval; what the interval allows is its :func:`verdict`.

    Args:
        samples: of a network.
        reference: of another, in the same rounds.
        loads: which load of the networks each round is of, int [n]. The interval then covers Student's interval of
            the mean of the loads' medians too: rounds alone do not show what differs from load to load.
    """
    ratios = samples / reference
    low, high = _interval(ratios, loads)
    return Ratio(ratio=float(np.median(ratios)), interval=(low, high), verdict=verdict(low, high))


def verdict(low: float, high: float) -> str:
    """What the interval of a ratio allows to say, as it is printed: with three decimals."""
    return "faster" if round(high, 3) < 1 else "slower" if round(low, 3) > 1 else "no measurable difference"


def _interval(values: np.ndarray, loads: np.ndarray | None) -> tuple[float, float]:
    low, high = median_interval(values)
    if loads is None or len(np.unique(loads)) == 1:
        return low, high
    medians = [float(np.median(values[loads == load])) for load in np.unique(loads)]
    spread = float(t.ppf(0.975, len(medians) - 1) * np.std(medians, ddof=1) / np.sqrt(len(medians)))
    mean = float(np.mean(medians))
    return min(low, mean - spread), max(high, mean + spread)


def flags(ms: np.ndarray) -> list[str]:
    """``noisy`` where p90 is over 1.3 times the median, ``bimodal`` where Sarle's coefficient is over 5/9.

    The coefficient is taken of the middle 98% of the samples: a few outliers alone do not make two modes.
    """
    found = []
    if np.quantile(ms, 0.9) > 1.3 * np.median(ms):
        found.append("noisy")
    low, high = np.quantile(ms, [0.01, 0.99])
    middle = ms[(ms >= low) & (ms <= high)]
    if middle.std() > 0.02 * np.median(ms) and (skew(middle) ** 2 + 1) / kurtosis(middle, fisher=False) > 5 / 9:
        found.append("bimodal")
    return found
