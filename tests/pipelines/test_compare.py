"""``compare`` from split to comparison, through the real kfp.local."""

import json

import mlflow
import pytest
from mlflow import MlflowClient

from pfs_core import steps
from pfs_core.errors import UserError
from tests.pipelines.brief import SETTINGS, run_pipeline

METHODS, SEEDS, BUDGETS = ["uniform", "network_slimming"], [0, 3], ["macs=0.5", "macs=0.4"]
BRIEF = {name: settings for name, settings in SETTINGS.items() if name != "search_settings"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The comparison folder of a finished run; its MLflow store is the current one."""
    work = tmp_path_factory.mktemp("compare")
    store = f"sqlite:///{work / 'mlflow.db'}"
    slimming = {"network_slimming": {"epochs": 1, "batch_size": 256}}
    arguments = {"methods": METHODS, "budgets": BUDGETS, "seeds": SEEDS, "method_settings": slimming, **BRIEF}
    done = run_pipeline("compare", work / "steps", store, "compare-1", **arguments)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    mlflow.set_tracking_uri(store)
    return next((work / "steps").rglob("comparison.json")).parent


@pytest.mark.slow
def test_every_method_and_budget_is_a_row_of_all_seeds(finished):
    rows = {row["name"]: row for row in json.loads((finished / "comparison.json").read_text())["rows"]}
    assert rows.keys() == {"", *(f"{method} {budget}" for method in METHODS for budget in BUDGETS)}
    assert {row["seeds"] for row in rows.values()} == {2}
    for method in METHODS:
        half, less = (rows[f"{method} {budget}"]["macs"] / rows[""]["macs"] for budget in BUDGETS)
        assert 0.35 < less <= 0.4 < half <= 0.5
    uniform, slimming = rows["uniform macs=0.5"], rows["network_slimming macs=0.5"]
    assert (uniform["search_forward_images"], slimming["search_forward_images"]) == (0, 1294 + 144)
    low, high = slimming["test_accuracy_interval"]
    assert low < slimming["test_accuracy"] < high
    assert len(list(finished.rglob("report.html"))) == len(METHODS) * len(BUDGETS) * len(SEEDS)


@pytest.mark.slow
def test_the_runs_are_in_mlflow_below_one(finished):
    experiment = mlflow.get_experiment_by_name("pfs-resnet20").experiment_id
    runs = MlflowClient().search_runs([experiment])
    found = sorted(run.data.tags["pfs.step"] for run in runs)
    assert found == sorted(
        ["pipeline", "split", "compare", *["retrain/dense"] * 2]
        + ["search"] * 9  # with one that the dense structure is from
        + ["extract"] * 7  # uniform widths are those of every seed
        + ["retrain/pruned", "latency"] * 8
    )
    parent = next(run for run in runs if run.data.tags["pfs.step"] == "pipeline")
    assert (parent.info.status, parent.info.run_name) == ("FINISHED", "compare resnet20 macs=0.5 macs=0.4")
    assert parent.data.metrics["network_slimming-macs-0.5.search_device_seconds"] > 0
    searched = [run for run in runs if run.data.tags.get("pfs.method") == "network_slimming"]
    slimming = next(run for run in searched if run.data.tags["pfs.step"] == "search")
    assert slimming.data.metrics["search.forward_images"] == 1294 + 144
    assert slimming.data.metrics["search.device_seconds"] > 0


def test_every_method_budget_and_seed_has_its_own_search(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    plan = steps.plan_comparison("resnet20", "digits", BUDGETS, METHODS, SEEDS, settings={"uniform": {"expand": 1.5}})
    assert len(plan) == len({(each["method"], each["budget"], each["seed"]) for each in plan}) == 8
    assert {each["settings"].get("expand") for each in plan if each["method"] == "uniform"} == {1.5}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"methods": []}, "name each method once"),
        ({"methods": ["pfs", "pfs"]}, "name each method once"),
        ({"seeds": [1, 1]}, "name each seed once"),
        ({"seeds": [0, 2**64]}, "from 0 to 4294967295"),
        ({"seeds": [0, -1]}, "from 0 to 4294967295"),
        ({"seeds": ["one"]}, "from 0 to 4294967295"),
        ({"seeds": [[0]]}, r"from 0 to 4294967295 \(got \[0\]\)"),
        ({"seeds": [True]}, r"from 0 to 4294967295 \(got True\)"),
        ({"methods": [["pfs"]]}, r"\['pfs'\] is not known"),
        ({"methods": [{"pfs": 1}]}, r"\{'pfs': 1\} is not known"),
        ({"settings": {"pfs": 5}}, r"method_settings of 'pfs' must be an object of settings, .* \(got 5\)"),
        ({"settings": {"pfs": None}}, r"must be an object of settings, .* \(got None\)"),
        ({"settings": {"pfs": ["epochs"]}}, "must be an object of settings"),
        ({"settings": {"pfs": {"method": "amc"}}}, "method_settings of 'pfs' name another method, 'amc'"),
        ({"settings": {"amc": {}}}, "method_settings names 'amc'"),
        ({"methods": ["pfs", "magic"]}, "'magic' is not known"),
        ({"settings": {"pfs": {"episodes": 3}}}, "search.episodes is not a setting"),
    ],
)
def test_a_wrong_plan_is_refused(changes, says):
    plan = {"methods": ["pfs"], "seeds": [0], "settings": {}, **changes}
    with pytest.raises(UserError, match=says):
        steps.plan_comparison("resnet20", "digits", ["macs=0.5"], **plan)
