"""Attributes of modules that hold widths as numbers, such as those that a layer splits its input into."""

from collections.abc import Collection, Mapping
from fractions import Fraction

from torch import fx, nn

from pfs_core.channels.abstract_values import Span
from pfs_core.channels.groups import Groups, Parts
from pfs_core.channels.nodes import joint, modules_around, shape_of
from pfs_core.channels.passed_sizes import PassedSize, PassedSizes, are_integers

GATED = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._NormBase, nn.GroupNorm)
"""Layers whose output can be multiplied by gates."""


class WidthAttributes(Groups):
    """The attributes found so far, and the groups whose widths they hold.

    Args:
        model: the network.
        passed: the attributes that are passed as sizes.
    """

    def __init__(self, model: nn.Module, passed: PassedSizes) -> None:
        self._modules = dict(model.named_modules(remove_duplicate=False))
        super().__init__(taken=self._modules)
        first_path = {id(module): path for path, module in model.named_modules()}
        self._first_path = {path: first_path[id(module)] for path, module in self._modules.items()}
        self._passed = passed
        self._sizes: dict[tuple[str, str], list[Parts]] = {}
        self._units: dict[tuple[str, str], Fraction] = {}
        self._of_weights: dict[tuple[str, str], tuple[int, Span]] = {}

    def note_sizes(self, node: fx.Node, numbers: list[int], rows: list[Parts]) -> None:
        """Record which attributes of the module that calls an operator hold the widths that it is given as numbers.

        That is the list of all of them, or the integers of which each is one, if there are as many as such widths; they
        are then taken in the order in which they were set. A single integer is all such widths, which then stay equal.
        Whether it is really these, the proof finds out.
        """
        path = self._first_path.get(next(iter(modules_around(node)), ""))
        if path is None:
            return
        passed = self._passed.parts
        known = {name: value for name, value in vars(self._modules[path]).items() if not name.startswith("_")}
        lists = [name for name, value in known.items() if are_integers(value) and [*value] == numbers]
        if passed is not None:
            places = {(size.module, size.attribute) for size in passed}
            lists = [name for name in lists if (path, name) in places]
        if lists:
            self._note(node, path, lists[0], rows)
            return
        for number in dict.fromkeys(numbers):
            names = self._passing(PassedSize(path, "", number), passed)
            of_this = [row for row, other in zip(rows, numbers, strict=True) if other == number]
            if len(names) == 1:
                names *= len(of_this)
            for name, row in zip(names, of_this, strict=True) if len(names) == len(of_this) else ():
                self._note(node, path, name, [row], number)

    def _note(self, node: fx.Node, path: str, name: str, rows: list[Parts], number: int | None = None) -> None:
        """Record the widths in an attribute; those that it has at another place as well stay equal to them."""
        for before, row in zip(self._noted(path, name, rows, number), rows, strict=True):
            if before is not row and self.features(before) == self.features(row):
                self.unify(before, row, f"{joint(node)} takes parts with other borders by {name}")

    def _noted(self, path: str, name: str, rows: list[Parts], number: int | None, channels: int = 1) -> list[Parts]:
        """Record the widths in an attribute, and return those that it has already, if there are any.

        Args:
            path: the module.
            name: its attribute.
            rows: the channels of each number in it.
            number: what is passed of it, where that is a share of it.
            channels: how many channels count as one in that.
        """
        if (path, name) not in self._sizes:
            self._sizes[path, name] = rows
            if number is not None:
                self._units[path, name] = channels * Fraction(number, getattr(self._modules[path], name))
        return self._sizes[path, name]

    def note_passed(self, node: fx.Node, number: int, row: Parts, dim: int = 0) -> None:
        """Record that the module that calls an operator passes it a width, if it passes one such attribute alone.

        What it passes the same attribute for at another place stays as wide.

        Args:
            node: the operator.
            number: the width.
            row: the channels.
            dim: the dimension that a view has them on; 0 for all else.
        """
        path, names = self._passed_by(node, number, dim)
        if len(names) == 1 and not isinstance(self._modules[path], GATED):
            self._note(node, path, names[0], [row], number)

    def note_view_of_weights(self, node: fx.Node, dim: int, span: Span) -> None:
        """Record that weights are viewed with their width on a dimension, if a module passes one attribute for that."""
        path, number = self._first_path.get(next(iter(modules_around(node)), "")), shape_of(node)[dim]
        wanted = path, number, dim
        names = [s.attribute for s in self._passed.views if (s.module, s.number, s.dim) == wanted]
        if path is not None and len(names) == 1:
            self._of_weights.setdefault((path, names[0]), (number, span))

    def add_sizes_of_weights(self, parts_of: Mapping[Span, Parts]) -> None:
        """Take the attributes that weights are viewed with for the widths of these, once they are known."""
        for (path, name), (number, span) in self._of_weights.items():
            value = getattr(self._modules[path], name)
            if span not in parts_of:
                continue
            if type(value) is int:
                self._noted(path, name, [parts_of[span]], number)
            elif [*value].count(number) == 1:
                self._sizes.setdefault((path, name), [parts_of[span] if one == number else () for one in value])

    def _passed_by(self, node: fx.Node, number: int, dim: int = 0) -> tuple[str, list[str]]:
        """Return the module that calls an operator, and which of its attributes it passes as that number."""
        path = self._first_path.get(next(iter(modules_around(node)), ""), "")
        return path, self._passing(PassedSize(path, "", number, dim), self._passed.views)

    def _passing(self, size: PassedSize, passed: Collection[PassedSize] | None) -> list[str]:
        """Return the integers of a module that it passes as a size; all that are equal to it if that is not known."""
        known = {name: value for name, value in vars(self._modules[size.module]).items() if not name.startswith("_")}
        return [
            name
            for name, value in known.items()
            if type(value) is int
            and (value == size.number if passed is None else size._replace(attribute=name) in passed)
        ]

    def keep_norm_groups(self, node: fx.Node, groups: int, row: Parts) -> bool:
        """Let the channels that a GroupNorm normalises at once come and go together, and return whether they can.

        The number of its groups, which then goes with the width, has to be an attribute that the module passes.
        """
        (path, names), size = self._passed_by(node, groups), self.features(row) // groups
        if self._passed.parts is None and isinstance(self._modules[path], nn.GroupNorm):
            names = ["num_groups"]
        if len(names) != 1 or not self.keep_together(row, size):
            return False
        self._noted(path, names[0], [row], groups, size)
        return True
