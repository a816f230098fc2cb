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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pfs_core.progress import first_process

PIPELINE_TAG, PIPELINE_URL_TAG = "kfp.pipeline_run_id", "kfp.pipeline_run_url"
STEP_TAG, INPUTS_TAG = "pfs.step", "pfs.inputs"
EXPERIMENT = "pfs"


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

    def model(self, model: Any, example: Any, name: str) -> str:
        """Log and register a network in the safe ``pt2`` format; returns ``name/version``, or "" without tracking."""
        return ""


class _MlflowRun(StepRun):
    def __init__(self, run_id: str, experiment: str, parent: str | None) -> None:
        self.id = run_id
        self.url = page(experiment, parent or run_id)
        self._parent = parent
        self._logged: dict[str, set[int]] = {}

    def params(self, values: Mapping[str, Any]) -> None:
        import mlflow

        mlflow.log_params(dict(values))

    def metrics(self, values: Mapping[str, Any], step: int | None = None) -> None:
        import mlflow

        new = {k: v for k, v in finite(values).items() if step is None or step not in self._steps(k)}
        mlflow.log_metrics(new, step=step)

    def _steps(self, key: str) -> set[int]:
        """The points of a curve that an earlier try of the step has logged."""
        if key not in self._logged:
            from mlflow import MlflowClient

            self._logged[key] = {point.step for point in MlflowClient().get_metric_history(self.id, key)}
        return self._logged[key]

    def summary(self, values: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient

        for key, value in finite(values).items():
            if self._parent:
                MlflowClient().log_metric(self._parent, key, value)

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        import mlflow

        if Path(path).is_dir():
            mlflow.log_artifacts(str(path), folder)
        else:
            mlflow.log_artifact(str(path), folder)

    def dataset(self, uri: str, fingerprint: str, context: str) -> None:
        import mlflow
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset

        name, source = uri.rsplit("/", 1)[-1], CodeDatasetSource(tags={"uri": uri})
        mlflow.log_input(MetaDataset(source, name=name, digest=fingerprint[:36]), context)  # type: ignore[abstract]

    def model(self, model: Any, example: Any, name: str) -> str:
        import mlflow
        import torch
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        logits = model(torch.from_numpy(example)).detach().numpy()
        signature = ModelSignature(
            inputs=Schema([TensorSpec(example.dtype, (-1, *example.shape[1:]))]),
            outputs=Schema([TensorSpec(logits.dtype, (-1, *logits.shape[1:]))]),
        )
        info = mlflow.pytorch.log_model(
            model,
            name="model",
            input_example=example,
            signature=signature,
            serialization_format="pt2",
            registered_model_name=name,
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", "numpy"],
        )
        return f"{name}/{info.registered_model_version}"


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
    import mlflow

    if os.environ.get("MLFLOW_RUN_ID"):  # made by the KFP plugin: resume it, choose no experiment
        with mlflow.start_run() as run:
            mlflow.set_tag(STEP_TAG, step)
            yield _begun(run, params, run.data.tags.get("mlflow.parentRunId"))
        return
    experiment = _experiment()
    pipeline = os.environ.get("KFP_RUN_ID", "")
    tags = {STEP_TAG: step, INPUTS_TAG: _digest(params)}
    parent = earlier = None
    if pipeline:
        tags[PIPELINE_TAG] = pipeline
        parent = pipeline_run(experiment, pipeline)
        earlier = _find(experiment, tags)
    name = f"{step} {about}".strip()
    with mlflow.start_run(run_id=earlier, run_name=name, parent_run_id=parent, tags=tags) as run:
        yield _begun(run, params, parent)


def _begun(run: Any, params: Mapping[str, Any], parent: str | None) -> StepRun:
    step = _MlflowRun(run.info.run_id, run.info.experiment_id, parent)
    step.params(params)
    return step


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


def open_pipeline(name: str, params: Mapping[str, Any]) -> str:
    """Make the parent run of the pipeline that ``KFP_RUN_ID`` names, with its parameters.

    Returns:
        Its id, or "" without tracking. Under KFP's plugin it is the run that the plugin made.
    """
    if not (os.environ.get("MLFLOW_TRACKING_URI") or os.environ.get("MLFLOW_RUN_ID")):
        return ""
    from mlflow import MlflowClient

    if given := os.environ.get("MLFLOW_RUN_ID"):
        run_id = MlflowClient().get_run(given).data.tags.get("mlflow.parentRunId", given)
    elif pipeline := os.environ.get("KFP_RUN_ID"):
        run_id = pipeline_run(_experiment(), pipeline, name)
    else:
        return ""
    for key, value in params.items():
        MlflowClient().log_param(run_id, key, value)
    return run_id


def close_pipeline(succeeded: bool) -> None:
    """End the parent run with its true status, and the steps that were cut off as failed.

    Nothing happens without tracking, where the run has ended already, and under KFP's plugin, which does it itself.
    """
    pipeline = os.environ.get("KFP_RUN_ID")
    if not pipeline or not os.environ.get("MLFLOW_TRACKING_URI") or os.environ.get("MLFLOW_RUN_ID"):
        return
    from mlflow import MlflowClient

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
