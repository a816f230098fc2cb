"""The ``pfs`` command. Nothing heavy is imported before a subcommand needs it."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfs_pipelines.cluster_commands import add_cluster_commands
from pfs_pipelines.data_commands import add_data_commands

import pfs_core
from pfs_core.errors import UserError

if TYPE_CHECKING:
    from pfs_core.channels import ChannelGraph
    from pfs_core.config.spec import ModelSpec


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand. Returns 0 when done, 2 where the user's input is wrong, 1 where a run or a server failed."""
    arguments = parser().parse_args(argv)
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
    """The command line."""
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
    sub = command("run", run, "the whole pipeline on this machine", *options)
    also = "also train: dense (default), uniform, dense,uniform or none"
    sub.add_argument("--compare", metavar="NETWORKS", help=also)
    sub.add_argument("--register", default="", metavar="NAME", help="name in the MLflow Model Registry")
    sub.add_argument("--out", type=Path, default=Path("pfs-runs"), metavar="DIR", help="runs folder (default pfs-runs)")
    sub = command("ui", ui, "the MLflow pages of the local runs")
    sub.add_argument("--out", type=Path, default=Path("pfs-runs"), metavar="DIR", help="runs folder (default pfs-runs)")
    sub.add_argument("--port", type=int, default=5000)

    command("models", models, "the networks that come with pfs", "json")
    sub = command("cost", cost, "MACs and parameters of a network", "MODEL", "input", "set", "json")
    sub.add_argument("--expand", type=float, metavar="FACTOR", help="widen every channel group first (default 1)")
    sub.add_argument("--widths", type=Path, metavar="FILE", help="a structure file, or JSON of channels a group")
    sub = command(
        "inspect", inspect, "channel groups of a network, and why some are frozen", "MODEL", "input", "set", "json"
    )
    sub.add_argument("--policy", choices=("inner", "all"), default="inner", help="all prunes residual streams too")
    sub.add_argument("--html", type=Path, metavar="FILE", help="draw the groups on a page")
    sub.add_argument("--png", type=Path, metavar="FILE", help="draw the groups as a picture")

    add_data_commands(command)
    sub = command("split", split, "step 1: choose training, validation and test rows", "recipe", "set", "seed")
    sub.add_argument("dataset", metavar="DATASET", help="digits, a folder, s3:// prefix or torchvision:CIFAR10")
    _out(sub)
    sub = command("search", search, "step 2: learn the gates", "model", "budget", "method", "recipe", "set", "seed")
    _folder(sub, "--split", "output of pfs split")
    sub.add_argument("--profile", action="store_true", help="only time some steps, and show where the time goes")
    _out(sub)
    sub = command("extract", extract, "step 3: cut the gates at a budget", "budget", "set")
    _folder(sub, "--gates", "output of pfs search")
    _out(sub)
    sub = command("retrain", retrain, "step 4: train a structure from scratch", "recipe", "set", "seed")
    _folder(sub, "--structure", "a structure file")
    _folder(sub, "--split", "output of pfs split")
    _out(sub)
    sub = command("benchmark", benchmark, "step 5: CPU latency beside the dense network", "set", "seed")
    sub.add_argument("--structure", action="append", required=True, metavar="FILE", help="a structure file; repeatable")
    _out(sub)
    _add_page_commands(command)
    add_cluster_commands(command)
    return top


def _add_page_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    sub = command("report", report, "step 6: the page of a run folder")
    sub.add_argument("run", type=Path, metavar="RUNDIR", help="folder with split, gates, structures, model-*, latency")
    sub.add_argument("--register", default="", metavar="NAME", help="name in the MLflow Model Registry")
    _out(sub)
    sub = command("compare", compare, "several run folders on one page: budgets, methods, seeds")
    sub.add_argument(
        "runs", type=Path, nargs="+", metavar="RUNDIR", help="folder of a finished run; seeds are averaged"
    )
    _out(sub)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


