"""Requests in the model registry: finding and claiming them, finishing them, giving them back.

The state of a version is its tag ``pfs.compress``: ``requested`` by a user, ``claimed`` by a run, ``done`` or
``failed``.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pfs_core.errors import AccessDeniedError, UnreachableError, UserError, one_line
from pfs_core.registry.claims import Claim
from pfs_core.registry.request import (
    ATTEMPTS,
    CLAIMED,
    DONE,
    FAILED,
    GATE,
    LINK,
    REASON,
    REQUESTED,
    RESULT,
    RUN,
    SOURCE,
    STATE,
    Request,
)
from pfs_core.tracking import PIPELINE_TAG
from pfs_core.tracking.model import move_alias

logger = logging.getLogger(__package__)

ACCEPTED = "accepted"
"""The alias of the newest result that meets its request's limits."""
MAX_ATTEMPTS = 3
MAX_HOURS = 24 * 366


class VersionTags:
    """The tags of a version of a registered model (see :class:`pfs_core.registry.claims.Tags`)."""

    def __init__(self, name: str, version: str) -> None:
        from mlflow import MlflowClient

        self._client, self._name, self._version = MlflowClient(), name, version

    def read(self) -> Mapping[str, str]:
        """All of them, as they are now."""
        return dict(self._client.get_model_version(self._name, self._version).tags)

    def write(self, key: str, value: str) -> None:
        """Set one."""
        self._client.set_model_version_tag(self._name, self._version, key, value)

    def delete(self, key: str) -> None:
        """Remove one, if it is there."""
        self._client.delete_model_version_tag(self._name, self._version, key)


def check_limits(limit: int, claim_hours: float) -> None:
    """Raise UserError if a number of requests or of hours is out of range."""
    if limit < 0:
        raise UserError(f"limit {limit} is out of range; from 0 up")
    _hours(claim_hours)


def find(limit: int, claim_hours: float, check: Callable[[Request], None]) -> list[dict[str, Any]]:
    """Claim up to ``limit`` requests for this pipeline run (``KFP_RUN_ID``), the oldest first.

    A request that cannot be carried out is marked ``failed``. A server that is out of reach, or access that is denied,
    counts as an attempt, as does a run that vanished before its claim expired; after ``MAX_ATTEMPTS`` the request is
    marked ``failed``. A run that asks again gets what it has claimed before. One bad version does not keep the others
    waiting.

    Args:
        limit: the largest number of requests to claim.
        claim_hours: how long a claim holds.
        check: raises UserError for a request that cannot be carried out.

    Returns:
        For each request its fields (:class:`Request`), ``source`` (``models:/NAME/VERSION``), ``registered_model``, the
        name for the result, and ``label``, which no other of them has.

    Raises:
        UserError: there is no MLflow server or no pipeline run, or a number is out of range.
    """
    check_limits(limit, claim_hours)
    run, hours = claimant(), _hours(claim_hours)
    found: list[dict[str, Any]] = []
    for name, version in _versions(REQUESTED, CLAIMED):
        if len(found) == limit:
            break
        with _unless_deleted(name, version):
            if request := _claimed(name, version, run, hours, check):
                found.append(request)
    if not found:
        logger.info("nothing to compress")
    return found


def _claimed(
    name: str, version: str, run: str, hours: float, check: Callable[[Request], None]
) -> dict[str, Any] | None:
    """The request of a version that this run has claimed; None if it is another run's, or cannot be carried out."""
    source, tags = f"models:/{name}/{version}", VersionTags(name, version)
    claim = Claim(tags, run, hours)
    if not claim.take():
        return None
    state = tags.read()
    if state.get(STATE) not in (REQUESTED, CLAIMED):  # another run has finished it meanwhile
        claim.drop()
        return None
    if state[STATE] == REQUESTED and _attempts(state) >= MAX_ATTEMPTS:  # it had failed, and is asked for again
        tags.delete(ATTEMPTS)
    if state[STATE] == CLAIMED and state.get(RUN) != run:
        reason = f"run {state.get(RUN)} vanished"
        if _count(tags, reason) == FAILED:
            logger.warning(f"{source} cannot be compressed: {reason}, and it was the last of {MAX_ATTEMPTS} attempts")
            tags.write(STATE, FAILED)
            claim.drop()
            return None
    tags.write(RUN, run)
    tags.write(LINK, _link(run))
    try:
        request = Request.of_tags(state, source)
        check(request)
    except Exception as e:
        reason = str(e) if isinstance(e, UserError) else one_line(e)
        logger.warning(f"{source} cannot be compressed: {reason}")
        tags.write(STATE, _count(tags, reason, final=_is_final(e)))
        claim.drop()
        return None
    tags.write(STATE, CLAIMED)
    logger.info(f"{source}: {request.model} on {request.dataset} to {request.budget}")
    names = {"source": source, "registered_model": f"{name}-pruned", "label": f"{name}-{version}"}
    return {**request.model_dump(exclude_none=True), **names}


