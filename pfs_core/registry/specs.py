"""Requests as files; each becomes one version of a registered model."""

import hashlib
import logging
import re
from collections.abc import Sequence
from typing import Any

from pydantic import Field, field_validator

from pfs_core.errors import ChangedError, NotFoundError, UserError, one_line
from pfs_core.registry.claims import Claim
from pfs_core.registry.request import REQUESTED, SHA256, STATE, Request
from pfs_core.storage import S3Storage, Storage, open_storage
from pfs_core.storage.listing import Entry
from pfs_core.storage.strict import json_value, yaml_value
from pfs_core.tracking.answers import refusal, unsent

logger = logging.getLogger(__package__)

FILES = r"\.(json|ya?ml)$"
_LONGEST_NAME = 256 - len("-pruned")
"""The most characters of the name: MLflow takes 256, and the result's is longer."""


class RequestFile(Request):
    """A request together with the name of its registered model."""

    name: str = Field(min_length=1, max_length=_LONGEST_NAME)
    """The name of the registered model."""

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not re.fullmatch(r"[\w.-]+", name) or name == "." or name.startswith(".."):
            raise ValueError("must be of letters, digits, '_', '.' and '-', and not begin with '..'")
        return name


class ModelTags:
    """The tags of a registered model (see :class:`pfs_core.registry.claims.Tags`)."""

    def __init__(self, name: str) -> None:
        from mlflow import MlflowClient

        self._client, self._name = MlflowClient(), name

    def read(self) -> dict[str, str]:
        """All of them, as they are now."""
        return dict(self._client.get_registered_model(self._name).tags)

    def write(self, key: str, value: str) -> None:
        """Set one."""
        self._client.set_registered_model_tag(self._name, key, value)

    def delete(self, key: str) -> None:
        """Remove one, if it is there."""
        self._client.delete_registered_model_tag(self._name, key)


def register_files(prefix: str, run: str) -> None:
    """Create a version with the state ``requested`` for every request file below ``prefix`` that has none yet.

    A file is identified by its content: a file that changes is a new request. Runs that look at the same time create
    one version between them. A file that is no request, cannot be read or is refused by MLflow is left out with a
    warning; an object store without files has none.

    Args:
        prefix: a folder or ``s3://`` prefix.
        run: the id of the pipeline run that looks.

    Raises:
        UserError: ``prefix`` cannot be listed.
        MlflowException: MLflow does not answer.
    """
    from mlflow.exceptions import MlflowException

    storage = open_storage(prefix)
    for entry in _files(storage):
        place = f"{storage.uri}/{entry.path}"
        try:
            data = storage.read(entry)
            request = RequestFile.parse(_parsed(data, place), place)
            _register(request, hashlib.sha256(data).hexdigest(), place, run)
        except (NotFoundError, ChangedError):
            logger.warning(f"left out: {place} was changed or removed just now; the next run looks again")
        except UserError as e:
            logger.warning(f"left out: {e}")
        except MlflowException as e:
            if unsent(e):  # nor will it take another
                raise
            logger.warning(f"left out: {place}: {refusal(e) or one_line(e)}")


def _files(storage: Storage) -> Sequence[Entry]:
    """The files that may be requests. A prefix of a bucket is not there when it is empty; a folder is."""
    try:
        return storage.files().matching(FILES)
    except NotFoundError as e:
        if not isinstance(storage, S3Storage):
            raise
        logger.warning(f"no request files: {e}")
        return ()


def _register(request: RequestFile, sha256: str, place: str, run: str) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient()
    try:
        client.create_registered_model(request.name)
    except MlflowException as e:
        if e.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    claim = Claim(ModelTags(request.name), run, hours=1)
    if not claim.take():
        logger.info(f"{place} is left to another run, which registers requests of {request.name} at the moment")
        return
    try:
        known = client.search_model_versions(f"name = '{request.name}'")
        if all(version.tags.get(SHA256) != sha256 for version in known):
            tags = {**request.tags(), STATE: REQUESTED, SHA256: sha256}
            tags.pop("pfs.name")
            source = place if "://" in place else f"request://{place}"  # MLflow refuses files of this machine
            client.create_model_version(request.name, source, tags=tags)
    finally:
        claim.drop()


def _parsed(data: bytes, place: str) -> Any:
    try:
        return json_value(data) if place.endswith(".json") else yaml_value(data)
    except ValueError as e:
        raise UserError(f"{place} is not {'JSON' if place.endswith('.json') else 'YAML'}: {e}") from None
