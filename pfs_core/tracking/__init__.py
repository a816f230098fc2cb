"""MLflow: one way to open a step's run, on a laptop, in a pod and on a retry, whether the server answers or not.

Tracking is on when ``MLFLOW_TRACKING_URI`` is set; otherwise every call here does nothing and MLflow is not imported.
``KFP_RUN_ID`` says which pipeline run a step belongs to: its parent run carries the tag ``kfp.pipeline_run_id`` (the
name that Kubeflow Pipelines' own MLflow plugin uses), and every step has a nested run with the tags ``pfs.step`` and
``pfs.inputs``, a digest of its parameters: a step that is tried again goes on in its run, and the same step on other
inputs has another.

What a server that is down cannot take waits in an :class:`pfs_core.tracking.outbox.Outbox`; a step that has done its
work succeeds without it.
"""

from pfs_core.tracking.local_database import make_experiment
from pfs_core.tracking.runs import PIPELINE_TAG, close_pipeline, mark_finished, open_pipeline, page
from pfs_core.tracking.step import StepRun, finite, step_run

__all__ = [
    "PIPELINE_TAG",
    "StepRun",
    "close_pipeline",
    "finite",
    "make_experiment",
    "mark_finished",
    "open_pipeline",
    "page",
    "step_run",
]
