"""What subcommands have in common: their options, and the fields that MODEL and ``--method`` stand for."""

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

from pfs_core.config.seed import LARGEST_SEED, check_seed
from pfs_core.errors import UserError


def _seed(text: str) -> int:
    try:
        return check_seed(int(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {LARGEST_SEED}") from None


class _Once(argparse.Action):
    """Stores the value of an option that may be given once.

    Of other options the last value counts. Two budgets may be meant to hold both, and the first would be dropped.
    """

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: Any = None) -> None:
        given = vars(namespace).setdefault("given_once", set())
        if self.dest in given:
            raise argparse.ArgumentError(self, f"a network is cut at one {self.dest}; give one (got {values} as well)")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


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


NETWORK = "see pfs models; or torchvision:NAME, timm:NAME, package.module:factory, or a .yaml or .json spec file"
METHOD, RECIPE = _Name("pfs_core.methods.registry", "METHODS"), _Name("pfs_core.config.recipes", "RECIPES")
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "MODEL": ("model", {"metavar": "MODEL", "help": NETWORK}),
    "model": ("--model", {"default": "resnet20", "metavar": "MODEL", "help": f"{NETWORK}; default resnet20"}),
    "dataset": ("--dataset", {"default": "digits", "help": "digits (default), a folder, s3:// or torchvision:CIFAR10"}),
    "budget": (
        "--budget",
        {"action": _Once, "default": "macs=0.5", "help": "macs=0.5 (default), params=0.4, latency=0.6, macs=20M"},
    ),
    "method": ("--method", {"type": METHOD, "default": "", "metavar": "NAME", "help": "%(type)s; default pfs"}),
    "recipe": ("--recipe", {"type": RECIPE, "default": "", "metavar": "NAME", "help": "%(type)s; default by dataset"}),
    "set": (
        "--set",
        {"dest": "settings", "action": "append", "default": [], "metavar": "STAGE.NAME=VALUE",
         "help": "change a setting, e.g. search.epochs=5 or model.width=32; repeatable"},
    ),
    "seed": ("--seed", {"type": _seed, "default": 0, "help": f"a whole number from 0 (default) to {LARGEST_SEED}"}),
    "json": ("--json", {"action": "store_true", "help": "print JSON"}),
    "input": ("--input", {"metavar": "CxHxW", "help": "image shape; default: the one the network was published for"}),
}  # fmt: skip


def add_out(sub: argparse.ArgumentParser) -> None:
    """Add the folder that a subcommand writes."""
    sub.add_argument("out", type=Path, metavar="OUT", help="folder to write")


def add_folder(sub: argparse.ArgumentParser, flag: str, text: str) -> None:
    """Add an input of a step, which must be given."""
    sub.add_argument(flag, type=Path, required=True, metavar="FILE" if flag == "--structure" else "DIR", help=text)


def fields_of(model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a :class:`ModelSpec` that MODEL and ``--set model.KEY=VALUE`` give."""
    from pfs_core.models import model_fields

    fields = model_fields(model)
    return {**fields, "kwargs": {**fields.get("kwargs", {}), **settings}}


def named_model(model: str, settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name and the keyword arguments of MODEL.

    The other fields of a spec file are not used: the dataset and the search decide them.
    """
    fields = fields_of(model, settings)
    return fields["name"], fields["kwargs"]


def with_method(method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the search with the value of ``--method`` among them.

    Raises:
        UserError: ``--set search.method`` names another method.
    """
    if method and settings.get("method", method) != method:
        raise UserError(f"--method {method} and search.method={settings['method']} disagree; give one of them")
    return {"method": method, **settings} if method else settings
