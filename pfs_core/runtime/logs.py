"""What a person at the terminal sees of a long step.

Every module that has something to tell logs it to the logger of its package. A program that shows these lines calls
:func:`log_to_terminal`, as the ``pfs`` command and the steps of a pipeline do; in a notebook they appear once that or
``logging.basicConfig`` has been called.

``pfs run`` sets ``PFS_MARK_LINES`` for its steps, and they put a mark before these lines so that it can tell them from
everything else that their processes print. Elsewhere, as in a pod's log, they are plain lines. How far a loop is inside
an epoch is a line a minute; at a terminal (``PFS_MARK_LINES=terminal``) the next line takes the place of such a line.
"""

import contextlib
import logging
import os
import sys

MARK_LINES, MARK, PASSING_MARK = "PFS_MARK_LINES", "[pfs] ", "[pfs~] "
TERMINAL = "terminal"
"""The value of ``MARK_LINES`` where somebody reads along at a terminal."""
PASSING = {"passing": True}
"""``extra`` of a record whose line the next one may take the place of."""
COLUMNS = 80
"""The width of a terminal that lines are made for."""
PACKAGES = ("pfs_core", "pfs_components", "pfs_pipelines")


def first_process() -> bool:
    """Whether this is the first of several processes that train together, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def marked(line: str, passing: bool = False) -> str:
    """The line as the terminal gets it: with the mark in front where ``pfs run`` reads along."""
    if MARK_LINES not in os.environ:
        return line
    return f"{PASSING_MARK if passing and at_terminal() else MARK}{line}"


def at_terminal() -> bool:
    """Whether ``pfs run`` reads along for somebody at a terminal."""
    return os.environ.get(MARK_LINES) == TERMINAL


class TerminalHandler(logging.Handler):
    """Prints plain lines; of several processes that train together, the first one does."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line to what ``sys.stdout`` is now, since it may be redirected after the handler was made."""
        if not first_process():
            return
        try:
            sys.stdout.write(f"{marked(self.format(record), getattr(record, 'passing', False))}\n")
            sys.stdout.flush()
        except BrokenPipeError:  # who read along is gone, such as Kubeflow's launcher when a run is ended
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def log_to_terminal() -> None:
    """Show what the packages of this project log; a second call changes nothing."""
    for package in PACKAGES:
        logger = logging.getLogger(package)
        if any(isinstance(handler, TerminalHandler) for handler in logger.handlers):
            continue
        logger.addHandler(TerminalHandler())
        logger.setLevel(logging.INFO)
        logger.propagate = False  # kfp and MLflow configure the root logger, which would print each line once more
