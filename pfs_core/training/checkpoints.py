"""Checkpoints for long steps; a restarted step resumes."""

import contextlib
import hashlib
import io
import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

import pfs_core
from pfs_core.errors import AccessDeniedError, UnreachableError, UserError
from pfs_core.runtime.distributed import ALONE, Ranks
from pfs_core.runtime.progress import STOPPED, reached
from pfs_core.storage import open_storage
from pfs_core.storage.digests import json_digest
from pfs_core.storage.listing import Entry
from pfs_core.training.finished import ROOT, entries

logger = logging.getLogger(__package__)

SECONDS = "PFS_CHECKPOINT_SECONDS"
_KEPT = 2
_AGREE = 5


class Checkpoints:
    """Checkpoints of one step with one set of inputs.

    They are files ``STEP-DIGEST.pt`` below ``PFS_CHECKPOINTS`` (a path or an ``s3://`` address) or, where that is not
    set, below a hidden folder beside ``out``; the last two are kept. The folder is named after ``key``, so that a step
    finds its own checkpoints only. As a context manager it defers SIGTERM to the next :meth:`due`.

    Where several processes train together, the first one reads and writes, and all of them call every method.

    Attributes:
        name: the digest that its folder is named after.
        storage: that folder.

    Args:
        out: the folder that the step will write.
        key: everything that the step's result depends on, as JSON.
        ranks: the processes that train together.

    Raises:
        UserError: ``PFS_CHECKPOINT_SECONDS`` is no number.
    """

    def __init__(self, out: str | Path, key: Mapping[str, Any], ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        versions = {"pfs": pfs_core.__version__, "torch": torch.__version__}
        self.name = json_digest({**key, **versions}, 24)
        out = Path(out).absolute()
        self._beside = out.parent / f".{out.name}.checkpoints"
        self.storage = open_storage(f"{os.environ.get(ROOT) or self._beside}/{self.name}")
        self._seconds = _seconds_between()
        self._saved = time.monotonic()
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._terminated = False
        self._handler: Any = None
        self._earlier = {"seconds": 0.0, "processor_seconds": 0.0}
        self._began = _clocks()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGTERM, self._terminate)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, place: TracebackType | None) -> None:
        self._writer.shutdown()
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)

    def _terminate(self, number: int, frame: Any) -> None:
        self._terminated = True

    def load(self) -> dict[str, Any] | None:
        """The newest valid state, its tensors on the CPU; None if there is none.

        Raises:
            UserError: the checkpoints cannot be listed or read. Saving them would fail too, after much work.
        """
        data = self._ranks.broadcast(self._newest() if self._ranks.rank == 0 else None)
        if data is None:
            return None
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        self._earlier = state.pop("spent")
        result: dict[str, Any] | None = state
        return result

    def elapsed(self) -> dict[str, float]:
        """``seconds`` and ``processor_seconds`` that the step has taken, in this try and the ones that it resumes."""
        return {key: self._earlier[key] + now - self._began[key] for key, now in _clocks().items()}

    def _newest(self) -> bytes | None:
        """The content of the newest checkpoint whose digest is right."""
        for entry in reversed(self._entries()):
            try:
                data = self.storage.read(entry)
            except (AccessDeniedError, UnreachableError):
                raise  # the one before would fail in the same way
            except UserError as e:
                logger.warning(f"checkpoint {entry.path} cannot be used ({e}); trying the one before")
                continue
            if _digest(data) == entry.path.split("-")[1].removesuffix(".pt"):
                logger.info(f"going on from checkpoint {entry.path} of {self.storage.uri}")
                return data
            logger.warning(f"checkpoint {entry.path} cannot be used (it is damaged); trying the one before")
        return None

    def due(self, step: int) -> bool:
        """Whether it is time to save: a minute after the last checkpoint, or because a process has to stop.

        Several processes agree on it every few steps, so that they save at the same step.
        """
        reached(step)
        wanted = self._terminated or time.monotonic() - self._saved >= self._seconds
        if self._ranks.world == 1:
            return wanted
        return step % _AGREE == 0 and self._ranks.any(wanted)

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state in the background; if a process has to stop, wait for that and exit with code 143.

        A store that does not take it ends no training: a warning says so, and the next save tries again.
        """
        terminated = self._ranks.any(self._terminated)
        self._saved = time.monotonic()
        if self._ranks.rank == 0:
            buffer = io.BytesIO()
            torch.save({**state, "spent": self.elapsed()}, buffer)
            self._finish_writing()
            self._writing = self._writer.submit(self._write, step, buffer.getvalue())
        if terminated:
            self._finish_writing()
            logger.info(f"stopped after step {step}; start again to go on")
            raise SystemExit(STOPPED)

    def _finish_writing(self) -> None:
        """Wait for the last save, and say so where it failed."""
        if not self._writing:
            return
        try:
            self._writing.result()
        except UserError as e:
            logger.warning(f"saving a checkpoint failed: {e}")

    def clear(self) -> None:
        """Remove all checkpoints. The result is there by now, so that a failure is a warning and no error."""
        if self._ranks.rank > 0:
            return
        self._finish_writing()
        try:
            for entry in self._entries():
                self.storage.remove(entry.path)
        except UserError as e:
            logger.warning(f"checkpoints are left at {self.storage.uri}: {e}")
        shutil.rmtree(self._beside, ignore_errors=True)

    def _write(self, step: int, data: bytes) -> None:
        self.storage.write(f"{step:012d}-{_digest(data)}.pt", data)
        for entry in self._entries()[:-_KEPT]:
            self.storage.remove(entry.path)

    def _entries(self) -> list[Entry]:
        """The checkpoints, oldest first."""
        return [entry for entry in entries(self.storage) if entry.path.endswith(".pt")]


class CheckpointStage:
    """Checkpoints of one of several stages that a step goes through.

    Args:
        checkpoints: the checkpoints of the step.
        number: the number of the stage; later stages have higher ones.
        before: the results of the earlier stages; they are saved with each state of this one.
        state: the state that the stage resumes from, or None.
    """

    def __init__(
        self, checkpoints: Checkpoints, number: int, before: Mapping[str, Any], state: dict[str, Any] | None
    ) -> None:
        self._checkpoints, self._number, self._before, self._state = checkpoints, number, before, state

    def load(self) -> dict[str, Any] | None:
        """The state that the stage resumes from; None at its start."""
        return self._state

    def due(self, step: int) -> bool:
        """As :meth:`Checkpoints.due`."""
        return self._checkpoints.due(step)

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """As :meth:`Checkpoints.save`."""
        self._checkpoints.save(
            self._number * 10**9 + step, {"number": self._number, "before": self._before, "stage": state}
        )


def _seconds_between() -> float:
    text = os.environ.get(SECONDS) or "60"
    with contextlib.suppress(ValueError):
        if (seconds := float(text)) >= 0:
            return seconds
    raise UserError(f"{SECONDS} must be a number from 0, of seconds between two checkpoints (got {text!r})")


def _clocks() -> dict[str, float]:
    user, system, *of_workers, _ = os.times()  # of workers that have ended, as those of an epoch's loader have
    return {"seconds": time.monotonic(), "processor_seconds": sum((user, system, *of_workers))}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
