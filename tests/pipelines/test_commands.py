"""The commands that print, and how fast the help is to come."""

import json
import subprocess
import sys

import pytest

from pfs_core.structure import Structure
from pipelines.cli import main


def printed(capsys, *argv):
    """What a command prints."""
    assert main([str(a) for a in argv]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "macs", "params"),
    [("resnet20", 40813184, 272474), ("resnet56", 125747840, 855770), ("vgg16", 313201664, 14724042)],
)
def test_cost_is_the_published_one(capsys, model, macs, params):
    cost = json.loads(printed(capsys, "cost", model, "--json"))
    assert (cost["macs"], cost["params"]) == (macs, params)


def test_cost_of_a_structure_file_is_the_one_it_states(capsys, structures):
    structure = Structure.load(structures / "structure.json")
    flags = ("--input", "1x8x8", "--set", "model.width=4", "--widths", structures / "structure.json", "--json")
    cost = json.loads(printed(capsys, "cost", "resnet20", *flags))
    assert (cost["macs"], cost["params"]) == (structure.cost.macs, structure.cost.params)


def test_models_lists_the_zoo(capsys):
    rows = json.loads(printed(capsys, "models", "--json"))
    assert {row["model"] for row in rows} == {"resnet20", "resnet56", "vgg16"}


def test_inspect_says_why_a_group_is_frozen(capsys):
    text = printed(capsys, "inspect", "resnet20")
    assert "frozen: residual stream" in text
    assert "frozen: the network's output" in text
    assert "norm layer1.0.bn1 (gate)" in text


def test_help_imports_nothing_heavy():
    heavy = "torch", "numpy", "kfp", "mlflow", "pydantic"
    check = f"import sys, pipelines.cli; pipelines.cli.parser(); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_compile_writes_the_package(capsys, tmp_path):
    assert printed(capsys, "compile", "-o", tmp_path / "packages").strip().endswith("compress.yaml")
    assert (tmp_path / "packages" / "compress.yaml").stat().st_size > 1000
