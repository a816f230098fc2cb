"""The code that a network is made of, so that what was found out about it can be told from what holds today."""

import ast
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import nn

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
        waiting = [path for path in files if _is_users_own(path)]
        while waiting:
            imported = {path for path in _imported_by(waiting.pop()) if _is_users_own(path)} - files
            waiting += imported
            files |= imported
        return [file_digest(path) for path in sorted(files)]
    except (TypeError, OSError, SyntaxError):
        return None


def _is_users_own(path: str) -> bool:
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
