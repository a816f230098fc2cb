"""The last step for the model registry: attach a result to the model that asked for it."""

from kfp.dsl import Artifact, Input
from pfs_components.base import component


@component
def finish_request(request: dict, report: Input[Artifact], claim_hours: float = 240.0):
    """Link the result to its source in the model registry, and accept it if it meets the conditions of the request.

    Args:
        request: The request, as the step that claimed it returned it.
        report: Output of the report step.
        claim_hours: Hours after which a claim expires, as for the step that claimed the request.
    """
    from pfs_core import steps
    from pfs_core.runtime.progress import user_errors

    with user_errors():
        steps.finish_request(request, report.path, claim_hours)
