"""A cut that lands on a latency: predicted, measured, and corrected by the error of the prediction."""

import logging
import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from pfs_core.channels import ChannelGraph
from pfs_core.config.made_once import cache_file, made_once
from pfs_core.config.spec import ModelSpec
from pfs_core.errors import UserError
from pfs_core.latency.learning import network_key, pair_timer
from pfs_core.latency.machine import machine
from pfs_core.latency.model import MeasuredNetwork
from pfs_core.latency.runtimes import usable_threads
from pfs_core.structure import Structure
from pfs_core.structure.structure import BudgetRecord

logger = logging.getLogger(__package__)

WITHIN = 0.02
"""Relative distance to the latency asked for at which a cut has landed."""
MEASURED = 5
"""Structures that are measured at most."""
_CUTS = 15
"""Cuts that are made at most; several may lead to one structure."""
_TOO_SLOW = 1.1
"""A prediction may be so many times too high: what is predicted within that of a latency is measured all the same."""

_LOADS = 3, 9
"""A structure and the dense network are loaded so often at least and at most for a measurement, since a load decides
where weights lie in memory. There are more than the least where loads differ."""


def cut_to_latency(
    name: str, cut: Callable[[float], Structure], measure: Callable[[Mapping[str, int]], float], target: float
) -> Structure:
    """Return the structure whose measured latency is nearest to the target; its budget records the measurement.

    The first cut trusts the prediction. Each further one corrects the aim by the error of the last measurement, and
    stays between the last two aims that came out too fast and too slow. Where that leads to a structure that was
    measured, the next aim is half way between them, as soon as there are two. Where no structure is predicted to be
    fast enough, one that is predicted a little slower is measured all the same.

    Args:
        name: of the network, for messages.
        cut: returns the structure whose predicted latency is at most the given fraction of the dense network's; raises
            UserError where there is none.
        measure: returns the measured latency of widths as a fraction of the dense network's.
        target: the latency asked for, as a fraction of the dense network's.

    Raises:
        UserError: the target cannot be reached, as far as predictions can tell.
    """
    tried: dict[tuple[int, ...], tuple[float, Structure]] = {}
    refused: UserError | None = None
    below, above = 0.0, 1.0
    aim = target
    for _ in range(_CUTS):
        try:
            structure = cut(aim)
        except UserError as error:  # it is below the smallest structure
            if refused and not tried:
                raise refused from None
            if not tried:
                refused = error
            below, aim = aim, (aim + above) / 2 if tried else min(target * _TOO_SLOW, 1.0)
            continue
        key = tuple(structure.widths.values())
        known = key in tried
        if not known:
            if len(tried) == MEASURED:
                break
            tried[key] = measure(structure.widths), structure
            logger.info(f"latency {name} measured {tried[key][0]:.3f} of the dense network's, asked for {target:g}")
        found = tried[key][0]
        if abs(found / target - 1) <= WITHIN:
            break
        below, above = (max(below, aim), above) if found < target else (below, min(above, aim))
        aim = min(aim * target / found, 1.0)
        if (known and below > 0 and above < 1) or not below < aim <= above:
            aim = (below + above) / 2
    found, structure = min(tried.values(), key=lambda pair: abs(pair[0] - target))
    if refused and found > target * (1 + WITHIN):
        raise refused
    if abs(found / target - 1) > WITHIN:
        logger.warning(
            f"no {name} structure lands within {WITHIN:.0%} of latency={target:g}; the nearest has {found:.3f}"
        )
    record = BudgetRecord(metric="latency", target=target, achieved=found, gap=target - found)
    return structure.model_copy(update={"budget": record})


class MeasuredRatios:
    """Measured latencies of a network's structures as fractions of the dense network's, kept in the cache.

    The same request leads to the same structure again, since what is measured is measured once.

    Args:
        spec: the network, with the expansion that it was searched at.
        graph: its channel graph, unexpanded.
        runtime: ``onnxruntime``, ``eager`` or ``openvino``.
        threads: the number of threads to measure with; where there are fewer cores, their number.
    """

    def __init__(self, spec: ModelSpec, graph: ChannelGraph, runtime: str, threads: int) -> None:
        self.spec, self.graph, self.runtime = spec, graph, runtime
        self.threads = usable_threads(runtime, threads, "a latency budget")
        network = network_key(spec, graph)
        self._key = [machine(), *network, runtime, self.threads] if network else None

    def __call__(self, widths: Mapping[str, int]) -> float:
        """Return the latency of ``widths``."""

        def measure() -> MeasuredNetwork:
            ratios: list[float] = []
            least, most = _LOADS
            while len(ratios) < least or (len(ratios) < most and _error(ratios) > WITHIN / 2):
                with pair_timer(self.spec, self.graph, self.runtime, self.threads) as timer:
                    ratios.append(timer.ratio(widths))
            return MeasuredNetwork(widths=dict(widths), ratio=statistics.median(ratios))

        path = cache_file("ratio", *self._key, dict(widths)) if self._key else None
        return made_once(path, MeasuredNetwork, measure).ratio


def _error(values: Sequence[float]) -> float:
    """Return the relative standard error of the median of values, as it is where they are normally distributed."""
    spread = statistics.stdev(values) * math.sqrt(math.pi / 2 / len(values))
    return spread / statistics.median(values)
