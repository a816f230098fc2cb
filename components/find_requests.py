"""The first step for the model registry: claim the models that ask to be compressed."""

from typing import List

from pfs_components.base import component


@component
def find_requests(limit: int = 5, claim_hours: float = 240.0, request_files: str = "") -> List[dict]:
    """Claim the model versions that ask to be compressed, the oldest first.

    Args:
        limit: Largest number of versions to claim.
        claim_hours: Hours after which a claim expires, so that another run may take the version.
        request_files: Folder or `s3://` prefix of request files that are put into the registry first; empty for none.

    Returns:
        The claimed requests: for each, the network, dataset, budget and settings.
    """
    from pfs_core import steps
    from pfs_core.runtime.progress import user_errors

    with user_errors():
        return steps.find_requests(limit, claim_hours, request_files)
