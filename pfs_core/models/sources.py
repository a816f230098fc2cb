"""The code that a network is made of, so that what was found out about it can be told from what holds today."""

import ast
import inspect
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pfs_core.config.spec import ModelSpec
from pfs_core.errors import UserError
from pfs_core.models import LIBRARIES, build_model, is_users_own
from pfs_core.models.from_module import from_module
from pfs_core.storage.digests import file_digest

_LIBRARIES = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
_OURS = Path(__file__).parents[1]


def source_digests(model: nn.Module, *more: Callable[..., Any]) -> list[str] | None:
    """Return digests of the source files of a network; None where some of it was typed in somewhere.

    They are the files of its classes and of theirs that they inherit from, and whatever these import of the user's own:
    not of Python, installed packages or this one, which are known by their versions.

    Args:
        model: the network.
        more: functions and classes whose files count too.
    """
    classes: set[type] = {
        base for module in model.modules() for base in type(module).__mro__ if base.__module__ != "builtins"
    }
    try:
        files = {inspect.getfile(thing) for things in (classes, more) for thing in things}
        waiting = [path for path in files if _is_own_file(path)]
        while waiting:
            imported = {path for path in _imported_by(waiting.pop()) if _is_own_file(path)} - files
            waiting += imported
            files |= imported
        return [file_digest(path) for path in sorted(files)]
    except (TypeError, OSError, SyntaxError, UserError):
        return None


def known_by(spec: ModelSpec, model: nn.Module | None = None) -> dict[str, Any] | None:
    """Return what a network is known by beside its spec, for the keys of what was found out about it.

    One of the zoo is known by its spec alone, one of a library by the library's version, and one of the user's own by
    its layers and the source code of all of it.

    Args:
        spec: the network.
        model: the same, where it is built already.

    Returns:
        JSON values by name; None if some of the code was typed in somewhere, so that a change of it cannot be seen.
    """
    if is_users_own(spec.name):
        if model is None:
            with torch.random.fork_rng(devices=[]):
                model = build_model(spec)
        sources = source_digests(model, from_module(spec.name))
        return {"network": layers(model), "sources": sources} if sources is not None else None
    library = spec.name.partition(":")[0]
    return {"library": version(library)} if library in LIBRARIES else {}


def layers(model: nn.Module) -> str:
    """Return the layers of a network as text, without addresses of objects, which differ from process to process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(model))


def _is_own_file(path: str) -> bool:
    return not any(Path(path).is_relative_to(folder) for folder in (*_LIBRARIES, _OURS))


def _imported_by(path: str) -> Iterator[str]:
    """Yield the files of the loaded modules that a file of Python code imports, anywhere in it."""
    if not path.endswith(".py"):
        return
    files = {name: file for name, module in [*sys.modules.items()] if (file := getattr(module, "__file__", None))}
    package = next((sys.modules[name].__package__ for name, file in files.items() if file == path), None)
    for name in _imported_names(ast.parse(Path(path).read_bytes()), package or ""):
        # A package is loaded, and may do anything, before what is in it.
        parents = name.split(".")
        for end in range(1, len(parents) + 1):
            if file := files.get(".".join(parents[:end])):
                yield file


def _imported_names(code: ast.AST, package: str) -> Iterator[str]:
    """Yield the full names of what code of a package imports; some are of modules, others of things in them."""
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
