"""What a step has to tell a server that may be away: kept in order, and sent when it is back."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from pfs_core.progress import say

RETRY_SECONDS, PATIENCE_SECONDS = 30.0, 60.0
"""How long a server that does not answer is left alone, and how long the end of a step waits for it."""


class Outbox:
    """Calls to a server, made in order; none of them ever stops the step.

    A call that fails because the server is away, and all that come after it, wait for a later call or for
    :meth:`close`. One that the server refuses is said in a line and dropped.
    """

    def __init__(self, is_outage: Callable[[Exception], bool], server: str) -> None:
        self._is_outage, self._server = is_outage, server
        self._waiting: deque[tuple[str, Callable[[], Any]]] = deque()
        self._quiet_until = 0.0
        self._told = False

    def send(self, what: str, call: Callable[[], Any]) -> Any:
        """Make the call, after those that wait; returns its result, or None if it waits or was refused.

        Args:
            what: what it sends, for the line that says so if it cannot.
            call: may be made again after a failure, so it must do no harm twice.
        """
        self._waiting.append((what, call))
        return self._flush()

    def close(self) -> None:
        """Try until everything is sent or :data:`PATIENCE_SECONDS` are over, and say what was lost."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        self._quiet_until = 0.0
        self._flush()
        while self._waiting and time.monotonic() < deadline:
            time.sleep(min(2.0, PATIENCE_SECONDS / 10))
            self._quiet_until = 0.0
            self._flush()
        if self._waiting:
            kinds = dict.fromkeys(what for what, _ in self._waiting)
            say(f"{self._server} is away; {len(self._waiting)} messages were not sent to it: {', '.join(kinds)}")

    def _flush(self) -> Any:
        result = None
        while self._waiting:
            if time.monotonic() < self._quiet_until:
                return None
            what, call = self._waiting[0]
            try:
                result = call()
            except Exception as e:  # whatever a client library makes of a server that fails
                if self._is_outage(e):
                    self._quiet_until = time.monotonic() + RETRY_SECONDS
                    if not self._told:
                        say(f"{self._server} does not answer; the step goes on, and what it has to say is kept")
                        self._told = True
                    return None
                say(f"{self._server} refused {what}: {' '.join(str(e).split())[:200]}")
                result = None
            self._waiting.popleft()
        return result
