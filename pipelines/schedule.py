"""Recurring runs on Kubeflow Pipelines, which users know by name: the functions behind ``pfs schedule``."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from pfs_pipelines.client import Client, ServerError, equals
from pfs_pipelines.submit import Uploaded

from pfs_core.errors import NotFoundError, UserError, did_you_mean

ACTIVE = ("PENDING", "RUNNING", "PAUSED", "CANCELING")
EVERY = 5.0
"""Seconds between two looks at a run that is being ended."""
ENDING_SECONDS = 600.0
"""How long the runs of a schedule may take to end."""
_PAGE = 100
_LOST = re.compile(r'scheduledworkflows\S* "[^"]*" not found')
"""What Kubeflow says, with status 500, of a schedule whose resource the cluster has lost, as with its namespace."""


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

    The others are paused and the new one is created paused, then the others are deleted, then it is enabled. At every
    moment there is at least one of that name, and never are two enabled.

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
    with _without_runs(client, others, end_runs):
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
    """Return all recurring runs of the namespace, which are asked for as they are taken."""

    def ask(token: str) -> Any:
        return client.list_recurring_runs(page_token=token, page_size=_PAGE, namespace=client.namespace or None)

    return _listed(client, ask, "recurring_runs", "recurring_run_id")


def _listed(client: Client, ask: Callable[[str], Any], entries: str, key: str) -> Iterator[Any]:
    """Yield the entries of all pages of a listing, each once, even where the server sends a page again.

    Args:
        client: the client of the server.
        ask: returns the page of a token, the first one of an empty text.
        entries: the field of a page that has its entries.
        key: the field of an entry that has its id.
    """
    token, tokens, known = "", set[str](), set[str]()
    while token not in tokens:
        tokens.add(token)
        page = ask(token)
        for entry in getattr(page, entries) or []:
            if (id_ := getattr(client.has(entry, key), key)) not in known:
                known.add(id_)
                yield entry
        token = page.next_page_token or ""


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
    with _without_runs(client, matching, end_runs):
        for schedule in matching:
            client.delete_recurring_run(schedule.recurring_run_id)


@contextlib.contextmanager
def _without_runs(client: Client, old: list[Any], end_runs: bool) -> Iterator[None]:
    """Pause schedules that the block deletes, and see to it that no run of theirs goes on.

    Kubernetes deletes what goes on of a schedule together with it: no last step would run, and Kubeflow would call the
    run RUNNING for ever. They are paused first, so that none starts in between; where they are not deleted after all,
    those that were enabled are again. Of those that the cluster has lost already, no run goes on.
    """
    enabled = [schedule for schedule in old if schedule.mode == "ENABLE"]
    if end_runs:
        _end_runs(client, old)
    try:
        if not end_runs:
            _check_none_active(client, _paused(client, old))
        yield
    except BaseException as e:
        back = [_enabled_again(client, schedule) for schedule in enabled]
        if not all(back) and isinstance(e, UserError | ServerError):
            raise type(e)(f"{e}; the schedule that was there is paused now, enable it by pfs schedule resume") from None
        raise


def _check_none_active(client: Client, old: list[Any]) -> None:
    """Raise UserError if a run of schedules goes on."""
    if found := next(_active(client, old), None):
        raise UserError(
            f"a run of schedule {old[0].display_name!r} is going on ({found.run_id}), and Kubeflow would drop it with "
            "the schedule; wait for its end (pfs schedule pause keeps others from starting), or say --end-runs"
        )


def _paused(client: Client, some: list[Any]) -> list[Any]:
    """Pause schedules; returns them without those that the cluster has lost, which start no runs."""
    there = []
    for schedule in some:
        try:
            client.disable_recurring_run(schedule.recurring_run_id)
        except ServerError as e:
            if not _LOST.search(str(e)):
                raise
        else:
            there.append(schedule)
    return there


def _enabled_again(client: Client, schedule: Any) -> bool:
    """Enable a schedule; returns whether it is enabled, or gone."""
    try:
        client.enable_recurring_run(schedule.recurring_run_id)
    except NotFoundError:
        return True
    except (UserError, ServerError) as e:
        return bool(_LOST.search(str(e)))
    return True


def _end_runs(client: Client, old: list[Any]) -> None:
    """Pause schedules and end their runs; ServerError if one does not end in time."""
    there = _paused(client, old)
    for run in list(_active(client, there)):
        if run.state != "CANCELING":
            client.terminate_run(run.run_id)
    deadline = time.monotonic() + ENDING_SECONDS
    while found := next(_active(client, there), None):
        if time.monotonic() > deadline:
            minutes = f"{ENDING_SECONDS / 60:.0f} minutes"
            raise ServerError(f"run {found.run_id} has not ended in {minutes}; its schedule is there, paused")
        time.sleep(EVERY)


def _active(client: Client, some: list[Any]) -> Iterator[Any]:
    """Yield the runs of schedules that have not ended, which need not be among the newest."""
    for schedule in some:
        yield from (run for run in _runs(client, schedule.recurring_run_id) if run.state in ACTIVE)


def _runs(client: Client, schedule: str) -> Iterator[Any]:
    """Return all runs of a recurring run, given by its id, the newest first."""

    def ask(token: str) -> Any:
        return client.list_runs(
            page_token=token,
            page_size=_PAGE,
            sort_by="created_at desc",
            namespace=client.namespace or None,
            filter=equals("recurring_run_id", schedule),
        )

    return _listed(client, ask, "runs", "run_id")


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
