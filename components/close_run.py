"""After the last step, whether the others succeeded or not."""

from kfp.dsl import PipelineTaskFinalStatus

from components.base import component


@component
def close_run(status: PipelineTaskFinalStatus, gives_back: bool = False):
    """End the run in MLflow with its true status.

    Args:
        status: How the steps ended.
        gives_back: Whether requests that the run has claimed and could not finish become free again.
    """
    from pfs_core.progress import user_errors
    from pfs_core.registry.work import give_back
    from pfs_core.tracking import close_pipeline

    close_pipeline(status.state == "SUCCEEDED")
    if gives_back:
        with user_errors():
            give_back("the run ended without a result")
