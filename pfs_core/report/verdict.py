"""A run in a few lines: what became of time, size and accuracy, and what to try where little did."""

import math

from pfs_core.latency.aiming import WITHIN
from pfs_core.latency.results import Interval, Ratio
from pfs_core.report.remedy import remedy
from pfs_core.report.results import RUNTIME_NAMES, Results
from pfs_core.report.search_doubts import search_doubts
from pfs_core.structure import Structure
from pfs_core.training.metrics import TrainingMetrics

_MUCH = 0.1
"""The share of a budget that a cut may leave before the verdict says what to try."""


def verdict(results: Results) -> list[str]:
    """Return the run in a few lines.

    The first ones are about time and size against the dense network, accuracy, and whether the budget was met. Where
    the uniform network was trained too, one says whether the search paid. Where the network is not faster, its latency
    in doubt, or nothing can be said of the search, there are more.
    """
    lines = [_gain(results), _accuracy(results), met(results.structure), _how(results), *_search_gain(results)]
    ratio = results.quoted.ratios_to_dense["pruned"]
    if ratio.verdict != "faster":
        lines.append(remedy(results.structure, results.quoted.runtime, results.latency.machine.flags))
    lines += [*_left_over(results.structure), *search_doubts(results)]
    if results.latency.noisy:
        lines.append(f"The machine was noisy while latency was measured: {'; '.join(results.latency.noisy)}.")
    return lines


def _gain(results: Results) -> str:
    """Time and size against the dense network's, e.g. "1.61x faster [1.58, 1.63] in ONNX Runtime, 54% smaller"."""
    ratio = results.quoted.ratios_to_dense["pruned"]
    smaller = 1 - results.structure.cost.params / results.structures["dense"].cost.params
    size = f"{abs(smaller):.0%} {'smaller' if smaller >= 0 else 'larger'}"
    return f"{speed_text(ratio)} in {RUNTIME_NAMES[results.quoted.runtime]}, {size}"


def _accuracy(results: Results) -> str:
    """The accuracy against that of the dense network, or by itself where that was not trained."""
    if results.dense:
        return f"accuracy {_points(accuracy_difference(results.pruned, results.dense))} against the dense network"
    low, high = results.pruned.test_accuracy_interval
    return f"accuracy {results.pruned.test_accuracy:.2%} [{low:.2%}, {high:.2%}]; the dense network was not trained"


def _search_gain(results: Results) -> list[str]:
    """Return what the search was worth against uniform widths of the same budget, where such a network was trained.

    Nothing is said where the search chose these widths itself.
    """
    uniform = results.metrics.get("uniform")
    if uniform is None or results.structure.widths == results.structures["uniform"].widths:
        return []
    difference = accuracy_difference(results.pruned, uniform)
    low, high = difference[1]
    told = "it cannot be told whether the search paid"
    if low > 0:
        told = "the search paid"
    elif high < 0:
        told = "the search did not pay"
    return [f"{told}: accuracy {_points(difference)} against uniform widths of the same budget"]


def _points(difference: tuple[float, Interval]) -> str:
    """A difference of accuracies with its interval, e.g. "+0.4 points [-0.3, +1.1]"."""
    change, (low, high) = difference
    return f"{100 * change:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"


def met(structure: Structure) -> str:
    """Return what was asked for and what came out, e.g. "asked for macs=0.5, got 0.454: met"."""
    budget = structure.budget
    over = budget.achieved / budget.target - 1
    outcome = "met" if over <= (WITHIN if budget.metric == "latency" else 0) else f"missed by {over:.1%}"
    return f"asked for {structure.target_budget}, got {budget.got}: {outcome}"


def _left_over(structure: Structure) -> list[str]:
    """Return what to try where much of a budget was not used: the blocks of a narrow network are large steps."""
    budget = structure.budget
    left = 1 - budget.achieved / budget.target
    if structure.block == 1 or budget.metric == "latency" or left < _MUCH:
        return []
    return [
        f"{left:.0%} of the budget is left: {structure.block} channels more would be over it. "
        f"--set extract.blocks={structure.block // 2} cuts in finer steps, extract.blocks=1 to any width."
    ]


def _how(results: Results) -> str:
    cost, dense = results.structure.cost, results.structures["dense"].cost
    return f"{cost.macs / dense.macs:.1%} of the MACs, by {results.method}, cut {_cut(results.structure)}"


def _cut(structure: Structure) -> str:
    """To which widths, e.g. "in blocks of 16 channels, to no less than 10% of a group"."""
    multiple, floor = structure.chosen_by["channel_multiple"], structure.chosen_by["floor"]
    parts = [f"in blocks of {structure.block} channels"] if structure.block > 1 else []
    parts += [f"to multiples of {multiple}"] if multiple > 1 else []
    parts = parts or ["to any width"]
    parts += [f"to no less than {floor:.0%} of a group"] if floor else []
    branches, left_out = structure.graph().branches, structure.left_out
    parts += [f"without {len(left_out)} of the {len(branches)} residual branches that can go"] if left_out else []
    return "as in the paper, to any width" if parts == ["to any width"] else ", ".join(parts)


def speed_text(ratio: Ratio) -> str:
    """Return a ratio of latencies to the dense network's as a speed-up.

    >>> speed_text(Ratio(ratio=0.5, interval=(0.4, 0.625), verdict="faster"))
    '2.00x faster [1.60, 2.50]'
    >>> speed_text(Ratio(ratio=1.25, interval=(1.1, 1.3), verdict="slower"))
    '1.25x slower [1.10, 1.30]'

    An interval that excludes 1 is seen to:

    >>> speed_text(Ratio(ratio=0.984, interval=(0.972, 0.996), verdict="faster"))
    '1.016x faster [1.004, 1.029]'
    """
    low, high = ratio.interval
    if ratio.verdict == "faster" and low > 0:
        digits = _digits(1 / high)
        return f"{1 / ratio.ratio:.{digits}f}x faster [{1 / high:.{digits}f}, {1 / low:.{digits}f}]"
    if ratio.verdict == "slower":
        digits = _digits(low)
        return f"{ratio.ratio:.{digits}f}x slower [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{ratio.verdict} in time (ratio {ratio.ratio:.2f} [{low:.2f}, {high:.2f}])"


def _digits(bound: float) -> int:
    """Return how many digits tell a bound from 1; two at least, and four at most."""
    return next((digits for digits in (2, 3) if round(bound, digits) != 1), 4)


def accuracy_difference(one: TrainingMetrics, other: TrainingMetrics) -> tuple[float, Interval]:
    """Return the difference of two test accuracies and its 95% interval.

    It is Newcombe's hybrid score interval (1998, method 10), made of Wilson's intervals of both. As both networks saw
    the same images, the true interval is somewhat narrower. It does not cover the spread between trainings.
    """
    intervals = one.test_accuracy_interval, other.test_accuracy_interval
    return one.test_accuracy - other.test_accuracy, difference_interval(
        one.test_accuracy, other.test_accuracy, *intervals
    )


def difference_interval(one: float, other: float, interval: Interval, other_interval: Interval) -> Interval:
    """Return the interval of a difference by those of both values (Zou and Donner 2008), as Newcombe's is made.

    It excludes 0 already where the two overlap a little.

    >>> low, high = difference_interval(0.93, 0.92, (0.925, 0.935), (0.915, 0.925))
    >>> round(low, 4), round(high, 4)
    (0.0029, 0.0171)
    """
    (low, high), (other_low, other_high) = interval, other_interval
    below, above = math.hypot(one - low, other_high - other), math.hypot(high - one, other - other_low)
    return one - other - below, one - other + above
