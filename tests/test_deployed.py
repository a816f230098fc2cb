"""What is deployed needs nothing of this project: the logged model, and model.onnx."""

import json
import os
import site
import subprocess
import sys
import venv
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

from pfs_core import tracking
from pfs_core.deployable import deployable, example_images, try_onnx
from pfs_core.models import build_model
from pfs_core.spec import ModelSpec

SPLIT = {"mean": [120.0, 110.0, 100.0], "std": [60.0, 61.0, 62.0], "input_shape": [3, 32, 32]}
OURS = ("pfs", "__editable__", "__pycache__")

FROM_MLFLOW = """
import importlib.util, sys
import mlflow, numpy as np, torch
assert not any(importlib.util.find_spec(name) for name in ("pfs_core", "components", "pipelines"))
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
def deployed(tmp_path_factory):
    """A folder with ``model.onnx`` and our logits for the example; and the folder of the logged model."""
    folder = tmp_path_factory.mktemp("deployed")
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


def without_us(folder, only=()):
    """A Python whose packages are this one's without the project's, or ``only`` some of them."""
    venv.create(folder, symlinks=True)
    packages = Path(site.getsitepackages()[0])
    target = next((folder / "lib").glob("python3.*/site-packages"))
    for path in packages.iterdir():
        if not path.name.startswith(OURS) and (not only or path.name.split("-")[0].split(".")[0] in only):
            (target / path.name).symlink_to(path)
    return folder / "bin" / Path(sys.executable).name


@pytest.mark.parametrize(
    ("code", "only", "outputs"),
    [
        (FROM_MLFLOW, (), ("pytorch", "pyfunc")),
        (FROM_ONNX, ("numpy", "onnxruntime", "flatbuffers", "google", "packaging"), ("onnx",)),
    ],
    ids=["mlflow", "onnx"],
)
def test_it_predicts_the_same_without_the_project(deployed, tmp_path, code, only, outputs):
    folder, model = deployed
    example = json.loads((model / "input_example.json").read_text())
    np.save(folder / "images.npy", np.asarray(example, dtype=np.float32))
    python = without_us(tmp_path / "venv", only)
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")}
    done = subprocess.run(
        [python, "-c", code, str(model)], cwd=folder, capture_output=True, text=True, env=clean, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = json.loads((model / "extra_files" / "example_output.json").read_text())
    np.testing.assert_allclose(expected, np.load(folder / "expected.npy"), rtol=1e-5)
    for output in outputs:
        np.testing.assert_allclose(np.load(folder / f"{output}.npy"), expected, rtol=1e-3, atol=1e-5)