NETWORK = "see pfs models; or torchvision:NAME, package.module:factory, or a .yaml or .json spec file"
METHODS = "pfs (default), uniform, random, network_slimming or amc"
RECIPES = "demo, fast, cifar-sfp, cifar-official, imagenet-mobilenet or imagenet-resnet"
OPTIONS: dict[str, tuple[str, dict]] = {
    "MODEL": ("model", {"metavar": "MODEL", "help": NETWORK}),
    "model": ("--model", {"default": "resnet20", "metavar": "MODEL", "help": f"{NETWORK}; default resnet20"}),
    "dataset": ("--dataset", {"default": "digits", "help": "digits (default), a folder, s3:// or torchvision:CIFAR10"}),
    "budget": ("--budget", {"default": "macs=0.5", "help": "macs=0.5 (default), params=0.4, latency=0.6, macs=20M"}),
    "method": ("--method", {"default": "", "metavar": "NAME", "help": METHODS}),
    "recipe": ("--recipe", {"default": "", "help": f"{RECIPES}; default by dataset"}),
    "set": (
        "--set",
        {"dest": "settings", "action": "append", "default": [], "metavar": "STAGE.NAME=VALUE",
         "help": "change a setting, e.g. search.epochs=5 or model.width=32; repeatable"},
    ),
    "seed": ("--seed", {"type": _seed, "default": 0, "help": "0 (default) or any whole number above"}),
    "json": ("--json", {"action": "store_true", "help": "print JSON"}),
    "input": ("--input", {"metavar": "CxHxW", "help": "image shape; default: the one the network was published for"}),
}  # fmt: skip


