"""What MLflow's own pages, on a real server, make of our runs."""

import json

import mlflow
import pytest

from pfs_core import tracking

DROPS = {0: 0.012, 1: -0.004, 2: 0.031}
"""The accuracy that is lost, by seed."""
MODEL = "resnet56"
"""It names the experiment; no other test has runs of it on the server."""


@pytest.fixture(scope="module")
def address(mlflow_address, browser):
    """A server with a pipeline run a seed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_address)
        for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
            patch.delenv(name, raising=False)
        mlflow.set_tracking_uri(mlflow_address)
        for seed, drop in DROPS.items():
            patch.setenv("KFP_RUN_ID", f"ui-{seed}")
            about = {"model": MODEL, "budget": "macs=0.5", "seed": seed, "dataset": "digits"}
            tracking.open_pipeline(f"{MODEL} macs=0.5 seed {seed}", about, about)
            with tracking.step_run("search", {"search.epochs": 1}, f"{MODEL} macs=0.5", about) as run:
                run.row({"epoch": 1, "loss": 0.5})
            with tracking.step_run("report", {}, f"{MODEL} macs=0.5", about) as run:
                run.summary({"accuracy_drop": drop, "pruned_latency_ratio": 0.8})
            tracking.close_pipeline(succeeded=True)
        yield mlflow_address
        mlflow.set_tracking_uri(None)


@pytest.fixture
def runs(address):
    """The pipelines' runs by seed."""
    found = mlflow.MlflowClient().search_runs([experiment()], "tags.`pfs.step` = 'pipeline'")
    return {int(run.data.tags["pfs.seed"]): run.info.run_id for run in found}


@pytest.fixture
def page(browser, address):
    context = browser.new_context(viewport={"width": 1600, "height": 900}, base_url=address)
    yield context.new_page()
    context.close()


def experiment():
    return mlflow.get_experiment_by_name(f"pfs-{MODEL}").experiment_id


def names(page, count):
    """The runs of the table in its order, once it has so many of them."""
    from playwright.sync_api import expect

    rows = page.locator("[row-index] a[href*='/runs/']")
    expect(rows).to_have_count(count, timeout=60_000)
    found = [(link.bounding_box()["y"], link.inner_text()) for link in rows.all()]
    return [name for _, name in sorted(found)]


def test_the_table_has_pipelines_with_their_steps_below(page):
    page.goto(f"/#/experiments/{experiment()}/runs")
    assert names(page, 3) == [f"{MODEL} macs=0.5 seed {seed}" for seed in (2, 1, 0)]
    page.locator("[row-index='0'] .ag-cell button").first.click()
    assert set(names(page, 5)[1:3]) == {f"search {MODEL} macs=0.5", f"report {MODEL} macs=0.5"}


def test_the_table_sorts_by_what_was_lost(page):
    page.goto(f"/#/experiments/{experiment()}/runs?orderByKey=metrics.%60accuracy_drop%60&orderByAsc=true")
    page.get_by_text("Sort: accuracy_drop").wait_for(timeout=60_000)
    assert names(page, 9)[:3] == [f"{MODEL} macs=0.5 seed {seed}" for seed in (1, 0, 2)]


def test_two_runs_are_compared(page, runs):
    chosen = json.dumps([runs[0], runs[2]])
    page.goto(f"/#/compare-runs?runs={chosen}&experiments={json.dumps([experiment()])}")
    page.get_by_text("Comparing 2 Runs from 1 Experiment").wait_for(timeout=60_000)
    for text in (f"{MODEL} macs=0.5 seed 0", f"{MODEL} macs=0.5 seed 2", "accuracy_drop", "0.012", "0.031", "digits"):
        assert page.get_by_text(text, exact=True).first.is_visible(), text
