"""``pfs status`` and ``pfs logs``: a run on Kubeflow Pipelines, also one that somebody else has started."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from pfs_pipelines.names import check_run

from pfs_core.errors import NotFoundError, UserError, did_you_mean


def add_status_commands(
    command: Callable[..., argparse.ArgumentParser], connection: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Add the subcommands to the command line.

    Args:
        command: adds a subcommand with a name, a handler and a help text, and returns its parser.
        connection: adds the options of where Kubeflow Pipelines is.
    """
    sub = command("status", status, "what the steps of a run on Kubeflow are doing", "json")
    sub.add_argument("run", metavar="RUN", help="id of the run")
    connection(sub)
    sub = command("logs", logs, "what the steps of a run on Kubeflow have logged")
    sub.add_argument("run", metavar="RUN", help="id of the run")
    sub.add_argument("step", nargs="?", default="", metavar="STEP", help='e.g. "Search gates"; default: all')
    connection(sub)


def status(a: argparse.Namespace) -> int:
    """Run ``pfs status``; the exit code is 1 if the run has failed."""
    from pfs_pipelines.client import Client
    from pfs_pipelines.following import described, ending, steps_of, terminated_at

    check_run(a.run)
    client = Client(a.endpoint, a.namespace)
    run = client.has(client.get_run(a.run), "run_id")
    steps = steps_of(client, run, spec_of(client, run))
    if a.json:
        facts = {"run_id": run.run_id, "name": run.display_name, "state": run.state}
        print(json.dumps({**facts, "steps": [asdict(step) for step in steps]}, indent=1))
    else:
        print(f"{run.display_name}\n{client.link(f'runs/details/{run.run_id}')}")
        for step in steps:
            print(described(client, run.run_id, step, terminated_at(run)))
        print(f"run: {ending(run)}")
    return 1 if run.state in ("FAILED", "CANCELED") else 0


def logs(a: argparse.Namespace) -> None:
    """Run ``pfs logs``."""
    from pfs_pipelines.client import Client
    from pfs_pipelines.following import own_lines, steps_of

    check_run(a.run)
    client = Client(a.endpoint, a.namespace)
    run = client.has(client.get_run(a.run), "run_id")
    steps = [step for step in steps_of(client, run, spec_of(client, run)) if step.pods]
    wanted = [step for step in steps if a.step in ("", step.title, step.path[-1])]
    if not wanted:
        titles = list(dict.fromkeys(step.title for step in steps))
        known = ", ".join(titles) or "none has started"
        raise UserError(f"the run has no step {a.step!r} with a log{did_you_mean(a.step, titles)}; known: {known}")
    for step in wanted:
        for number, pod in enumerate(step.pods, 1):
            print(f"== {step.title}{f', try {number}' if len(step.pods) > 1 else ''}")
            print("\n".join(own_lines(client.log(run.run_id, pod)) or ["(the server has no log of it)"]))


def spec_of(client: Any, run: Any) -> dict[str, Any]:
    """Return the specification of a run's pipeline: its own, or that of the version that it is of."""
    found = run.pipeline_spec
    reference = run.pipeline_version_reference
    if not found and reference:
        try:
            found = client.get_pipeline_version(reference.pipeline_id, reference.pipeline_version_id).pipeline_spec
        except NotFoundError:  # somebody has deleted it; steps have the names of their tasks then
            found = None
    result: dict[str, Any] = (found or {}).get("pipeline_spec", found or {})
    return result
