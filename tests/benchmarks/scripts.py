"""The scripts of benchmarks/, called as of a process that has ended."""

import contextlib
import importlib
import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]


def module(name):
    """A script, which finds what it imports beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return importlib.import_module(name)


def called(name, *arguments):
    """What the ``main`` of a script does with these arguments."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.syspath_prepend(ROOT / "benchmarks")
        patch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        try:
            module(name).main()
        except SystemExit as ended:
            code = ended.code
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())
