"""The subcommands of ``pfs`` for Kubeflow Pipelines: ``pfs compile``, ``pfs submit`` and ``pfs schedule``."""

import argparse
import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pfs_pipelines.names import LONGEST_EXPERIMENT, check_namespace, check_object, check_title
from pfs_pipelines.runs_commands import add_runs_commands
from pfs_pipelines.status_commands import add_status_commands

from pfs_core.errors import UserError

Handler = Callable[[argparse.Namespace], int | None]

_ZONE = "in the time zone of the server (UTC unless CRON_SCHEDULE_TIMEZONE is set there)"
_END_RUNS = "end the runs that are going on"


def add_cluster_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the subcommands for Kubeflow Pipelines to the command line.

    Args:
        command: adds a subcommand with a name, a handler and a help text, and returns its parser.
    """
    sub = command("compile", compile_packages, "packages for the Kubeflow UI")
    sub.add_argument("-o", "--out", type=Path, default=Path("build"), metavar="DIR", help="folder (default build)")
    sub.add_argument(
        "--kubernetes", default="", metavar="NAMESPACE", help="write Pipeline resources for this namespace instead"
    )
    _package_options(sub)

    sub = command("submit", _served(submit), "start a run on Kubeflow Pipelines", "json")
    _run_options(sub)
    sub.add_argument("--run-name", default="", metavar="NAME", help="default: what it does, e.g. resnet20 macs=0.5")
    sub.add_argument("--wait", action="store_true", help="wait for the run; exit code 0 if it succeeds, else 1")
    sub.add_argument("--follow", action="store_true", help="wait, and show what the steps log")
    sub.add_argument("--no-cache", action="store_true", help="compute every step again; the run uploads no version")
    sub.add_argument("--upload", action="store_true", help="only upload the pipeline, start no run")
    _connection(sub)

    add_status_commands(lambda name, handler, *rest: command(name, _served(handler), *rest), _connection)
    add_runs_commands(command, _connection, _served)

    top = command("schedule", None, "runs at set times on Kubeflow Pipelines")
    actions = top.add_subparsers(title="actions", required=True, metavar="ACTION")

    def action(name: str, handler: Handler, text: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=text, description=text)
        sub.set_defaults(handler=_served(handler))
        _connection(sub)
        return sub

    sub = action("create", create, f"make a schedule, or replace the one of that name; times are {_ZONE}")
    _run_options(sub)
    sub.add_argument("--name", required=True, help="of the schedule")
    sub.add_argument("--cron", required=True, help='5 fields, e.g. "0 2 * * *", or 6, seconds first')
    sub.add_argument("--max-concurrency", type=int, default=1, metavar="N", help="runs at once, 1 (default) to 10")
    sub.add_argument("--paused", action="store_true", help="make it, do not start it")
    sub.add_argument("--end-runs", action="store_true", help=f"{_END_RUNS} of the one that it replaces")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub = action("list", list_, "every schedule")
    sub.add_argument("--json", action="store_true", help="print JSON")
    for name, handler, text in (
        ("pause", pause, "start no more runs"),
        ("resume", resume, "start runs again; what was missed is not made up for"),
        ("delete", delete, "delete a schedule; its runs that have ended stay"),
    ):
        sub = action(name, handler, text)
        sub.add_argument("name", metavar="NAME")
    sub.add_argument("--end-runs", action="store_true", help=_END_RUNS)


def _package_options(sub: argparse.ArgumentParser) -> None:
    """Add the options that decide how a package is compiled."""
    sub.add_argument("--image", default="", metavar="NAME", help="image of the steps (default PFS_IMAGE or pfs-python)")
    sub.add_argument("--data-volume", default="", metavar="CLAIM", help="a volume claim to keep downloaded datasets on")
    sub.add_argument("--pools", type=Path, metavar="FILE", help="YAML with the form's defaults of parameters where_...")
    sub.add_argument("--drop-downs", action="store_true", help="offer choices in the run form (Kubeflow 2.16 or newer)")


def _placed(a: argparse.Namespace) -> tuple[Any, Any]:
    """Return ``place`` and ``form`` of :func:`pfs_pipelines.packages.compile_one`, by the package options."""
    if a.image:
        os.environ["PFS_IMAGE"] = a.image  # read when the components are imported, so this must come first
    from pfs_components.base import IMAGE, check_image
    from pfs_pipelines.packages import FormOptions
    from pfs_pipelines.parameters import pool_values
    from pfs_pipelines.pools import Placement

    check_image(IMAGE)
    check_object("--data-volume", a.data_volume)
    defaults = pool_values(a.pools) if a.pools else {}
    return Placement(data_volume=a.data_volume), FormOptions(a.drop_downs, defaults)


def _run_options(sub: argparse.ArgumentParser) -> None:
    """Add the options of what to run, with the package options."""
    sub.add_argument("pipeline", metavar="PIPELINE", help="one of this project, e.g. compress, or a .yaml file")
    sub.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="a parameter; repeatable")
    sub.add_argument("--params", type=Path, metavar="FILE", help="parameters in a .yaml or .json file; --param wins")
    sub.add_argument("--experiment", default="pfs", metavar="NAME", help="where runs are listed (default pfs)")
    sub.add_argument("--service-account", default="", metavar="NAME", help="of the pods (default: Kubeflow's own)")
    _package_options(sub)


def _check_run_options(a: argparse.Namespace) -> None:
    """Check the names among the options of what to run."""
    if a.image and Path(a.pipeline).suffix in (".yaml", ".yml"):
        raise UserError(f"--image is for pipelines by name; {a.pipeline} has the one that it was compiled with")
    check_title("--experiment", a.experiment, LONGEST_EXPERIMENT)
    check_object("--service-account", a.service_account)
    check_namespace("--namespace", a.namespace)


def _connection(sub: argparse.ArgumentParser) -> None:
    """Add the options of where Kubeflow Pipelines is."""
    sub.add_argument("--endpoint", default="", metavar="URL", help="default: KF_PIPELINES_ENDPOINT, else the cluster's")
    sub.add_argument("--namespace", default="", metavar="NAME", help="yours, where Kubeflow has many users")


def _served(handler: Handler) -> Handler:
    """Wrap ``handler`` such that an error of the server becomes one line and exit code 1."""

    def served(a: argparse.Namespace) -> int | None:
        from pfs_pipelines.client import ServerError

        try:
            return handler(a)
        except ServerError as e:
            print(f"pfs: {e}", file=sys.stderr)
            return 1

    return served


def compile_packages(a: argparse.Namespace) -> None:
    """Run ``pfs compile``."""
    check_namespace("--kubernetes", a.kubernetes)
    place, form = _placed(a)
    from pfs_pipelines.packages import compile_all, write_resources

    from pfs_core.storage.artifacts import make_folder

    make_folder(a.out, "the packages")
    written = write_resources(a.out, a.kubernetes, place, form) if a.kubernetes else compile_all(a.out, place, form)
    for path in written:
        print(path)


def submit(a: argparse.Namespace) -> int:
    """Run ``pfs submit``; the exit code is 0 unless the run was followed and did not succeed."""
    if a.upload and (a.wait or a.follow or a.no_cache or a.run_name or a.param or a.params or a.service_account):
        raise UserError(
            "--upload starts no run; leave out --wait, --follow, --no-cache, --run-name, --param, --params and "
            "--service-account"
        )
    placed = _placed(a)
    _check_run_options(a)
    if a.run_name:
        check_title("--run-name", a.run_name)
    from pfs_pipelines import submit as steps
    from pfs_pipelines.checks import check_parameters
    from pfs_pipelines.client import Client
    from pfs_pipelines.compiled import load_package
    from pfs_pipelines.following import Progress
    from pfs_pipelines.parameters import run_name, run_parameters

    package = load_package(a.pipeline, *placed)
    parameters = {} if a.upload else run_parameters(package.parameters, a.param, a.params)
    check_parameters(package, parameters)
    facts: dict[str, Any] = {"pipeline": package.name}
    with contextlib.redirect_stdout(sys.stderr if a.json else sys.stdout):
        client = Client(a.endpoint, a.namespace)
        if not a.no_cache:
            version = _uploaded(client, package, facts)
        if not a.upload:
            experiment = steps.experiment_id(client, a.experiment)
            name = a.run_name or run_name(package.name, package.parameters, parameters)
            if a.no_cache:
                run = steps.start_uncached(client, package, experiment, name, parameters, a.service_account)
            else:
                run = steps.start(client, version, experiment, name, parameters, a.service_account)
            facts |= {"experiment_id": experiment, "run_id": run, "link": client.link(f"runs/details/{run}")}
            print(f"run {run}\n{facts['link']}", flush=True)
        if a.wait or a.follow:
            show = functools.partial(print, flush=True)
            facts["state"] = Progress(client, run, package.documents[0], show, a.follow).follow()
    if a.json:
        print(json.dumps(facts, indent=1))
    return 0 if facts.get("state", "SUCCEEDED") == "SUCCEEDED" else 1


def _uploaded(client: Any, package: Any, facts: dict[str, Any]) -> Any:
    """Upload a package, print its version, and add its ids to ``facts``."""
    from pfs_pipelines.submit import upload

    version = upload(client, package)
    print(f"{package.name} {version.version} {'uploaded' if version.new else 'is there already'}", flush=True)
    facts |= {
        "pipeline_id": version.pipeline_id,
        "pipeline_version_id": version.version_id,
        "version": version.version,
    }
    return version


def create(a: argparse.Namespace) -> None:
    """Run ``pfs schedule create``."""
    if not 1 <= a.max_concurrency <= 10:
        raise UserError(f"--max-concurrency {a.max_concurrency} is out of range; from 1 to 10")
    placed = _placed(a)
    _check_run_options(a)
    check_title("--name", a.name)
    from pfs_pipelines import schedule
    from pfs_pipelines.checks import check_parameters
    from pfs_pipelines.client import Client
    from pfs_pipelines.compiled import load_package
    from pfs_pipelines.cron import six_fields
    from pfs_pipelines.parameters import run_parameters
    from pfs_pipelines.submit import experiment_id

    cron = six_fields(a.cron)
    package = load_package(a.pipeline, *placed)
    parameters = run_parameters(package.parameters, a.param, a.params)
    check_parameters(package, parameters)
    facts: dict[str, Any] = {"name": a.name, "cron": cron, "enabled": not a.paused, "pipeline": package.name}
    with contextlib.redirect_stdout(sys.stderr if a.json else sys.stdout):
        client = Client(a.endpoint, a.namespace)
        version = _uploaded(client, package, facts)
        experiment = experiment_id(client, a.experiment)
        made = schedule.create(
            client,
            a.name,
            cron,
            version,
            experiment,
            parameters,
            a.max_concurrency,
            a.paused,
            a.service_account,
            a.end_runs,
        )
        facts |= {"experiment_id": experiment, "recurring_run_id": made}
        facts["link"] = client.link(f"recurringrun/details/{made}")
        print(f"schedule {a.name}: {cron} {_ZONE}{', paused' if a.paused else ''}\n{facts['link']}")
    if a.json:
        print(json.dumps(facts, indent=1))


def list_(a: argparse.Namespace) -> None:
    """Run ``pfs schedule list``."""
    from pfs_pipelines import schedule
    from pfs_pipelines.client import Client

    rows = schedule.rows(Client(a.endpoint, a.namespace))
    if a.json:
        print(json.dumps(rows, indent=1))
        return
    table = [("NAME", "CRON", "STATE", "LAST RUN", "LINK")]
    table += [
        (row["name"], row["cron"], "enabled" if row["enabled"] else "paused", row["last_run"] or "-", row["link"])
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def pause(a: argparse.Namespace) -> None:
    """Run ``pfs schedule pause``."""
    from pfs_pipelines import schedule
    from pfs_pipelines.client import Client

    schedule.pause(Client(a.endpoint, a.namespace), a.name)
    print(f"schedule {a.name}: paused")


def resume(a: argparse.Namespace) -> None:
    """Run ``pfs schedule resume``."""
    from pfs_pipelines import schedule
    from pfs_pipelines.client import Client

    schedule.resume(Client(a.endpoint, a.namespace), a.name)
    print(f"schedule {a.name}: enabled")


def delete(a: argparse.Namespace) -> None:
    """Run ``pfs schedule delete``."""
    from pfs_pipelines import schedule
    from pfs_pipelines.client import Client

    schedule.delete(Client(a.endpoint, a.namespace), a.name, a.end_runs)
    print(f"schedule {a.name}: deleted")
