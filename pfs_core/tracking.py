"""MLflow: one way to open a step's run, on a laptop, in a pod and on a retry.

Tracking is on when ``MLFLOW_TRACKING_URI`` is set; otherwise every call here does nothing and MLflow is not imported.
``KFP_RUN_ID`` says which pipeline run a step belongs to: its parent run carries the tag ``kfp.pipeline_run_id`` (the
name that Kubeflow Pipelines' own MLflow plugin uses), and every step has a nested run with the tags ``pfs.step`` and
``pfs.inputs``, a digest of its parameters: a step that is tried again goes on in its run, and the same step on other
inputs has another.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pfs_core.outbox import Outbox
from pfs_core.progress import first_process, say

PIPELINE_TAG, PIPELINE_URL_TAG = "kfp.pipeline_run_id", "kfp.pipeline_run_url"
STEP_TAG, INPUTS_TAG = "pfs.step", "pfs.inputs"
EXPERIMENT = "pfs"
NEWEST = "newest"
"""Alias of the last version of a registered network."""
SYSTEM_METRICS = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
TRAINS = ("search", "retrain")
"""Steps that log the use of CPU, memory and GPU, unless the variable above says otherwise."""
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""How MLflow's client deals with a server that is away, where the user did not say: what is not sent is kept anyway."""


