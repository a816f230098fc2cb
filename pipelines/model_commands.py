"""The subcommands for networks: ``pfs models``, ``pfs cost`` and ``pfs inspect``."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfs_pipelines.arguments import fields_of

import pfs_core
from pfs_core.errors import UserError

if TYPE_CHECKING:
    from pfs_core.config.spec import ModelSpec


def add_model_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add these subcommands to the command line.

    Args:
        command: makes a subcommand from its name, its handler, its help text and the names of its options.
    """
    sub = command("models", models, "list the networks that come with pfs", "json")
    sub.add_argument("--timm", action="store_true", help="list networks of timm whose channel groups are proved")
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


def models(a: argparse.Namespace) -> None:
    """Run ``pfs models``."""
    rows = listed("timm" if a.timm else "zoo")
    if a.json:
        print(json.dumps(rows, indent=1))
        return
    longest = max(len(row["model"]) for row in rows)
    for row in rows:
        size = f"{row['params']:>12,} parameters {row['macs']:>15,} MACs"
        print(f"{row['model']:<{longest}} {size} on {row['input']:<9}  {row['description']}")


def listed(name: str) -> list[dict[str, Any]]:
    """Return the networks of a list that is written down, since importing torch takes longer than reading it.

    Args:
        name: ``zoo``, the networks that come with pfs, or ``timm``, those that ``benchmarks/networks.py`` has proved.
    """
    rows: list[dict[str, Any]] = json.loads((Path(pfs_core.__file__).parent / "models" / f"{name}.json").read_text())
    return rows


def cost(a: argparse.Namespace) -> None:
    """Run ``pfs cost``."""
    as_published = not (a.settings or a.input or a.widths) and a.expand is None
    if as_published and (known := next((row for row in listed("zoo") if row["model"] == a.model), None)):
        _print_cost(a.model, known["input"], 1.0, known["macs"], known["params"], a.json)
        return
    from pfs_core.structure import unexpanded_graph

    widths, model = _widths(a.widths) if a.widths else (None, None)
    spec = _spec(a, model)
    graph = unexpanded_graph(spec)
    macs, params = graph.cost(graph.expanded(spec.expand, spec.expand_stream) if widths is None else widths)
    shape = "x".join(map(str, spec.input_shape))
    _print_cost(spec.name, shape, spec.expand, macs, params, a.json)


def _widths(path: Path) -> tuple[dict[str, int], "ModelSpec | None"]:
    """Return the widths in a file, and their network where it is a structure file."""
    from pfs_core.config.spec import ModelSpec
    from pfs_core.storage.artifacts import read_json

    given = read_json(path)
    if not isinstance(given, dict):
        raise UserError(f"{path} must hold a JSON object with the channels per group")
    if "widths" not in given:
        return given, None
    if not isinstance(given["widths"], dict):
        raise UserError(f"{path}: 'widths' must be a JSON object with the channels per group")
    return given["widths"], ModelSpec.parse(given["model"], f"{path}.model") if "model" in given else None


def _print_cost(model: str, shape: str, expand: float, macs: int, params: int, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"model": model, "input": shape, "expand": expand, "macs": macs, "params": params}))
    else:
        print(f"{model} on {shape}: {macs:,} MACs, {params:,} parameters")


def inspect(a: argparse.Namespace) -> None:
    """Run ``pfs inspect``."""
    from pfs_core.storage.artifacts import check_file

    for path, suffix in ((a.html, ".html"), (a.png, ".png")):
        if path and path.suffix != suffix:
            raise UserError(f"--{suffix[1:]} {path}: the file's name must end in {suffix}")
        if path:
            check_file(f"--{suffix[1:]}", path)
    import torch

    from pfs_core.channels import trace
    from pfs_core.models import build_model
    from pfs_core.structure import refuted_once

    spec = _spec(a)
    with torch.random.fork_rng(devices=[]):
        model = build_model(spec)
    traced = trace(model, spec.input_shape, a.policy)
    refuted = refuted_once(model, traced)
    graph = refuted.corrected(traced)
    if a.html or a.png:
        from pfs_core.report.graph import write_picture

        for path in filter(None, (a.html, a.png)):
            write_picture(graph, f"{spec.name} on {'x'.join(map(str, spec.input_shape))}, policy {a.policy}", path)
    if a.json:
        from dataclasses import asdict

        branches = {name: branch.name for branch in graph.branches for name in branch.groups}
        groups = [
            {**asdict(group), "members": graph.members(group.name), "branch": branches.get(group.name)}
            for group in graph.groups
        ]
        print(json.dumps(groups, indent=1))
        return
    for group in graph.groups:
        state = f"prunable{', not widened' * (not group.widens)}" if group.prunable else f"frozen: {group.reason}"
        print(f"{group.name:<20} {group.width:>5}  {state}")
        for module, role in graph.members(group.name):
            print(f"{'':<27} {role} {module}{' (gate)' if module in group.gates else ''}")
    for branch in graph.branches:
        print(f"residual branch {branch.name} can be left out: {', '.join(branch.groups)}")
    for name, why in (refuted.needed or {}).items():
        print(f"residual branch {name} stays: {why}")
    tried = sum(group.resizable for group in traced.groups)
    print(f"{graph.summary()}\nproved: {tried - len(refuted.frozen)} of {tried} groups that may change")


def _spec(a: argparse.Namespace, cut: "ModelSpec | None" = None) -> "ModelSpec":
    """Return the network that is asked about; what is not said of it is that of the structure ``cut`` of it."""
    from pfs_core.config.spec import ModelSpec
    from pfs_core.models import published_fields
    from pfs_core.steps import parse_settings

    fields = fields_of(a.model, parse_settings(a.settings, ("model",))["model"])
    if cut and cut.name == fields["name"]:
        sizes = {"input_shape": cut.input_shape, "num_classes": cut.num_classes}
        fields = {**sizes, **fields, "kwargs": {**cut.kwargs, **fields["kwargs"]}}
    fields = published_fields(fields["name"]) | fields
    if a.input is not None:
        fields["input_shape"] = _shape(a.input)
    if "input_shape" not in fields:
        raise UserError(f"model {fields['name']}: its input shape is not known; give --input CxHxW")
    if getattr(a, "expand", None) is not None:
        fields["expand"] = a.expand
    return ModelSpec.parse(fields, "model")


def _shape(text: str) -> list[int]:
    try:
        return [int(n) for n in text.split("x")]
    except ValueError:
        raise UserError(f"--input {text!r} is not understood; write for example 3x32x32") from None
