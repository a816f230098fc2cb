"""Steps find their MLflow run: on a laptop, on a retry, under the KFP plugin, and when there is none."""

import subprocess
import sys
from functools import partialmethod
from types import MappingProxyType

import mlflow
import pytest
from mlflow import MlflowClient

from pfs_core import tracking
from pfs_core.runtime.environment import code, git_commit
from pfs_core.steps.training_steps import _record
from pfs_core.tracking import runs


def opened(store, params=MappingProxyType({})):
    """The id of the parent run of the pipeline, made as a pipeline's first step does."""
    tracking.make_experiment(store / "artifacts")
    return tracking.open_pipeline("resnet20 macs=0.5 seed 0", params)


def steps_of(parent):
    """The nested runs of a parent, by step."""
    experiment = MlflowClient().get_run(parent).info.experiment_id
    found = MlflowClient().search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert len({run.data.tags["pfs.step"] for run in found}) == len(found)
    return {run.data.tags["pfs.step"]: run for run in found}


def test_without_a_store_nothing_is_logged_and_mlflow_stays_unimported():
    code = (
        "import sys\nfrom pfs_core import tracking\n"
        "with tracking.step_run('search') as run:\n    run.metrics({'a': 1.0})\n    run.params({'b': 2})\n"
        "print('mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={})
    assert done.stdout.strip() == "False"


def test_long_names_are_cut_to_what_mlflows_databases_take(store):
    """SQLite takes any; a PostgreSQL would refuse the run."""
    from mlflow.store.tracking.dbmodels.models import SqlRun

    tracking.make_experiment(store / "artifacts")
    name = " ".join(f"latency={i / 1000}" for i in range(100))
    parent = tracking.open_pipeline(name, {})
    with tracking.step_run("compare", about=name):
        pass
    names = [run.info.run_name for run in (MlflowClient().get_run(parent), steps_of(parent)["compare"])]
    assert names == [f"{name[:247]}...", f"{f'compare {name}'[:247]}..."]
    assert {len(name) for name in names} == {SqlRun.__table__.c.name.type.length}


def test_a_retried_step_goes_on_in_its_run(store):
    parent = opened(store, {"budget": "macs=0.5"})
    with pytest.raises(RuntimeError), tracking.step_run("search") as run:
        run.metrics({"loss": 2.0}, step=1)
        raise RuntimeError("the node went away")
    assert steps_of(parent)["search"].info.status == "FAILED"
    with tracking.step_run("search") as run:
        run.metrics({"loss": 1.0}, step=2)
    found = steps_of(parent)["search"]
    assert found.info.status == "FINISHED"
    history = MlflowClient().get_metric_history(found.info.run_id, "loss")
    assert [point.value for point in history] == [2.0, 1.0]


def test_a_step_that_goes_on_leaves_no_point_out_and_none_twice(store):
    parent = opened(store)
    rows = [{"epoch": epoch, "loss": 1.0 / epoch} for epoch in (1, 2, 3)]
    for known in (rows[:2], rows):
        with tracking.step_run("search") as run:
            for row in known:
                run.row(row)
    history = MlflowClient().get_metric_history(steps_of(parent)["search"].info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]


def test_summary_goes_to_the_parent(store):
    parent = opened(store)
    with tracking.step_run("report") as run:
        run.summary({"macs": 7, "nan": float("nan"), "name": "x"})
    assert MlflowClient().get_run(parent).data.metrics == {"macs": 7.0}


def test_closing_the_pipeline_closes_steps_that_were_cut_off(store):
    parent = opened(store)
    with tracking.step_run("search"):
        tracking.close_pipeline(succeeded=False)
        assert steps_of(parent)["search"].info.status == "FAILED"
    assert MlflowClient().get_run(parent).info.status == "FAILED"


@pytest.mark.parametrize("error", [SystemExit(143), KeyboardInterrupt()])
def test_what_is_stopped_has_been_killed_and_has_not_failed(store, error):
    parent = opened(store)
    with pytest.raises(type(error)), tracking.step_run("search"):
        raise error
    assert steps_of(parent)["search"].info.status == "KILLED"
    tracking.close_pipeline(succeeded=False)
    assert MlflowClient().get_run(parent).info.status == "KILLED"


def test_a_step_that_was_stopped_and_tried_again_leaves_no_trace_of_it(store):
    parent = opened(store)
    with pytest.raises(SystemExit), tracking.step_run("search"):
        raise SystemExit(143)
    with tracking.step_run("search"):
        pass
    with pytest.raises(RuntimeError), tracking.step_run("extract"):
        raise RuntimeError("a reason of its own")
    tracking.close_pipeline(succeeded=False)
    assert MlflowClient().get_run(parent).info.status == "FAILED"


STEP = """
import time
from pfs_core import tracking
from pfs_core.runtime.progress import user_errors
with user_errors(), tracking.step_run("split"):
    print("open", flush=True)
    time.sleep(60)
"""


def test_a_step_that_gets_sigterm_ends_its_run_at_once(store):
    parent = opened(store)
    with subprocess.Popen([sys.executable, "-c", STEP], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "open\n"
        process.terminate()
        assert process.wait(20) == 143
    assert steps_of(parent)["split"].info.status == "KILLED"


def test_a_pipeline_that_has_ended_stays_as_it_is(store):
    parent = opened(store)
    for succeeded in (True, False):
        tracking.close_pipeline(succeeded)
    assert MlflowClient().get_run(parent).info.status == "FINISHED"


@pytest.mark.parametrize("begins", [opened, lambda store: None], ids=["first step", "the one that failed"])
def test_a_pipeline_that_goes_on_after_its_end_is_open_and_ends_anew(store, begins):
    """As by the same ``pfs run`` after Ctrl-C, and by *Retry* in Kubeflow's UI."""
    parent = opened(store)
    with pytest.raises(SystemExit), tracking.step_run("search"):
        raise SystemExit(143)
    tracking.close_pipeline(succeeded=False, stopped=True)
    assert MlflowClient().get_run(parent).info.status == "KILLED"
    begins(store)
    with tracking.step_run("search"):
        assert MlflowClient().get_run(parent).info.status == "RUNNING"
    tracking.close_pipeline(succeeded=True)
    ended = MlflowClient().get_run(parent).info
    assert ended.status == "FINISHED"
    assert ended.end_time >= steps_of(parent)["search"].info.end_time


def test_the_same_step_on_other_inputs_has_a_run_of_its_own(store):
    parent = opened(store)
    ids = []
    for budget in ("macs=0.5", "macs=0.3", "macs=0.5"):
        with tracking.step_run("extract", {"extract.budget": budget}, budget) as run:
            ids.append(run.id)
    assert ids[0] == ids[2] != ids[1]
    client = MlflowClient()
    names = {run: client.get_run(run).info.run_name for run in ids}
    assert names == {ids[0]: "extract macs=0.5", ids[1]: "extract macs=0.3"}
    assert {client.get_run(run).data.tags["mlflow.parentRunId"] for run in ids} == {parent}


def test_the_runs_link_to_the_page_of_their_pipeline(store, monkeypatch):
    monkeypatch.setenv("KFP_UI_URL", "https://kubeflow.example/pipeline/")
    parent = MlflowClient().get_run(opened(store))
    with tracking.step_run("search"):
        pass
    for run in (parent, steps_of(parent.info.run_id)["search"]):
        assert run.data.tags["kfp.pipeline_run_url"] == "https://kubeflow.example/pipeline/#/runs/details/run-1"
    assert parent.info.run_name == "resnet20 macs=0.5 seed 0"


def test_pages_hold_no_credentials(store):
    mlflow.set_tracking_uri("https://me:hidden@mlflow.example/team/")
    assert tracking.page("3", "abc") == "https://mlflow.example/team/#/experiments/3/runs/abc"
    mlflow.set_tracking_uri(f"sqlite:///{store / 'mlflow.db'}")
    assert tracking.page("3", "abc") == ""


def test_pages_are_where_browsers_find_them(store, monkeypatch):
    mlflow.set_tracking_uri("http://pfs-mlflow:5000")
    monkeypatch.setenv("MLFLOW_UI_URL", "http://localhost:5000/")
    assert tracking.page("3", "abc") == "http://localhost:5000/#/experiments/3/runs/abc"


def test_two_pipelines_do_not_share_runs(store, monkeypatch):
    first = opened(store)
    with tracking.step_run("search"):
        pass
    monkeypatch.setenv("KFP_RUN_ID", "run-2")
    second = opened(store)
    with tracking.step_run("search"):
        pass
    assert first != second
    assert steps_of(first)["search"].info.run_id != steps_of(second)["search"].info.run_id


def test_the_run_that_the_kfp_plugin_made_is_used(store, monkeypatch):
    client = MlflowClient()
    experiment = client.create_experiment("KFP-Default", (store / "artifacts").as_uri())
    parent = client.create_run(experiment).info.run_id
    given = client.create_run(experiment, tags={"mlflow.parentRunId": parent}).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    with tracking.step_run("extract") as run:
        run.params({"extract.budget": "macs=0.5"})
        run.summary({"macs": 3})
    assert client.get_run(given).data.params == {"extract.budget": "macs=0.5"}
    assert client.get_run(given).data.tags["pfs.step"] == "extract"
    assert client.get_run(given).info.run_name == "extract"
    assert client.get_run(parent).data.metrics == {"macs": 3.0}
    monkeypatch.setenv("MLFLOW_RUN_ID", given)  # a run that is started takes it away
    assert tracking.open_pipeline("resnet20", {"model": "resnet20"}) == parent
    assert client.get_run(parent).data.params == {"model": "resnet20"}
    tracking.close_pipeline(succeeded=False)
    assert client.get_run(parent).info.status == "RUNNING"  # the plugin ends it
    assert [e.name for e in client.search_experiments() if e.name == "pfs"] == []


def nested(client, experiment, *names, tags={}):  # noqa: B006
    """Runs of the plugin, each within the one before; the first one has the pipeline's tags."""
    ids, above = [], {"kfp.pipeline_run_id": "run-1", **tags}
    for name in names:
        ids.append(client.create_run(experiment, tags=above, run_name=name).info.run_id)
        above = {"mlflow.parentRunId": ids[-1]}
    return ids


def test_the_plugin_nests_runs_as_the_graph_does_and_ours_are_in_its_tree(store, monkeypatch):
    client = MlflowClient()
    experiment = client.create_experiment("KFP-Default", (store / "artifacts").as_uri())
    root, *_, task = nested(client, experiment, "run", "exit-handler-1", "find-structure", "search-gates")
    monkeypatch.setenv("MLFLOW_RUN_ID", task)
    assert tracking.open_pipeline("resnet20 macs=0.5", {}, {"model": "resnet20", "seed": 3}) == root
    with tracking.step_run("search") as run:
        run.summary({"search_seconds": 3})
    assert client.get_run(root).data.metrics == {"search_seconds": 3.0}
    assert client.get_run(task).data.tags["pfs.seed"] == "3"
    assert len(client.search_runs([experiment])) == 4


@pytest.mark.parametrize("others", [0, 3])
def test_where_the_plugin_tells_steps_nothing_ours_are_below_its_run(store, monkeypatch, others):
    """Without ``injectUserEnvVars`` a step knows neither its run nor the experiment, which may be on any page."""
    client = MlflowClient()
    experiment = client.create_experiment("KFP-Default", (store / "artifacts").as_uri())
    for i in range(others):
        client.create_experiment(f"team-{i}")
    listed = partialmethod(MlflowClient.search_experiments, max_results=2)
    monkeypatch.setattr(MlflowClient, "search_experiments", listed)
    root, task = nested(client, experiment, "run", "search-gates")
    assert tracking.open_pipeline("resnet20 macs=0.5", {"model": "resnet20"}, {"model": "resnet20"}) == root
    assert tracking.open_pipeline("resnet20 macs=0.5", {"model": "resnet20"}, {"model": "resnet20"}) == root
    with tracking.step_run("search") as run:
        pass
    found = client.get_run(run.id)
    assert (found.info.experiment_id, found.data.tags["mlflow.parentRunId"]) == (experiment, root)
    assert client.get_run(root).info.run_name == "resnet20 macs=0.5"
    assert {r.info.run_id for r in client.search_runs([experiment])} == {root, task, run.id}
    assert [e.name for e in client.search_experiments() if e.name.startswith("pfs")] == []
    tracking.close_pipeline(succeeded=True)
    assert client.get_run(root).info.status == "FINISHED"


def test_runs_of_the_kfp_plugin_have_the_names_and_tags_of_ours(store, monkeypatch):
    client = MlflowClient()
    experiment = client.create_experiment("KFP-Default", (store / "artifacts").as_uri())
    parent = client.create_run(experiment).info.run_id
    tasks = [client.create_run(experiment, tags={"mlflow.parentRunId": parent}).info.run_id for _ in range(2)]
    about = {"model": "resnet20", "budget": "macs=0.6 macs=0.4", "seed": 3, "dataset": "digits", "method": "pfs"}
    monkeypatch.setenv("MLFLOW_RUN_ID", tasks[0])
    tracking.open_pipeline("resnet20 seed 3", {}, about)
    monkeypatch.setenv("MLFLOW_RUN_ID", tasks[1])
    with tracking.step_run("extract", {}, "resnet20 macs=0.4", {"budget": "macs=0.4"}):
        pass
    above, step = client.get_run(parent), client.get_run(tasks[1])
    assert above.info.run_name == "resnet20 seed 3"
    assert step.info.run_name == "extract resnet20 macs=0.4"
    expected = {f"pfs.{key}": str(value) for key, value in about.items()}
    assert {**expected, "pfs.step": "pipeline"}.items() <= above.data.tags.items()
    assert {**expected, "pfs.budget": "macs=0.4", "pfs.step": "extract"}.items() <= step.data.tags.items()


def test_a_retry_replaces_the_final_figures(store):
    parent = opened(store)
    for accuracy in (0.5, 0.75):
        with tracking.step_run("retrain/pruned") as run:
            run.metrics({"test_accuracy": accuracy})
    assert steps_of(parent)["retrain/pruned"].data.metrics == {"test_accuracy": 0.75}


def test_history_rows_are_curves_over_the_epochs(store):
    parent = opened(store)
    with tracking.step_run("search") as run:
        run.row({"epoch": 1, "step": 10, "loss": 2.0})
        run.row({"epoch": 2, "step": 20, "loss": 1.0})
    found = steps_of(parent)["search"]
    assert found.data.metrics == {"loss": 1.0}
    assert [point.step for point in MlflowClient().get_metric_history(found.info.run_id, "loss")] == [1, 2]


def test_a_pipeline_and_its_steps_are_in_the_experiment_of_its_model(store):
    parent = tracking.open_pipeline("my net", {}, {"model": "my_nets:build", "budget": "macs=0.5", "seed": 0})
    with tracking.step_run("split", tags={"dataset": "digits"}) as split, tracking.step_run("search") as search:
        pass
    tracking.close_pipeline(succeeded=True)
    client = MlflowClient()
    found = [client.get_run(run) for run in (parent, split.id, search.id)]
    assert {client.get_experiment(run.info.experiment_id).name for run in found} == {"pfs-my_nets-build"}
    assert {run.info.status for run in found} == {"FINISHED"}


def test_the_row_of_the_pipeline_names_the_dataset_once_whichever_steps_had_it(store):
    parent = opened(store)
    for step in ("split", "search", "search"):
        with tracking.step_run(step) as run:
            run.dataset("s3://bucket/images", "0123", step)
    found = [each.dataset for each in MlflowClient().get_run(parent).inputs.dataset_inputs]
    assert [(dataset.name, dataset.digest) for dataset in found] == [("images", "0123")]
    assert all(len(run.inputs.dataset_inputs) == 1 for run in steps_of(parent).values())


def test_rows_of_a_training_before_a_search_are_at_its_epochs(store):
    opened(store)
    with tracking.step_run("search") as run:
        for row in ({"epoch": 1, "pretrain_loss": 2.0}, {"epoch": 2, "pretrain_loss": 1.0}):
            _record(run, "episode", row)
        _record(run, "episode", {"episode": 7, "reward": 0.5})
    history = {key: MlflowClient().get_metric_history(run.id, key) for key in ("pretrain_loss", "reward")}
    points = {key: [(point.step, point.value) for point in found] for key, found in history.items()}
    assert points == {"pretrain_loss": [(1, 2.0), (2, 1.0)], "reward": [(7, 0.5)]}


def test_a_step_on_its_own_is_in_the_experiment_of_its_model_too(store, monkeypatch):
    monkeypatch.delenv("KFP_RUN_ID")
    with tracking.step_run("search", tags={"model": "resnet20"}) as search, tracking.step_run("split") as split:
        pass
    names = [client_experiment(run.id) for run in (search, split)]
    assert names == ["pfs-resnet20", "pfs"]
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ours")
    with tracking.step_run("search", tags={"model": "resnet20"}) as run:
        pass
    assert client_experiment(run.id) == "ours"


def client_experiment(run_id):
    client = MlflowClient()
    return client.get_experiment(client.get_run(run_id).info.experiment_id).name


def test_the_run_table_filters_by_what_a_run_is_about(store, monkeypatch):
    monkeypatch.setenv("PFS_IMAGE", "registry/pfs-python:1")
    about = {"model": "resnet20", "budget": "macs=0.6 macs=0.4", "seed": 3, "dataset": "s3://bucket/images"}
    about["method"] = "amc"
    parent = MlflowClient().get_run(tracking.open_pipeline("x", {}, about))
    with tracking.step_run("extract", tags={"budget": "macs=0.4"}) as run:
        pass
    tags = MlflowClient().get_run(run.id).data.tags
    assert {key: parent.data.tags[f"pfs.{key}"] for key in about} == {key: str(value) for key, value in about.items()}
    assert {key: tags[f"pfs.{key}"] for key in about} == {**about, "seed": "3", "budget": "macs=0.4"}
    for found in (tags, parent.data.tags):
        assert found["pfs.image"] == "registry/pfs-python:1"


def test_a_repository_in_the_working_folder_gives_the_commit(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PFS_GIT_COMMIT", raising=False)
    git_commit.cache_clear()
    assert git_commit() == ""
    assert "pfs.git_commit" not in runs.tags_of({})
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    git_commit.cache_clear()
    tags = runs.tags_of({"model": "resnet20"})
    git_commit.cache_clear()
    assert tags["pfs.git_commit"] == tags["mlflow.source.git.commit"] == head


def test_an_image_says_its_commit_itself(monkeypatch):
    monkeypatch.setenv("PFS_GIT_COMMIT", "0123abc")
    monkeypatch.setenv("PFS_IMAGE", "registry/pfs-python:7")
    git_commit.cache_clear()
    assert code() == {"git_commit": "0123abc", "image": "registry/pfs-python:7"}
    git_commit.cache_clear()


@pytest.fixture
def registering(store, monkeypatch):
    """Registers in place of a network an empty file, as an output of the run."""
    tracking.make_experiment(store / "artifacts")

    def log_model(run, experiment, network, example, name, card, files):
        client = MlflowClient()
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        return client.create_model_version(name, str(store), run).version

    monkeypatch.setattr("pfs_core.tracking.model.log_model", log_model)
    return monkeypatch


def registered(name="pfs-resnet20", models=("one",), pipeline="run-1", tags=MappingProxyType({}), once=True):
    """What a report says it has registered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KFP_RUN_ID", pipeline)
        with tracking.step_run("report", {"report.models": list(models)}) as run:
            return run.model(None, None, name, "# card", (), tags, once)


def test_a_report_that_is_made_again_of_the_same_networks_registers_no_further_version(registering):
    assert registered() == "pfs-resnet20/1"
    assert registered(pipeline="run-2", tags={"latency_ratio": "0.5"}) == "pfs-resnet20/1"
    assert MlflowClient().get_model_version("pfs-resnet20", "1").tags == {"pfs.latency_ratio": "0.5"}
    assert registered(pipeline="run-3", models=["two"]) == "pfs-resnet20/2"
    assert registered(pipeline="run-4", name="mine") == "mine/1"
    assert registered(pipeline="run-5", once=False) == "pfs-resnet20/3"
    MlflowClient().delete_model_version("pfs-resnet20", "1")
    MlflowClient().delete_model_version("pfs-resnet20", "3")
    assert registered(pipeline="run-6") == "pfs-resnet20/4"
