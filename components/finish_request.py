"""A result goes to those who asked for it."""

from kfp.dsl import Artifact, Input
from pfs_components.base import component


@component
def finish_request(request: dict, report: Input[Artifact], claim_hours: float = 240.0):
    """Tie the result to its source in the model registry, and accept it if it passes the gate that was asked for.

    Args:
        request: What was asked for.
        report: Output of the report step.
        claim_hours: As for the step that claimed it.
    """
    from pfs_core import steps
    from pfs_core.runtime.progress import user_errors

    with user_errors():
        steps.finish_request(request, report.path, claim_hours)
