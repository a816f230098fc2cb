"""Docstrings for the site: ``:func:`x``` as code that links to x, where the site has a page with it."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`(?P<short>~)?(?P<name>[\w.]+)`")


class Roles(griffe.Extension):
    """Rewrites the roles in the docstrings of a package."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Called when the package is loaded."""
        _rewrite(pkg)


def _rewrite(item: griffe.Object) -> None:
    if item.docstring:
        item.docstring.value = ROLE.sub(lambda role: _link(item, role), item.docstring.value)
    for member in item.members.values():
        if isinstance(member, griffe.Object):
            _rewrite(member)


def _link(item: griffe.Object, role: re.Match) -> str:
    """An optional reference: what has no page is left as code."""
    name = role["name"]
    shown = name.rpartition(".")[2] if role["short"] else name
    try:
        path = item.resolve(name)
    except griffe.NameResolutionError:
        path = name
    return f'<autoref identifier="{path}" optional><code>{shown}</code></autoref>'
