"""``pfs run`` as a user runs it: a process of its own, the real kfp.local and a real MLflow store."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from pfs_pipelines.cli import main
from pfs_pipelines.run import print_paths
from pfs_pipelines.run_folders import claimed, states

from pfs_core.config.request import CompressRequest
from pfs_core.data import load_split
from pfs_core.export.deployable import Deployable
from pfs_core.report.card import FILES
from pfs_core.runtime.logs import COLUMNS
from pfs_core.storage.artifacts import COMPLETE
from pfs_core.structure import Structure
from pfs_core.training.retrain import load_model
from tests.data.folders import images, png, write
from tests.pipelines.test_secrets import SECRETS
from tests.report.opened import check_whole
from tests.report.test_report import FIGURES
from tests.servers import free_port, mlflow_server

SETTINGS = (
    *("model.width=4", "search.epochs=1", "extract.blocks=8", "retrain.epochs=1"),
    *(
        "latency.patience_seconds=0",
        "latency.max_seconds=0.1",
        "latency.min_rounds=64",
        "latency.runtimes=eager",
        "latency.threads=1",
    ),
)
RUN = (sys.executable, "-m", "pfs_pipelines.cli", "run", *(f"--set={setting}" for setting in SETTINGS))


def run(work, *flags):
    """``pfs run`` to its end in the folder ``work``, with the MLflow store that it makes there."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_") or k in SECRETS}
    done = subprocess.run([*RUN, *flags], cwd=work, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run: its working folder, its own folder and what it printed."""
    work = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        done = run(work, "--compare", "dense,uniform")
    folder = next(path for path in (work / "pfs-runs").iterdir() if path.name.startswith("resnet20-digits"))
    return work, folder, done.stdout


@pytest.fixture(scope="module")
def runs(finished):
    """The runs in its MLflow store, by the step they are tagged with."""
    mlflow.set_tracking_uri(f"sqlite:///{finished[0] / 'pfs-runs' / 'mlflow.db'}")
    experiment = mlflow.get_experiment_by_name("pfs-resnet20").experiment_id
    return {run.data.tags["pfs.step"]: run for run in MlflowClient().search_runs([experiment])}


def test_summary_table_has_every_network(finished):
    rows = [line for line in finished[2].splitlines() if re.match(r"(dense|uniform|pruned) ", line)]
    assert len(rows) == 3
    for row in rows:
        assert re.search(r"[\d.]+[kMG]? +[\d.]+[kM]? +[\d.]+ \[[\d.]+, [\d.]+\] +[\d.]+ ", row)
    assert all(re.search(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]$", row) for row in rows if not row.startswith("dense"))


def test_no_secret_of_its_environment_is_in_anything_that_it_leaves(finished):
    work, _, text = finished
    files = [path for path in work.rglob("*") if path.is_file()]
    assert {"run.log", "run.json", "mlflow.db", "report.html", "model.onnx"} <= {path.name for path in files}
    for value in SECRETS.values():
        assert value not in text
        assert not [path for path in files if value.encode() in path.read_bytes()], value


def test_every_path_it_prints_exists(finished):
    work, _, text = finished
    for name in ("full log:", "report ", "structure ", "model "):
        line = next(line for line in text.splitlines() if line.startswith(name))
        assert (work / line.split(maxsplit=2 if name.endswith(":") else 1)[-1].strip()).exists(), line
    assert "pfs ui" in text


def test_the_terminal_shows_progress_and_the_log_everything(finished):
    _, folder, text = finished
    log = (folder / "run.log").read_text()
    assert "search epoch 1/1" in text
    assert "retrain uniform epoch 1/1" in text
    assert "executor_input" not in text
    assert "executor_input" in log
    assert "search epoch 1/1" in log
    said = text.rpartition("\n\n")[0]  # the paths come after it
    assert {line.strip() for line in said.splitlines()} <= {line.strip() for line in log.splitlines()}


def test_lines_without_a_path_fit_80_columns(finished):
    lines = [line for line in finished[2].splitlines() if "pfs-runs/" not in line and "pfs ui" not in line]
    assert [line for line in lines if len(line) > COLUMNS] == []


def test_the_log_is_plain_text(finished):
    log = (finished[1] / "run.log").read_text()
    assert "\x1b" not in log
    assert "[pfs]" not in log


def test_every_result_is_complete(finished):
    names = {"split", "gates", "structures", "model-pruned", "model-uniform", "model-dense", "latency", "report"}
    folders = {path.name for path in finished[1].iterdir() if path.is_dir()}
    assert folders == names
    assert all((finished[1] / name / COMPLETE).is_file() for name in names)


def test_structure_is_within_the_budget_and_fits_the_weights(finished):
    structure = Structure.load(finished[1] / "structures" / "structure.json")
    assert structure.cost.macs <= 0.5 * structure.reference.macs
    metrics = json.loads((finished[1] / "model-pruned" / "metrics.json").read_text())
    assert metrics["macs"] == structure.cost.macs


def test_mlflow_has_a_parent_and_a_nested_run_a_step(runs):
    steps = {"split", "search", "extract", "retrain/pruned", "retrain/uniform", "retrain/dense", "latency", "report"}
    assert set(runs) == {"pipeline", *steps}
    parent = runs["pipeline"].info.run_id
    assert all(runs[step].data.tags["mlflow.parentRunId"] == parent for step in steps)
    assert all(run.info.status == "FINISHED" for run in runs.values())


def test_mlflow_has_parameters_by_step_and_curves(runs):
    assert runs["search"].data.params["search.epochs"] == "1"
    assert runs["retrain/dense"].data.params["retrain.network"] == "dense"
    history = MlflowClient().get_metric_history(runs["search"].info.run_id, "val_accuracy")
    assert [point.step for point in history] == [1]
    assert "pruned_test_accuracy" in runs["pipeline"].data.metrics


def test_steps_that_read_images_say_which(finished, runs):
    known = json.loads((finished[1] / "split" / "split.json").read_text())
    inputs = {step: [each.dataset for each in run.inputs.dataset_inputs] for step, run in runs.items()}
    assert {step for step, given in inputs.items() if given} == {"pipeline", "split", "search", "report"} | {
        f"retrain/{network}" for network in ("dense", "uniform", "pruned")
    }
    for given in filter(None, inputs.values()):
        assert [(data.name, data.digest) for data in given] == [("digits", known["fingerprint"][:36])]


def test_the_run_table_says_what_each_run_is_about(runs):
    assert runs["pipeline"].info.run_name == "resnet20 macs=0.5 seed 0"
    for step, run in runs.items():
        about = {key: run.data.tags.get(f"pfs.{key}") for key in ("model", "budget", "seed", "dataset")}
        kind = step.partition("/")[2]
        budget = "macs=1.0" if kind == "dense" else "macs=0.5"
        assert about == {"model": "resnet20", "budget": budget, "seed": "0", "dataset": "digits"}, step
        assert run.data.tags["pfs.method"] == (kind if kind in ("dense", "uniform") else "pfs")
    figures = runs["pipeline"].data.metrics
    for network in ("dense", "pruned"):
        assert {f"{network}_{key}" for key in ("test_accuracy", "macs", "params", "p50_ms")} <= set(figures)
    assert {"accuracy_drop", "pruned_latency_ratio", "search_seconds"} <= set(figures)


def test_registered_model_has_its_card_and_its_files(runs):
    version = MlflowClient().get_model_version("pfs-resnet20", "1")
    assert version.description.startswith("# pfs-resnet20")
    folder = mlflow.artifacts.download_artifacts("models:/pfs-resnet20@newest")
    files = {path.name for path in (Path(folder) / "extra_files").iterdir()}
    assert files == {"README.md", "example_output.json", *FILES}
    assert (Path(folder) / "extra_files" / "README.md").read_text() == version.description


def test_versions_are_told_apart_by_tags_and_by_the_alias_of_their_budget(finished, runs):
    version = MlflowClient().get_model_version_by_alias("pfs-resnet20", "macs-0-5")
    figures = json.loads((finished[1] / "report" / "report.json").read_text())["figures"]
    assert int(version.version) == 1
    assert version.tags == {
        "pfs.dataset": "digits",
        "pfs.budget": "macs=0.5",
        "pfs.method": "pfs",
        "pfs.test_accuracy": f"{figures['pruned_test_accuracy']:.4f}",
        "pfs.latency_ratio": f"{figures['pruned_latency_ratio']:.3f}",
    }


def test_the_pipelines_own_run_has_report_structure_and_description(finished, runs):
    run = runs["pipeline"].info.run_id
    pairs = {"report/report.html": "report/report.html", "structure/structure.json": "structures/structure.json"}
    for name, path in pairs.items():
        stored = mlflow.artifacts.download_artifacts(run_id=run, artifact_path=name)
        assert Path(stored).read_bytes() == (finished[1] / path).read_bytes()
    assert runs["pipeline"].data.tags["mlflow.note.content"] == (finished[1] / "report" / "summary.md").read_text()


def test_registered_model_computes_what_ours_does(finished, runs):
    assert runs["report"].data.params["report.registered_model"] == "pfs-resnet20/1"
    theirs = mlflow.pytorch.load_model("models:/pfs-resnet20/1")
    data = load_split(finished[1] / "split")
    ours = Deployable(load_model(finished[1] / "model-pruned")[0], data.info.mean, data.info.std)
    pixels = data.part("test").images[:7].float()
    with torch.no_grad():
        expected = ours(pixels)
        assert torch.allclose(theirs(pixels), expected, atol=1e-5)
    predicted = mlflow.pyfunc.load_model("models:/pfs-resnet20/1").predict(pixels.numpy())
    np.testing.assert_allclose(predicted, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("way", ["alone", "framed"])
@pytest.mark.parametrize("width", [1280, 400])
def test_its_report_opens_whole_and_alone(browser, finished, width, way):
    shown = set(FIGURES) - {"Latency in ONNX Runtime", "How the gates part"}  # one runtime, one evaluation
    shown |= {"How full the blocks of the runtime are"}
    check_whole(browser, finished[1] / "report" / "report.html", len(shown), width, way)


@pytest.mark.slow
def test_undecodable_image_ends_the_run_with_its_row(tmp_path):
    encoded = [png(image) for image in images(20)]
    encoded[11] = b"broken"
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train.parquet", encoded, [i % 2 for i in range(20)])
    done = subprocess.run([*RUN, "--dataset", "data"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "train.parquet, row 11: the image cannot be decoded" in done.stderr


def test_a_run_refused_at_the_start_leaves_nothing(tmp_path):
    done = subprocess.run([*RUN, "--model", "resnet21"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "resnet21" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_network_of_ones_own_runs_and_is_registered(nets):
    run(nets.parent, "--model", "nets:build")
    folder = next(path for path in (nets.parent / "pfs-runs").iterdir() if path.name.startswith("nets-build-digits"))
    assert Structure.load(folder / "structures" / "structure.json").model.name == "nets:build"
    mlflow.set_tracking_uri(f"sqlite:///{nets.parent / 'pfs-runs' / 'mlflow.db'}")
    assert mlflow.pytorch.load_model("models:/pfs-nets-build/1")(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_run_leaves_nothing_that_looks_whole(tmp_path, number):
    command = [*RUN, "--set", "search.epochs=10000"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        line = next(line for line in process.stdout if line.startswith("search epoch 2/"))
        process.send_signal(number)
    assert line
    folder = next(path for path in (tmp_path / "pfs-runs").iterdir() if path.name.startswith("resnet20"))
    assert process.returncode != 0
    settle(folder / "run.log")
    assert {path.name for path in folder.iterdir()} == {"run.json", "run.log", "steps"}
    whole = {path.parent.name for path in folder.rglob(COMPLETE)}
    assert whole == {"split"}


@pytest.mark.slow
def test_the_next_run_goes_on_where_a_killed_one_was(tmp_path):
    command = [*RUN, "--set", "search.epochs=30"]
    environment = os.environ | {"PFS_CHECKPOINT_SECONDS": "0"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert next(line for line in process.stdout if line.startswith("search epoch 3/"))
        process.send_signal(signal.SIGKILL)
    before = {path.name for path in (tmp_path / "pfs-runs").glob("resnet20-*")}
    while [row["state"] for row in states(tmp_path / "pfs-runs")] != ["stopped"]:
        time.sleep(0.1)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert {path.name for path in (tmp_path / "pfs-runs").glob("resnet20-*")} == before
    assert "split: taken from" in done.stdout
    assert "going on from checkpoint" in done.stdout
    assert "search epoch 1/30" not in done.stdout
    assert "search epoch 30/30" in done.stdout
    assert list((tmp_path / "pfs-runs" / ".checkpoints").rglob("*.pt")) == []


def begun(store, name, arguments, inside="steps"):
    """The folder of a run with what is inside of it."""
    folder = store / name
    (folder / inside).mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"arguments": arguments}))
    return folder


def test_the_same_request_goes_on_in_the_folder_of_a_run_that_was_stopped(tmp_path, capsys):
    request = CompressRequest(model="resnet20", dataset="digits", budgets=["macs=0.5"])
    same = begun(tmp_path, "same", request.arguments())
    begun(tmp_path, "other", {**request.arguments(), "seed": 1})
    begun(tmp_path, "finished", request.arguments(), "report")
    begun(tmp_path, "robbed", request.arguments(), "model-pruned")
    begun(tmp_path, "broken", request.arguments())
    (tmp_path / "broken" / "run.json").write_text("{")
    begun(tmp_path, "another program's", request.arguments())
    (tmp_path / "another program's" / "run.json").write_text("[1]")
    with claimed(tmp_path, request, fresh=False) as (folder, _):
        assert folder == same
        assert "going on in" in capsys.readouterr().out
        assert {row["name"]: row["state"] for row in states(tmp_path)}["same"] == "running"
        with claimed(tmp_path, request, fresh=False) as (meanwhile, _):  # another process uses that one
            assert meanwhile.name.startswith("resnet20-digits-macs0.5-seed0")
    with claimed(tmp_path, request, fresh=True) as (folder, _):
        assert folder != same
    assert {row["name"]: row["state"] for row in states(tmp_path)}["same"] == "stopped"


def test_runs_are_listed_with_what_would_not_be_made_again(tmp_path, capsys, digits):
    folder = begun(tmp_path, "stopped", {})
    shutil.copytree(digits, folder / "steps" / "split")
    begun(tmp_path, "whole", {}, ".")
    (tmp_path / "whole" / "report").mkdir()
    assert not main(["runs", "--out", str(tmp_path)])
    lines = sorted(capsys.readouterr().out.splitlines())
    assert lines[0].startswith("stopped  stopped, ")
    assert lines[0].endswith(" MiB; pfs run goes on after split")
    assert lines[1] == "whole  finished, 0.0 MiB"
    assert not main(["runs", "--out", str(tmp_path), "--json"])
    assert {row["name"] for row in json.loads(capsys.readouterr().out)} == {"stopped", "whole"}
    assert main(["runs", "--out", str(tmp_path / "none")]) == 2


def test_runs_are_listed_while_files_come_and_go(tmp_path, monkeypatch):
    steps, refused = begun(tmp_path, "running", {}) / "steps", begun(tmp_path, "refused", {}, ".")
    (steps / "partial").mkdir()
    (steps / "file").symlink_to("gone")
    stat, scandir = Path.stat, os.scandir

    def last_stat(path, **options):
        found = stat(path, **options)
        if path == refused / "run.json":
            shutil.rmtree(refused)
        return found

    def late_scandir(path):
        if str(path).endswith("partial"):
            (steps / "partial").rename(steps / "gates")
        return scandir(path)

    monkeypatch.setattr(Path, "stat", last_stat)
    monkeypatch.setattr(os, "scandir", late_scandir)
    assert [row["name"] for row in states(tmp_path)] == ["running"]
    assert (steps / "gates").exists()
    assert not refused.exists()


@pytest.mark.slow
def test_a_server_that_dies_and_comes_back_has_all_of_the_run(tmp_path):
    port, epochs = free_port(), 30
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    command = [*RUN, "--set", f"search.epochs={epochs}"]
    with contextlib.ExitStack() as server:
        server.enter_context(mlflow_server(tmp_path, port=port))
        with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                if line.startswith("search epoch 3/"):
                    server.close()
                if line.startswith("search epoch 8/"):
                    server.enter_context(mlflow_server(tmp_path, port=port))
        assert process.returncode == 0
        mlflow.set_tracking_uri(environment["MLFLOW_TRACKING_URI"])
        found = MlflowClient().search_runs([mlflow.get_experiment_by_name("pfs-resnet20").experiment_id])
        assert {run.info.status for run in found} == {"FINISHED"}
        (search,) = (run.info.run_id for run in found if run.data.tags["pfs.step"] == "search")
        for curve in ("loss", "val_accuracy", "nonzero"):
            steps = [point.step for point in MlflowClient().get_metric_history(search, curve)]
            assert sorted(steps) == list(range(1, epochs + 1)), curve


def settle(log):
    """Wait until nothing writes to ``log`` any more."""
    size = -1
    while size != log.stat().st_size:
        size = log.stat().st_size
        time.sleep(2)


def test_the_address_of_mlflow_is_shown_without_its_login(tmp_path, capsys, monkeypatch):
    address = "https://me:hidden@mlflow.example/team"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: address)
    print_paths(tmp_path / "run", tmp_path)
    shown = capsys.readouterr().out
    assert "MLflow     https://mlflow.example/team\n" in shown
    assert "hidden" not in shown
