"""After the last step, whether the others succeeded or not."""

from kfp.dsl import PipelineTaskFinalStatus
from pfs_components.base import component


@component
def close_run(status: PipelineTaskFinalStatus, gives_back: bool = False):
    """End the run in MLflow with its true status.

    Args:
        status: How the steps ended.
        gives_back: Whether requests that the run has claimed and could not finish become free again.
    """
    from pfs_core import steps
    from pfs_core.runtime.progress import user_errors

    with user_errors():
        steps.close(status.state, gives_back)
