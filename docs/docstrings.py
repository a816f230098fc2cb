"""Docstrings as the site shows them: roles as links, examples as code, and each name documented once, in its module."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`(?P<short>~)?(?P<name>[\w.]+)`")
LITERAL = re.compile(r"``([^`]+)``")
EXAMPLE = re.compile(r"^>>> .+(?:\n.+)*", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites the docstrings of a package."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Called when the package is loaded."""
        _rewrite(pkg)


def _rewrite(item: griffe.Object) -> None:
    if item.docstring:
        text = ROLE.sub(lambda role: _reference(item, role["name"], bool(role["short"])), item.docstring.value)
        text = EXAMPLE.sub(r"```pycon\n\g<0>\n```", LITERAL.sub(_literal, text))
        if item.is_module and item.exports:
            names = ", ".join(_reference(item, str(name)) for name in item.exports)
            text += f"\n\n`from {item.path} import` {names}"
            item.exports = None
        item.docstring.value = text
    for member in item.members.values():
        if isinstance(member, griffe.Object):
            _rewrite(member)


def _reference(item: griffe.Object, name: str, short: bool = False) -> str:
    """Code that links to what ``name`` is in the scope of ``item``, if the site has it."""
    try:
        path = item.resolve(name)
    except griffe.NameResolutionError:
        path = name
    return f'<autoref identifier="{path}" optional><code>{name.rpartition(".")[2] if short else name}</code></autoref>'


def _literal(literal: re.Match) -> str:
    """Code without a colon of its own, since one ends the type of what a function returns."""
    if ":" not in literal[1]:
        return literal[0]
    return "<code>" + re.sub(r"[^A-Za-z0-9 ]", lambda sign: f"&#{ord(sign[0])};", literal[1]) + "</code>"
