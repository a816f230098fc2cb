"""What the tests of a cluster's commands need."""

import kfp.client
import pytest
from pfs_pipelines import client, credentials, following

import tests.quick_compilation  # noqa: F401 - takes effect when it is imported
from tests.pipelines.kfp_api import KfpApi


@pytest.fixture
def api(monkeypatch, tmp_path):
    """A Kubeflow Pipelines of a single user, which the environment names; waits are short, the user's home is empty."""
    for name in (
        "KF_PIPELINES_UI_ENDPOINT",
        "KF_PIPELINES_TOKEN",
        "KF_PIPELINES_COOKIES",
        "KF_PIPELINES_SA_TOKEN_PATH",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setattr(client, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(following, "EVERY", 0.001)
    monkeypatch.setattr(credentials, "_POD_TOKEN", str(tmp_path / "no-pod" / "token"))
    monkeypatch.setattr(kfp.client.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "home" / "context.json"))
    monkeypatch.setattr(kfp.client.Client, "_NAMESPACE_PATH", str(tmp_path / "no-pod" / "namespace"))
    served = KfpApi()
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", served.endpoint)
    yield served
    served.close()


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """A small compiled pipeline: one parameter of each type, a task in a loop."""
    from kfp import compiler, dsl

    @dsl.component(base_image="registry/pfs-python:1", install_kfp_package=False)
    def step(text: str, count: int) -> str:
        return text * count

    @dsl.pipeline(name="small")
    def small(text: str, count: int = 1, share: float = 0.5, on: bool = True, names: list = [], more: dict = {}):  # noqa: B006
        step(text=text, count=count)
        with dsl.ParallelFor([1, 2]) as item:
            step(text=text, count=item).set_display_name("Again")

    path = tmp_path_factory.mktemp("small") / "small.yaml"
    compiler.Compiler().compile(small, str(path))
    return path