def finish(request: Mapping[str, Any], registered: str, figures: Mapping[str, float], claim_hours: float) -> bool:
    """Link a result and its source, accept the result if it meets its limits, and mark the source ``done``.

    Args:
        request: of :func:`find`.
        registered: ``NAME/VERSION`` of the result.
        figures: of the report.
        claim_hours: as for :func:`find`.

    Returns:
        Whether the version belongs to this run or to none (as after the run has ended and this step is tried again).
        If it belongs to another run, or has been deleted meanwhile, nothing is changed.

    Raises:
        UserError: the result was not registered, or ``claim_hours`` is out of range.
    """
    run = claimant()
    name, _, version = request["source"].removeprefix("models:/").rpartition("/")
    tags = VersionTags(name, version)
    claim = Claim(tags, run, _hours(claim_hours))
    if not _exists(name, version):
        return False
    if not claim.take():
        logger.warning(f"{request['source']} was claimed by another run meanwhile; its tags are left as they are")
        return False
    state = tags.read()
    if state.get(STATE) == DONE:
        claim.drop()
        if state.get(RUN) == run:  # this step is tried again
            return True
        logger.warning(f"{request['source']} was finished by another run meanwhile; its tags are left as they are")
        return False
    if not registered:
        raise UserError(f"the result of {request['source']} is not in the registry; set MLFLOW_TRACKING_URI")
    result_name, _, result_version = registered.rpartition("/")
    result = VersionTags(result_name, result_version)
    fields = {key: value for key, value in request.items() if key in Request.model_fields}
    refusal = Request.parse(fields, request["source"]).refusal(figures)
    result.write(SOURCE, request["source"])
    result.write(GATE, f"failed: {refusal}" if refusal else "passed")
    if not refusal:
        move_alias(result_name, ACCEPTED, result_version)
    tags.write(RESULT, f"models:/{registered}")
    for key in (REASON, ATTEMPTS):
        tags.delete(key)
    tags.write(RUN, run)
    tags.write(LINK, _link(run))
    tags.write(STATE, DONE)
    claim.drop()
    logger.info(
        f"{request['source']} is done: models:/{registered}, {f'not accepted: {refusal}' if refusal else 'accepted'}"
    )
    return True


def give_back(reason: str) -> int:
    """Give back what this run has claimed and not finished; each is requested again, or failed after its last attempt.

    Returns:
        How many claims there were.
    """
    run, ended = claimant(), 0
    for name, version in _versions(REQUESTED, CLAIMED):  # a run may be stopped between its claim and the new state
        with _unless_deleted(name, version):
            tags = VersionTags(name, version)
            claim = Claim(tags, run, 0)
            if claim.held():
                tags.write(STATE, _count(tags, reason))
                claim.drop()
                ended += 1
    return ended


def _is_final(error: Exception) -> bool:
    """Whether a request is wrong in itself; servers come back, and credentials are renewed."""
    return isinstance(error, UserError) and not isinstance(error, AccessDeniedError | UnreachableError)


def _count(tags: VersionTags, reason: str, final: bool = False) -> str:
    """Count a failed attempt in the tags; returns the state that follows from it.

    A ``final`` failure, of a request that no attempt can carry out, is not counted: once it is mended and asked for
    again, it has all its attempts.
    """
    state = tags.read()
    tags.write(REASON, f"{reason} {state.get(LINK, '')}".strip()[:500])
    if final:
        tags.delete(ATTEMPTS)
        return FAILED
    attempts = _attempts(state) + 1
    tags.write(ATTEMPTS, str(attempts))
    return FAILED if attempts >= MAX_ATTEMPTS else REQUESTED


def _attempts(state: Mapping[str, str]) -> int:
    """The number of attempts in a version's tags; 0 where the tag is missing or no number."""
    try:
        return max(0, int(state.get(ATTEMPTS, "0")))
    except ValueError:
        return 0


def _hours(claim_hours: float) -> float:
    if not 0 < claim_hours <= MAX_HOURS:
        raise UserError(f"claim_hours {claim_hours} is out of range; above 0, up to {MAX_HOURS}")
    return claim_hours


@contextlib.contextmanager
def _unless_deleted(name: str, version: str) -> Iterator[None]:
    """Skip a version that was deleted since it was listed."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as e:
        if e.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        logger.info(f"models:/{name}/{version} has been deleted")


def _exists(name: str, version: str) -> bool:
    """Whether a version is there; a line says so where it has been deleted."""
    with _unless_deleted(name, version):
        VersionTags(name, version).read()
        return True
    return False


def _versions(*states: str) -> Iterator[tuple[str, str]]:
    """Name and number of every version in one of these states, the oldest first."""
    from mlflow import MlflowClient

    found = []
    for state in states:
        token: Any = None
        while True:
            page = MlflowClient().search_model_versions(f"tags.`{STATE}` = '{state}'", page_token=token)
            found += [(version.creation_timestamp, version.name, str(version.version)) for version in page]
            token = page.token
            if not token:
                break
    for _, name, version in sorted(found, key=lambda entry: (entry[0], entry[1], int(entry[2]))):
        yield name, version


def claimant() -> str:
    """The pipeline run (``KFP_RUN_ID``) that claims requests; UserError if there is none, or no MLflow server."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise UserError("the model registry is not known; set MLFLOW_TRACKING_URI")
    if not os.environ.get("KFP_RUN_ID"):
        raise UserError("requests are claimed for a pipeline run; set KFP_RUN_ID")
    return os.environ["KFP_RUN_ID"]


def _link(run: str) -> str:
    ui = os.environ.get("KFP_UI_URL", "").rstrip("/")
    return f"{ui}/#/runs/details/{run}" if ui else f"{PIPELINE_TAG}={run}"
