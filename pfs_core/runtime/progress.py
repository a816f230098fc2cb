"""How far a step is, and how a step in a process of its own tells the user what is wrong."""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from pfs_core.errors import UserError, for_users
from pfs_core.runtime.environment import adopt_mlflow
from pfs_core.runtime.logs import PASSING, at_terminal, log_to_terminal, marked

logger = logging.getLogger(__package__)

STOPPED = 128 + signal.SIGTERM
"""Exit code of a process that SIGTERM has ended."""
Record = Callable[[dict[str, Any]], None]
"""Takes a row of history as soon as it is known."""


position: Any = None
"""Where :mod:`pfs_core.runtime.supervise` reads the step that this process has come to, if it is supervised."""


def reached(step: int) -> None:
    """Note that a long computation has come to a step."""
    if position is not None:
        position.value = step


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Show on the terminal what a step logs, find MLflow, and turn a UserError into one line and exit code 2.

    Every step that runs in a process of its own is wrapped in this. SIGTERM then ends it as an exception does, so that
    its run in MLflow is closed; the exit code is :data:`STOPPED`.
    """
    adopt_mlflow()
    log_to_terminal()
    try:
        with stoppable():
            yield
    except (UserError, PermissionError) as e:
        print(marked(f"error: {for_users(e)}"), flush=True)
        raise SystemExit(2) from None


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM end this process as an exception does, with the exit code :data:`STOPPED`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def stopped_later() -> Iterator[None]:
    """Hold SIGTERM back until the end of the block, and in a process that the block forks until that unblocks it.

    The block is within one of :func:`stoppable`. To block the signal in this thread is not enough: another thread of
    the process may be given it, and Python then calls the handler in this one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[Any] = []
    before = signal.signal(signal.SIGTERM, lambda *arguments: came.append(arguments))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    if came:
        _stop(*came[0])


def _stop(number: int, frame: Any) -> None:
    # It may come twice, to all processes of a step and from the one that started this one; once is enough.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(STOPPED)


def ignore(row: dict[str, Any]) -> None:
    """A :data:`Record` that keeps nothing."""


class TimeLeft:
    """Seconds left of a loop, from the share of it that is done; ``before`` is what was done before it started."""

    def __init__(self, before: int = 0) -> None:
        self.start = time.monotonic()
        self.before = before

    def __call__(self, done: int, total: int) -> str:
        """As ``m:ss``, or ``h:mm:ss`` from an hour on."""
        left = int((time.monotonic() - self.start) * (total - done) / (done - self.before))
        hours = f"{left // 3600}:" if left >= 3600 else ""
        return f"{hours}{left // 60 % 60:{'02' if hours else ''}}:{left % 60:02d}"


class ImageProgress:
    """Says now and then how many images are done: every two seconds at a terminal, else once a minute.

    Args:
        name: what is done with them.
        total: the number of images.
    """

    def __init__(self, name: str, total: int) -> None:
        self._name, self._total, self._done = name, total, 0
        self._left = TimeLeft()
        self._every = 2.0 if at_terminal() else 60.0
        self._last = self._left.start

    def __call__(self, images: int) -> None:
        """Count so many more images, and log a line if it is time for one."""
        self._done += images
        now = time.monotonic()
        if now - self._last < self._every:
            return
        self._last = now
        rate, left = self._done / (now - self._left.start), self._left(self._done, self._total)
        logger.info(
            f"{self._name} {self._done:,}/{self._total:,} images  {rate:,.0f} images/s  left {left}", extra=PASSING
        )


class EpochProgress:
    """Says now and then how far a loop is inside an epoch: every two seconds at a terminal, else once a minute.

    Args:
        name: of the loop.
        epochs: that it has.
        steps: of each epoch.
        step: steps that were done before.
        images: images that were done before.
    """

    def __init__(self, name: str, epochs: int, steps: int, step: int, images: int) -> None:
        self._name, self._epochs, self._steps = name, epochs, steps
        self._left = TimeLeft(step)
        self._every = 2.0 if at_terminal() else 60.0
        self._last, self._images = time.monotonic(), images

    def __call__(self, epoch: int, step: int, images: int) -> None:
        """Log a line if it is time for one.

        Args:
            epoch: the epoch, counted from 1.
            step: steps done, in all epochs.
            images: images done, in all epochs.
        """
        seconds = time.monotonic() - self._last
        if seconds < self._every:
            return
        rate = (images - self._images) / seconds
        self._last, self._images = time.monotonic(), images
        share = (step - (epoch - 1) * self._steps) / self._steps
        left = self._left(step, self._epochs * self._steps)
        logger.info(
            f"{self._name} epoch {epoch}/{self._epochs}  {share:.0%} of it  {rate:,.0f} images/s  left {left}",
            extra=PASSING,
        )
