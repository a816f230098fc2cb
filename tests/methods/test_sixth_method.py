"""A method is one package and one row: with them it is searched, cut, trained and reported as the others are."""

import subprocess
import sys

import pytest

from pfs_core import steps
from pfs_core.config.recipes import recipe
from pfs_core.errors import UserError
from pfs_core.methods.registry import METHODS, Method, method_config
from pfs_core.storage.artifacts import read_json
from pfs_core.structure import Structure
from tests.methods.toy import ToyConfig, describe

BRIEF = {"epochs": 1, "batch_size": 256, "precision": "fp32"}


@pytest.fixture
def toy(monkeypatch):
    row = Method("toy", "Toy", ToyConfig, "tests.methods.toy:run", describe)
    monkeypatch.setitem(METHODS, row.name, row)


def test_a_sixth_method_is_one_package_and_one_row(toy, no_memory, digits, tmp_path):
    gates, structures, model, latency, page = (tmp_path / name for name in ("g", "s", "model-pruned", "l", "r"))
    steps.search("resnet20", digits, gates, settings={"method": "toy", "lowest": 0.2}, model_settings={"width": 4})
    assert read_json(gates / "search.json")["recipe"]["lowest"] == 0.2
    steps.extract(gates, structures)
    found = Structure.load(structures / "structure.json")
    assert found.chosen_by["method"] == "toy"
    steps.retrain(structures / "structure.json", digits, model, settings=BRIEF)
    brief = {
        "patience_seconds": 0,
        "warmup_seconds": 0,
        "warmup_rounds": 1,
        "max_seconds": 0.01,
        "threads": 1,
        "runtimes": "eager",
    }
    steps.benchmark([structures / "structure.json"], latency, settings=brief)
    steps.report(digits, gates, structures, [model], latency, page)
    text = (page / "report.html").read_text()
    assert "Toy: the first channels, no questions asked" in text
    assert "by Toy, cut" in text


def test_its_settings_are_checked(toy):
    with pytest.raises(UserError, match="search.highest is not a setting; known: method, "):
        method_config(recipe("demo"), {"method": "toy", "highest": 1})


def test_the_table_of_methods_loads_no_torch():
    code = "import sys, pfs_core.methods.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
