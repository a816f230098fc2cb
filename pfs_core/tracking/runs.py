"""Where runs are: experiments by model, and a pipeline's run above those of its steps."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from pfs_core.errors import AccessDeniedError, InvalidError
from pfs_core.runtime.environment import code, mlflow_address
from pfs_core.storage.artifacts import plain_name
from pfs_core.tracking import outbox as mail
from pfs_core.tracking.answers import plain, refusal, server, unsent
from pfs_core.tracking.outbox import Outbox, PendingCall, brief_requests

logger = logging.getLogger(__package__)

PIPELINE_TAG, PIPELINE_URL_TAG = "kfp.pipeline_run_id", "kfp.pipeline_run_url"
STEP_TAG, INPUTS_TAG = "pfs.step", "pfs.inputs"
FINISHED_TAG = "pfs.finished"
"""The tag of a pipeline's run whose last step has done its work."""
PARENT_TAG = "mlflow.parentRunId"
EXPERIMENT = "pfs"
"""The start of the names of experiments, and the name of the one for runs without a model."""
LONGEST_NAME = 250
"""The most characters of a run's name: a PostgreSQL or MySQL of MLflow takes no more, and refuses the run."""
INHERITED = ("model", "budget", "seed", "dataset", "method")
"""Tags (their names after ``pfs.``) that a step takes from its pipeline's run."""


def tracked() -> bool:
    """Whether the environment configures tracking; UserError if it does so by what is no address."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    mlflow_address(uri)
    return bool(uri or os.environ.get("MLFLOW_RUN_ID"))


def milliseconds() -> int:
    """The time in milliseconds since 1970, as MLflow counts it."""
    return time.time_ns() // 1_000_000


def tags_of(about: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a run: ``pfs.KEY`` for what it is about, the method, commit and image, and MLflow's own.

    Args:
        about: model, budget, seed, dataset and the like; empty values are left out.
    """
    from mlflow.tracking.context.registry import resolve_tags

    made = code()
    found = {f"pfs.{key}": str(value) for key, value in {**made, **about}.items() if value not in ("", None)}
    result: dict[str, str] = resolve_tags(
        found | ({"mlflow.source.git.commit": made["git_commit"]} if "git_commit" in made else {})
    )
    return result


def experiment_name(model: str = "") -> str:
    """``MLFLOW_EXPERIMENT_NAME``, else a name per model.

    >>> experiment_name("torchvision:resnet18")
    'pfs-torchvision-resnet18'
    """
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or (f"{EXPERIMENT}-{plain_name(model)}" if model else EXPERIMENT)


