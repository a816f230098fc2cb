"""What a step has for the tracking server: kept in order, sent when the server takes it.

Two things may go wrong with a call. The server does not answer, or says that it cannot do it now (:func:`unsent`): the
call waits. Or it *refuses* what it is asked (:func:`refusal`): asking again would not help. Then

- the first call of a step, which opens its run, raises UserError: nothing is computed yet, and a wrong address or login
  would leave hours of training without a record;
- a login that is refused later (401, 403) waits like an outage, since tokens are renewed;
- anything else that fails later, such as a point for a run that somebody has deleted, is left out, and a line says so
  once a kind.

Files go to an artifact store, which may fail while the server answers (:class:`StoreError`): what it does not take
steps aside for the rest, is tried again at the end, and is then left out with a line.
"""

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pfs_core.errors import one_line
from pfs_core.runtime.progress import say

PAUSE_SECONDS = 30.0
"""At least this long between two tries of a step that has other things to do."""
SLOW_SECONDS, SHARE = 1.0, 20
"""A call that took longer than this is followed by a pause so long that calls take 1/20 of the step's time."""
LAST_EFFORT_SECONDS, RETRY_SECONDS = 60.0, 3.0
"""How long, and how often, what waits is tried at the end of a step."""
STORE_TRIES = 3
"""How often a file is given to an artifact store that does not take it."""
MAX_POINTS = 1000
"""MLflow's limit of a batch."""
REQUESTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow's own patience, of minutes, would hold the step up: seconds, the outbox tries again. And it would print the
address of each run with the login that the store's address may hold."""


class StoreError(Exception):
    """The artifact store does not take a file, while the server answers; the message names the store and its reason."""


@dataclass
class PendingCall:
    """A call to the server.

    Attributes:
        what: it sends, for the line that says that it was not sent.
        send: sends it; may be called again after it failed.
        points: of curves that it sends, if it does; later ones are added while it waits.
        opens: whether nothing can be sent without it.
        tries: how often the artifact store did not take it.
    """

    what: str
    send: Callable[[], None]
    points: list[Any] = field(default_factory=list)
    opens: bool = False
    tries: int = 0


class Outbox:
    """Parcels that wait for the server, the oldest first."""

    def __init__(self) -> None:
        self._waiting: deque[PendingCall] = deque()
        self._aside: list[PendingCall] = []
        self._not_before = 0.0
        self._refused: set[str] = set()
        self._closed = False

    @property
    def answers(self) -> bool:
        """Whether the server took everything so far."""
        return not self._waiting and not self._closed

    def post(self, parcel: PendingCall) -> None:
        """Send a parcel, and those before it, if the server takes them now."""
        last = self._waiting[-1] if self._waiting else None
        if self._closed:
            return
        if last and last.points and last.what == parcel.what and len(last.points + parcel.points) <= MAX_POINTS:
            last.points += parcel.points
        else:
            self._waiting.append(parcel)
        self.flush()

    def flush(self, seconds: float = 0) -> bool:
        """Send what waits; where the server does not answer, try for so many seconds. Returns whether all is sent.

        What the artifact store did not take before is tried again only where there are ``seconds``.
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
            parcel, start = self._waiting[0], time.monotonic()
            try:
                parcel.send()
            except StoreError as e:
                parcel.tries += 1
                if parcel.tries < STORE_TRIES:
                    self._aside.append(parcel)
                else:
                    say(f"MLflow lacks {parcel.what}: {e}")
            except Exception as e:
                if unsent(e):
                    self.pause(time.monotonic() - start)
                    if time.monotonic() + RETRY_SECONDS > end:
                        return False
                    time.sleep(RETRY_SECONDS)
                    continue
                self._refuse(parcel, refusal(e) or plain(one_line(e))[:300])
            else:
                took = time.monotonic() - start
                self._not_before = time.monotonic() + (SHARE * took if took > SLOW_SECONDS else 0)
            if self._waiting:
                self._waiting.popleft()
        return not self._aside

    def pause(self, took: float) -> None:
        """Do not try again for a while, after a try that took so many seconds and failed."""
        self._not_before = time.monotonic() + max(PAUSE_SECONDS, SHARE * took)

    def _refuse(self, parcel: PendingCall, reason: str) -> None:
        if parcel.what not in self._refused:
            say(f"MLflow does not take {parcel.what}: {reason}")
        self._refused.add(parcel.what)
        if parcel.opens:
            self._waiting.clear()
            self._aside.clear()
            self._closed = True

    def close(self, seconds: float) -> None:
        """Send what waits, trying for so many seconds; say in one line what could not be sent."""
        if self.flush(seconds):
            return
        left_over = [*self._waiting, *self._aside]
        points = sum(len(parcel.points) for parcel in left_over)
        whats = dict.fromkeys(parcel.what for parcel in left_over if not parcel.points)
        left = ", ".join([*([f"{points} points of curves"] * bool(points)), *whats])
        say(f"MLflow{server()} does not answer; what was computed is whole, but MLflow lacks: {left}")
        self._closed = True


def unsent(error: Exception) -> bool:
    """Whether the server could not be reached, cannot do what it was asked now, or does not know us any more."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
        return status >= 500 or status in (401, 403, 408, 429)
    # requests' errors are OSErrors; files go to an object store through boto3
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in ("botocore", "boto3")


def refusal(error: Exception) -> str:
    """Why the server does not take what it was asked, in a line; empty if it has not refused it."""
    from mlflow.exceptions import MlflowException

    if not isinstance(error, MlflowException):
        return ""
    status = error.get_http_status_code()
    return plain(one_line(error))[:300] if 400 <= status < 500 and status not in (408, 429) else ""


def plain(text: str) -> str:
    """``text`` without the login that the store's address may hold."""
    import mlflow

    login = urlsplit(mlflow.get_tracking_uri()).netloc.rpartition("@")[0]
    return text.replace(f"{login}@", "") if login else text


def server() -> str:
    """The server with a space before it, without a login; empty where the store is none."""
    import mlflow

    uri = urlsplit(mlflow.get_tracking_uri())
    return f" at {uri.scheme}://{uri.netloc.rpartition('@')[2]}" if uri.scheme in ("http", "https") else ""


@contextlib.contextmanager
def brief_requests(settings: dict[str, str] = REQUESTS) -> Iterator[None]:
    """Have MLflow wait for a server as ``settings`` say, where the environment does not."""
    ours = {key: value for key, value in settings.items() if key not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for key in ours:
            os.environ.pop(key, None)


@contextlib.contextmanager
def storing(store: str) -> Iterator[None]:
    """Within :func:`brief_requests`: let files take their time, after a call that shows that the server answers.

    Raises:
        StoreError: the artifact store at the address ``store`` fails in any way that is no refusal by the server.
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
        place = f"{uri.scheme}://{uri.netloc.rpartition('@')[2]}"
        raise StoreError(f"the artifact store {place} does not take it ({plain(one_line(e))[:300]})") from e
    finally:
        if ours:
            os.environ[key] = REQUESTS[key]
