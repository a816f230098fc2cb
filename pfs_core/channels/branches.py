"""Residual branches that a network can do without: the ``f`` of an addition ``x + f(x)``.

Without ``f`` the network is less deep, and what the branch adds is 0. That is possible where ``x`` reaches the addition
as it is, nothing else reads what is computed on the way, and a module returns ``f(x)``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from pfs_core.channels.elements import Branch
from pfs_core.channels.export import Exported
from pfs_core.channels.graph import ChannelGraph
from pfs_core.channels.nodes import argument, first, modules_around, operation, shape_of


class Nothing(nn.Module):
    """What the first layer of a branch becomes where the branch is left out."""

    def forward(self, x: Tensor) -> Tensor:
        """Map a tensor to zeros of its shape."""
        return torch.zeros_like(x)


def leave_out(model: nn.Module, branches: Iterable[Branch]) -> None:
    """Replace the modules of branches, in place, by some that have no weights and return zeros."""
    for branch in branches:
        for path in branch.modules:
            model.set_submodule(path, Nothing() if path in branch.entries else nn.Identity())


def with_branches(graph: ChannelGraph, model: nn.Module, exported: Exported) -> ChannelGraph:
    """Return the channel graph of ``model`` with the branches that it can do without.

    A branch within another one is taken, and the one around it is not: groups belong to one branch.
    """
    branches: list[Branch] = []
    for found in sorted(_found(exported), key=lambda one: one.size):
        names = [group.name for group in graph.prunable() if _all_inside(graph, group.name, found.modules)]
        if not names or any(_is_in(path, found.modules) for branch in branches for path in branch.modules):
            continue
        terms = [term for term in graph.terms if _is_in(term.module, found.modules)]
        weights = {id(p): p.numel() for path in found.modules for p in model.get_submodule(path).parameters()}
        widths = graph.widths()
        rest = sum(weights.values()) - sum(term.params * term.factor(widths) for term in terms)
        layers = tuple(dict.fromkeys(term.module for term in terms))
        branches.append(Branch(found.end, tuple(names), found.modules, found.entries, layers, rest))
    order = [group.name for group in graph.groups]
    return replace(graph, branches=tuple(sorted(branches, key=lambda branch: order.index(branch.groups[0]))))


class _Found(NamedTuple):
    """The modules of a branch, of which none is within another; ``end`` returns ``f(x)``, ``entries`` read ``x``."""

    end: str
    modules: tuple[str, ...]
    entries: tuple[str, ...]
    size: int


def _found(exported: Exported) -> Iterator[_Found]:
    live = _depending(exported)
    order = {node: position for position, node in enumerate(live)}
    calls: dict[str, set[fx.Node]] = {}
    for node in live:
        for path in modules_around(node):
            calls.setdefault(path, set()).add(node)
    for node in live:
        if operation(node) != "add":
            continue
        terms = first(node), argument(node, "other")
        for x, f in (terms, terms[::-1]):
            if x in order and f in order and shape_of(x) == shape_of(f) == shape_of(node):
                inner = _between(x, f, order)
                if inner and all(user is node or user in inner for one in inner for user in one.users):
                    yield from _as_modules(x, f, inner, calls)


def _depending(exported: Exported) -> dict[fx.Node, None]:
    """Return the nodes that depend on the images, in the order in which they run."""
    live: dict[fx.Node, None] = {}
    for node in exported.graph.nodes:
        if str(node.target) in exported.images or any(one in live for one in node.all_input_nodes):
            live[node] = None
    return live


def _between(x: fx.Node, f: fx.Node, order: dict[fx.Node, int]) -> set[fx.Node]:
    """Return the nodes of ``f(x)`` without ``x``; nothing where it depends on the images in another way too."""
    inner: set[fx.Node] = set()
    rest = [f]
    while rest:
        node = rest.pop()
        if node is x or node in inner or node not in order:
            continue
        if order[node] < order[x]:
            return set()
        inner.add(node)
        rest += node.all_input_nodes
    return inner


def _as_modules(x: fx.Node, f: fx.Node, inner: set[fx.Node], calls: dict[str, set[fx.Node]]) -> Iterator[_Found]:
    paths = {path for node in inner for path in modules_around(node) if calls[path] <= inner}
    widest = tuple(sorted(path for path in paths if not any(_is_in(path, [other]) for other in paths - {path})))
    for path in widest:
        leaving = {node for node in calls[path] if not calls[path].issuperset(node.users)}
        if leaving == {f}:
            entries = tuple(one for one in widest if any(x in node.all_input_nodes for node in calls[one]))
            yield _Found(path, widest, entries, len(inner))


def _all_inside(graph: ChannelGraph, group: str, modules: Iterable[str]) -> bool:
    return all(_is_in(module, modules) for module, _ in graph.members(group))


def _is_in(path: str, modules: Iterable[str]) -> bool:
    """Return whether a module or parameter is one of ``modules``, or within one."""
    return any(path == module or path.startswith(f"{module}.") for module in modules)
