"""Runs in MLflow that were left open, because what would have ended them was itself ended."""

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from pfs_core.errors import UnreachableError
from pfs_core.runtime.environment import is_kubeflows
from pfs_core.tracking.answers import plain, refusal
from pfs_core.tracking.outbox import brief_requests
from pfs_core.tracking.runs import PIPELINE_TAG, STEP_TAG, end_all, everything, experiment_ids, milliseconds

logger = logging.getLogger(__package__)

_LONGEST_SECONDS = 60


@dataclass(frozen=True)
class Leftover:
    """The open run of a pipeline on Kubeflow."""

    run_id: str
    name: str
    pipeline: str
    """Kubeflow's id of the run."""
    hours: float
    """How long ago it began."""


@contextlib.contextmanager
def _answering() -> Iterator[None]:
    """Within it, an MLflow that does not answer, or not as MLflow does, is a UserError."""
    from mlflow.exceptions import MlflowException

    try:
        with brief_requests():
            yield
    except (MlflowException, OSError) as e:
        address = plain(os.environ.get("MLFLOW_TRACKING_URI", ""))
        reason = f" ({refused})" if (refused := refusal(e)) else ""
        raise UnreachableError(f"{address} does not answer as MLflow does{reason}; check MLFLOW_TRACKING_URI") from None


def leftovers() -> list[Leftover]:
    """Return the open runs of pipelines on Kubeflow, the oldest first; local ones are not among them."""
    from mlflow import MlflowClient

    with _answering():
        client, ids = MlflowClient(), experiment_ids()
        condition = f"tags.`{STEP_TAG}` = 'pipeline' and attributes.status = 'RUNNING'"
        order = ["attributes.start_time ASC"]
        ask = partial(client.search_runs, ids, condition, order_by=order)
        runs = everything(lambda token: ask(page_token=token)) if ids else []
    now = milliseconds()
    return [
        Leftover(run.info.run_id, run.info.run_name, pipeline, (now - run.info.start_time) / 3_600_000)
        for run in runs
        if is_kubeflows(pipeline := run.data.tags.get(PIPELINE_TAG, ""))
    ]


def close_leftovers(ended: Callable[[Leftover], str]) -> list[tuple[Leftover, str]]:
    """End the runs of pipelines that have ended, with those of their steps.

    Args:
        ended: returns the status that a run has ended with (``FINISHED``, ``FAILED`` or ``KILLED``), or "" where it
            goes on.

    Returns:
        Those that were closed, with their status.
    """
    from mlflow import MlflowClient

    closed = []
    for found in leftovers():
        if status := ended(found):
            with _answering():
                end_all(MlflowClient().get_run(found.run_id), found.pipeline, status)
            closed.append((found, status))
    return closed


def close_ended() -> None:
    """End what pipelines on Kubeflow that have ended have left open in MLflow, if this one runs there.

    A process of its own asks Kubeflow, with ``pfs runs close``: in a running component kfp has no client. No result
    depends on it, so one line says what it has done, or why it could not.
    """
    if not is_kubeflows(os.environ.get("KFP_RUN_ID", "")) or not os.environ.get("MLFLOW_TRACKING_URI"):
        return
    command = [sys.executable, "-m", "pfs_pipelines.cli", "runs", "close"]
    env = {name: value for name, value in os.environ.items() if name != "_KFP_RUNTIME"}
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            command, env=env, capture_output=True, errors="replace", timeout=_LONGEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        logger.info(f"runs that were left open in MLflow: no answer within {_LONGEST_SECONDS} s; see pfs runs close")
        return
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    logger.info(f"runs that were left open in MLflow: {'; '.join(lines[-1:] if done.returncode else lines)}")
