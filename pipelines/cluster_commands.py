"""The subcommands for Kubeflow: ``pfs compile``."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from pfs_core.errors import UserError


def add_cluster_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add them to the command line; ``command`` makes a subcommand."""
    sub = command("compile", compile_packages, "packages for the Kubeflow UI")
    sub.add_argument("-o", "--out", type=Path, default=Path("build"), metavar="DIR", help="folder (default build)")
    _add_package_flags(sub)


def _add_package_flags(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--image", default="", metavar="NAME", help="image of the steps (default PFS_IMAGE or pfs-python)")
    sub.add_argument("--data-volume", default="", metavar="CLAIM", help="a volume claim to keep downloaded datasets on")
    sub.add_argument("--drop-downs", action="store_true", help="offer choices in the run form (Kubeflow 2.16 or newer)")


def compile_packages(a: argparse.Namespace) -> None:
    """``pfs compile``."""
    if a.out.exists() and not a.out.is_dir():
        raise UserError(f"{a.out} is a file; name a folder for the packages")
    if a.image:
        os.environ["PFS_IMAGE"] = a.image  # components read it when they are imported
    from pipelines.packages import compile_all
    from pipelines.pools import Placement

    for path in compile_all(a.out, Placement(data_volume=a.data_volume), a.drop_downs):
        print(path)
