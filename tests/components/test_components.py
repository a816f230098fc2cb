"""The components as plain functions: what they call, and how they refuse."""

from types import SimpleNamespace

import pytest

from components import extract_structure, retrain, split_data
from pfs_core.structure import Structure


class Metrics(dict):
    """Stands in for ``kfp.dsl.Metrics``."""

    log_metric = dict.__setitem__


def at(path):
    """Stands in for an artifact."""
    return SimpleNamespace(path=str(path), metadata={})


def test_split_data_writes_the_split_and_its_rows(tmp_path):
    metrics = Metrics()
    split_data.python_func(
        "digits", at(tmp_path / "split"), at(tmp_path / "page.html"), metrics, settings={"validation": 100.0}
    )
    assert (tmp_path / "page.html").read_bytes() == (tmp_path / "split" / "dataset.html").read_bytes()
    assert metrics["validation_rows"] == 100
    assert (tmp_path / "split" / "split.json").is_file()


def test_extract_structure_logs_the_cost_it_wrote(gates, tmp_path):
    metrics = Metrics()
    extract_structure.python_func(at(gates), at(tmp_path / "structures"), metrics, budget="params=0.5")
    structure = Structure.load(tmp_path / "structures" / "structure.json")
    assert (metrics["macs"], metrics["params"]) == (structure.cost.macs, structure.cost.params)
    assert metrics["params_fraction"] <= 0.5


def test_user_errors_are_one_marked_line_and_exit_code_2(structures, digits, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PFS_MARK_LINES", "1")
    with pytest.raises(SystemExit) as stop:
        retrain.python_func(at(structures), at(digits), at(tmp_path / "model"), Metrics(), network="thin")
    assert stop.value.code == 2
    assert capsys.readouterr().out == "[pfs] error: unknown network 'thin'; known: pruned, uniform, dense\n"
    assert not (tmp_path / "model").exists()
