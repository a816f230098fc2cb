"""What a person at the terminal sees of a long step.

Lines start with a mark so that ``pfs run`` can tell them from everything else that a step's process prints; in a
pod's log they are plain lines.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from pfs_core.errors import UserError

MARK = "[pfs] "

Record = Callable[[dict[str, Any]], None]
"""Takes a row of history as soon as it is known."""


def say(line: str) -> None:
    """Print one line for the user."""
    print(f"{MARK}{line}", flush=True)


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turn a UserError into one marked line and exit code 2: how a step in a process of its own tells the user."""
    try:
        yield
    except UserError as e:
        say(f"error: {e}")
        raise SystemExit(2) from None


def ignore(row: dict[str, Any]) -> None:
    """A :data:`Record` that keeps nothing."""


class TimeLeft:
    """Seconds left of a loop, from the share of it that is done."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def __call__(self, done: int, total: int) -> str:
        """As ``m:ss``."""
        left = (time.monotonic() - self.start) * (total - done) / done
        return f"{int(left) // 60}:{int(left) % 60:02d}"
