"""The notebooks run from the first cell to the last, and are committed as a reader can see them."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples").glob("*.ipynb"))
FIGURE_BYTES = 60_000


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def test_a_notebook_runs(notebook, tmp_path, monkeypatch, no_memory):
    """A run that it reads is made by its own function, but here, where neither memory nor ONNX is asked for."""
    for name in ("PFS_RUN", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for cell in notebook.cells:
        if cell.source.startswith("def make_run("):
            definition, call, _ = cell.source.partition("\n\n\nrun = ")
            assert call
            names = {"Path": Path}
            exec(definition, names)
            names["make_run"](tmp_path / "run")
            monkeypatch.setenv("PFS_RUN", str(tmp_path / "run"))
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()


def test_its_results_are_committed_and_small(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    figures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(figures) == 2
    assert all(len(figure) * 3 / 4 < FIGURE_BYTES for figure in figures)
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert "/tmp" not in str(outputs)
