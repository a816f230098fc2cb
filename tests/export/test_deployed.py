"""What is deployed needs nothing of this project: the logged model, and model.onnx."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import mlflow
import numpy as np
import pytest
import requests
import torch
from packaging.requirements import Requirement

from pfs_core import tracking
from pfs_core.config.spec import ModelSpec
from pfs_core.data.split_info import SplitInfo
from pfs_core.export.deployable import deployable, example_images, try_onnx
from pfs_core.models import build_model
from tests.servers import free_port, served

SPLIT = SplitInfo.model_construct(mean=[120.0, 110.0, 100.0], std=[60.0, 61.0, 62.0], input_shape=(3, 32, 32))
FROM_MLFLOW = """
import importlib.util, sys
import mlflow, numpy as np, torch
assert not any(importlib.util.find_spec(name) for name in ("pfs_core", "components", "torchvision", "kfp", "boto3"))
images = np.load("images.npy")
network = mlflow.pytorch.load_model(sys.argv[1])
np.save("pytorch.npy", network(torch.from_numpy(images)).detach().numpy())
np.save("pyfunc.npy", mlflow.pyfunc.load_model(sys.argv[1]).predict(images))
"""
FROM_ONNX = """
import importlib.util
import numpy as np, onnxruntime
assert not any(importlib.util.find_spec(name) for name in ("pfs_core", "torch", "mlflow", "onnx"))
session = onnxruntime.InferenceSession("model.onnx")
np.save("onnx.npy", session.run(None, {"images": np.load("images.npy")})[0])
"""


@pytest.fixture(scope="module")
def deployed(tmp_path_factory, empty_store):
    """A folder with ``model.onnx`` and our logits for the example; and the folder of the logged model."""
    folder = tmp_path_factory.mktemp("deployed")
    shutil.copy(empty_store, folder / "mlflow.db")
    torch.manual_seed(0)
    network = build_model(ModelSpec(name="resnet20", kwargs={"width": 4})).eval()
    model, images = deployable(network, SPLIT), example_images((3, 32, 32))
    with torch.inference_mode():
        np.save(folder / "expected.npy", model(torch.from_numpy(images)).numpy())
    assert try_onnx(network, SPLIT, folder / "model.onnx") == ""
    (folder / "structure.json").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.delenv("KFP_RUN_ID", raising=False)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        tracking.make_experiment(folder / "artifacts")
        with tracking.step_run("report") as run:
            version = run.model(model, images, "pfs-resnet20", "# Card\n", [folder / "structure.json"])
        client = mlflow.MlflowClient()
        found = client.get_model_version_by_alias("pfs-resnet20", "newest")
        assert f"{found.name}/{found.version}" == version
        assert found.description == "# Card\n"
        source = mlflow.artifacts.download_artifacts("models:/pfs-resnet20@newest", dst_path=str(folder / "model"))
        mlflow.set_tracking_uri(None)
    return folder, Path(source)


def test_what_is_logged_lies_beside_the_model(deployed):
    names = {path.name for path in deployed[1].rglob("*")}
    assert {"README.md", "example_output.json", "structure.json", "MLmodel", "input_example.json"} <= names
    assert not any(name.endswith((".pkl", ".pth", ".pickle")) for name in names)


def needed(*roots):
    """The installed distributions that ``roots`` need, with themselves."""
    found, todo = {}, list(roots)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name not in found:
            found[name] = metadata.distribution(name)
            asked = [Requirement(line) for line in found[name].requires or ()]
            todo += [each.name for each in asked if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found.values()


def python_with(folder, *roots):
    """A Python of its own that has only ``roots`` and what they need."""
    venv.create(folder, symlinks=True)
    python, target = folder / "bin" / Path(sys.executable).name, next((folder / "lib").glob("python3.*/site-packages"))
    for distribution in needed(*roots):
        for command in distribution.entry_points.select(group="console_scripts"):
            script = folder / "bin" / command.name
            script.write_text(f"#!{python}\nfrom {command.module} import {command.attr}\n{command.attr}()\n")
            script.chmod(0o755)
        for name in {path.parts[0] for path in distribution.files if path.parts[0] not in ("..", "__pycache__")}:
            if not (target / name).exists():
                (target / name).symlink_to(distribution.locate_file(name))
    return python


def clean():
    """The environment variables without those that would lead back to the project."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")}


@pytest.fixture(scope="module")
def images(deployed):
    """The logged example."""
    example = np.asarray(json.loads((deployed[1] / "input_example.json").read_text()), dtype=np.float32)
    np.save(deployed[0] / "images.npy", example)
    return example


@pytest.fixture(scope="module")
def expected(deployed):
    """What was recorded for it; equal to what ours computes."""
    recorded = json.loads((deployed[1] / "extra_files" / "example_output.json").read_text())
    np.testing.assert_allclose(recorded, np.load(deployed[0] / "expected.npy"), rtol=1e-5)
    return recorded


@pytest.fixture(scope="module")
def with_mlflow(tmp_path_factory):
    return python_with(tmp_path_factory.mktemp("mlflow") / "venv", "mlflow", "torch")


def predicted(python, code, folder, *arguments):
    done = subprocess.run(
        [python, "-c", code, *arguments], cwd=folder, capture_output=True, text=True, env=clean(), check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_mlflow_and_torch_are_enough(deployed, images, expected, with_mlflow):
    predicted(with_mlflow, FROM_MLFLOW, deployed[0], str(deployed[1]))
    for output in ("pytorch", "pyfunc"):
        np.testing.assert_allclose(np.load(deployed[0] / f"{output}.npy"), expected, rtol=1e-3, atol=1e-5)


def test_onnxruntime_is_enough(deployed, images, expected, tmp_path):
    predicted(python_with(tmp_path / "venv", "onnxruntime"), FROM_ONNX, deployed[0])
    np.testing.assert_allclose(np.load(deployed[0] / "onnx.npy"), expected, rtol=1e-3, atol=1e-5)


def test_mlflow_serves_it(deployed, images, expected, with_mlflow, tmp_path):
    address = f"http://127.0.0.1:{free_port()}"
    command = [with_mlflow, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["--port", address.rpartition(":")[2], "--model-uri", deployed[1]]
    environment = {**clean(), "PATH": f"{with_mlflow.parent}:{os.environ['PATH']}"}
    with served(command, f"{address}/ping", tmp_path, environment):
        answer = requests.post(f"{address}/invocations", json={"inputs": images.tolist()}, timeout=60)
    assert answer.status_code == 200, answer.text
    np.testing.assert_allclose(answer.json()["predictions"], expected, rtol=1e-3, atol=1e-5)