def experiment_id(model: str = "", artifacts: str | None = None) -> str:
    """The id of the experiment of a model, which is created if it is missing."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client, name = MlflowClient(), experiment_name(model)
    if (found := client.get_experiment_by_name(name)) is None:
        kind = {"mlflow.experimentKind": "custom_model_development"}
        try:
            return client.create_experiment(name, artifact_location=artifacts, tags=kind)
        except MlflowException:  # another process was quicker
            if (found := client.get_experiment_by_name(name)) is None:
                raise
    return found.experiment_id


def short(name: str) -> str:
    """``name``, cut where it is longer than that of a run may be, as that of a run at many budgets.

    >>> short("net"), len(short(300 * "n"))
    ('net', 250)
    """
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."


def find(experiments: list[str], tags: Mapping[str, str], started: int = 0) -> Any:
    """The oldest run with these tags and, if given, this start in milliseconds; None if there is none."""
    from mlflow import MlflowClient

    conditions = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
    if started:
        conditions.append(f"attributes.start_time = {started}")
    order = ["attributes.start_time ASC"]
    runs = MlflowClient().search_runs(experiments, " and ".join(conditions), max_results=1, order_by=order)
    return runs[0] if runs else None


def everything(ask: Callable[[str | None], Any]) -> list[Any]:
    """All that MLflow lists, which it does in pages of 1,000; ``ask`` returns the page of a token, or the first one."""
    page = ask(None)
    found = list(page)
    while page.token:
        page = ask(page.token)
        found += page
    return found


def experiment_ids(condition: str | None = None) -> list[str]:
    """The ids of all experiments that are not deleted, or of those that meet a condition."""
    from mlflow import MlflowClient

    client = MlflowClient()
    found = everything(lambda token: client.search_experiments(filter_string=condition, page_token=token))
    return [experiment.experiment_id for experiment in found]


def find_pipeline(pipeline: str) -> Any:
    """The run of a pipeline, or None.

    Every experiment of this project is searched, since not every step knows the model, and then all others: Kubeflow's
    MLflow plugin has made the run in one of its own, if it is there.
    """
    from mlflow import MlflowClient

    if given := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        ids = [experiment.experiment_id] if (experiment := MlflowClient().get_experiment_by_name(given)) else []
    else:
        ids = experiment_ids(f"name LIKE '{EXPERIMENT}%'")
    if found := find(ids, {PIPELINE_TAG: pipeline, STEP_TAG: "pipeline"}) if ids else None:
        return found
    others = [id_ for id_ in experiment_ids() if id_ not in ids]
    found = find(others, {PIPELINE_TAG: pipeline}) if others else None
    return found and top(found)


def top(run: Any) -> Any:
    """The run that a run is nested in, however deep; itself where it is not."""
    from mlflow import MlflowClient

    while above := run.data.tags.get(PARENT_TAG):
        run = MlflowClient().get_run(above)
    return run


def pipeline_run(pipeline: str, name: str = "", about: Mapping[str, Any] = {}, started: int | None = None) -> Any:
    """The run of a pipeline, which is created if it is missing; the plugin's gets our name and tags.

    One that has ended is open again: who asks is a step of a pipeline that goes on, or that is tried again.
    """
    from mlflow import MlflowClient

    if found := find_pipeline(pipeline):
        if found.info.status != "RUNNING":
            MlflowClient().update_run(found.info.run_id, status="RUNNING")
        if name and STEP_TAG not in found.data.tags:
            adopt(found.info.run_id, name, pipeline, about)
        return found
    tags = {**tags_of(about), **pipeline_tags(pipeline), STEP_TAG: "pipeline"}
    experiment = experiment_id(about.get("model", ""))
    return MlflowClient().create_run(experiment, started, tags, run_name=short(name or pipeline))


def adopt(run_id: str, name: str, pipeline: str, about: Mapping[str, Any]) -> None:
    """Give the run that Kubeflow's plugin has made for a pipeline the name and the tags of ours."""
    from mlflow import MlflowClient

    MlflowClient().update_run(run_id, name=short(name))
    set_tags(run_id, {**tags_of(about), **pipeline_tags(pipeline), STEP_TAG: "pipeline"})


def pipeline_tags(pipeline: str) -> dict[str, str]:
    """The tags that tie a run to a pipeline run and, if ``KFP_UI_URL`` is set, to its page in Kubeflow."""
    if not pipeline:
        return {}
    ui = os.environ.get("KFP_UI_URL", "").rstrip("/")
    return {PIPELINE_TAG: pipeline} | ({PIPELINE_URL_TAG: f"{ui}/#/runs/details/{pipeline}"} if ui else {})


def set_tags(run: str, values: Mapping[str, str]) -> None:
    """Set tags of a run, in place of earlier ones of these names."""
    from mlflow import MlflowClient
    from mlflow.entities import RunTag

    MlflowClient().log_batch(run, tags=[RunTag(key, value) for key, value in values.items()])


def log_params(run: str, values: Mapping[str, Any]) -> None:
    """Log parameters. One that the run has with another value keeps it, with a warning: MLflow never changes one."""
    from mlflow import MlflowClient
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException

    def log(params: list[Param]) -> None:
        MlflowClient().log_batch(run, params=params)

    params = [Param(key, str(_in_order(value))) for key, value in values.items()]
    try:
        log(params)
    except MlflowException as e:
        if unsent(e) or not refusal(e):
            raise
        for param in params:
            try:
                log([param])
            except MlflowException as single:
                if unsent(single) or not (reason := refusal(single)):
                    raise
                logger.warning(f"MLflow keeps the parameter {param.key} as it is: {reason}")


def _in_order(value: Any) -> Any:
    """A value with the keys of its objects sorted: KFP hands them over in another order in every process."""
    if isinstance(value, Mapping):
        return {key: _in_order(value[key]) for key in sorted(value)}
    return value


def open_first(outbox: Outbox, call: PendingCall) -> None:
    """Open a run now, or, where the server does not answer, as the first call of ``outbox``.

    Raises:
        AccessDeniedError: the server does not accept the login.
        InvalidError: it refuses the run, such as one in a deleted experiment.
    """
    start = time.monotonic()
    try:
        call.send()
    except Exception as e:
        if reason := refusal(e):
            kind = AccessDeniedError if unsent(e) else InvalidError  # what is refused and may wait is a login
            raise kind(f"MLflow{server()} refuses the run ({reason}); check address, login and experiment") from None
        if not unsent(e):
            raise
        outbox.pause(time.monotonic() - start)
        outbox.post(call)


