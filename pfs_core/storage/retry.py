"""Calling a server again where its fault may pass."""

from collections.abc import Callable
from time import sleep
from typing import TypeVar

T = TypeVar("T")
_LONGEST_WAIT = 30.0


def retried(call: Callable[[], T], transient: Callable[[Exception], bool], attempts: int, first_wait: float) -> T:
    """Return what ``call`` returns; after a fault that may pass, call it again.

    Args:
        call: may be called several times.
        transient: whether a fault may pass.
        attempts: how often to call at most.
        first_wait: seconds before the second attempt; each wait is twice the one before, up to 30 seconds.

    Raises:
        Exception: whatever the last attempt raised.
    """
    wait = first_wait
    for _ in range(attempts - 1):
        try:
            return call()
        except Exception as e:
            if not transient(e):
                raise
        sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT)
    return call()
