"""Runs in MLflow that were left open, because what would have ended them was itself ended."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from pfs_core.tracking.outbox import brief_requests
from pfs_core.tracking.runs import PIPELINE_TAG, STEP_TAG, end_all, milliseconds


@dataclass(frozen=True)
class Leftover:
    """The open run of a pipeline on Kubeflow."""

    run_id: str
    name: str
    pipeline: str
    """Kubeflow's id of the run."""
    hours: float
    """How long ago it began."""


def leftovers() -> list[Leftover]:
    """Return the open runs of pipelines on Kubeflow, the oldest first; local ones are not among them."""
    from mlflow import MlflowClient

    with brief_requests():
        client = MlflowClient()
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        condition = f"tags.`{STEP_TAG}` = 'pipeline' and attributes.status = 'RUNNING'"
        order = ["attributes.start_time ASC"]
        runs = client.search_runs(ids, condition, order_by=order) if ids else []
    now = milliseconds()
    return [
        Leftover(run.info.run_id, run.info.run_name, pipeline, (now - run.info.start_time) / 3_600_000)
        for run in runs
        if _is_kubeflows(pipeline := run.data.tags.get(PIPELINE_TAG, ""))
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
            with brief_requests():
                end_all(MlflowClient().get_run(found.run_id), found.pipeline, status)
            closed.append((found, status))
    return closed


def _is_kubeflows(pipeline: str) -> bool:
    """Whether an id is one of Kubeflow, and not the name of a local run's folder."""
    try:
        return str(uuid.UUID(pipeline)) == pipeline
    except ValueError:
        return False
