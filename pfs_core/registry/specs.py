"""Requests as files; each becomes one version of a registered model."""

import hashlib
import logging
import re
from typing import Any

from pydantic import Field, field_validator

from pfs_core.errors import UserError
from pfs_core.registry.claims import Claim
from pfs_core.registry.request import REQUESTED, STATE, Request
from pfs_core.storage import open_storage
from pfs_core.storage.strict import json_value, yaml_value

logger = logging.getLogger(__package__)

SHA256 = "pfs.spec_sha256"
FILES = r"\.(json|ya?ml)$"


class RequestFile(Request):
    """A request together with the name of its registered model."""

    name: str = Field(min_length=1)
    """The name of the registered model."""

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not re.fullmatch(r"[\w.-]+", name):
            raise ValueError("must be of letters, digits, '_', '.' and '-'")
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
    one version between them. A file that is no request is left out with a warning.

    Args:
        prefix: a folder or ``s3://`` prefix.
        run: the id of the pipeline run that looks.

    Raises:
        UserError: ``prefix`` cannot be read.
    """
    storage = open_storage(prefix)
    for entry in storage.files().matching(FILES):
        place = f"{storage.uri}/{entry.path}"
        data = storage.read(entry)
        try:
            request = RequestFile.parse(_parsed(data, place), place)
        except UserError as e:
            logger.warning(f"left out: {e}")
            continue
        _register(request, hashlib.sha256(data).hexdigest(), place, run)


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
    if not claim.take():  # another run is registering this model's files
        return
    known = client.search_model_versions(f"name = '{request.name}'")
    if all(version.tags.get(SHA256) != sha256 for version in known):
        tags = {**request.tags(), STATE: REQUESTED, SHA256: sha256}
        tags.pop("pfs.name")
        source = place if "://" in place else f"request://{place}"  # MLflow refuses files of this machine
        client.create_model_version(request.name, source, tags=tags)
    claim.drop()


def _parsed(data: bytes, place: str) -> Any:
    try:
        return json_value(data) if place.endswith(".json") else yaml_value(data)
    except ValueError as e:
        raise UserError(f"{place} is not {'JSON' if place.endswith('.json') else 'YAML'}: {e}") from None