class StepRun:
    """What a step logs. This base class logs nothing: it stands for tracking that is switched off."""

    id = ""
    """MLflow's id of the run."""
    url = ""
    """The page of the pipeline's run, where the server has pages."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters; their names should start with the step's."""

    def metrics(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Log the finite numbers among ``values``, as a point of a curve where ``step`` is given."""

    def row(self, values: Mapping[str, Any], at: str = "epoch") -> None:
        """Log a row of a history: a point of each curve, at its epoch or step, unless it is there already."""
        self.metrics({k: v for k, v in values.items() if k not in ("epoch", "step")}, step=values[at])

    def summary(self, values: Mapping[str, Any]) -> None:
        """Log the finite numbers among ``values`` on the pipeline's run, where the run table shows them."""

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Log a file, or all files of a folder."""

    def dataset(self, uri: str, fingerprint: str, context: str) -> None:
        """Log a dataset as an input of the run."""

    def model(self, model: Any, example: Any, name: str, card: str = "", files: Sequence[Path] = ()) -> str:
        """Log and register a network in the safe ``pt2`` format; returns ``name/version``, or "" if it was not.

        Args:
            model: float32 images to logits.
            example: a batch of images.
            name: of the registered model; the new version gets the alias ``newest``.
            card: what the version says of itself, Markdown; also a file beside the model.
            files: to put beside it.
        """
        return ""


class _MlflowRun(StepRun):
    """A run that is written to through an :class:`Outbox`: an outage of the server costs points at worst."""

    def __init__(self, step: str, params: Mapping[str, Any], about: str) -> None:
        from mlflow import MlflowClient

        self._client, self._outbox = MlflowClient(), Outbox(is_outage, "MLflow")
        self._step, self._about, self._params = step, about, dict(params)
        self._started = _now()
        self._parent: str | None = None
        self._logged: dict[str, set[int]] = {}
        self._monitor: Any = None

    def open(self) -> None:
        """Find the run, or make it; while the server is away it is made later, with the time of this call."""
        self._outbox.send("the run", self._open)
        self.params(self._params)
        if self.id and self._step.partition("/")[0] in TRAINS and SYSTEM_METRICS not in os.environ:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(self.id, resume_logging=True)
            self._monitor.start()

    def close(self, status: str) -> None:
        """End the run, once everything is sent."""
        if self._monitor:
            self._monitor.finish()
        self._outbox.send("the end of the run", lambda: self._client.set_terminated(self.id, status))
        self._outbox.close()

    def _open(self) -> None:
        tags = {STEP_TAG: self._step, **surroundings()}
        if given := os.environ.get("MLFLOW_RUN_ID"):  # made by the KFP plugin: resume it, choose no experiment
            run = self._client.get_run(given)
            for key, value in tags.items():
                self._client.set_tag(given, key, value)
            self._parent = run.data.tags.get("mlflow.parentRunId")
        else:
            experiment, pipeline = _experiment(), os.environ.get("KFP_RUN_ID", "")
            known = {STEP_TAG: self._step, INPUTS_TAG: _digest(self._params)}
            earlier = None
            if pipeline:
                known[PIPELINE_TAG] = pipeline
                self._parent = pipeline_run(experiment, pipeline)
                tags["mlflow.parentRunId"] = self._parent
                earlier = _find(experiment, known)
            name = f"{self._step} {self._about}".strip()
            run = (
                self._client.get_run(earlier)
                if earlier
                else self._client.create_run(
                    experiment, start_time=self._started, run_name=name, tags={**tags, **known}
                )
            )
        self.id = run.info.run_id
        self.url = page(run.info.experiment_id, self._parent or self.id)
        self._client.update_run(self.id, status="RUNNING")

    def params(self, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        given = [Param(key, str(value)) for key, value in values.items()]
        self._outbox.send("parameters", lambda: self._client.log_batch(self.id, params=given))

    def metrics(self, values: Mapping[str, Any], step: int | None = None) -> None:
        from mlflow.entities import Metric

        points = [Metric(key, value, _now(), step or 0) for key, value in finite(values).items()]
        tried: list[bool] = []

        def log() -> None:
            known = step is not None or bool(tried)  # a try whose answer was lost may have arrived
            tried.append(True)
            new = [point for point in points if not (known and point.step in self._steps(point.key, len(tried) > 1))]
            self._client.log_batch(self.id, metrics=new)

        self._outbox.send("points of curves", log)

    def _steps(self, key: str, again: bool = False) -> set[int]:
        """The points of a curve that the run has from an earlier try."""
        if key not in self._logged or again:
            self._logged[key] = {point.step for point in self._client.get_metric_history(self.id, key)}
        return self._logged[key]

    def summary(self, values: Mapping[str, Any]) -> None:
        def log() -> None:
            for key, value in finite(values).items():
                if self._parent:
                    self._client.log_metric(self._parent, key, value)

        self._outbox.send("final figures", log)

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        log = self._client.log_artifacts if Path(path).is_dir() else self._client.log_artifact
        self._outbox.send(f"files of {Path(path).name}", lambda: log(self.id, str(path), folder))

    def dataset(self, uri: str, fingerprint: str, context: str) -> None:
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.entities import DatasetInput, InputTag

        name, source = uri.rsplit("/", 1)[-1], CodeDatasetSource(tags={"uri": uri})
        data = MetaDataset(source, name=name, digest=fingerprint[:36])  # type: ignore[abstract]
        given = DatasetInput(data._to_mlflow_entity(), [InputTag("mlflow.data.context", context)])
        self._outbox.send("the dataset", lambda: self._client.log_inputs(self.id, [given]))

    def model(self, model: Any, example: Any, name: str, card: str = "", files: Sequence[Path] = ()) -> str:
        return self._outbox.send("the model", lambda: self._log_model(model, example, name, card, files)) or ""

    def _log_model(self, model: Any, example: Any, name: str, card: str, files: Sequence[Path]) -> str:
        import mlflow
        import torch
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        logits = model(torch.from_numpy(example)).detach().numpy()
        signature = ModelSignature(
            inputs=Schema([TensorSpec(example.dtype, (-1, *example.shape[1:]))]),
            outputs=Schema([TensorSpec(logits.dtype, (-1, *logits.shape[1:]))]),
        )
        with tempfile.TemporaryDirectory() as scratch:
            readme = Path(scratch) / "MODEL_CARD.md"
            readme.write_text(card, encoding="utf-8")
            with mlflow.start_run(run_id=self.id):
                info = mlflow.pytorch.log_model(
                    model,
                    name="model",
                    input_example=example,
                    signature=signature,
                    serialization_format="pt2",
                    registered_model_name=name,
                    pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", "numpy"],
                    extra_files=[str(readme), *map(str, files)],
                )
        version = str(info.registered_model_version)
        self._client.update_model_version(name, version, description=card)
        self._client.set_registered_model_alias(name, NEWEST, version)
        return f"{name}/{version}"


def is_outage(error: Exception) -> bool:
    """Whether MLflow's client failed because the server is away or broken, and not because it refused."""
    from mlflow.exceptions import MlflowException, RestException
    from requests.exceptions import RequestException

    if isinstance(error, RestException):
        return error.get_http_status_code() >= 500
    if isinstance(error, MlflowException):
        return "API request" in str(error) or error.get_http_status_code() >= 500
    return isinstance(error, RequestException | ConnectionError | TimeoutError)


def surroundings() -> dict[str, str]:
    """Tags of a run: the image, and the commit of the folder it was started in, where there are such."""
    tags = {"pfs.image": os.environ["PFS_IMAGE"]} if "PFS_IMAGE" in os.environ else {}
    if git := shutil.which("git"):
        found = subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S603
        if found.returncode == 0:
            tags["mlflow.source.git.commit"] = found.stdout.strip()
    return tags


def _now() -> int:
    return int(time.time() * 1000)


def finite(values: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers among ``values``, as Python floats (what KFP and MLflow accept without failing)."""
    scalars = {k: v for k, v in values.items() if hasattr(v, "__float__") and getattr(v, "ndim", 0) == 0}
    return {k: float(v) for k, v in scalars.items() if math.isfinite(v)}


@contextlib.contextmanager
def step_run(step: str, params: Mapping[str, Any] = {}, about: str = "") -> Iterator[StepRun]:
    """Open the run of a step, or the one that an earlier try of it opened, and log its parameters.

    Of several processes that train together, the first one does.

    Args:
        step: its name, e.g. ``search`` or ``retrain/pruned``.
        params: what its result follows from; names start with the step's.
        about: what the run's name says beside the step's, e.g. ``resnet20 macs=0.5``.
    """
    if not first_process() or not (os.environ.get("MLFLOW_TRACKING_URI") or os.environ.get("MLFLOW_RUN_ID")):
        yield StepRun()
        return
    for name, value in IMPATIENT.items():
        os.environ.setdefault(name, value)
    run = _MlflowRun(step, params, about)
    run.open()
    try:
        yield run
    except BaseException:
        run.close("FAILED")
        raise
    run.close("FINISHED")


def _digest(params: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(params, sort_keys=True, default=str).encode()).hexdigest()[:16]


def page(experiment: str, run_id: str) -> str:
    """The address of a run's page, without credentials; empty where the store is no server."""
    import mlflow

    uri = urlsplit(mlflow.get_tracking_uri())
    if uri.scheme not in ("http", "https"):
        return ""
    host = uri.netloc.rpartition("@")[2]
    return f"{uri.scheme}://{host}{uri.path.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"


def pipeline_run(experiment: str, pipeline: str, name: str = "") -> str:
    """The id of a pipeline's parent run, made if there is none yet."""
    from mlflow import MlflowClient

    tags = {PIPELINE_TAG: pipeline, STEP_TAG: "pipeline"}
    found = _find(experiment, tags)
    if found:
        return found
    tags |= surroundings()
    if ui := os.environ.get("KFP_UI_URL"):
        tags[PIPELINE_URL_TAG] = f"{ui.rstrip('/')}/#/runs/details/{pipeline}"
    return MlflowClient().create_run(experiment, run_name=name or pipeline, tags=tags).info.run_id


def make_experiment(artifact_root: Path) -> None:
    """Make the experiment, if there is none, with its artifacts below a local folder."""
    import mlflow

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    if mlflow.get_tracking_uri().startswith("sqlite:") and mlflow.get_experiment_by_name(name) is None:
        kind = {"mlflow.experimentKind": "custom_model_development"}
        mlflow.create_experiment(name, artifact_location=artifact_root.as_uri(), tags=kind)


def open_pipeline(name: str, params: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> str:
    """Make the parent run of the pipeline that ``KFP_RUN_ID`` names, with its parameters and tags.

    Returns:
        Its id, or "" without tracking. Under KFP's plugin it is the run that the plugin made.
    """
    if not (os.environ.get("MLFLOW_TRACKING_URI") or os.environ.get("MLFLOW_RUN_ID")):
        return ""
    with _tolerant():
        return _open_pipeline(name, params, tags or {})
    return ""


def _open_pipeline(name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    from mlflow import MlflowClient

    if given := os.environ.get("MLFLOW_RUN_ID"):
        run_id = MlflowClient().get_run(given).data.tags.get("mlflow.parentRunId", given)
    elif pipeline := os.environ.get("KFP_RUN_ID"):
        run_id = pipeline_run(_experiment(), pipeline, name)
    else:
        return ""
    for key, value in params.items():
        MlflowClient().log_param(run_id, key, value)
    for key, value in tags.items():
        MlflowClient().set_tag(run_id, key, value)
    return run_id


@contextlib.contextmanager
def _tolerant() -> Iterator[None]:
    """Say in a line that the server is away, and go on."""
    for name, value in IMPATIENT.items():
        os.environ.setdefault(name, value)
    try:
        yield
    except Exception as e:
        if not is_outage(e):
            raise
        say("MLflow does not answer; the pipeline goes on, and its run there is left as it is")


def close_pipeline(succeeded: bool) -> None:
    """End the parent run with its true status, and the steps that were cut off as failed.

    Nothing happens without tracking, where the run has ended already, and under KFP's plugin, which does it itself.
    """
    pipeline = os.environ.get("KFP_RUN_ID")
    if not pipeline or not os.environ.get("MLFLOW_TRACKING_URI") or os.environ.get("MLFLOW_RUN_ID"):
        return
    from mlflow import MlflowClient

    with _tolerant():
        client, experiment = MlflowClient(), _experiment()
        unfinished = f"tags.`{PIPELINE_TAG}` = '{pipeline}' and attributes.status = 'RUNNING'"
        for run in client.search_runs([experiment], unfinished):
            ended = succeeded and run.data.tags[STEP_TAG] == "pipeline"
            client.set_terminated(run.info.run_id, "FINISHED" if ended else "FAILED")


def _experiment() -> str:
    import mlflow

    return mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)).experiment_id


def _find(experiment: str, tags: Mapping[str, str]) -> str | None:
    from mlflow import MlflowClient

    condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    runs = MlflowClient().search_runs([experiment], condition, max_results=1)
    return runs[0].info.run_id if runs else None
