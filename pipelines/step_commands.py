"""The subcommands for the steps of a run, one by one, and ``pfs compare``, which puts finished runs side by side."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from pfs_pipelines.arguments import add_folder, add_out, named_model, with_method

from pfs_core.errors import UserError
from pfs_core.runtime.supervise import supervised


def add_step_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add these subcommands to the command line.

    Args:
        command: makes a subcommand from its name, its handler, its help text and the names of its options.
    """
    sub = command("split", split, "step 1: choose training, validation and test rows", "recipe", "set", "seed")
    sub.add_argument("dataset", metavar="DATASET", help="digits, a folder, s3:// prefix or torchvision:CIFAR10")
    add_out(sub)
    sub = command("search", search, "step 2: learn the gates", "model", "budget", "method", "recipe", "set", "seed")
    add_folder(sub, "--split", "output of pfs split")
    sub.add_argument("--profile", action="store_true", help="only run a few steps, and show where the time goes")
    add_out(sub)
    sub = command("extract", extract, "step 3: cut the network at a budget", "budget", "recipe", "set")
    add_folder(sub, "--gates", "output of pfs search")
    add_out(sub)
    sub = command("retrain", retrain, "step 4: train a structure from scratch", "recipe", "set", "seed")
    add_folder(sub, "--structure", "a structure file")
    add_folder(sub, "--split", "output of pfs split")
    add_out(sub)
    sub = command(
        "benchmark", benchmark, "step 5: measure CPU latency beside the dense network", "recipe", "set", "seed"
    )
    sub.add_argument("--structure", action="append", required=True, metavar="FILE", help="a structure file; repeatable")
    add_out(sub)
    sub = command("report", report, "step 6: write the report of a run folder")
    sub.add_argument("run", type=Path, metavar="RUNDIR", help="folder with split, gates, structures, model-*, latency")
    sub.add_argument("--register", default="", metavar="NAME", help="name in the MLflow Model Registry")
    add_out(sub)
    sub = command("compare", compare, "compare budgets, methods and seeds of several run folders")
    sub.add_argument(
        "runs", type=Path, nargs="+", metavar="RUNDIR", help="folder of a finished run; seeds are averaged"
    )
    add_out(sub)


def split(a: argparse.Namespace) -> None:
    """Run ``pfs split``."""
    from pfs_core import steps

    settings = steps.parse_settings(a.settings, ("split",))
    steps.split(a.dataset, a.out, a.recipe, settings["split"], a.seed)


def search(a: argparse.Namespace) -> None:
    """Run ``pfs search``."""
    from pfs_core import steps

    settings = steps.parse_settings(a.settings, ("search", "model"))
    settings["search"] = with_method(a.method, settings["search"])
    name, kwargs = named_model(a.model, settings["model"])
    supervised(
        lambda: steps.search(name, a.split, a.out, a.budget, a.recipe, settings["search"], kwargs, a.seed, a.profile)
    )


def extract(a: argparse.Namespace) -> None:
    """Run ``pfs extract``."""
    from pfs_core import steps

    settings = steps.parse_settings(a.settings, ("extract",))
    steps.extract(a.gates, a.out, a.budget, a.recipe, settings["extract"])


def retrain(a: argparse.Namespace) -> None:
    """Run ``pfs retrain``."""
    from pfs_core import steps

    settings = steps.parse_settings(a.settings, ("retrain",))
    supervised(lambda: steps.retrain(a.structure, a.split, a.out, a.recipe, settings["retrain"], a.seed))


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
    from pfs_core.report.runs import model_folders
    from pfs_core.steps.preflight import check_registered_name
    from pfs_core.storage.artifacts import check_out
    from pfs_core.tracking.runs import tracked

    check_registered_name(a.register)
    if a.register and not tracked():
        raise UserError("--register needs an MLflow to register in; set MLFLOW_TRACKING_URI")
    check_out(a.out, "report")
    split, gates, structures, latency = (a.run / name for name in ("split", "gates", "structures", "latency"))
    steps.report(split, gates, structures, model_folders(a.run), latency, a.out, a.register)


def compare(a: argparse.Namespace) -> None:
    """Run ``pfs compare``."""
    from pfs_core.report.comparison import write_comparison
    from pfs_core.report.runs import finished, load_runs
    from pfs_core.storage.artifacts import check_out

    check_out(a.out, "comparison")
    done = [folder for folder in a.runs if finished(folder)]
    if not done:
        raise UserError("none of the folders is a finished run; name folders that pfs runs calls finished")
    for folder in a.runs:
        if folder not in done:
            print(f"{folder} is left out: it is no finished run", file=sys.stderr)
    comparison = write_comparison(load_runs(done), a.out)
    print("\n".join(comparison.lines()))
    print(f"\ncomparison  {a.out / 'comparison.html'}")
