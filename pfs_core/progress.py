"""What a person at the terminal sees of a long step.

Lines start with a mark so that ``pfs run`` can tell them from everything else that a step's process prints; in a
pod's log they are plain lines.
"""

import time
from collections.abc import Callable

MARK = "[pfs] "

Report = Callable[[str], None]


def say(line: str) -> None:
    """Print one line for the user."""
    print(f"{MARK}{line}", flush=True)


class TimeLeft:
    """Seconds left of a loop, from the share of it that is done."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def __call__(self, done: int, total: int) -> str:
        """As ``m:ss``."""
        left = (time.monotonic() - self.start) * (total - done) / done
        return f"{int(left) // 60}:{int(left) % 60:02d}"
