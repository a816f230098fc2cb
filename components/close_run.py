"""The exit handler: runs after all other steps, whether they succeeded or not."""

from kfp.dsl import PipelineTaskFinalStatus
from pfs_components.base import component


@component
def close_run(status: PipelineTaskFinalStatus, gives_back: bool = False):
    """End the run in MLflow with the status of the pipeline run.

    Args:
        status: Status of the other steps.
        gives_back: Whether to release the requests that the run has claimed and could not finish.
    """
    from pfs_core import steps
    from pfs_core.runtime.progress import user_errors

    with user_errors():
        steps.close(status.state, gives_back)
