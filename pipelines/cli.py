"""The ``pfs`` command. Its help is quick, since whatever takes long to import is imported by the subcommands."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfs_pipelines.cluster_commands import add_cluster_commands
from pfs_pipelines.data_commands import add_data_commands

import pfs_core
from pfs_core.errors import UserError
from pfs_core.runtime.logs import log_to_terminal

if TYPE_CHECKING:
    from pfs_core.channels import ChannelGraph
    from pfs_core.config.spec import ModelSpec


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand that ``argv`` names, by default the program's own arguments.

    Returns:
        The exit code: 0 when done, 1 if a run or a server failed, 2 if the user's input is wrong, 130 if interrupted.
    """
    arguments = parser().parse_args(argv)
    log_to_terminal()
    try:
        return arguments.handler(arguments) or 0
    except UserError as e:
        print(f"pfs: {e}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        print("pfs: interrupted", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="pfs", description="Pruning from Scratch: a smaller network in one run.")
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
    also = "networks to train as well: dense (default), uniform, dense,uniform or none"
    sub.add_argument("--compare", metavar="NETWORKS", help=also)
    sub.add_argument("--register", default="", metavar="NAME", help="name in the MLflow Model Registry")
    sub.add_argument("--out", type=Path, default=Path("pfs-runs"), metavar="DIR", help="runs folder (default pfs-runs)")
    sub = command("ui", ui, "show the local runs in MLflow")
    sub.add_argument("--out", type=Path, default=Path("pfs-runs"), metavar="DIR", help="runs folder (default pfs-runs)")
    sub.add_argument("--port", type=int, default=5000)

    command("models", models, "list the networks that come with pfs", "json")
    sub = command("cost", cost, "count the MACs and parameters of a network", "MODEL", "input", "set", "json")
    sub.add_argument("--expand", type=float, metavar="FACTOR", help="widen every channel group first (default 1)")
    sub.add_argument(
        "--widths", type=Path, metavar="FILE", help="a structure file, or JSON with the channels per group"
    )
    sub = command(
        "inspect",
        inspect,
        "show channel groups of a network, and why some are frozen",
        "MODEL",
        "input",
        "set",
        "json",
    )
    sub.add_argument("--policy", choices=("inner", "all"), default="inner", help="all also prunes residual streams")
    sub.add_argument("--html", type=Path, metavar="FILE", help="draw the groups on a page")
    sub.add_argument("--png", type=Path, metavar="FILE", help="draw the groups as a picture")

    add_data_commands(command)
    sub = command("split", split, "step 1: choose training, validation and test rows", "recipe", "set", "seed")
    sub.add_argument("dataset", metavar="DATASET", help="digits, a folder, s3:// prefix or torchvision:CIFAR10")
    _out(sub)
    sub = command("search", search, "step 2: learn the gates", "model", "budget", "method", "recipe", "set", "seed")
    _folder(sub, "--split", "output of pfs split")
    sub.add_argument("--profile", action="store_true", help="only run a few steps, and show where the time goes")
    _out(sub)
    sub = command("extract", extract, "step 3: cut the network at a budget", "budget", "recipe", "set")
    _folder(sub, "--gates", "output of pfs search")
    _out(sub)
    sub = command("retrain", retrain, "step 4: train a structure from scratch", "recipe", "set", "seed")
    _folder(sub, "--structure", "a structure file")
    _folder(sub, "--split", "output of pfs split")
    _out(sub)
    sub = command(
        "benchmark", benchmark, "step 5: measure CPU latency beside the dense network", "recipe", "set", "seed"
    )
    sub.add_argument("--structure", action="append", required=True, metavar="FILE", help="a structure file; repeatable")
    _out(sub)
    _add_page_commands(command)
    add_cluster_commands(command)
    return top


def _add_page_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    sub = command("report", report, "step 6: write the report of a run folder")
    sub.add_argument("run", type=Path, metavar="RUNDIR", help="folder with split, gates, structures, model-*, latency")
    sub.add_argument("--register", default="", metavar="NAME", help="name in the MLflow Model Registry")
    _out(sub)
    sub = command("compare", compare, "compare budgets, methods and seeds of several run folders")
    sub.add_argument(
        "runs", type=Path, nargs="+", metavar="RUNDIR", help="folder of a finished run; seeds are averaged"
    )
    _out(sub)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return int(text)


class _Name:
    """The type of an option that takes a name from a table.

    A help text shows the names with ``%(type)s``. The table is imported no earlier than that, because importing it
    takes longer than parsing the command line.
    """

    def __init__(self, module: str, table: str) -> None:
        self._module, self._table = module, table

    def __call__(self, text: str) -> str:
        return text  # the step that uses the name refuses an unknown one

    def __str__(self) -> str:
        return ", ".join(getattr(import_module(self._module), self._table))


NETWORK = "see pfs models; or torchvision:NAME, package.module:factory, or a .yaml or .json spec file"
METHOD, RECIPE = _Name("pfs_core.methods.registry", "METHODS"), _Name("pfs_core.config.recipes", "RECIPES")
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "MODEL": ("model", {"metavar": "MODEL", "help": NETWORK}),
    "model": ("--model", {"default": "resnet20", "metavar": "MODEL", "help": f"{NETWORK}; default resnet20"}),
    "dataset": ("--dataset", {"default": "digits", "help": "digits (default), a folder, s3:// or torchvision:CIFAR10"}),
    "budget": ("--budget", {"default": "macs=0.5", "help": "macs=0.5 (default), params=0.4, latency=0.6, macs=20M"}),
    "method": ("--method", {"type": METHOD, "default": "", "metavar": "NAME", "help": "%(type)s; default pfs"}),
    "recipe": ("--recipe", {"type": RECIPE, "default": "", "metavar": "NAME", "help": "%(type)s; default by dataset"}),
    "set": (
        "--set",
        {"dest": "settings", "action": "append", "default": [], "metavar": "STAGE.NAME=VALUE",
         "help": "change a setting, e.g. search.epochs=5 or model.width=32; repeatable"},
    ),
    "seed": ("--seed", {"type": _seed, "default": 0, "help": "a whole number from 0 (default) up"}),
    "json": ("--json", {"action": "store_true", "help": "print JSON"}),
    "input": ("--input", {"metavar": "CxHxW", "help": "image shape; default: the one the network was published for"}),
}  # fmt: skip


