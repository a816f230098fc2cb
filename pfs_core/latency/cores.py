"""The cores that a measurement is pinned to: idle ones, and one hardware thread of each before the second of any."""

from pathlib import Path

import psutil

from pfs_core.runtime.device import usable_cores

_BUSY_PERCENT = 25.0
_PROBE_SECONDS = 0.1
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def cores_for(threads: int) -> set[int]:
    """Return ``threads`` of the cores that this process may use, or all of them where there are no more.

    Cores that others keep busy are taken last. Otherwise those of the smallest numbers are taken, so that measurements
    on a quiet machine are of the same cores.
    """
    usable = sorted(usable_cores())
    if len(usable) <= threads:
        return set(usable)
    busy = dict(enumerate(psutil.cpu_percent(_PROBE_SECONDS, percpu=True)))

    def order(core: int) -> tuple[bool, int, int]:
        siblings = _siblings(core)
        others_at_work = max(busy.get(one, 0.0) for one in siblings) > _BUSY_PERCENT
        return others_at_work, siblings.index(core), core

    return set(sorted(usable, key=order)[:threads])


def _siblings(core: int) -> list[int]:
    """Return the hardware threads of the core that one of them is of, such as 0 and 4 of a file with ``0,4``."""
    try:
        ranges = Path(_SIBLINGS.format(core)).read_text(encoding="ascii").strip().split(",")
        return sorted(n for one in ranges for n in _numbers(one)) or [core]
    except (OSError, ValueError):  # no Linux
        return [core]


def _numbers(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)
