"""The compiled pipeline in real containers, one a step, beside an MLflow server.

    python -m tests.containers IMAGE FOLDER

Needs Docker, or podman's API at DOCKER_HOST. The containers share the network of this machine, run as the image's own
user and with a root that they cannot write. Results go to FOLDER.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

SETTINGS = {
    "settings_model": {"width": 4},
    "settings_search": {"epochs": 1},
    "settings_retrain": {"epochs": 1, "scratch_b": False},
    "settings_latency": {"patience_seconds": 0, "max_seconds": 1, "min_rounds": 64},
}


def main(image: str, folder: Path) -> None:
    """Run ``compress`` and check what it leaves."""
    folder.mkdir(parents=True)
    folder.chmod(0o777)  # the image's user is another than this one
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    store = ("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "mlflow"))
    server = [sys.executable, "-m", "mlflow", "server", *store, "--port", str(port)]
    with subprocess.Popen(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as mlflow:
        try:
            wait_for(f"{uri}/health")
            run(image, folder, uri)
            check(folder, uri)
        finally:
            mlflow.terminate()


def run(image: str, folder: Path, uri: str) -> None:
    """The pipeline through kfp's own runner."""
    os.environ["PFS_IMAGE"] = image
    from kfp import local
    from pfs_pipelines.compress import define
    from pfs_pipelines.pools import Placement

    runner = local.DockerRunner(
        network_mode="host",
        read_only=True,
        tmpfs={"/tmp": "mode=1777"},
        working_dir="/tmp",
        environment={"MLFLOW_TRACKING_URI": uri, "KFP_RUN_ID": "containers", "OMP_NUM_THREADS": "1"},
    )
    local.init(runner, pipeline_root=str(folder / "steps"))
    (folder / "steps").mkdir()
    (folder / "steps").chmod(0o777)
    define(Placement(local=True))(networks=["pruned", "dense"], **SETTINGS)


def check(folder: Path, uri: str) -> None:
    """Say what is there; an AssertionError if something is missing."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("pfs-resnet20").experiment_id])
    steps = sorted(run.data.tags["pfs.step"] for run in runs)
    expected = ["extract", "latency", "pipeline", "report", "retrain/dense", "retrain/pruned", "search", "split"]
    assert steps == expected, steps
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert client.get_model_version("pfs-resnet20", "1").status == "READY"
    report = next((folder / "steps").rglob("report.html"))
    print(f"all steps ran in {os.environ['PFS_IMAGE']}; report: {report}")


def wait_for(address: str, seconds: float = 60) -> None:
    """Return when a server answers; TimeoutError if it does not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address):
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(address)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).absolute())
