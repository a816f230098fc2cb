"""Recurring runs on Kubeflow Pipelines, which users know by name: the functions behind ``pfs schedule``."""

import time
from collections.abc import Iterator
from typing import Any

from pfs_pipelines.client import Client, ServerError, equals
from pfs_pipelines.submit import Uploaded

from pfs_core.errors import UserError, did_you_mean

ACTIVE = ("PENDING", "RUNNING", "PAUSED", "CANCELING")
EVERY = 5.0
"""Seconds between two looks at a run that is being ended."""
ENDING_SECONDS = 600.0
"""How long the runs of a schedule may take to end."""


def create(
    client: Client,
    name: str,
    cron: str,
    version: Uploaded,
    experiment: str,
    parameters: dict[str, Any],
    max_concurrency: int = 1,
    paused: bool = False,
    service_account: str = "",
    end_runs: bool = False,
) -> str:
    """Create a recurring run of a version of a pipeline, in place of those of the same name.

    The new one is created paused, then the others are deleted, then it is enabled. At every moment there is at least
    one of that name, and never are two enabled.

    Args:
        client: the client of the server.
        name: the name of the recurring run.
        cron: a cron expression of six fields, seconds first, in the time zone of the server.
        version: the version of the pipeline to run.
        experiment: the id of the experiment that lists the runs.
        parameters: the parameters of every run.
        max_concurrency: how many of its runs may be active at the same time, 1 to 10.
        paused: whether to leave it paused.
        service_account: the service account of the pods; empty for Kubeflow's own.
        end_runs: whether to end the runs of those of the same name that are going on.

    Returns:
        The id of the recurring run.

    Raises:
        UserError, ServerError: a request failed, or a run of a schedule of that name is going on and is not to be
            ended. The message says what state the server is in.
    """
    others = [schedule for schedule in schedules(client) if schedule.display_name == name]
    _let_go(client, others, end_runs)
    made = client.create_recurring_run(
        experiment_id=experiment,
        job_name=name,
        cron_expression=cron,
        max_concurrency=max_concurrency,
        no_catchup=True,
        params=parameters,
        pipeline_id=version.pipeline_id,
        version_id=version.version_id,
        enabled=False,
        service_account=service_account or None,
    )
    made_id = client.has(made, "recurring_run_id").recurring_run_id
    try:
        for other in others:
            client.delete_recurring_run(other.recurring_run_id)
        if not paused:
            client.enable_recurring_run(made_id)
    except (UserError, ServerError) as e:
        state = f"the new schedule {name!r} is there, paused; run the same command again to finish"
        raise type(e)(f"{e}; {state}") from None
    text: str = made_id
    return text


def schedules(client: Client) -> Iterator[Any]:
    """Yield all recurring runs of the namespace."""
    token = ""
    while True:
        page = client.list_recurring_runs(page_token=token, page_size=100, namespace=client.namespace or None)
        for schedule in page.recurring_runs or []:
            yield client.has(schedule, "recurring_run_id")
        token = page.next_page_token or ""
        if not token:
            return


def schedules_named(client: Client, name: str) -> list[Any]:
    """Return the recurring runs of a name: one, or several if a replacement was interrupted.

    Raises:
        UserError: there is none.
    """
    all_schedules = list(schedules(client))
    matching = [schedule for schedule in all_schedules if schedule.display_name == name]
    if not matching:
        known = sorted({schedule.display_name or "" for schedule in all_schedules})
        raise UserError(f"no schedule {name!r}{did_you_mean(name, known)}; known: {', '.join(known) or 'none'}")
    return matching


def pause(client: Client, name: str) -> None:
    """Stop a schedule from starting runs; UserError if there is none of that name."""
    for schedule in schedules_named(client, name):
        client.disable_recurring_run(schedule.recurring_run_id)


def resume(client: Client, name: str) -> None:
    """Let a schedule start runs again.

    Raises:
        UserError: there is none of that name, or there are several, of which only one may be enabled.
    """
    matching = schedules_named(client, name)
    if len(matching) > 1:
        raise UserError(f"{len(matching)} schedules are named {name!r}; pfs schedule create replaces them by one")
    client.enable_recurring_run(matching[0].recurring_run_id)


def delete(client: Client, name: str, end_runs: bool = False) -> None:
    """Delete a schedule; its runs that have ended stay.

    Args:
        client: the client of the server.
        name: the name of the schedule.
        end_runs: whether to end its runs that are going on.

    Raises:
        UserError: there is no schedule of that name, or a run is going on and is not to be ended.
        ServerError: the server failed, or a run did not end in time.
    """
    matching = schedules_named(client, name)
    _let_go(client, matching, end_runs)
    for schedule in matching:
        client.delete_recurring_run(schedule.recurring_run_id)


def _let_go(client: Client, old: list[Any], end_runs: bool) -> None:
    """See to it that no run of schedules goes on, before they are deleted.

    Kubernetes deletes what goes on of a schedule together with it: no last step would run, and Kubeflow would call the
    run RUNNING for ever.
    """
    if not end_runs:
        if found := _active(client, old):
            raise UserError(
                f"a run of schedule {old[0].display_name!r} is going on ({found[0].run_id}), and Kubeflow would drop "
                "it with the schedule; wait for its end (pfs schedule pause keeps others from starting), or say "
                "--end-runs"
            )
        return
    for schedule in old:
        client.disable_recurring_run(schedule.recurring_run_id)
    for run in _active(client, old):
        if run.state != "CANCELING":
            client.terminate_run(run.run_id)
    deadline = time.monotonic() + ENDING_SECONDS
    while found := _active(client, old):
        if time.monotonic() > deadline:
            minutes = f"{ENDING_SECONDS / 60:.0f} minutes"
            raise ServerError(f"run {found[0].run_id} has not ended in {minutes}; its schedule is there, paused")
        time.sleep(EVERY)


def _active(client: Client, some: list[Any]) -> list[Any]:
    """Return the runs of schedules that have not ended; at most ten of a schedule are active at a time."""
    found = []
    for schedule in some:
        answer = client.list_runs(
            page_size=20,
            sort_by="created_at desc",
            namespace=client.namespace or None,
            filter=equals("recurring_run_id", schedule.recurring_run_id),
        )
        found += [run for run in answer.runs or [] if run.state in ACTIVE]
    return found


def rows(client: Client) -> list[dict[str, Any]]:
    """Return a row per recurring run, for the list; ``last_run`` is when its last run was created, or None."""
    return [
        {
            "name": schedule.display_name,
            "id": schedule.recurring_run_id,
            "cron": _trigger_text(schedule.trigger),
            "enabled": schedule.mode == "ENABLE",
            "last_run": _last_run(client, schedule.recurring_run_id),
            "link": client.link(f"recurringrun/details/{schedule.recurring_run_id}"),
        }
        for schedule in schedules(client)
    ]


def _trigger_text(trigger: Any) -> str:
    """Return the cron expression of a trigger, or the interval of one that was made in the UI."""
    if trigger and trigger.cron_schedule:
        return trigger.cron_schedule.cron or ""
    if trigger and trigger.periodic_schedule:
        return f"every {trigger.periodic_schedule.interval_second} s"
    return ""


def _last_run(client: Client, schedule: str) -> str | None:
    """Return when the last run of a recurring run, given by its id, was created."""
    answer = client.list_runs(
        page_size=1,
        sort_by="created_at desc",
        namespace=client.namespace or None,
        filter=equals("recurring_run_id", schedule),
    )
    times = [run.created_at for run in answer.runs or []]
    return times[0].isoformat(timespec="seconds") if times and times[0] else None
