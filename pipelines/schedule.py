"""``pfs schedule``: recurring runs, known by their names."""

from collections.abc import Iterator
from typing import Any

from pfs_pipelines.client import Client, ServerError, equals
from pfs_pipelines.submit import Uploaded

from pfs_core.errors import UserError, did_you_mean


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
) -> str:
    """Make a recurring run of a version of a pipeline, in place of those of its name; returns its id.

    It is made paused; then the others are deleted; then it is enabled. So at no time is there none, or are two enabled.

    Args:
        client: where.
        name: of the recurring run.
        cron: six fields, seconds first, in the server's time zone.
        version: what to run.
        experiment: an experiment's id.
        parameters: of every run.
        max_concurrency: how many of its runs may be going on at once, 1 to 10.
        paused: leave it paused.
        service_account: of the pods; empty for Kubeflow's own.

    Raises:
        UserError, ServerError: a request failed; the message says what is there now.
    """
    others = [schedule for schedule in schedules(client) if schedule.display_name == name]
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
        left = f"the new schedule {name!r} is there, paused; run the same command again to finish"
        raise type(e)(f"{e}; {left}") from None
    return made_id


def schedules(client: Client) -> Iterator[Any]:
    """Every recurring run of the namespace."""
    token = ""
    while True:
        page = client.list_recurring_runs(page_token=token, page_size=100, namespace=client.namespace or None)
        for schedule in page.recurring_runs or []:
            yield client.has(schedule, "recurring_run_id")
        token = page.next_page_token or ""
        if not token:
            return


def named(client: Client, name: str) -> list[Any]:
    """The recurring runs of a name: one, or more where a replacement was broken off.

    Raises:
        UserError: there is none.
    """
    every = list(schedules(client))
    found = [schedule for schedule in every if schedule.display_name == name]
    if not found:
        known = sorted({schedule.display_name or "" for schedule in every})
        raise UserError(f"no schedule {name!r}{did_you_mean(name, known)}; known: {', '.join(known) or 'none'}")
    return found


def pause(client: Client, name: str) -> None:
    """Start no more runs."""
    for schedule in named(client, name):
        client.disable_recurring_run(schedule.recurring_run_id)


def resume(client: Client, name: str) -> None:
    """Start runs again; UserError where two have the name, since only one may."""
    found = named(client, name)
    if len(found) > 1:
        raise UserError(f"{len(found)} schedules are named {name!r}; pfs schedule create replaces them by one")
    client.enable_recurring_run(found[0].recurring_run_id)


def delete(client: Client, name: str) -> None:
    """Delete it; its runs stay."""
    for schedule in named(client, name):
        client.delete_recurring_run(schedule.recurring_run_id)


def rows(client: Client) -> list[dict[str, Any]]:
    """What there is to say of every recurring run; ``last_run`` is when its last run was made, or None."""
    return [
        {
            "name": schedule.display_name,
            "id": schedule.recurring_run_id,
            "cron": _when(schedule.trigger),
            "enabled": schedule.mode == "ENABLE",
            "last_run": _last_run(client, schedule.recurring_run_id),
            "link": client.link(f"recurringrun/details/{schedule.recurring_run_id}"),
        }
        for schedule in schedules(client)
    ]


def _when(trigger: Any) -> str:
    if trigger and trigger.cron_schedule:
        return trigger.cron_schedule.cron or ""
    if trigger and trigger.periodic_schedule:
        return f"every {trigger.periodic_schedule.interval_second} s"
    return ""


def _last_run(client: Client, schedule: str) -> str | None:
    answer = client.list_runs(
        page_size=1,
        sort_by="created_at desc",
        namespace=client.namespace or None,
        filter=equals("recurring_run_id", schedule),
    )
    times = [run.created_at for run in answer.runs or []]
    return times[0].isoformat(timespec="seconds") if times and times[0] else None
