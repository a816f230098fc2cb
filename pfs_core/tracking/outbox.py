"""The queue of a step's calls to the tracking server: kept in order, sent when the server accepts them.

Two things can go wrong with a call (:mod:`pfs_core.tracking.answers`). The server does not answer, or says that it
cannot do it now: the call waits. Or the server *refuses* it, and asking again would not help. Then

- the first call of a step, which creates its run, raises UserError: nothing has been computed yet, and a wrong address
  or login would leave hours of training without a record;
- a login that is refused later (401, 403) waits as in an outage, since tokens are renewed;
- anything else that fails later, such as a point for a run that somebody has deleted, is dropped with a warning, one
  per kind of call.

Files go to an artifact store, which may fail while the server answers (:class:`StoreError`): a file that it does not
accept makes way for other calls, is tried again at the end of the step, and is then dropped with a warning.
"""

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pfs_core.errors import one_line
from pfs_core.tracking.answers import plain, refusal, server, unsent

logger = logging.getLogger(__package__)

PAUSE_SECONDS = 30.0
"""The shortest pause between two tries while the step has other things to do."""
SLOW_SECONDS, SHARE = 1.0, 20
"""A call that took longer is followed by a pause, so that calls take at most 1/20 of the step's time."""
LAST_EFFORT_SECONDS, RETRY_SECONDS = 60.0, 3.0
"""How long waiting calls are tried at the end of a step, and the pause between two tries."""
STORE_TRIES = 3
"""How often a file is offered to an artifact store that does not accept it."""
MAX_POINTS = 1000
"""MLflow's limit per batch."""
REQUESTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow's own retries would hold the step up for minutes; the outbox tries again instead. And MLflow would print the
address of each run, with the login that may be part of it."""


class StoreError(Exception):
    """The artifact store does not accept a file while the server answers; the message says which and why."""


@dataclass
class PendingCall:
    """A call to the server.

    Attributes:
        label: names what it sends, for the warning that it was not sent.
        send: makes the call; may be called again after it failed.
        points: the points of curves that it sends, if any; later ones are added while it waits.
        opens: whether no other call can be sent without it.
        tries: how often the artifact store did not accept it.
    """

    label: str
    send: Callable[[], None]
    points: list[Any] = field(default_factory=list)
    opens: bool = False
    tries: int = 0


class Outbox:
    """Calls that wait for the server, the oldest first."""

    def __init__(self) -> None:
        self._waiting: deque[PendingCall] = deque()
        self._aside: list[PendingCall] = []
        self._not_before = 0.0
        self._refused: set[str] = set()
        self._closed = False

    @property
    def healthy(self) -> bool:
        """Whether the server has accepted every call so far."""
        return not self._waiting and not self._closed

    def post(self, call: PendingCall) -> None:
        """Send a call, after those that wait; where the server does not answer, it waits too."""
        last = self._waiting[-1] if self._waiting else None
        if self._closed:
            return
        if last and last.points and last.label == call.label and len(last.points + call.points) <= MAX_POINTS:
            last.points += call.points
        else:
            self._waiting.append(call)
        self.flush()

    def flush(self, seconds: float = 0) -> bool:
        """Send the waiting calls.

        Args:
            seconds: how long to try again where the server does not answer. Files that the artifact store did not
                accept are offered again only where this is not 0.

        Returns:
            Whether all calls have been sent.
        """
        end = time.monotonic() + seconds
        while self._waiting or (seconds and self._aside):
            if not self._waiting:
                if time.monotonic() + RETRY_SECONDS > end:
                    return False
                time.sleep(RETRY_SECONDS)
                self._waiting, self._aside = deque(self._aside), []
            if not seconds and time.monotonic() < self._not_before:
                return False
            call, start = self._waiting[0], time.monotonic()
            try:
                call.send()
            except StoreError as e:
                call.tries += 1
                if call.tries < STORE_TRIES:
                    self._aside.append(call)
                else:
                    logger.warning(f"MLflow is missing {call.label}: {e}")
            except Exception as e:
                if unsent(e):
                    self.pause(time.monotonic() - start)
                    if time.monotonic() + RETRY_SECONDS > end:
                        return False
                    time.sleep(RETRY_SECONDS)
                    continue
                self._refuse(call, refusal(e) or plain(one_line(e))[:300])
            else:
                took = time.monotonic() - start
                self._not_before = time.monotonic() + (SHARE * took if took > SLOW_SECONDS else 0)
            if self._waiting:
                self._waiting.popleft()
        return not self._aside

    def pause(self, took: float) -> None:
        """Do not try again for a while, after a failed try that took ``took`` seconds."""
        self._not_before = time.monotonic() + max(PAUSE_SECONDS, SHARE * took)

    def _refuse(self, call: PendingCall, reason: str) -> None:
        if call.label not in self._refused:
            logger.warning(f"MLflow does not accept {call.label}: {reason}")
        self._refused.add(call.label)
        if call.opens:
            self._waiting.clear()
            self._aside.clear()
            self._closed = True

    def close(self, seconds: float) -> None:
        """Send the waiting calls, trying for ``seconds``; a warning names what could not be sent."""
        if self.flush(seconds):
            return
        left_over = [*self._waiting, *self._aside]
        points = sum(len(call.points) for call in left_over)
        missing = [f"{points} points of curves"] if points else []
        missing += dict.fromkeys(call.label for call in left_over if not call.points)
        logger.warning(
            f"MLflow{server()} does not answer; the results are complete, but MLflow is missing {', '.join(missing)}"
        )
        self._closed = True


@contextlib.contextmanager
def brief_requests() -> Iterator[None]:
    """Set MLflow's timeouts and retries to :data:`REQUESTS`, where the environment does not set them."""
    ours = {key: value for key, value in REQUESTS.items() if key not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for key in ours:
            os.environ.pop(key, None)


@contextlib.contextmanager
def storing(store: str) -> Iterator[None]:
    """Within :func:`brief_requests`: a longer timeout for files, after a call that shows that the server answers.

    Args:
        store: the address of the artifact store.

    Raises:
        StoreError: the store fails in a way that is no refusal by the server.
    """
    key = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    ours = os.environ.get(key) == REQUESTS[key]
    if ours:
        os.environ[key] = "120"
    try:
        yield
    except Exception as e:
        if refusal(e) and not unsent(e):
            raise
        uri = urlsplit(store)
        place = f"{uri.scheme}://{uri.netloc.rpartition('@')[2]}" if uri.netloc else uri.path
        raise StoreError(f"the artifact store {place} does not accept it ({plain(one_line(e))[:300]})") from e
    finally:
        if ours:
            os.environ[key] = REQUESTS[key]
