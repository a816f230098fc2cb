"""What a person at the terminal sees of a long step.

``pfs run`` sets ``PFS_MARK_LINES`` for its steps, and they put a mark before these lines so that it can tell them from
everything else that their processes print. Elsewhere, in a pod's log or a notebook, they are plain lines.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from pfs_core.errors import UserError

MARK_LINES, MARK = "PFS_MARK_LINES", "[pfs] "

Record = Callable[[dict[str, Any]], None]
"""Takes a row of history as soon as it is known."""


def first_process() -> bool:
    """Whether this is the first of several processes that train together, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def say(line: str) -> None:
    """Print one line for the user; of several processes that train together, the first one does."""
    if first_process():
        print(f"{MARK if MARK_LINES in os.environ else ''}{line}", flush=True)


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turn a UserError into one line and exit code 2: how a step in a process of its own tells the user."""
    try:
        yield
    except UserError as e:
        print(f"{MARK if MARK_LINES in os.environ else ''}error: {e}", flush=True)
        raise SystemExit(2) from None


def ignore(row: dict[str, Any]) -> None:
    """A :data:`Record` that keeps nothing."""


class TimeLeft:
    """Seconds left of a loop, from the share of it that is done; ``before`` is what was done before it started."""

    def __init__(self, before: int = 0) -> None:
        self.start = time.monotonic()
        self.before = before

    def __call__(self, done: int, total: int) -> str:
        """As ``m:ss``."""
        left = (time.monotonic() - self.start) * (total - done) / (done - self.before)
        return f"{int(left) // 60}:{int(left) % 60:02d}"
