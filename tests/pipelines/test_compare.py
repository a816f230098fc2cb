"""``compare`` from split to comparison, through the real kfp.local."""

import json

import mlflow
import pytest
from mlflow import MlflowClient

from pfs_core import steps
from pfs_core.errors import UserError
from tests.pipelines.brief import SETTINGS, run_pipeline

METHODS, SEEDS = ["uniform", "network_slimming"], [0, 3]
BRIEF = {name: settings for name, settings in SETTINGS.items() if name != "search_settings"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The comparison folder of a finished run; its MLflow store is the current one."""
    work = tmp_path_factory.mktemp("compare")
    store = f"sqlite:///{work / 'mlflow.db'}"
    slimming = {"network_slimming": {"epochs": 1, "batch_size": 256}}
    arguments = {"methods": METHODS, "seeds": SEEDS, "method_settings": slimming, **BRIEF}
    done = run_pipeline("compare", work / "steps", store, "compare-1", **arguments)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    mlflow.set_tracking_uri(store)
    return next((work / "steps").rglob("comparison.json")).parent


@pytest.mark.slow
def test_every_method_is_a_row_of_all_seeds(finished):
    rows = json.loads((finished / "comparison.json").read_text())["rows"]
    assert [(row["name"], row["seeds"]) for row in rows] == [("", 2), ("uniform", 2), ("network_slimming", 2)]
    dense, uniform, slimming = rows
    assert max(uniform["macs"], slimming["macs"]) <= 0.5 * dense["macs"]
    assert (uniform["search_forward_images"], slimming["search_forward_images"]) == (0, 1294 + 144)
    low, high = slimming["test_accuracy_interval"]
    assert low < slimming["test_accuracy"] < high
    reports = sorted(path.parent.name for path in finished.rglob("report.html"))
    assert reports == [f"{method}-seed{seed}" for method in sorted(METHODS) for seed in SEEDS]


@pytest.mark.slow
def test_the_runs_are_in_mlflow_below_one(finished):
    experiment = mlflow.get_experiment_by_name("pfs-resnet20").experiment_id
    runs = MlflowClient().search_runs([experiment])
    found = sorted(run.data.tags["pfs.step"] for run in runs)
    assert found == sorted(
        ["pipeline", "split", "compare", *["retrain/dense"] * 2]
        + ["search"] * 4  # the first uniform one is also where the dense structure is from
        + ["extract"] * 3  # uniform widths are those of every seed
        + ["retrain/pruned", "latency"] * 4
    )
    parent = next(run for run in runs if run.data.tags["pfs.step"] == "pipeline")
    assert (parent.info.status, parent.info.run_name) == ("FINISHED", "compare resnet20 macs=0.5")
    assert parent.data.metrics["network_slimming.search_device_seconds"] > 0
    searched = [run for run in runs if run.data.tags.get("pfs.method") == "network_slimming"]
    slimming = next(run for run in searched if run.data.tags["pfs.step"] == "search")
    assert slimming.data.metrics["search.forward_images"] == 1294 + 144
    assert slimming.data.metrics["search.device_seconds"] > 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"methods": []}, "name each method once"),
        ({"methods": ["pfs", "pfs"]}, "name each method once"),
        ({"seeds": [1, 1]}, "name each seed once"),
        ({"settings": {"amc": {}}}, "method_settings are of 'amc', which is none of"),
        ({"methods": ["pfs", "magic"]}, "'magic' is not known"),
        ({"settings": {"pfs": {"episodes": 3}}}, "search.episodes is not a setting"),
    ],
)
def test_a_wrong_plan_is_refused(changes, says):
    plan = {"methods": ["pfs"], "seeds": [0], "settings": {}, **changes}
    with pytest.raises(UserError, match=says):
        steps.plan_comparison("resnet20", "digits", "macs=0.5", **plan)
