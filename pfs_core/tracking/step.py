"""A step's run: what it logs, and how it finds the run that an earlier try of it has opened."""

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pfs_core.runtime.logs import first_process
from pfs_core.runtime.progress import STOPPED
from pfs_core.storage.digests import json_digest
from pfs_core.tracking import outbox as mail
from pfs_core.tracking.outbox import Outbox, PendingCall
from pfs_core.tracking.runs import (
    INHERITED,
    INPUTS_TAG,
    PARENT_TAG,
    PIPELINE_TAG,
    STEP_TAG,
    experiment_id,
    find,
    log_params,
    milliseconds,
    open_first,
    page,
    pipeline_run,
    pipeline_tags,
    set_tags,
    short,
    tags_of,
    top,
    tracked,
)
from pfs_core.tracking.system import SystemMetrics

_NOTE = "mlflow.note.content"
"""The tag that MLflow shows as a run's description."""
FAILED_EFFORT_SECONDS = 10.0
"""How long waiting calls are tried after a step failed: a pod has 30 seconds to stop, and a checkpoint to write."""


class StepRun:
    """The run that a step logs to. This base class logs nothing: it stands for tracking that is off."""

    id = ""
    """MLflow's id of the run; empty until the server has answered."""
    url = ""
    """The page of the pipeline's run; empty where the store is no server."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters; their names should start with the step's name."""

    def metrics(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Log the finite numbers among ``values``, as a point of a curve where ``step`` is given."""

    def row(self, values: Mapping[str, Any], at: str = "epoch") -> None:
        """Log a row of a history, one point per curve, at its epoch or step; a point that is there is not repeated."""
        self.metrics({k: v for k, v in values.items() if k not in ("epoch", "step", "episode")}, step=values[at])

    def summary(self, values: Mapping[str, Any]) -> None:
        """Log the finite numbers among ``values`` on the pipeline's run, where the run table shows them."""

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Log a file, or all files of a folder; they must exist until the step ends."""

    def dataset(self, uri: str, fingerprint: str, context: str) -> None:
        """Log a dataset as an input of the run and of the pipeline's run, so that MLflow's run table names it."""

    def present(self, description: str, files: Mapping[str, str | Path]) -> None:
        """Give the pipeline's run a description, in Markdown, and files or folders by their folder there."""

    def model(
        self,
        model: Any,
        example: Any,
        name: str,
        card: str = "",
        files: Sequence[str | Path] = (),
        tags: Mapping[str, Any] = {},
        once: bool = False,
    ) -> str:
        """Log and register a network (:func:`pfs_core.tracking.model.log_model`), with tags on its version.

        With ``once`` the version that an earlier run of this step on the same inputs registered gets the tags and the
        card, if there is one.

        Returns:
            ``name/version``, or "" without tracking and where the server does not answer within a minute.
        """
        return ""


class _MlflowRun(StepRun):
    """A step's run in MLflow. Only opening it raises an error; later calls wait while the server is away.

    Args:
        step: its name.
        params: everything that its result depends on.
        about: the rest of the run's name, after the step's.
        tags: as in :func:`pfs_core.tracking.runs.tags_of`.
        watch: whether CPU, memory and GPU are logged while it runs.

    Raises:
        UserError: the server refuses to open it.
    """

    def __init__(
        self, step: str, params: Mapping[str, Any], about: str, tags: Mapping[str, Any], watch: bool = False
    ) -> None:
        self._step, self._about, self._tags, self._digest = step, about, tags, _digest(params)
        self._started = milliseconds()
        self._parent = ""
        self._earlier = False
        self._logged: dict[str, set[int]] = {}
        self._outbox = Outbox()
        self._system = SystemMetrics(watch)
        open_first(self._outbox, PendingCall(f"the run of {step}", self._open, opens=True))
        self.params(params)
        self._watch()

    def _open(self) -> None:
        from mlflow import MlflowClient

        client = MlflowClient()
        pipeline = os.environ.get("KFP_RUN_ID", "")
        tags, name = {STEP_TAG: self._step, INPUTS_TAG: self._digest}, short(f"{self._step} {self._about}".strip())
        if given := os.environ.get("MLFLOW_RUN_ID"):  # made by the KFP plugin: take it, choose no experiment
            run = client.get_run(given)
            above, experiment = top(run), run.info.experiment_id
            parent = above.info.run_id if above.info.run_id != given else ""
            inherited = _inherited(above, self._tags) if parent else {}
            client.update_run(given, name=name)
            set_tags(given, {**tags_of(self._tags), **inherited, **pipeline_tags(pipeline), STEP_TAG: self._step})
        elif pipeline:
            above = pipeline_run(pipeline, about=self._tags, started=self._started)
            parent, experiment = above.info.run_id, above.info.experiment_id
            tags |= {PIPELINE_TAG: pipeline}
            run = find([experiment], tags)
            tags |= {**pipeline_tags(pipeline), PARENT_TAG: parent, **_inherited(above, self._tags)}
        else:
            parent, experiment = "", experiment_id(self._tags.get("model", ""))
            run = find([experiment], tags, self._started)  # made by a call whose answer was lost
        self._earlier = run is not None
        if run is None:
            run = client.create_run(experiment, self._started, {**tags_of(self._tags), **tags}, run_name=name)
        else:
            client.update_run(run.info.run_id, status="RUNNING")
        self.id, self._parent = run.info.run_id, parent
        self._experiment, self.url = experiment, page(experiment, parent or self.id)

    def _post(self, label: str, send: Any, points: list[Any] | None = None) -> None:
        self._outbox.post(PendingCall(label, send, points or []))
        self._watch()

    def _watch(self) -> None:
        if self.id and self._outbox.healthy:
            self._system.watch(self.id, self._earlier)

    def params(self, values: Mapping[str, Any]) -> None:
        values = dict(values)
        if values:
            self._post("parameters", lambda: log_params(self.id, values))

    def metrics(self, values: Mapping[str, Any], step: int | None = None) -> None:
        from mlflow import MlflowClient

        points = _points(values, step)
        if points and step is None:
            self._post("figures", lambda: MlflowClient().log_batch(self.id, metrics=points), points)
        elif points:
            self._post("metrics", lambda: self._send(points), points)

    def _send(self, points: list[Any]) -> None:
        from mlflow import MlflowClient

        new = [p for p in points if p.step not in self._steps(p.key)] if self._earlier else points
        MlflowClient().log_batch(self.id, metrics=new)  # the same point again, time included, is one point

    def _steps(self, key: str) -> set[int]:
        """The steps of a curve whose points an earlier try of this step has logged."""
        if key not in self._logged:
            from mlflow import MlflowClient

            earlier = MlflowClient().get_metric_history(self.id, key)
            self._logged[key] = {point.step for point in earlier if point.timestamp < self._started}
        return self._logged[key]

    def summary(self, values: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient

        points = _points(values)

        def send() -> None:
            if self._parent:
                MlflowClient().log_batch(self._parent, metrics=points)

        if points:
            self._post("summary", send, points)

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        from mlflow import MlflowClient

        def send() -> None:
            client = MlflowClient()
            with mail.storing(client.get_run(self.id).info.artifact_uri):
                (client.log_artifacts if Path(path).is_dir() else client.log_artifact)(self.id, str(path), folder)

        self._post(f"{path}", send)

    def dataset(self, uri: str, fingerprint: str, context: str) -> None:
        from mlflow import MlflowClient
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.entities import DatasetInput, InputTag

        name, source = uri.rsplit("/", 1)[-1], CodeDatasetSource(tags={"uri": uri})
        dataset = MetaDataset(source, name=name, digest=fingerprint[:36])  # type: ignore[abstract]
        given = DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", context)])

        def send() -> None:
            for run in filter(None, (self.id, self._parent)):
                MlflowClient().log_inputs(run, [given])  # again is no second input

        self._post("the dataset", send)

    def present(self, description: str, files: Mapping[str, str | Path]) -> None:
        from mlflow import MlflowClient

        def send() -> None:
            if not self._parent:
                return
            client = MlflowClient()
            client.set_tag(self._parent, _NOTE, description)
            with mail.storing(client.get_run(self._parent).info.artifact_uri):
                for folder, path in files.items():
                    log = client.log_artifacts if Path(path).is_dir() else client.log_artifact
                    log(self._parent, str(path), folder)

        self._post("the report on the pipeline's run", send)

    def model(
        self,
        model: Any,
        example: Any,
        name: str,
        card: str = "",
        files: Sequence[str | Path] = (),
        tags: Mapping[str, Any] = {},
        once: bool = False,
    ) -> str:
        from mlflow import MlflowClient

        from pfs_core.tracking.model import describe, log_model, registered_by

        versions: list[str] = []

        def send() -> None:
            if once and not versions and (version := registered_by(self._alike(), name)):
                versions.append(version)
            if not versions:
                with mail.storing(MlflowClient().get_run(self.id).info.artifact_uri):
                    versions.append(log_model(self.id, self._experiment, model, example, name, card, files))
            describe(name, versions[0], card, tags)

        self._post(f"the network {name}", send)
        self._outbox.flush(mail.LAST_EFFORT_SECONDS)
        return f"{name}/{versions[0]}" if versions else ""

    def _alike(self) -> list[str]:
        """The ids of the runs of this step on the same inputs, this one among them."""
        from mlflow import MlflowClient

        tags = f"tags.`{STEP_TAG}` = '{self._step}' and tags.`{INPUTS_TAG}` = '{self._digest}'"
        return [run.info.run_id for run in MlflowClient().search_runs([self._experiment], tags)]

    def close(self, status: str, seconds: float) -> None:
        """End the run; waiting calls are tried for ``seconds``, and a warning names those that are not sent."""
        from mlflow import MlflowClient

        ended = milliseconds()
        self._system.finish()
        self._post(f"that the run {status.lower()}", lambda: MlflowClient().set_terminated(self.id, status, ended))
        self._outbox.close(seconds)


def was_stopped(error: BaseException) -> bool:
    """Whether an exception means that somebody has stopped the process, by SIGTERM or Ctrl-C."""
    return isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and error.code == STOPPED)


def finite(values: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers among ``values``, as Python floats (what KFP and MLflow accept without failing)."""
    scalars = {k: v for k, v in values.items() if hasattr(v, "__float__") and getattr(v, "ndim", 0) == 0}
    return {k: float(v) for k, v in scalars.items() if math.isfinite(v)}


@contextlib.contextmanager
def step_run(
    step: str, params: Mapping[str, Any] = {}, about: str = "", tags: Mapping[str, Any] = {}, watch: bool = False
) -> Iterator[StepRun]:
    """Open the run of a step, or the one that an earlier try of it opened, and log its parameters.

    Of several processes that train together, the first one does. Where the server does not answer, the step goes on;
    the run is created later, with its true start time.

    Args:
        step: its name, e.g. ``search`` or ``retrain/pruned``.
        params: everything that its result depends on; names start with the step's.
        about: the rest of the run's name, after the step's, such as ``resnet20 macs=0.5``.
        tags: model, budget, seed, dataset, method, as far as the step knows them.
        watch: whether CPU, memory and GPU are logged while it runs (``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING`` decides
            where it is set).

    Raises:
        UserError: the server refuses to open the run.
    """
    if not first_process() or not tracked():
        yield StepRun()
        return
    with mail.brief_requests():
        run = _MlflowRun(step, params, about, tags, watch)
        try:
            yield run
        except BaseException as e:
            run.close("KILLED" if was_stopped(e) else "FAILED", FAILED_EFFORT_SECONDS)
            raise
        run.close("FINISHED", mail.LAST_EFFORT_SECONDS)


def _inherited(above: Any, own: Mapping[str, Any]) -> dict[str, str]:
    """The tags that a step shares with the pipeline's run; it may have a budget and a method of its own."""
    keys = [key for key in INHERITED if key not in ("budget", "method") or not own.get(key)]
    return {f"pfs.{key}": above.data.tags[f"pfs.{key}"] for key in keys if f"pfs.{key}" in above.data.tags}


def _points(values: Mapping[str, Any], step: int | None = None) -> list[Any]:
    from mlflow.entities import Metric

    now = milliseconds()
    return [Metric(key, value, now, step or 0) for key, value in finite(values).items()]


def _digest(params: Mapping[str, Any]) -> str:
    return json_digest(params, 16, default=str)
