"""``pareto`` from split to comparison, through the real kfp.local."""

import csv
import json
import re
from types import SimpleNamespace

import mlflow
import pytest
from mlflow import MlflowClient

from pfs_core.report.comparison_rows import pareto_front
from tests.pipelines.brief import SETTINGS, run_pipeline

BUDGETS = ["macs=0.6", "macs=0.4"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The comparison folder of a finished run; its MLflow store is the current one."""
    work = tmp_path_factory.mktemp("pareto")
    store = f"sqlite:///{work / 'mlflow.db'}"
    done = run_pipeline("pareto", work / "steps", store, "pareto-1", budgets=BUDGETS, **SETTINGS)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    mlflow.set_tracking_uri(store)
    return next((work / "steps").rglob("comparison.json")).parent


def runs():
    experiment = mlflow.get_experiment_by_name("pfs-resnet20").experiment_id
    return MlflowClient().search_runs([experiment])


@pytest.mark.slow
def test_every_budget_is_kept_and_the_largest_comes_first(finished):
    dense, *pruned = json.loads((finished / "comparison.json").read_text())["rows"]
    assert [row["budget"] for row in pruned] == BUDGETS
    for row in pruned:
        assert row["macs"] <= float(row["budget"].split("=")[1]) * dense["macs"]
        assert row["test_accuracy"] is not None
        assert row["latency_ratio"] > 0


@pytest.mark.slow
def test_one_search_serves_all(finished):
    searches = [run for run in runs() if run.data.tags["pfs.step"] == "search"]
    assert len(searches) == 1
    trained = [path.parent / "structure.json" for path in finished.parents[2].rglob("metrics.json")]
    records = [json.loads(path.read_text()) for path in trained]
    cut = [record["provenance"]["gates_sha256"] for record in records if record["chosen_by"]["method"] == "pfs"]
    assert len(cut) == 2
    assert len(set(cut)) == 1


@pytest.mark.slow
def test_every_training_has_its_run_and_its_registered_model(finished):
    steps = sorted(run.data.tags["pfs.step"] for run in runs())
    assert steps.count("retrain/pruned") == 2
    assert steps.count("retrain/dense") == 1
    parent = next(run for run in runs() if run.data.tags["pfs.step"] == "pipeline")
    assert parent.info.status == "FINISHED"
    assert {"dense.test_accuracy", "macs-0.6.test_accuracy", "macs-0.4.latency_ratio"} <= set(parent.data.metrics)
    versions = MlflowClient().search_model_versions("name='pfs-resnet20'")
    assert sorted(int(version.version) for version in versions) == [1, 2]


@pytest.mark.slow
def test_the_table_opens_in_a_spreadsheet(finished):
    with (finished / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    stated = json.loads((finished / "comparison.json").read_text())["rows"]
    assert [float(row["test_accuracy_interval_low"]) for row in rows] == [
        row["test_accuracy_interval"][0] for row in stated
    ]
    assert [row["budget"] for row in rows] == ["", *BUDGETS]


@pytest.mark.slow
def test_pages_need_no_network(finished):
    pages = sorted(finished.rglob("*.html"))
    assert [page.name for page in pages] == ["comparison.html", "report.html", "report.html"]
    for page in pages:
        text = page.read_text()
        assert "<svg" in text
        loaded = re.findall(r"""(?:\bsrc|<link[^>]* href)=["']?([^"'\s>]*)|\burl\(([^)]*)\)""", text)
        assert [
            address for pair in loaded for address in pair if address and not address.startswith(("data:", "#"))
        ] == []


def row(macs, accuracy):
    return SimpleNamespace(network=SimpleNamespace(macs=macs, test_accuracy=accuracy))


def test_the_front_leaves_out_what_another_beats():
    best = [row(10, 0.7), row(20, 0.8)]
    assert pareto_front([*best, row(15, 0.7), row(20, 0.79), row(30, 0.8)]) == best
    assert pareto_front([row(10, 0.5), row(10, 0.5)]) == [row(10, 0.5), row(10, 0.5)]
