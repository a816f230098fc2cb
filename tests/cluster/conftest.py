"""The server that the environment names, and MLflow beside it."""

import contextlib
import os

import pytest
from pfs_pipelines.client import Client, ServerError

from pfs_core.errors import UserError
from tests.cluster.backend import Backend, optional

NEEDED = "PFS_TEST_KFP_ENDPOINT"


def pytest_collection_modifyitems(items):
    """One line where there is no cluster."""
    if not os.environ.get(NEEDED):
        for item in items:
            if "tests/cluster/" in item.nodeid:
                item.add_marker(pytest.mark.skip(f"{NEEDED} names no Kubeflow Pipelines"))


@pytest.fixture(scope="session")
def backend():
    """The server; what was started on it and still runs at the end is ended."""
    found = Backend(Client(os.environ[NEEDED], os.environ.get("PFS_TEST_NAMESPACE", "")))
    yield found
    for run in found.started:
        with contextlib.suppress(UserError, ServerError):
            if not found._ending(run):
                found.terminate(run)


@pytest.fixture
def mlflow(monkeypatch):
    """A client of the MLflow that the cluster logs to, by an address that this machine reaches."""
    from mlflow import MlflowClient

    uri = optional("PFS_TEST_MLFLOW", "an address of the cluster's MLflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    return MlflowClient(uri)


@pytest.fixture(scope="session")
def kubernetes():
    """The API for the pods of the runs."""
    from kubernetes import client, config

    config.load_kube_config(
        optional("PFS_TEST_KUBECONFIG", "a kubeconfig that may delete pods and run commands in them")
    )
    return client.CoreV1Api()
