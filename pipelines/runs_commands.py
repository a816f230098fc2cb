"""``pfs runs``: the runs on this machine; and those in MLflow whose pipelines on Kubeflow have ended without a word."""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pfs_core.errors import NotFoundError, UserError

_STATUS = {
    "SUCCEEDED": "FINISHED",
    "SKIPPED": "FINISHED",
    "FAILED": "FAILED",
    "CANCELED": "KILLED",
    "CANCELING": "KILLED",  # for ever, where its workflow went with its schedule
}


def add_runs_commands(
    command: Callable[..., argparse.ArgumentParser],
    connection: Callable[[argparse.ArgumentParser], None],
    served: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> None:
    """Add ``pfs runs`` to the command line.

    Args:
        command: adds a subcommand with a name, a handler and a help text, and returns its parser.
        connection: adds the options of where Kubeflow Pipelines is.
        served: makes one line of an error of the server.
    """
    top = command("runs", list_, "the runs on this machine: state, results, size", "json")
    top.add_argument("--out", type=Path, default=Path("pfs-runs"), metavar="DIR", help="runs folder (default pfs-runs)")
    actions = top.add_subparsers(title="actions", metavar="ACTION")
    text = "end the runs in MLFLOW_TRACKING_URI whose runs on Kubeflow have ended, or are gone"
    sub = actions.add_parser("close", help=text, description=text)
    sub.set_defaults(handler=served(close))
    connection(sub)


def list_(a: argparse.Namespace) -> None:
    """Run ``pfs runs``."""
    from pfs_pipelines.run_folders import states

    if not a.out.is_dir():
        raise UserError(f"{a.out} holds no runs; make one with pfs run")
    rows = states(a.out)
    if a.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        again = f"; pfs run goes on after {', '.join(row['results']) or 'nothing'}" if row["state"] == "stopped" else ""
        print(f"{row['name']}  {row['state']}, {row['mib']:,.1f} MiB{again}")


def close(a: argparse.Namespace) -> None:
    """Run ``pfs runs close``; runs of other namespaces, which log to the same MLflow, are only counted."""
    from pfs_pipelines.client import Client, ForbiddenError

    from pfs_core.tracking.leftover import Leftover, close_leftovers

    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise UserError("set MLFLOW_TRACKING_URI to the MLflow whose runs are to be closed")
    client = Client(a.endpoint, a.namespace)
    foreign = []

    def ended(found: Leftover) -> str:
        try:
            return status_of(client, found.pipeline, found.hours)
        except ForbiddenError:
            foreign.append(found)
            return ""

    closed = close_leftovers(ended)
    for found, status in closed:
        print(f"{found.name}: {status} (Kubeflow's run {found.pipeline})")
    if foreign:
        print(f"left as they are: {len(foreign)} that these credentials may not ask about, as of another namespace")
    elif not closed:
        print("no run was left open")


def status_of(client: Any, pipeline: str, hours: float) -> str:
    """Return the status in MLflow of a run on Kubeflow; empty while it goes on.

    A run that Kubeflow does not know has ended if it began longer ago than any may take.

    Args:
        client: the client of Kubeflow.
        pipeline: Kubeflow's id of the run.
        hours: how long ago it began.

    Raises:
        UserError, ServerError: Kubeflow does not say.
    """
    from pfs_pipelines.following import terminated_at
    from pfs_pipelines.pools import LONGEST_HOURS

    try:
        run = client.get_run(pipeline)
    except NotFoundError:
        return "KILLED" if hours > LONGEST_HOURS else ""
    return "KILLED" if run.state == "FAILED" and terminated_at(run) else _STATUS.get(run.state or "", "")
