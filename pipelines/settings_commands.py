"""The subcommand ``pfs settings``: what ``--set`` takes, with the values of a recipe."""

import argparse
import json
import textwrap
from collections.abc import Callable
from typing import Any

from pfs_core.errors import UserError, did_you_mean
from pfs_core.runtime.logs import COLUMNS

_INDENT = "    "


def add_settings_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the subcommand to the command line.

    Args:
        command: makes a subcommand from its name, its handler, its help text and the names of its options.
    """
    text = "list the settings that --set changes, with their values in a recipe"
    sub = command("settings", settings, text, "recipe", "method", "json")
    sub.add_argument("stage", nargs="?", default="", metavar="STAGE", help="split, search, extract, retrain or latency")


def settings(a: argparse.Namespace) -> None:
    """Run ``pfs settings``."""
    rows = settings_of(a.stage, a.recipe or "standard", a.method)
    if a.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print(f"{row['setting']}={json.dumps(row['value'])}")
        print(textwrap.fill(row["meaning"], COLUMNS, initial_indent=_INDENT, subsequent_indent=_INDENT))


def settings_of(stage: str, recipe_name: str, method: str = "") -> list[dict[str, Any]]:
    """Return a row for each setting: ``setting`` as ``--set`` takes it, its ``value`` and its ``meaning``.

    Args:
        stage: the stage; empty for all of them.
        recipe_name: the recipe whose values they are.
        method: the method of the search; empty for the recipe's.

    Raises:
        UserError: there is no such stage, recipe or method.
    """
    from pfs_core.config.overrides import STAGES
    from pfs_core.config.recipes import recipe
    from pfs_core.methods.registry import method_config

    if stage and stage not in STAGES:
        raise UserError(f"unknown stage {stage!r}{did_you_mean(stage, STAGES)}; known: {', '.join(STAGES)}")
    chosen = recipe(recipe_name)
    search = method_config(chosen, {"method": method} if method else {})
    rows = []
    for name in [stage] if stage else STAGES:
        config = search if name == "search" else chosen.stage(name, {})
        values = config.model_dump(mode="json")
        for field, about in type(config).model_fields.items():
            meaning = " ".join((about.description or "").replace("``", "").split())
            rows.append({"setting": f"{name}.{field}", "value": values[field], "meaning": meaning})
    return rows
