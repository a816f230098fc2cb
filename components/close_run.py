"""After the last step, whether the others succeeded or not."""

from kfp.dsl import PipelineTaskFinalStatus

from components.base import component


@component
def close_run(status: PipelineTaskFinalStatus):
    """End the run in MLflow with its true status.

    Args:
        status: How the steps ended.
    """
    from pfs_core.tracking import close_pipeline

    close_pipeline(status.state == "SUCCEEDED")
