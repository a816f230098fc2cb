"""Tracking that is switched off where the server does not let a process in whose result somebody else records."""

import logging
import os

from pfs_core.tracking.answers import refusal, server
from pfs_core.tracking.outbox import brief_requests
from pfs_core.tracking.runs import tracked

logger = logging.getLogger(__package__)


def switch_off_if_refused() -> None:
    """Take MLflow out of the environment if it refuses this process; one that does not answer stays in it.

    The nodes of a TrainJob have the address of the launcher's MLflow and its run, but not every login: those of
    Kubeflow's plugin cannot be passed on, and a secret need not have ours.
    """
    if not tracked():
        return
    from mlflow import MlflowClient

    client, run = MlflowClient(), os.environ.get("MLFLOW_RUN_ID")
    try:
        with brief_requests():
            if run:
                client.update_run(run, status="RUNNING")
            else:
                client.search_experiments(max_results=1)
    except Exception as e:
        if not (reason := refusal(e)):
            return
        logger.warning(f"MLflow{server()} does not let this process log ({reason}): it has no curves of the training")
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
            os.environ.pop(name, None)
