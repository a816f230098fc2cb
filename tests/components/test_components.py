"""The components as plain functions: what they call, and how they refuse."""

import json
from types import SimpleNamespace

import pytest
from pfs_components import check_request, extract_structure, retrain, split_data

from pfs_core.structure import Structure
from tests.data.folders import images, png, write


class Metrics(dict):
    """Stands in for ``kfp.dsl.Metrics``."""

    log_metric = dict.__setitem__


class Confusion:
    """Stands in for ``kfp.dsl.ClassificationMetrics``."""

    def log_confusion_matrix(self, classes, counts):
        self.classes, self.counts = classes, counts


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


def test_retrain_draws_the_confusion_matrix_that_it_wrote(structures, digits, tmp_path):
    confusion, model = Confusion(), at(tmp_path / "model")
    settings = {"epochs": 1.0, "batch_size": 512.0, "scratch_b": False}
    retrain.python_func(at(structures), at(digits), model, Metrics(), confusion, settings=settings)
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert confusion.classes == metrics["class_names"]
    assert sum(map(sum, confusion.counts)) == metrics["test_rows"]


def request(**changes):
    """What `check_request` takes."""
    return {"model": "resnet20", "dataset": "digits", "budgets": ["macs=0.5"]} | changes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": "resnet21"}, "did you mean resnet20?"),
        ({"budgets": ["macs=0.5", "macs=2"]}, "macs=2"),
        ({"budgets": []}, "no budget is given"),
        ({"budgets": ["macs=0.5", "macs=0.50"], "search_budget": "macs=0.5"}, "budget macs=0.5 is given twice"),
        ({"budgets": ["macs=0.5", "macs=0.3"], "search_budget": "", "one_search": True}, "budget '' is not understood"),
        (
            {"budgets": ["macs=0.5", "macs=0.3"], "search_budget": "half", "one_search": True},
            "budget 'half' is not understood",
        ),
        (
            {
                "budgets": ["macs=0.3"],
                "search_budget": "macs=0.5",
                "one_search": True,
                "search_settings": {"method": "amc"},
            },
            "search.method=amc finds widths for macs=0.5 alone",
        ),
        ({"networks": ["pruned", "thin"]}, "unknown network 'thin' to train"),
        ({"networks": ["dense"]}, 'leave out "pruned"'),
        (
            {
                "networks": ["pruned", "dense"],
                "retrain_settings": {"start": "inherited"},
                "search_settings": {"method": "network_slimming"},
            },
            'networks must be ["pruned"]',
        ),
        ({"recipe": "cifar"}, "unknown recipe 'cifar'"),
        ({"dataset": "cifra10"}, "use digits, or a folder"),
        ({"search_settings": {"epoch": 1.0}}, "search.epoch is not a setting"),
        ({"train_job": {"shared": "s3://b", "image": "i", "node": 2.0}}, "train_job.node is not a setting"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_started(changes, says, capsys):
    with pytest.raises(SystemExit) as stop:
        check_request.python_func(**request(**changes))
    assert stop.value.code == 2
    assert says in capsys.readouterr().out


def test_a_train_job_that_cannot_be_made_is_refused_before_anything_is_started(capsys, monkeypatch):
    job = {"shared": "s3://bucket/jobs", "image": "registry/pfs-python:1", "nodes": 2.0}
    assert check_request.python_func(**request(train_job=job)) == "digits"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hidden@mlflow.example")
    with pytest.raises(SystemExit) as stop:
        check_request.python_func(**request(train_job=job))
    assert stop.value.code == 2
    assert "MLFLOW_TRACKING_URI holds a login" in capsys.readouterr().out


def test_a_request_is_known_by_the_content_of_its_dataset(tmp_path):
    write(tmp_path / "train.parquet", [png(image) for image in images(4)], [0, 1, 0, 1])
    first, again = (check_request.python_func(**request(dataset=str(tmp_path))) for _ in range(2))
    write(tmp_path / "train.parquet", [png(image) for image in images(4)], [0, 1, 1, 1])
    assert first == again != check_request.python_func(**request(dataset=str(tmp_path)))
    assert check_request.python_func(**request()) == "digits"


def test_user_errors_are_one_marked_line_and_exit_code_2(structures, digits, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PFS_MARK_LINES", "1")
    with pytest.raises(SystemExit) as stop:
        retrain.python_func(at(structures), at(digits), at(tmp_path / "model"), Metrics(), Confusion(), network="thin")
    assert stop.value.code == 2
    assert capsys.readouterr().out == "[pfs] error: unknown network 'thin'; known: pruned, uniform, dense\n"
    assert not (tmp_path / "model").exists()