def _out(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("out", type=Path, metavar="OUT", help="folder to write")


def _folder(sub: argparse.ArgumentParser, flag: str, text: str) -> None:
    sub.add_argument(flag, type=Path, required=True, metavar="FILE" if flag == "--structure" else "DIR", help=text)


def run(a: argparse.Namespace) -> int:
    """``pfs run``."""
    from pfs_pipelines.run import run_pipeline

    from pfs_core.config.recipes import default_recipe
    from pfs_core.steps import STAGES, parse_settings

    settings = parse_settings(a.settings, ("model", *STAGES))
    settings["search"] = _with_method(a.method, settings["search"])
    name, settings["model"] = _model(a.model, settings["model"])
    local = a.dataset if a.dataset == "digits" or not Path(a.dataset).exists() else str(Path(a.dataset).absolute())
    arguments = {
        "model": name,
        "dataset": local,
        "budget": a.budget,
        "recipe": a.recipe or default_recipe(a.dataset),
        "seed": a.seed,
        "networks": _networks(a.compare, settings["retrain"].get("start") == "inherited"),
        "registered_model": a.register,
        **{f"{stage}_settings": values for stage, values in settings.items()},
    }
    return run_pipeline(arguments, a.out)


def _networks(compare: str | None, fine_tuned: bool) -> list[str]:
    """The pruned network and what is trained beside it: the dense one, unless ``compare`` says otherwise."""
    if compare is None:
        compare = "none" if fine_tuned else "dense"  # another training would be compared with the fine-tuning
    also = [] if compare == "none" else filter(None, map(str.strip, compare.split(",")))
    return list(dict.fromkeys(["pruned", *also]))


def ui(a: argparse.Namespace) -> int:
    """``pfs ui``."""
    import os

    from pfs_pipelines.run import STORE, tracking_uri

    if not (a.out / STORE).is_file():
        raise UserError(f"{a.out} holds no runs yet; make one with pfs run")
    command = ["-m", "mlflow", "ui", "--backend-store-uri", tracking_uri(a.out), "--port", str(a.port)]
    os.execv(sys.executable, [sys.executable, *command])  # noqa: S606 - our own interpreter, no shell


def models(a: argparse.Namespace) -> None:
    """``pfs models``."""
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
    """``pfs cost``."""
    from pfs_core.storage.artifacts import read_json

    spec, graph = _graph(a)
    widths = graph.expanded(spec.expand, spec.expand_stream)
    if a.widths:
        given = read_json(a.widths)
        if not isinstance(given, dict):
            raise UserError(f"{a.widths} must hold a JSON object of channels a group")
        widths = given.get("widths", given)
        if not isinstance(widths, dict):
            raise UserError(f"{a.widths}: 'widths' must be a JSON object of channels a group")
    macs, params = graph.cost(widths)
    shape = "x".join(map(str, spec.input_shape))
    if a.json:
        print(json.dumps({"model": spec.name, "input": shape, "expand": spec.expand, "macs": macs, "params": params}))
    else:
        print(f"{spec.name} on {shape}: {macs:,} MACs, {params:,} parameters")


def inspect(a: argparse.Namespace) -> None:
    """``pfs inspect``."""
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
    """What MODEL says of the network, its keyword arguments updated by ``--set model.KEY=VALUE``."""
    from pfs_core.models import model_fields

    fields = model_fields(model)
    return {**fields, "kwargs": {**fields.get("kwargs", {}), **settings}}


def _model(model: str, settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and keyword arguments of MODEL; the dataset and the search decide the rest of a spec file."""
    fields = _fields(model, settings)
    return fields["name"], fields["kwargs"]


def _shape(text: str) -> list[int]:
    try:
        return [int(n) for n in text.split("x")]
    except ValueError:
        raise UserError(f"--input {text!r} is not understood; write for example 3x32x32") from None


def split(a: argparse.Namespace) -> None:
    """``pfs split``."""
    from pfs_core import steps

    settings = steps.parse_settings(a.settings, ("split",))
    steps.split(a.dataset, a.out, a.recipe, settings["split"], a.seed)


def search(a: argparse.Namespace) -> None:
    """``pfs search``."""
    from pfs_core import steps

    settings = steps.parse_settings(a.settings, ("search", "model"))
    settings["search"] = _with_method(a.method, settings["search"])
    name, kwargs = _model(a.model, settings["model"])
    steps.search(name, a.split, a.out, a.budget, a.recipe, settings["search"], kwargs, a.seed, a.profile)


def _with_method(method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of the search with ``--method`` among them."""
    if method and settings.get("method", method) != method:
        raise UserError(f"--method {method} and search.method={settings['method']} disagree; give one of them")
    return {"method": method, **settings} if method else settings


def extract(a: argparse.Namespace) -> None:
    """``pfs extract``."""
    from pfs_core import steps

    steps.extract(a.gates, a.out, a.budget, steps.parse_settings(a.settings, ("extract",))["extract"])


def retrain(a: argparse.Namespace) -> None:
    """``pfs retrain``."""
    from pfs_core import steps

    settings = steps.parse_settings(a.settings, ("retrain",))
    steps.retrain(a.structure, a.split, a.out, a.recipe, settings["retrain"], a.seed)


def benchmark(a: argparse.Namespace) -> None:
    """``pfs benchmark``."""
    from pfs_core import steps

    settings = steps.parse_settings(a.settings, ("latency",))
    steps.benchmark(a.structure, a.out, settings=settings["latency"], seed=a.seed)


def report(a: argparse.Namespace) -> None:
    """``pfs report``."""
    from pfs_core import steps

    if not a.run.is_dir():
        raise UserError(f"{a.run} is not a folder; name the folder of a finished run")
    models = sorted(a.run.glob("model-*"))
    steps.report(a.run / "split", a.run / "gates", a.run / "structures", models, a.run / "latency", a.out, a.register)


def compare(a: argparse.Namespace) -> None:
    """``pfs compare``."""
    from pfs_core.report.comparison import write_comparison
    from pfs_core.report.page import text_table
    from pfs_core.report.runs import load_runs
    from pfs_core.storage.artifacts import check_out

    check_out(a.out, "comparison")
    write_comparison(load_runs(a.runs), a.out)
    lines = (a.out / "comparison.md").read_text(encoding="utf-8").splitlines()
    header, _, *rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    print("\n".join(text_table(header, rows)))
    print(f"\ncomparison  {a.out / 'comparison.html'}")


if __name__ == "__main__":
    sys.exit(main())
