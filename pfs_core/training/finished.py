"""What becomes of the checkpoints of a step that is done: they go when its result is safe, and not before.

A result is published on the disk of one machine. In a pod Kubeflow uploads it when the process has ended, and the node
of a TrainJob does so itself; until then the checkpoints are all that is left if the pod vanishes. So a step in a pod
leaves them, under a name in ``finished/RUN`` below ``PFS_CHECKPOINTS``, and the last step of the run removes them.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING

from pfs_core.errors import NotFoundError, UserError
from pfs_core.runtime.environment import is_kubeflows
from pfs_core.storage import Storage, open_storage
from pfs_core.storage.listing import Entry

if TYPE_CHECKING:
    from pfs_core.training.checkpoints import Checkpoints

logger = logging.getLogger(__package__)

ROOT = "PFS_CHECKPOINTS"
_waiting: "ContextVar[list[Checkpoints] | None]" = ContextVar("waiting", default=None)


@contextlib.contextmanager
def until_safe(uploaded_later: bool = False) -> Iterator[None]:
    """Keep the checkpoints of what is done in this block until its end; if that is an exception, they stay.

    A block within another one leaves them to that.

    Args:
        uploaded_later: whether Kubeflow uploads the result after this process, if it is in a pod. Then they stay, too,
            for :func:`remove_left`.
    """
    if _waiting.get() is not None:
        yield
        return
    done: list[Checkpoints] = []
    before = _waiting.set(done)
    try:
        yield
    finally:
        _waiting.reset(before)
    for checkpoints in done:
        if not (uploaded_later and _left(checkpoints.name)):
            checkpoints.clear()


def done_with(checkpoints: "Checkpoints") -> None:
    """Remove the checkpoints of a result that is published: at the end of :func:`until_safe`, or else at once."""
    if (waiting := _waiting.get()) is None:
        checkpoints.clear()
    else:
        waiting.append(checkpoints)


def remove_left() -> None:
    """Remove the checkpoints that the steps of this run on Kubeflow have left; a failure is a warning."""
    if not (place := _place()):
        return
    root, marks = place
    try:
        for mark in entries(marks):
            folder = open_storage(f"{root}/{mark.path}")
            for entry in entries(folder):
                folder.remove(entry.path)
            marks.remove(mark.path)
    except UserError as e:
        logger.warning(f"checkpoints of steps that are done are left: {e}")


def entries(storage: Storage) -> Sequence[Entry]:
    """The files of a storage, in path order; none where nothing has been written to it yet."""
    try:
        return storage.files()
    except NotFoundError:
        return ()


def _left(name: str) -> bool:
    """Leave the checkpoints of this name to the last step of the run; returns whether there is one that could."""
    if not (place := _place()):
        return False
    try:
        place[1].write(name, b"")
    except UserError as e:
        logger.warning(f"checkpoints that nobody will remove are left: {e}")
    return True


def _place() -> tuple[str, Storage] | None:
    """The root of the checkpoints, and where the names of those to remove are; None outside of Kubeflow."""
    root, run = os.environ.get(ROOT), os.environ.get("KFP_RUN_ID", "")
    return (root, open_storage(f"{root}/finished/{run}")) if root and is_kubeflows(run) else None
