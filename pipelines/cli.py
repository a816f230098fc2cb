"""The ``pfs`` command. Its help is quick, since whatever takes long to import is imported by the subcommands."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pfs_pipelines.arguments import OPTIONS, named_model, with_method
from pfs_pipelines.cluster_commands import add_cluster_commands
from pfs_pipelines.completion import COMPLETING, complete
from pfs_pipelines.data_commands import add_data_commands
from pfs_pipelines.model_commands import add_model_commands
from pfs_pipelines.settings_commands import add_settings_commands
from pfs_pipelines.step_commands import add_step_commands

import pfs_core
from pfs_core.errors import UserError, did_you_mean, for_users
from pfs_core.runtime.logs import log_to_terminal

if TYPE_CHECKING:
    from pfs_core.config.request import CompressRequest

_SQLITE = b"SQLite format 3\0"
"""What a database of SQLite begins with, unless it is empty."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand that ``argv`` names, by default the program's own arguments.

    Returns:
        The exit code: 0 when done, 1 if a run or a server failed, 2 if the user's input is wrong, 130 if interrupted.
    """
    known = parser()
    if COMPLETING in os.environ:
        complete(known)
    arguments = known.parse_args(argv)
    log_to_terminal()
    try:
        return arguments.handler(arguments) or 0
    except (UserError, PermissionError) as e:
        print(f"pfs: {for_users(e)}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        print("pfs: interrupted", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    """A parser that says which command was meant."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2 and a line that says what is wrong."""
        if found := re.fullmatch(r"argument \w+: invalid choice: '(.*?)' \(choose from (.*)\)", message):
            known = re.findall(r"'(.*?)'", found[2])
            hint = did_you_mean(found[1], known)
            message = f"unknown command {found[1]!r}{hint}; known: {', '.join(known)}"
        elif found := re.fullmatch(r"(argument .*): invalid (int|float) value: (.*)", message, re.DOTALL):
            message = f"{found[1]} must be {'a whole number' if found[2] == 'int' else 'a number'} (got {found[3]})"
        self.exit(2, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = _Parser(prog="pfs", description="Pruning from Scratch: a smaller network in one run.")
    top.add_argument("--version", action="version", version=f"pfs {pfs_core.__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, handler: object, text: str, *options: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(handler=handler)
        for option in options:
            flag, settings = OPTIONS[option]
            sub.add_argument(flag, **settings)
        return sub

    options = ("model", "dataset", "budget", "method", "recipe", "set", "seed")
    sub = command("run", run, "run the whole pipeline on this machine", *options)
    sub.set_defaults(model=None, dataset=None, budget=None, seed=None)  # what is not given is that of --again
    again = "ask for what an earlier run was asked for, but for the options that are given"
    sub.add_argument("--again", type=Path, metavar="FOLDER", help=again)
    also = "networks to train as well: dense (default), uniform, dense,uniform or none"
    sub.add_argument("--compare", metavar="NETWORKS", help=also)
    sub.add_argument("--register", default="", metavar="NAME", help="name in the MLflow Model Registry")
    sub.add_argument("--out", type=Path, default=Path("pfs-runs"), metavar="DIR", help="runs folder (default pfs-runs)")
    sub.add_argument("--fresh", action="store_true", help="do every step anew, whatever earlier runs have done")
    sub.add_argument("--dry-run", action="store_true", help="only say what it will take: steps, time, disk")
    sub = command("ui", ui, "show the local runs in MLflow")
    sub.add_argument("--out", type=Path, default=Path("pfs-runs"), metavar="DIR", help="runs folder (default pfs-runs)")
    sub.add_argument("--port", type=int, default=5000)

    add_model_commands(command)
    add_settings_commands(command)
    add_data_commands(command)
    add_step_commands(command)
    add_cluster_commands(command)
    return top


def run(a: argparse.Namespace) -> int:
    """Run ``pfs run``."""
    from pfs_pipelines.run import run_pipeline

    from pfs_core.config.overrides import STAGES, parse_settings
    from pfs_core.config.recipes import default_recipe
    from pfs_core.config.request import CompressRequest
    from pfs_core.storage.local import is_there

    settings = parse_settings(a.settings, ("model", *STAGES))
    settings["search"] = with_method(a.method, settings["search"])
    asked: dict[str, Any] = {"model": "resnet20", "dataset": "digits", "budgets": ["macs=0.5"]}
    if a.again:
        if not (a.again / "run.json").exists():
            raise UserError(f"--again {a.again} is no folder of a run: it holds no run.json; pfs runs lists them")
        asked = CompressRequest.load(a.again / "run.json").model_dump()
        if a.dataset is not None and asked["recipe"] == default_recipe(asked["dataset"]):
            asked["recipe"] = ""  # nobody need have chosen it
    if a.model is not None:
        asked["model"], asked["model_settings"] = named_model(a.model, {})
    if a.dataset is not None:
        asked["dataset"] = a.dataset
        if a.dataset not in ("", "digits") and is_there(a.dataset):
            asked["dataset"] = str(Path(a.dataset).absolute())
    given = {"budgets": [a.budget], "recipe": a.recipe, "seed": a.seed, "registered_model": a.register}
    asked |= {name: value for name, value in given.items() if value not in ("", None, [None])}
    asked["recipe"] = asked.get("recipe") or default_recipe(asked["dataset"])
    for stage, values in settings.items():
        asked[f"{stage}_settings"] = {**asked.get(f"{stage}_settings", {}), **values}
    if a.compare is not None or not a.again:
        asked["networks"] = _networks(a.compare, asked["retrain_settings"].get("start") == "inherited")
    request = CompressRequest.parse(asked, "request")
    if a.dry_run:
        return dry_run(request, a.out, a.fresh)
    return run_pipeline(request, a.out, a.fresh)


def dry_run(request: "CompressRequest", store: Path, fresh: bool) -> int:
    """Print what a run will take, and what it would go on from; nothing is written."""
    from pfs_pipelines.local import check
    from pfs_pipelines.run_folders import check_store, unfinished

    from pfs_core.steps.plan import plan

    check_store(store)
    check(request.arguments(), store)
    print("\n".join(plan(request).lines()))
    for folder in [] if fresh else unfinished(store, request)[:1]:
        print(f"goes on in {os.path.relpath(folder)}, where this run was stopped")
    return 0


def _networks(compare: str | None, fine_tuned: bool) -> list[str]:
    """Return the networks to train, each once: the pruned one and those of ``--compare``."""
    if compare is None:
        compare = "none" if fine_tuned else "dense"  # training from scratch is not comparable with fine-tuning
    if compare == "none":
        return ["pruned"]
    also = [name.strip() for name in compare.split(",")]
    if "none" in also:
        raise UserError(f"--compare {compare}: none is for the pruned network alone; leave out none or the others")
    return list(dict.fromkeys(["pruned", *filter(None, also)]))


def ui(a: argparse.Namespace) -> int:
    """Run ``pfs ui``."""
    import os
    import socket

    from pfs_pipelines.run import STORE, tracking_uri

    if not (a.out / STORE).is_file():
        raise UserError(f"{a.out} holds no runs yet; make one with pfs run")
    if not 1 <= a.port <= 65535:
        raise UserError(f"--port {a.port} is out of range; from 1 to 65535")
    with (a.out / STORE).open("rb") as file:
        if file.read(len(_SQLITE)) not in (b"", _SQLITE):
            raise UserError(f"{a.out / STORE} is no database of MLflow; name the folder of your runs with --out")
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", a.port))
        except OSError as e:
            raise UserError(f"port {a.port} cannot be used ({e.strerror}); name another with --port") from None
    command = ["-m", "mlflow", "ui", "--backend-store-uri", tracking_uri(a.out), "--port", str(a.port)]
    os.execv(sys.executable, [sys.executable, *command])  # noqa: S606 - our own interpreter, no shell


if __name__ == "__main__":
    sys.exit(main())
