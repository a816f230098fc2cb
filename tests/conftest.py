"""What many tests need: the digits, split once, and a search and an extraction on them, done once. Only to be read."""

import inspect
import logging
import os
import shutil
import sys
import uuid

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

from pfs_core.config.spec import Budget, ModelSpec
from pfs_core.data import load_split, split_dataset
from pfs_core.methods.pfs.config import PfsConfig
from pfs_core.methods.run import search
from pfs_core.runtime.logs import log_to_terminal
from pfs_core.steps.extraction import extract_structures
from tests.budgets import PAPERS_CUT
from tests.faulty import Faulty
from tests.models.factories import FACTORIES
from tests.servers import mlflow_server

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # the same bytes are promised on one and the same device
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start: their threads would wait for each other
torch.set_num_threads(1)  # networks this small only get slower with more

settings.register_profile(
    "pfs",
    deadline=None,
    max_examples=25,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("pfs")


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory):
    """What is made once on a machine is made once for all tests, and not taken from what was made before."""
    folder = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PFS_CACHE", str((folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "cache"))
        yield


@pytest.fixture(autouse=True, scope="session")
def no_onnx():
    """A retraining writes no ``model.onnx``, which takes longer than what it is tested for; pipelines do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pfs_core.training.retrain.try_onnx", lambda *_: "not in this test")
        yield


@pytest.fixture(autouse=True, scope="session")
def quick_stacks():
    """kfp asks for the stack of callers at every setting of a task, and inspect searches all modules for its lines."""
    every_line = inspect.stack
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspect, "stack", lambda context=0: every_line(0))
        yield


@pytest.fixture(autouse=True, scope="session")
def compiled_once():
    """The same pipeline is compiled once; ``packages.compile_one`` imported by name compiles anew."""
    from pfs_pipelines import compiled, packages

    compile_one, made = packages.compile_one, {}

    def once(name, path, *options, **named):
        key = repr((name, options, sorted(named.items()), os.environ.get("PFS_IMAGE")))
        if key not in made:
            made[key] = compile_one(name, path, *options, **named).read_bytes()
        path.write_bytes(made[key])
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packages, "compile_one", once)
        patch.setattr(compiled, "compile_one", once)
        yield


@pytest.fixture
def no_memory(monkeypatch):
    """A benchmark does not measure memory, for which it starts a process that loads PyTorch once more."""
    monkeypatch.setattr("pfs_core.latency.benchmarking.peak_memory", lambda jobs: [None] * len(jobs))


@pytest.fixture(autouse=True)
def terminal():
    """What is logged is printed, so that tests can read it as a user does."""
    log_to_terminal()


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; without one on the PATH no page is opened, which CI takes for a failure."""
    from playwright.sync_api import sync_playwright

    if not (chromium := shutil.which("chromium")):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no chromium on the PATH")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The ``split`` folder of the digits."""
    folder = tmp_path_factory.mktemp("digits") / "split"
    split_dataset("digits", folder)
    return folder


@pytest.fixture(scope="session")
def digits_data(digits):
    """The same, in memory."""
    return load_split(digits)


@pytest.fixture(scope="session")
def narrow():
    """A ResNet-20 of a quarter of its width."""
    return ModelSpec(name="resnet20", kwargs={"width": 4})


@pytest.fixture(scope="session")
def brief():
    """A search of two epochs."""
    return PfsConfig(epochs=2, precision="fp32")


@pytest.fixture(scope="session")
def gates(digits, narrow, brief, tmp_path_factory):
    """The ``gates`` folder of that search, seed 0."""
    folder = tmp_path_factory.mktemp("search") / "gates"
    search(narrow, digits, folder, Budget(target=0.5), brief, seed=0)
    return folder


@pytest.fixture(scope="session")
def structures(gates, tmp_path_factory):
    """The ``structures`` folder of those gates at half the MACs."""
    folder = tmp_path_factory.mktemp("extract") / "structures"
    extract_structures(gates, folder, Budget(target=0.5), PAPERS_CUT)
    return folder


@pytest.fixture(scope="session")
def store():
    """An S3 store as a client: that of PFS_TEST_S3_ENDPOINT (with the usual AWS_* keys), else moto's on a free port."""
    import boto3

    if given := os.environ.get("PFS_TEST_S3_ENDPOINT"):
        yield boto3.client("s3", endpoint_url=given)
        return
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
    yield boto3.client("s3", endpoint_url=address, **keys)
    server.stop()


@pytest.fixture
def bucket(store, monkeypatch):
    """The address of an empty bucket; the environment says how to reach it, as a user's would."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.meta.endpoint_url)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    if "PFS_TEST_S3_ENDPOINT" not in os.environ:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = f"pfs-{uuid.uuid4().hex}"
    store.create_bucket(Bucket=name)
    yield f"s3://{name}"
    for item in store.list_objects_v2(Bucket=name).get("Contents", []):
        store.delete_object(Bucket=name, Key=item["Key"])
    for part in store.list_multipart_uploads(Bucket=name).get("Uploads", []):
        store.abort_multipart_upload(Bucket=name, Key=part["Key"], UploadId=part["UploadId"])
    store.delete_bucket(Bucket=name)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A database with MLflow's tables; making them takes seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def mlflow_folder(tmp_path_factory, empty_store):
    """The folder of the MLflow server that tests share: its database, its artifacts and what it says."""
    folder = tmp_path_factory.mktemp("mlflow")
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="session")
def mlflow_address(mlflow_folder):
    """The address of that server; starting one takes longer than most tests."""
    with mlflow_server(mlflow_folder) as address:
        yield address


@pytest.fixture
def faulty(bucket, store, monkeypatch):
    """A store in front of the bucket's that fails by its plan, and short waits before what failed is tried again."""
    proxy = Faulty(store.meta.endpoint_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    monkeypatch.setattr("pfs_core.storage.s3._FIRST_WAIT", 0.001)
    yield proxy
    proxy.close()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def nets(here):
    """``nets.py``, a user's module of networks, in the current directory."""
    (here / "nets.py").write_text(FACTORIES)
    return here / "nets.py"
