"""The user's own networks, by ``package.module:factory``."""

import contextlib
import importlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pfs_core.errors import UserError, did_you_mean, one_line

LIBRARIES = ("torchvision", "timm")
"""Prefixes of names that are no module of the user's."""


def from_module(name: str) -> Callable[..., Any]:
    """Return the factory that ``package.module:factory`` names.

    Modules are looked for in the current directory first, and stay importable from there.

    Raises:
        UserError: the module cannot be imported, or it has no such attribute, or the attribute cannot be called.
    """
    module_name, _, attribute = name.partition(":")
    if not (module_name and attribute):
        raise UserError(f"model {name!r} is not understood; write for example package.module:factory")
    if module_name.endswith(".py") or "/" in module_name:
        raise UserError(f"model {name!r} names a file; {by_module(module_name, attribute)}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):  # the usage of a script is not about our command
            module = importlib.import_module(module_name)
    except SystemExit:
        raise UserError(
            f"model {name}: module {module_name!r} cannot be imported: it ends with SystemExit; "
            'put what it does as a script below if __name__ == "__main__"'
        ) from None
    except KeyboardInterrupt:
        raise
    except BaseException as e:
        # It is missing itself, not something that it imports.
        missing = isinstance(e, ModuleNotFoundError) and f"{module_name}.".startswith(f"{e.name}.")
        hint = did_you_mean(module_name, [*LIBRARIES, *_modules_here()]) if missing else ""
        raise UserError(f"model {name}: module {module_name!r} cannot be imported: {one_line(e)}{hint}") from e
    sys.stderr.write(said.getvalue())
    factory = getattr(module, attribute, None)
    if not hasattr(module, attribute):
        if module_name in _modules_here() and not Path(f"{module_name}.py").samefile(file := module.__file__ or "/"):
            raise UserError(
                f"model {name}: Python takes {file} for {module_name}; give your {module_name}.py another name"
            )
        raise UserError(f"model {name}: {module_name} has no {attribute!r}{did_you_mean(attribute, vars(module))}")
    if not callable(factory):
        raise UserError(f"model {name}: {attribute} is of type {type(factory).__name__}; name a function or class")
    result: Callable[..., Any] = factory
    return result


def by_module(file: str, attribute: str) -> str:
    """Return how to name what is in a file of Python code: by its module, and where that is found.

    >>> by_module("nets/small.py", "build")
    'write nets.small:build, where nets.small can be imported from here'
    >>> by_module("/home/me/small.py", "build")
    'write small:build in the folder /home/me, or with that on PYTHONPATH'
    """
    path = Path(file).with_suffix("")
    if path.is_absolute() or ".." in path.parts:
        return f"write {path.name}:{attribute} in the folder {path.parent}, or with that on PYTHONPATH"
    module = ".".join(path.parts)
    return f"write {module}:{attribute}, where {module} can be imported from here"


def _modules_here() -> list[str]:
    return [path.stem for path in Path.cwd().glob("*.py")]