def _out(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("out", type=Path, metavar="OUT", help="folder to write")


def _folder(sub: argparse.ArgumentParser, flag: str, text: str) -> None:
    sub.add_argument(flag, type=Path, required=True, metavar="FILE" if flag == "--structure" else "DIR", help=text)


def run(a: argparse.Namespace) -> int:
    """Run ``pfs run``."""
    from pfs_pipelines.run import run_pipeline

    from pfs_core.config.overrides import STAGES, parse_settings
    from pfs_core.config.recipes import default_recipe
    from pfs_core.config.request import CompressRequest

    settings = parse_settings(a.settings, ("model", *STAGES))
    settings["search"] = _with_method(a.method, settings["search"])
    name, settings["model"] = _model(a.model, settings["model"])
    local = a.dataset if a.dataset == "digits" or not Path(a.dataset).exists() else str(Path(a.dataset).absolute())
    asked = {
        "model": name,
        "dataset": local,
        "budgets": [a.budget],
        "recipe": a.recipe or default_recipe(a.dataset),
        "seed": a.seed,
        "networks": _networks(a.compare, settings["retrain"].get("start") == "inherited"),
        "registered_model": a.register,
        **{f"{stage}_settings": values for stage, values in settings.items()},
    }
    return run_pipeline(CompressRequest.parse(asked, "request"), a.out)


def _networks(compare: str | None, fine_tuned: bool) -> list[str]:
    """Return the networks to train, each once: the pruned one and those of ``--compare``."""
    if compare is None:
        compare = "none" if fine_tuned else "dense"  # training from scratch is not comparable with fine-tuning
    if compare == "none":
        return ["pruned"]
    also = [name.strip() for name in compare.split(",")]
    return list(dict.fromkeys(["pruned", *filter(None, also)]))


def ui(a: argparse.Namespace) -> int:
    """Run ``pfs ui``."""
    import os

    from pfs_pipelines.run import STORE, tracking_uri

    if not (a.out / STORE).is_file():
        raise UserError(f"{a.out} holds no runs yet; make one with pfs run")
    command = ["-m", "mlflow", "ui", "--backend-store-uri", tracking_uri(a.out), "--port", str(a.port)]
    os.execv(sys.executable, [sys.executable, *command])  # noqa: S606 - our own interpreter, no shell


def models(a: argparse.Namespace) -> None:
    """Run ``pfs models``."""
    import torch

    from pfs_core.config.spec import ModelSpec
    from pfs_core.models import MODELS
    from pfs_core.structure import unexpanded_graph

    rows = []
    for name, entry in MODELS.items():
        spec = ModelSpec(name=name, input_shape=entry.input_shape, num_classes=entry.num_classes)
        with torch.device("meta"):
            macs, params = unexpanded_graph(spec).cost()
        text = (entry.load().__doc__ or "").splitlines()[0]
        shape = "x".join(map(str, entry.input_shape))
        rows.append({"model": name, "input": shape, "params": params, "macs": macs, "description": text})
    if a.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        size = f"{row['params']:>12,} parameters {row['macs']:>15,} MACs"
        print(f"{row['model']:<12} {size} on {row['input']:<9}  {row['description']}")


def cost(a: argparse.Namespace) -> None:
    """Run ``pfs cost``."""
    from pfs_core.storage.artifacts import read_json

    spec, graph = _graph(a)
    widths = graph.expanded(spec.expand, spec.expand_stream)
    if a.widths:
        given = read_json(a.widths)
        if not isinstance(given, dict):
            raise UserError(f"{a.widths} must hold a JSON object with the channels per group")
        widths = given.get("widths", given)
        if not isinstance(widths, dict):
            raise UserError(f"{a.widths}: 'widths' must be a JSON object with the channels per group")
    macs, params = graph.cost(widths)
    shape = "x".join(map(str, spec.input_shape))
    if a.json:
        print(json.dumps({"model": spec.name, "input": shape, "expand": spec.expand, "macs": macs, "params": params}))
    else:
        print(f"{spec.name} on {shape}: {macs:,} MACs, {params:,} parameters")


def inspect(a: argparse.Namespace) -> None:
    """Run ``pfs inspect``."""
    spec, graph = _graph(a)
    for path, suffix in ((a.html, ".html"), (a.png, ".png")):
        if path and path.suffix != suffix:
            raise UserError(f"--{suffix[1:]} {path}: the file's name must end in {suffix}")
    if a.html or a.png:
        from pfs_core.report.graph import write_picture

        for path in filter(None, (a.html, a.png)):
            write_picture(graph, f"{spec.name} on {'x'.join(map(str, spec.input_shape))}, policy {a.policy}", path)
    if a.json:
        from dataclasses import asdict

        groups = [{**asdict(group), "members": graph.members(group.name)} for group in graph.groups]
        print(json.dumps(groups, indent=1))
        return
    for group in graph.groups:
        state = "prunable" if group.prunable else f"frozen: {group.reason}"
        print(f"{group.name:<20} {group.width:>5}  {state}")
        for module, role in graph.members(group.name):
            print(f"{'':<27} {role} {module}{' (gate)' if module in group.gates else ''}")
    print(graph.summary())


def _graph(a: argparse.Namespace) -> "tuple[ModelSpec, ChannelGraph]":
    from pfs_core.config.spec import ModelSpec
    from pfs_core.models import published_fields
    from pfs_core.steps import parse_settings
    from pfs_core.structure import unexpanded_graph

    fields = _fields(a.model, parse_settings(a.settings, ("model",))["model"])
    fields = published_fields(fields["name"]) | fields
    if a.input is not None:
        fields["input_shape"] = _shape(a.input)
    if "input_shape" not in fields:
        raise UserError(f"model {fields['name']}: its input shape is not known; give --input CxHxW")
    if getattr(a, "expand", None) is not None:
        fields["expand"] = a.expand
    spec = ModelSpec.parse(fields, "model")
    return spec, unexpanded_graph(spec, getattr(a, "policy", "inner"))


def _fields(model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a :class:`ModelSpec` that MODEL and ``--set model.KEY=VALUE`` give."""
    from pfs_core.models import model_fields

    fields = model_fields(model)
    return {**fields, "kwargs": {**fields.get("kwargs", {}), **settings}}


def _model(model: str, settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name and the keyword arguments of MODEL.

    The other fields of a spec file are not used: the dataset and the search decide them.
    """
    fields = _fields(model, settings)
    return fields["name"], fields["kwargs"]


def _shape(text: str) -> list[int]:
    try:
        return [int(n) for n in text.split("x")]
    except ValueError:
        raise UserError(f"--input {text!r} is not understood; write for example 3x32x32") from None


def split(a: argparse.Namespace) -> None:
    """Run ``pfs split``."""
    from pfs_core import steps

    settings = steps.parse_settings(a.settings, ("split",))
    steps.split(a.dataset, a.out, a.recipe, settings["split"], a.seed)


def search(a: argparse.Namespace) -> None:
    """Run ``pfs search``."""
    from pfs_core import steps

    settings = steps.parse_settings(a.settings, ("search", "model"))
    settings["search"] = _with_method(a.method, settings["search"])
    name, kwargs = _model(a.model, settings["model"])
    steps.search(name, a.split, a.out, a.budget, a.recipe, settings["search"], kwargs, a.seed, a.profile)


def _with_method(method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the search with the value of ``--method`` among them.

    Raises:
        UserError: ``--set search.method`` names another method.
    """
    if method and settings.get("method", method) != method:
        raise UserError(f"--method {method} and search.method={settings['method']} disagree; give one of them")
    return {"method": method, **settings} if method else settings


def extract(a: argparse.Namespace) -> None:
    """Run ``pfs extract``."""
    from pfs_core import steps

    settings = steps.parse_settings(a.settings, ("extract",))
    steps.extract(a.gates, a.out, a.budget, a.recipe, settings["extract"])


def retrain(a: argparse.Namespace) -> None:
    """Run ``pfs retrain``."""
    from pfs_core import steps

    settings = steps.parse_settings(a.settings, ("retrain",))
    steps.retrain(a.structure, a.split, a.out, a.recipe, settings["retrain"], a.seed)


def benchmark(a: argparse.Namespace) -> None:
    """Run ``pfs benchmark``."""
    from pfs_core import steps

    settings = steps.parse_settings(a.settings, ("latency",))
    steps.benchmark(a.structure, a.out, a.recipe, settings["latency"], a.seed)


def report(a: argparse.Namespace) -> None:
    """Run ``pfs report``."""
    from pfs_core import steps

    if not a.run.is_dir():
        raise UserError(f"{a.run} is not a folder; name the folder of a finished run")
    models = sorted(a.run.glob("model-*"))
    steps.report(a.run / "split", a.run / "gates", a.run / "structures", models, a.run / "latency", a.out, a.register)


def compare(a: argparse.Namespace) -> None:
    """Run ``pfs compare``."""
    from pfs_core.rendering.tables import text_table
    from pfs_core.report.comparison import write_comparison
    from pfs_core.report.runs import load_runs
    from pfs_core.storage.artifacts import check_out

    check_out(a.out, "comparison")
    comparison = write_comparison(load_runs(a.runs), a.out)
    print("\n".join(text_table(comparison.header, comparison.cells)))
    print(f"\ncomparison  {a.out / 'comparison.html'}")


if __name__ == "__main__":
    sys.exit(main())