def open_pipeline(name: str, params: Mapping[str, Any], about: Mapping[str, Any] = {}) -> str:
    """Create the parent run of the pipeline that ``KFP_RUN_ID`` names, with its parameters.

    Args:
        name: of the run.
        params: of the pipeline.
        about: as in :func:`tags_of`; the model names the experiment.

    Returns:
        Its id, or "" without tracking and where the server does not answer: the steps then create it. Under KFP's
        plugin it is the run that the plugin has created.

    Raises:
        UserError: the server refuses it, as in :func:`open_first`.
    """
    given, pipeline = os.environ.get("MLFLOW_RUN_ID"), os.environ.get("KFP_RUN_ID")
    if not tracked() or not (given or pipeline):
        return ""
    from mlflow import MlflowClient

    ids, started, outbox = [], milliseconds(), Outbox()

    def make() -> None:
        if given:
            run_id = top(MlflowClient().get_run(given)).info.run_id
            adopt(run_id, name, pipeline or "", about)
        else:
            run_id = pipeline_run(str(pipeline), name, about, started).info.run_id
        ids.append(run_id)

    with brief_requests():
        open_first(outbox, PendingCall("the pipeline's run", make, opens=True))
        outbox.post(PendingCall("its parameters", lambda: log_params(ids[0], params)))
        outbox.close(mail.LAST_EFFORT_SECONDS)
    return ids[0] if ids else ""


def mark_finished() -> None:
    """Note on the parent run that the last step has done its work, for :func:`close_pipeline`."""

    def mark(parent: Any) -> None:
        from mlflow import MlflowClient

        MlflowClient().set_tag(parent.info.run_id, FINISHED_TAG, "yes")

    _to_pipeline("that the last step is done", mark)


def close_pipeline(succeeded: bool | None, stopped: bool = False) -> None:
    """End the parent run with its true status, and with it the steps whose end the server has not heard of.

    Nothing happens without tracking, where the run has ended already, and under KFP's plugin, which does it itself. A
    run that failed while one of its steps was stopped has been stopped too: its status is ``KILLED``.

    Args:
        succeeded: whether the pipeline has; None where that is not known, and its last step decides
            (:func:`mark_finished`).
        stopped: whether somebody has stopped the pipeline, perhaps between two steps.
    """

    def end(parent: Any) -> None:
        pipeline = os.environ["KFP_RUN_ID"]
        done = FINISHED_TAG in parent.data.tags if succeeded is None else succeeded
        killed = stopped or with_status(parent, pipeline, "KILLED")
        end_all(parent, pipeline, "FINISHED" if done else "KILLED" if killed else "FAILED")

    _to_pipeline("how the pipeline ended", end)


def with_status(parent: Any, pipeline: str, status: str) -> list[Any]:
    """The runs of a pipeline and its steps that have a status."""
    from mlflow import MlflowClient

    condition = f"tags.`{PIPELINE_TAG}` = '{pipeline}' and attributes.status = '{status}'"
    ask = partial(MlflowClient().search_runs, [parent.info.experiment_id], condition)
    return everything(lambda token: ask(page_token=token))


def end_all(parent: Any, pipeline: str, status: str) -> None:
    """End the runs of a pipeline and its steps that have not ended."""
    from mlflow import MlflowClient

    for run in with_status(parent, pipeline, "RUNNING"):
        MlflowClient().set_terminated(run.info.run_id, status)


def _to_pipeline(label: str, send: Callable[[Any], None]) -> None:
    """Do something with the parent run, if there is one and KFP's plugin does not keep it."""
    pipeline = os.environ.get("KFP_RUN_ID")
    if not pipeline or not os.environ.get("MLFLOW_TRACKING_URI") or os.environ.get("MLFLOW_RUN_ID"):
        return
    outbox = Outbox()

    def deliver() -> None:
        if parent := find_pipeline(pipeline):
            send(parent)

    with brief_requests():
        outbox.post(PendingCall(label, deliver))
        outbox.close(mail.LAST_EFFORT_SECONDS)


def page(experiment: str, run_id: str) -> str:
    """The address of a run's page, without credentials; empty where the store is no server.

    It starts with ``MLFLOW_UI_URL`` where browsers reach the server by another address than the steps do.
    """
    import mlflow

    address = os.environ.get("MLFLOW_UI_URL") or mlflow.get_tracking_uri()
    if urlsplit(address).scheme not in ("http", "https"):
        return ""
    return plain(f"{address.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}")
