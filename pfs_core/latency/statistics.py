"""Statistics of latency samples: quantiles, bootstrap intervals, and signs that they cannot be trusted.

SciPy, which takes half a second to import, is imported where it is used: processes that measure memory need none of it.
"""

import numpy as np

from pfs_core.latency.results import NetworkLatency, Ratio

Samples = np.ndarray
"""Nanoseconds of one network, one per round; int64 [rounds]."""


def median_interval(values: np.ndarray, resamples: int = 1000) -> tuple[float, float]:
    """Return the 95% percentile-bootstrap interval of the median of ``values``, float [n]."""
    from scipy.stats import bootstrap

    result = bootstrap(
        (values,), np.median, n_resamples=resamples, batch=100, method="percentile", rng=np.random.default_rng(0)
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def summary(samples: Samples, loads: np.ndarray | None = None) -> NetworkLatency:
    """Return minimum, quantiles and the interval of the median in milliseconds, and the :func:`flags` of the samples.

    Args:
        samples: the samples of a network.
        loads: as in :func:`paired_ratio`.

    >>> found = summary(np.array([1_000_000, 2_000_000, 3_000_000]))
    >>> found.rounds, found.min_ms, found.p50_ms
    (3, 1.0, 2.0)
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
    """Return the median of ``samples / reference`` over the rounds, with its interval and :func:`verdict`.

    Args:
        samples: the samples of a network.
        reference: the samples of another network in the same rounds.
        loads: the load of the networks that each round belongs to, int [rounds]. The interval then also covers
            Student's interval of the mean of the loads' medians, because rounds of one load do not show what differs
            from load to load.
    """
    ratios = samples / reference
    low, high = _interval(ratios, loads)
    return Ratio(ratio=float(np.median(ratios)), interval=(low, high), verdict=verdict(low, high))


def verdict(low: float, high: float) -> str:
    """Return what the interval of a ratio allows to say.

    It is rounded to three decimals first, as it is printed, so that an interval up to 1.000 is never called faster.

    >>> verdict(0.8, 0.9), verdict(0.8, 0.9999), verdict(1.1, 1.2)
    ('faster', 'no measurable difference', 'slower')
    """
    if round(high, 3) < 1:
        return "faster"
    return "slower" if round(low, 3) > 1 else "no measurable difference"


def _interval(values: np.ndarray, loads: np.ndarray | None) -> tuple[float, float]:
    """Return the interval of the median over rounds, widened to that over loads where there were several."""
    low, high = median_interval(values)
    if loads is None or len(np.unique(loads)) == 1:
        return low, high
    from scipy.stats import t

    medians = [float(np.median(values[loads == load])) for load in np.unique(loads)]
    spread = float(t.ppf(0.975, len(medians) - 1) * np.std(medians, ddof=1) / np.sqrt(len(medians)))
    mean = float(np.mean(medians))
    return min(low, mean - spread), max(high, mean + spread)


def flags(ms: np.ndarray) -> list[str]:
    """Return the signs that samples in milliseconds cannot be trusted.

    They are ``noisy`` where the 90% quantile is over 1.3 times the median, and ``bimodal`` where Sarle's bimodality
    coefficient is over 5/9, its value for a uniform distribution. The coefficient is that of the middle 98% of the
    samples, since a few outliers do not make a second mode.
    """
    found = []
    if np.quantile(ms, 0.9) > 1.3 * np.median(ms):
        found.append("noisy")
    low, high = np.quantile(ms, [0.01, 0.99])
    middle = ms[(ms >= low) & (ms <= high)]
    # Samples that hardly differ may have two modes as well, but then these do not matter.
    if middle.std() > 0.02 * np.median(ms) and _bimodality(middle) > 5 / 9:
        found.append("bimodal")
    return found


def _bimodality(values: np.ndarray) -> float:
    """Return Sarle's bimodality coefficient of a sample, float [n]; 0 for fewer than four values.

    Of a distribution it is (skewness^2 + 1) / kurtosis, where the kurtosis of a normal one is 3. That of few values is
    too high, unless skewness, kurtosis and this 3 are corrected for their number.
    """
    from scipy.stats import kurtosis, skew

    n = len(values)
    if n < 4:
        return 0.0
    normal = 3 * (n - 1) ** 2 / ((n - 2) * (n - 3))
    return float((skew(values, bias=False) ** 2 + 1) / (kurtosis(values, bias=False) + normal))
