"""A real MLflow server with a model registry."""

import uuid

import mlflow
import pytest
from mlflow import MlflowClient


@pytest.fixture
def server(mlflow_address):
    """The address of the server."""
    return mlflow_address


@pytest.fixture
def registry(server, monkeypatch):
    """A client of the server, without requests of earlier tests; the environment is that of run ``run-1``."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("KFP_RUN_ID", "run-1")
    mlflow.set_tracking_uri(server)
    client = MlflowClient()
    for state in ("requested", "claimed"):
        for version in client.search_model_versions(f"tags.`pfs.compress` = '{state}'"):
            client.delete_model_version(version.name, version.version)
    yield client
    mlflow.set_tracking_uri(None)


@pytest.fixture
def ask(registry):
    """Makes a version of a new registered model that asks to be compressed; returns ``NAME, VERSION``."""

    def make(name=None, **tags):
        name = name or f"net-{uuid.uuid4().hex[:8]}"
        if not registry.search_registered_models(f"name = '{name}'"):
            registry.create_registered_model(name)
        asked = {"compress": "requested", "model": "resnet20", "dataset": "digits", "budget": "macs=0.5", **tags}
        tags = {f"pfs.{key}": value for key, value in asked.items() if value is not None}
        version = registry.create_model_version(name, "s3://models/net", tags=tags)
        return name, str(version.version)

    return make


@pytest.fixture
def tags(registry):
    """The tags of a version."""
    return lambda name, version: registry.get_model_version(name, version).tags
