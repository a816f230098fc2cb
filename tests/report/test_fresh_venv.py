"""The registered network loads where mlflow and torch are installed and nothing of the project is."""

import json
import subprocess
import venv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import mlflow
import pytest
from packaging.requirements import Requirement

from pfs_core import steps

CODE = """
import importlib.util, json, pathlib, sys
import mlflow, numpy, torch

for name in ("pfs_core", "components", "pipelines"):
    assert importlib.util.find_spec(name) is None, name
mlflow.set_tracking_uri(sys.argv[1])
uri = sys.argv[2]
folder = pathlib.Path(mlflow.artifacts.download_artifacts(uri))
assert not list(folder.rglob("*.pkl")) and not list(folder.rglob("*.pth"))
expected = numpy.array(json.loads((folder / "extra_files" / "example_output.json").read_text()))
example = mlflow.pyfunc.load_model(uri).input_example.astype("float32")
found = {
    "pytorch": mlflow.pytorch.load_model(uri)(torch.from_numpy(example)).detach().numpy(),
    "pyfunc": mlflow.pyfunc.load_model(uri).predict(example),
}
print(json.dumps({name: float(abs(output - expected).max()) for name, output in found.items()}))
"""


def closure(*names):
    """These distributions and all that they need here."""
    found, waiting = {}, list(names)
    while waiting:
        name = waiting.pop()
        try:
            dist = distribution(name)
        except PackageNotFoundError:
            continue  # an extra, or for another system
        key = dist.name.lower().replace("_", "-")
        if key not in found:
            found[key] = dist
            needs = [Requirement(text) for text in dist.requires or []]
            waiting += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of a new venv, in which mlflow, torch and what they need are links to those installed here."""
    folder = tmp_path_factory.mktemp("venv") / "venv"
    venv.create(folder)
    packages = next(folder.glob("lib/python*/site-packages"))
    for dist in closure("mlflow", "torch", "numpy").values():
        for top in {path.parts[0] for path in dist.files or [] if path.parts[0] not in ("..", "__pycache__")}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(dist.locate_file(top)))
    return folder / "bin" / "python"


@pytest.mark.slow
def test_the_registered_network_gives_its_recorded_output_in_a_fresh_venv(
    python, digits, gates, structures, models, latency, tmp_path, monkeypatch
):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for name in ("KFP_RUN_ID", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(uri)
    steps.report(digits, gates, structures, models, latency, tmp_path / "report")
    mlflow.set_tracking_uri(None)
    command = [str(python), "-I", "-c", CODE, uri, "models:/pfs-resnet20/latest"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    differences = json.loads(done.stdout.splitlines()[-1])
    assert set(differences) == {"pytorch", "pyfunc"}
    assert max(differences.values()) < 1e-4
